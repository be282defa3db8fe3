"""libllama's log, handed to ``logging.getLogger("pyllama")``.

C keeps the lines (bindings/log.cpp); Python takes them at the end of each call, so no Python runs
on libllama's threads. ``logging`` decides what is shown; nothing is printed here.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque

from pyllama.core.library import ffi, lib

logger = logging.getLogger("pyllama")
logger.addHandler(logging.NullHandler())  # else warnings go to stderr where nothing is set up

LEVELS = {
    lib.GGML_LOG_LEVEL_NONE: logging.INFO,
    lib.GGML_LOG_LEVEL_INFO: logging.INFO,
    lib.GGML_LOG_LEVEL_WARN: logging.WARNING,
    lib.GGML_LOG_LEVEL_ERROR: logging.ERROR,
}

_serial = itertools.count()
# The last warnings and errors, for exceptions to quote: (serial number, thread, text).
_complaints: deque[tuple[int, int, str]] = deque(maxlen=64)


def drain(highest: int = logging.CRITICAL) -> None:
    """Pass every waiting line to `logging`, none at a level above *highest*.

    Calls: pyllama_log_take
    """
    line = ffi.new("pyllama_log_line *")
    while lib.pyllama_log_take(line):
        text = ffi.string(line.text).decode("utf-8", "replace").strip()
        level = min(highest, LEVELS.get(line.level, logging.INFO))
        if level >= logging.WARNING:
            _complaints.append((next(_serial), line.thread, text))
        logger.log(level, "%s", text)


def mark() -> int:
    """Return a number for `complaints`: what is said from now on comes after it."""
    drain()
    return next(_serial)


def complaints(since: int) -> list[str]:
    """Return what libllama complained of on this thread after *since*, oldest first.

    Calls: pyllama_thread_id
    """
    drain()
    thread = lib.pyllama_thread_id()
    return [text for serial, by, text in tuple(_complaints) if serial > since and by == thread]


def fresh_complaints() -> list[str]:
    """Return what libllama complained of on this thread in the call that it is in."""
    return complaints(next(_serial))  # lines of earlier calls were drained when these ended


lib.pyllama_log_install()
