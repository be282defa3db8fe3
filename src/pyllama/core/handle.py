"""Who owns which C object, when it is freed, and who may use it at a time.

Everything that DESIGN calls ownership is here and nowhere else: one record frees one C object
once; a parent's record releases its children's first; a closed, poisoned or forked handle refuses;
one thread at a time is inside an exclusive object; lent arrays keep it from changing.
"""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pyllama.core.library import ffi, lib
from pyllama.core.log import drain
from pyllama.errors import BusyError, ClosedError, LibraryAbortError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self


class _Process:
    """A mark on every record made in this process; `fork` leaves it behind in the child."""

    __slots__ = ("forked",)

    def __init__(self) -> None:
        self.forked = False


_current = [_Process()]


def _after_fork_in_child() -> None:
    _current[0].forked = True
    _current[0] = _Process()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Record:
    """A C pointer, how to free it, and the C objects that live inside it.

    Parents hold records, never handles: dropping the last handle of a child frees it, and a
    garbage cycle still frees children first. A record touches no module global when it frees,
    because at interpreter exit those may be gone.
    """

    __slots__ = (
        "_lock",
        "children",
        "free",
        "kind",
        "parent",
        "pointer",
        "poison",
        "process",
        "users",
        "views",
    )

    def __init__(
        self,
        kind: str,
        pointer: Any,
        free: Callable[[Any], None],
        parent: Record | None,
    ) -> None:
        self.kind = kind
        self.pointer = pointer
        self.free = free
        self.parent = parent
        self.children: set[Record] = set()
        self.views = 0
        self.users = 0  # -1: one thread has it to itself; n > 0: n threads share it
        self.poison: BaseException | None = None
        self.process = _current[0]
        # Recursive: the garbage collector may run inside, and a finalizer close this very object.
        self._lock = threading.RLock()
        if parent is not None:
            parent.children.add(self)

    @property
    def usable(self) -> bool:
        """Whether the pointer may be given to C."""
        return self.pointer is not None and self.poison is None and not self.process.forked

    def require_usable(self) -> None:
        """Raise unless the pointer may be given to C."""
        if self.pointer is None:
            message = f"this {self.kind} is closed"
            raise ClosedError(message)
        if self.process.forked:
            message = (
                f"this {self.kind} was made before fork(): libllama's threads stayed in the "
                "parent; use multiprocessing's 'spawn' and load the model again"
            )
            raise StateError(message, expected="the process that made it", actual="a fork of it")
        if self.poison is not None:
            message = f"this {self.kind} can only be closed: libllama failed in it: {self.poison}"
            raise StateError(message, expected="usable", actual="poisoned") from self.poison

    def enter(self, *, shared: bool) -> None:
        """Begin a call into C, alone or beside others; raise BusyError where that cannot be."""
        if self.process.forked:  # users, and even the lock, are as fork() found them
            self.require_usable()
        with self._lock:
            if self.users < 0 or (self.users > 0 and not shared):
                message = f"this {self.kind} is in use by another thread or by an outer call"
                raise BusyError(message)
            self.users = self.users + 1 if shared else -1

    def leave(self) -> None:
        """End the call that `enter` began."""
        with self._lock:
            self.users = 0 if self.users < 0 else self.users - 1

    def seize(self, seized: list[Record]) -> None:
        """Keep every thread out of this object and those inside it, and add them to *seized*.

        Raises if one of them is in a call or lends memory. `leave` all that were seized, also then:
        looking first and freeing afterwards would let a call begin in between.
        """
        if not self.process.forked:
            with self._lock:
                if self.users:
                    message = (
                        f"this {self.kind} is in a call: wait for it, or abort() it, then close"
                    )
                    raise BusyError(message)
                self.users = -1
                seized.append(self)
        for child in self.children.copy():
            child.seize(seized)
        self.require_no_views("close")

    def require_no_views(self, doing: str) -> None:
        """Raise BufferError while an array lent from this object lives."""
        if self.views:
            plural = "s" if self.views > 1 else ""
            message = (
                f"cannot {doing}: {self.views} view{plural} of this {self.kind}'s memory still "
                "live; drop them, or take copies"
            )
            raise BufferError(message)

    def release(self) -> None:
        """Free the children, then the C object. A second call does nothing.

        Two threads may come here for the same object, as where one drops a context while another
        closes its model: the second waits, because C still reads the parent that it frees next.
        """
        for child in self.children.copy():  # another thread may take any of them away meanwhile
            child.release()
        if self.process.forked:  # the lock is as fork() found it, and C's threads are missing
            self.pointer = None
        else:
            with self._lock:
                pointer, self.pointer = self.pointer, None
                if pointer is not None:
                    self.free(pointer)
        if self.parent is not None:
            self.parent.children.discard(self)


