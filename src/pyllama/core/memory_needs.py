"""How much memory a model and a context take on each device."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyllama.core.library import ffi, lib

MAX_BUFFERS = 64  # kinds of buffers; a device has two or three


class MemoryNeeds(NamedTuple):
    """What one device holds, or would have to.

    Parameters
    ----------
    model
        Bytes for weights.
    context
        Bytes for keys, values, states and outputs.
    compute
        Bytes for what is in between.
    """

    model: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        """Bytes altogether."""
        return sum(self)


def memory_needs(pointer: Any) -> dict[str, MemoryNeeds]:
    """Ask libllama where a model and a context lie.

    Parameters
    ----------
    pointer
        The ``llama_context *``.

    Returns
    -------
    dict of str to MemoryNeeds
        By the name of the device; "CPU" is main memory, pinned buffers included.

    Calls: pyllama_memory_uses
    """
    uses = ffi.new("pyllama_memory_use[]", MAX_BUFFERS)
    needs: dict[str, MemoryNeeds] = {}
    for use in uses[0 : lib.pyllama_memory_uses(pointer, uses, MAX_BUFFERS)]:
        name = ffi.string(use.device).decode()
        before = needs.get(name, MemoryNeeds(0, 0, 0))
        added = (use.model, use.context, use.compute)
        needs[name] = MemoryNeeds(*(a + b for a, b in zip(before, added, strict=True)))
    return needs
