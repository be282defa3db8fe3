"""Starting a Python process for what must not end this one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from pyllama.errors import UnsupportedError

# The same modules as here; nothing comes from the folder or the settings that it starts with.
_CODE = """import sys
sys.path[:] = sys.argv[1].split("\\n")
from importlib import import_module
module, _, function = sys.argv[2].rpartition(".")
getattr(import_module(module), function)(*sys.argv[3:])"""


def command(function: str, *arguments: str) -> list[str]:
    """Return the command line that calls a function of this package in a new process.

    Parameters
    ----------
    function
        Its whole name, ``pyllama.core.module.function``.
    *arguments
        What it is called with.

    Returns
    -------
    list of str

    Raises
    ------
    UnsupportedError
        If Python does not know where its own program is, as where it is embedded.
    """
    if not sys.executable:
        message = "this needs a Python process of its own, and sys.executable is empty"
        raise UnsupportedError(message)
    path = "\n".join(os.path.abspath(each) for each in sys.path)  # noqa: PTH100
    return [sys.executable, "-I", "-c", _CODE, path, function, *arguments]


def leave_no_core() -> None:
    """Keep the death of this process, if it comes, from leaving a file as large as the model."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
