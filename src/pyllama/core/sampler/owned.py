"""Who has a sampler: its caller, or a chain; and what a chain and its samplers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.core.handle import Handle
from pyllama.core.library import ffi
from pyllama.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.handle import Call, Record
    from pyllama.core.sampler.candidates import Candidates


class Shared:
    """What a sampler, or a whole chain of them, knows of the call into C that it is in.

    C calls samplers that are written in Python: they find here what they are to choose from, and
    leave here what they raise, as C cannot carry an exception. Whoever calls C empties `errors`
    first, and raises what it finds there afterwards.
    """

    __slots__ = ("candidates", "errors")

    def __init__(self) -> None:
        self.candidates: Candidates | None = None
        self.errors: list[BaseException] = []

    def raise_first(self) -> None:
        """Raise the first exception that was left here, if there is one."""
        if self.errors:
            error = self.errors[0]
            self.errors.clear()
            raise error


class Owned(Handle):
    """The part of `Sampler` that a chain takes over."""

    _owner: Record | None = None  # of the chain that holds this sampler

    def __init__(self, pointer: Any, free: Callable[[Any], None], parent: Handle | None) -> None:
        if not isinstance(pointer, ffi.CData):
            message = f"a Sampler is made by the functions of samplers, not from {pointer!r:.60}"
            raise TypeError(message)
        super().__init__(pointer, free, parent)
        self._shared = Shared()

    def close(self) -> None:
        """Free the sampler. Closing twice is allowed.

        Raises
        ------
        StateError
            If it belongs to a chain, which frees it.
        BusyError
            If another thread is using it.
        """
        if not self.closed:
            self._require_free("close")
        super().close()

    def _require_free(self, doing: str) -> None:
        if self._owner is not None:
            message = f"{doing}: {self!r} belongs to a chain; use the chain, or pop() it first"
            raise StateError(message, expected="free", actual="in a chain")

    def _move(
        self, owner: Record | None, free: Callable[[Any], None], call: Call, shared: Shared
    ) -> None:
        """Let *owner* release the C object, with *free*, and *call* keep threads apart."""
        record = self._record
        if record.parent is not None:
            record.parent.children.discard(record)
        record.parent = owner
        record.free = free
        if owner is not None:
            owner.children.add(record)
        self._use_call(call, shared)

    def _use_call(self, call: Call, shared: Shared) -> None:
        self._call = call
        self._shared = shared
