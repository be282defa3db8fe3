"""``python -m pyllama`` is the command ``pyllama``."""

from __future__ import annotations

import sys

from pyllama.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
