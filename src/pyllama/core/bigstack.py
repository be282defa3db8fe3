"""Calls that recurse as deep as their input is long, on a thread with a stack of that size.

libllama splits text with ``std::regex``, which recurses once for each character of a match
(src/unicode.cpp, unicode_regex_split_stl): a long word ends the process on an ordinary stack, and a
short one does on the small stack of somebody else's thread.
"""

from __future__ import annotations

import _thread
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.deadline import Deadline

T = TypeVar("T")

_UNIT = 1 << 20
_size_lock = threading.Lock()  # threading.stack_size is one setting for the whole process


def call(function: Callable[[], T], n_bytes: int, deadline: Deadline | None = None) -> T:
    """Return ``function()``, run on a new thread with room for *n_bytes* of stack.

    Parameters
    ----------
    function
        What to call.
    n_bytes
        Stack to reserve, in bytes. It becomes memory only where the call reaches it, and all of
        it is given back.
    deadline
        When to stop waiting; None waits for the end. The thread goes on, and *function* keeps in
        use what it uses, until its call returns.

    Returns
    -------
    object
        What *function* returned.

    Raises
    ------
    MemoryError
        If the system grants no such stack.
    TimeoutError
        If the deadline came first.

    Notes
    -----
    Starting the thread takes about 25 µs. What *function* raises is raised here. As for any call
    into C, Ctrl-C takes effect when the call is over.
    """
    done = _thread.allocate_lock()
    done.acquire()
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)
        finally:
            done.release()

    def wait() -> None:
        done.acquire(timeout=-1 if deadline is None else deadline.left)

    def abandoned() -> bool:
        return deadline is not None and deadline.left == 0

    _start(run, -(-n_bytes // _UNIT) * _UNIT)
    try:
        wait()
    finally:
        # The handler of a signal raised: see the call through.
        while not (result or failure or abandoned()):
            with suppress(BaseException):
                wait()
    if deadline is not None and not (result or failure):
        raise deadline.error("the call did not return")
    if failure:
        raise failure.pop()
    return result.pop()


def _start(run: Callable[[], None], n_bytes: int) -> None:
    with _size_lock:
        before = threading.stack_size(n_bytes)
        try:
            _thread.start_new_thread(run, ())
        except RuntimeError as error:
            message = f"the system grants no thread with a stack of {n_bytes >> 20} MiB"
            raise MemoryError(message) from error
        finally:
            threading.stack_size(before)
