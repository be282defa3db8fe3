"""The odd values, by name, and which errors say that one was refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pyllama.errors import LibraryError, LlamaError

if TYPE_CHECKING:
    from matrix.world import World

PLAIN: dict[str, Any] = {
    "None": None,
    "wrong type": object(),
    "-1": -1,
    "0": 0,
    "1": 1,
    "2**31-1": 2**31 - 1,
    "2**31": 2**31,
    "2**63": 2**63,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "empty": "",
    "10**6 characters": "x" * 10**6,
}
USUAL = "usual"  # nothing odd: the call must work
NAMES = (*PLAIN, "closed", "other")

# What a caller may meet for a bad argument. Not what leaves libllama: that is the net under them.
DECLARED = (
    LlamaError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    BufferError,
    MemoryError,
    OSError,  # with TimeoutError
)


def is_declared(error: BaseException) -> bool:
    """Whether an error is one that the documentation names."""
    return isinstance(error, DECLARED) and not isinstance(error, LibraryError)


def value(name: str, usual: Any, world: World) -> Any:
    """Return the value of that name for an argument that is usually *usual*."""
    if name == "closed":
        return world.closed(usual)
    if name == "other":
        return world.other(usual)
    return PLAIN[name]
