"""Cases that do end the process, so that a test can see what the others would look like."""

from __future__ import annotations

import os

from killers.table import Table

TABLE = Table()
TABLE.row("X", "works", None, lambda w: None)
TABLE.row("X", "aborts", None, lambda w: os.abort())
TABLE.row("X", "raises", KeyError, lambda w: {}[0])
TABLE.row("X", "spoils what comes after", None, lambda w: w.model().close())
TABLE.row("X", "leaves", None, lambda w: os._exit(0))
TABLE.row("X", "works still", None, lambda w: w.context())
