"""A pool of compute threads that contexts may share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pyllama.core import backend
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.params import flag, whole
from pyllama.errors import BusyError, LoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyllama.core.settings import Settings


class _Threads:
    """The C object, freed with the last reference to this one.

    A context's backend knows the pool that it computed on last until it computes again: it then
    lets that pool pause (ggml-cpu.cpp, ggml_backend_cpu_set_threadpool). So a context that a pool
    was detached from keeps this, and a pool that is closed is freed a little later.
    """

    __slots__ = ("_free", "_pointer", "_process")

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self._free = lib.ggml_threadpool_free
        self._process = os.getpid()

    def __del__(self) -> None:
        if os.getpid() == self._process:  # a fork has not got the threads to wait for
            self._free(self._pointer)


class ThreadPool(Handle):
    """Start compute threads.

    Parameters
    ----------
    n_threads
        How many, 1 to 512.
    poll
        How eagerly an idle thread waits: 0 sleeps, 100 spins.
    strict_cpu
        Bind each thread to one CPU.
    cpus
        The CPUs to run on; left out, those of the process.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Calls: ggml_threadpool_params_default, ggml_threadpool_new, ggml_threadpool_free
    """

    def __init__(
        self,
        n_threads: int,
        *,
        poll: int | None = None,
        strict_cpu: bool = False,
        cpus: Sequence[int] = (),
    ) -> None:
        backend.init()
        n_threads = whole(1, lib.GGML_MAX_N_THREADS)("n_threads", n_threads)
        params = ffi.new("struct ggml_threadpool_params *")
        params[0] = lib.ggml_threadpool_params_default(n_threads)
        if poll is not None:
            params.poll = whole(0, 100)("poll", poll)
        params.strict_cpu = flag("strict_cpu", strict_cpu)
        for cpu in cpus:
            params.cpumask[whole(0, lib.GGML_MAX_N_THREADS - 1)("cpus", cpu)] = True
        pointer = lib.ggml_threadpool_new(params)
        if pointer == ffi.NULL:
            message = f"libllama could not start {n_threads} threads"
            raise LoadError(message)
        threads = [_Threads(pointer)]
        super().__init__(pointer, lambda _pointer: threads.clear())
        self._threads = threads
        self.n_threads = n_threads
        self._attached: WeakSet[Settings] = WeakSet()

    def pause(self) -> None:
        """Let the threads sleep until `resume` or the next decode.

        Calls: ggml_threadpool_pause
        """
        with self._call as pointer:
            lib.ggml_threadpool_pause(pointer)

    def resume(self) -> None:
        """Wake the threads.

        Calls: ggml_threadpool_resume
        """
        with self._call as pointer:
            lib.ggml_threadpool_resume(pointer)

    def _require_closable(self) -> None:
        n_users = sum(not context.closed for context in self._attached)
        if n_users and not self.closed:
            message = f"{n_users} context(s) use this pool: detach_threadpool() first"
            raise BusyError(message)

    def _require_room(self, n_threads: int) -> None:
        # With OpenMP ggml does not clamp, and reads past the pool (ggml-cpu.c:3419).
        if n_threads > self.n_threads:
            message = f"{n_threads} threads are more than this pool's {self.n_threads}"
            raise ValueError(message)