class Call:
    """A ``with`` block around calls into one object's C pointer.

    Keeps the object to one thread (or, shared, from being closed), hands libllama's log lines to
    `logging` at the end, and poisons the object when an assertion failed in it: libllama may have
    stored half of its work.
    """

    __slots__ = ("_record", "_shared")

    def __init__(self, record: Record, *, shared: bool) -> None:
        self._record = record
        self._shared = shared

    def __enter__(self) -> Any:
        record = self._record
        if record.users or record.process.forked:
            record.enter(shared=self._shared)
        else:  # enter(), without the call: this runs for every token
            with record._lock:
                free = not record.users
                if free:
                    record.users = 1 if self._shared else -1
            if not free:
                record.enter(shared=self._shared)
        if record.pointer is None or record.poison is not None:
            record.leave()
            record.require_usable()
        return record.pointer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        record = self._record
        if kind is not None and issubclass(kind, LibraryAbortError):
            record.poison = error
        with record._lock:  # leave(), without the call
            record.users = record.users - 1 if self._shared else 0
        if lib.pyllama_log_waiting:
            drain()


class Handle:
    """The Python owner of one C object; the base of `Model`, `Context`, `Sampler` and the rest.

    Parameters
    ----------
    pointer
        The C object, not NULL.
    free
        The C function that frees it.
    parent
        The handle whose C object must outlive this one.
    shared
        Whether several threads may call into the object at once.
    """

    _record: Record

    def __init__(
        self,
        pointer: Any,
        free: Callable[[Any], None],
        parent: Handle | None = None,
        *,
        shared: bool = False,
    ) -> None:
        if "_record" in self.__dict__:  # its C objects would be lost, and read with wrong sizes
            free(pointer)
            message = f"this {type(self).__name__} is made already: __init__ cannot run again"
            raise StateError(message, expected="new", actual="made")
        self._parent = parent  # keeps the parent alive
        owner = None if parent is None else parent._record
        self._record = Record(type(self).__name__, pointer, free, owner)
        self._call = Call(self._record, shared=shared)

    @property
    def pointer(self) -> Any:
        """The C pointer; raises `ClosedError` after `close`."""
        self._record.require_usable()
        return self._record.pointer

    @property
    def closed(self) -> bool:
        """Whether the C object is gone."""
        return self._record.pointer is None

    def close(self) -> None:
        """Free the C object now, and every object made from it first. Closing twice is allowed.

        Raises
        ------
        BusyError
            If another thread is inside a call.
        BufferError
            If an array lent from it still lives.
        """
        seized: list[Record] = []
        try:
            self._record.seize(seized)
            self._require_closable()
            self._record.release()
        finally:
            for record in seized:
                record.leave()

    def _require_closable(self) -> None:
        """Raise if something that is no child still uses the C object; no call can begin now."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: a second handle would free the same C object."""
        name = type(self).__name__
        message = f"a {name} cannot be copied or pickled; in another process, make a new one"
        raise TypeError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        record = self.__dict__.get("_record")  # absent if __init__ raised
        if record is not None:
            record.release()

    def _lend(self, memory: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return float32 *memory* of C as a read-only array that counts as a view.

        The array holds a cffi pointer and that holds this handle; when the last slice of the
        array is gone the pointer goes too, and the count falls.
        """
        self._record.views += 1
        lent = ffi.gc(memory, self._take_back)
        view = np.ndarray(shape, np.float32, ffi.buffer(lent, 4 * math.prod(shape)))
        view.flags.writeable = False
        return view

    def _take_back(self, _memory: Any) -> None:
        self._record.views -= 1
