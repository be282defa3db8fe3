"""What a context is, and the switches that can be thrown while it lives."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import GGMLType, PoolingType
from pyllama.core.handle import Handle
from pyllama.core.library import lib
from pyllama.core.limits import require_embeddings
from pyllama.core.memory_needs import MemoryNeeds, memory_needs
from pyllama.core.params import MAX_THREADS, flag, whole
from pyllama.core.threadpool import ThreadPool

if TYPE_CHECKING:
    from pyllama.core.model import Model


@dataclass(frozen=True)
class ContextPerf:
    """What a context measured; all zero unless it was made with ``no_perf=False``.

    Attributes
    ----------
    t_load_ms, t_p_eval_ms, t_eval_ms : float
        Milliseconds of loading, of batches, and of single tokens.
    n_p_eval, n_eval : int
        Tokens in batches, and single tokens.
    n_reused : int
        Compute graphs used again.
    """

    t_load_ms: float
    t_p_eval_ms: float
    t_eval_ms: float
    n_p_eval: int
    n_eval: int
    n_reused: int


class Settings(Handle):
    """The part of `Context` that says how it computes."""

    model: Model
    _pools: tuple[ThreadPool, ...]
    _past_pools: list[Any]  # threads of pools that it was detached from, and has not computed since
    _limits: Any
    _has_memory: bool
    _embeddings: bool
    _n_outputs: int
    _types: tuple[GGMLType, GGMLType]

    def _keep_numbers(self, pointer: Any) -> None:
        """Read the sizes once: whoever asks for them need not wait for a call, nor for close()."""
        self._numbers = {
            "n_ctx": int(lib.llama_n_ctx(pointer)),
            "n_ctx_seq": int(lib.llama_n_ctx_seq(pointer)),
            "n_batch": int(lib.llama_n_batch(pointer)),
            "n_ubatch": int(lib.llama_n_ubatch(pointer)),
            "n_seq_max": int(lib.llama_n_seq_max(pointer)),
            "n_rs_seq": int(lib.llama_n_rs_seq(pointer)),
            "n_threads": int(lib.llama_n_threads(pointer)),
            "n_threads_batch": int(lib.llama_n_threads_batch(pointer)),
            "pooling_type": int(lib.llama_pooling_type(pointer)),
        }

    def _number(self, name: str) -> int:
        self._record.require_usable()
        return self._numbers[name]

    def _apply_modes(self, pointer: Any) -> None:
        """Bring the batch limits in line with the causal and embeddings switches."""
        n_ubatch, limits = lib.llama_n_ubatch(pointer), self._limits
        causal = lib.llama_get_causal_attn(pointer)
        whole_batch = self._has_memory and causal  # else no micro-batches: llama-context.cpp:1787
        limits.n_tokens = lib.llama_n_batch(pointer) if whole_batch else n_ubatch
        limits.output_all = self._embeddings or not self._has_memory

    def set_n_threads(self, n_threads: int, n_threads_batch: int | None = None) -> None:
        """Set how many threads compute.

        Parameters
        ----------
        n_threads
            For single tokens, 1 to 512.
        n_threads_batch
            For batches; None takes *n_threads*.

        Raises
        ------
        ValueError
            If the numbers are out of range, or larger than an attached thread pool.

        Calls: llama_set_n_threads
        """
        count = whole(1, MAX_THREADS)
        n = count("n_threads", n_threads)
        n_batch = n if n_threads_batch is None else count("n_threads_batch", n_threads_batch)
        for pool, wanted in zip(self._pools, (n, n_batch), strict=False):
            pool._require_room(wanted)
        with self._call as pointer:
            lib.llama_set_n_threads(pointer, n, n_batch)
            self._numbers.update(n_threads=n, n_threads_batch=n_batch)

    def attach_threadpool(self, pool: ThreadPool, pool_batch: ThreadPool | None = None) -> None:
        """Compute on threads of a pool, which several contexts may share in turn.

        Parameters
        ----------
        pool
            For single tokens.
        pool_batch
            For batches; None takes *pool*.

        Raises
        ------
        TypeError
            If it is no pool.
        ValueError
            If this context uses more threads than a pool has.

        Notes
        -----
        The pool stays open while it is attached. It computes for one context at a time: `decode`
        raises BusyError while another thread decodes on it.

        Calls: llama_attach_threadpool
        """
        both = (pool, pool if pool_batch is None else pool_batch)
        for each, n_threads in zip(both, (self.n_threads, self.n_threads_batch), strict=True):
            if not isinstance(each, ThreadPool):
                message = f"a ThreadPool is needed, not {each!r:.80}"
                raise TypeError(message)
            each._require_room(n_threads)
        self.detach_threadpool()
        with ExitStack() as stack:  # no pool is closed before it knows this context
            pointer = stack.enter_context(self._call)
            entered = {each: stack.enter_context(each._call) for each in set(both)}
            lib.llama_attach_threadpool(pointer, entered[both[0]], entered[both[1]])
            self._pools = both
            for each in both:
                each._attached.add(self)

    def detach_threadpool(self) -> None:
        """Go back to threads of libllama's own.

        Calls: llama_detach_threadpool
        """
        with self._call as pointer:
            lib.llama_detach_threadpool(pointer)
            self._past_pools += [threads for pool in self._pools for threads in pool._threads]
            for pool in self._pools:
                pool._attached.discard(self)
            self._pools = ()

    def set_embeddings(self, embeddings: bool) -> None:  # noqa: FBT001 - the only argument
        """Switch the computing of embeddings; while it is on every token is an output.

        Parameters
        ----------
        embeddings
            Whether to compute them.

        Raises
        ------
        UnsupportedError
            If libllama cannot, for this kind of model.

        Calls: llama_set_embeddings
        """
        if flag("embeddings", embeddings):
            require_embeddings(self.model)
        with self._call as pointer:
            lib.llama_set_embeddings(pointer, embeddings)
            self._embeddings, self._n_outputs = embeddings, 0
            self._apply_modes(pointer)

    @property
    def causal_attn(self) -> bool:
        """Whether a token sees only those before it."""
        with self._call as pointer:
            return bool(lib.llama_get_causal_attn(pointer))

    def set_causal_attn(self, causal_attn: bool) -> None:  # noqa: FBT001 - the only argument
        """Switch causal attention; without it a `decode` takes at most `n_ubatch` tokens.

        Parameters
        ----------
        causal_attn
            Whether a token sees only those before it.

        Calls: llama_set_causal_attn
        """
        flag("causal_attn", causal_attn)
        with self._call as pointer:
            lib.llama_set_causal_attn(pointer, causal_attn)
            self._apply_modes(pointer)

    def synchronize(self) -> None:
        """Wait until the devices have finished; reading outputs does it too.

        Calls: llama_synchronize
        """
        with self._call as pointer:
            lib.llama_synchronize(pointer)

    @property
    def perf(self) -> ContextPerf:
        """What was measured since the start or `perf_reset`."""
        with self._call as pointer:
            data = lib.llama_perf_context(pointer)
        return ContextPerf(
            data.t_load_ms,
            data.t_p_eval_ms,
            data.t_eval_ms,
            data.n_p_eval,
            data.n_eval,
            data.n_reused,
        )

    def perf_reset(self) -> None:
        """Set the measurements to zero.

        Calls: llama_perf_context_reset
        """
        with self._call as pointer:
            lib.llama_perf_context_reset(pointer)

    @property
    def memory_needs(self) -> dict[str, MemoryNeeds]:
        """What the model and this context take on each device, in bytes."""
        with self._call as pointer:
            return memory_needs(pointer)

    @property
    def n_ctx(self) -> int:
        """Tokens the memory holds, over all sequences (rounded up from what was asked)."""
        return self._number("n_ctx")

    @property
    def n_ctx_seq(self) -> int:
        """Tokens one sequence may have."""
        return self._number("n_ctx_seq")

    @property
    def n_batch(self) -> int:
        """Most tokens in one `decode`."""
        return self._number("n_batch")

    @property
    def n_ubatch(self) -> int:
        """Most tokens in one pass through the graph."""
        return self._number("n_ubatch")

    @property
    def n_seq_max(self) -> int:
        """Number of sequences; they are numbered from 0."""
        return self._number("n_seq_max")

    @property
    def n_rs_seq(self) -> int:
        """Snapshots per sequence that a recurrent memory can go back to."""
        return self._number("n_rs_seq")

    @property
    def n_threads(self) -> int:
        """Threads for single tokens."""
        return self._number("n_threads")

    @property
    def n_threads_batch(self) -> int:
        """Threads for batches."""
        return self._number("n_threads_batch")

    @property
    def n_vocab(self) -> int:
        """Width of a row of logits."""
        return int(self._limits.n_vocab)

    @property
    def n_outputs(self) -> int:
        """Rows of output that the last call made."""
        return self._n_outputs

    @property
    def pooling_type(self) -> PoolingType:
        """How the embeddings of a sequence become one."""
        return PoolingType(self._number("pooling_type"))

    @property
    def type_k(self) -> GGMLType:
        """How the memory stores keys."""
        return self._types[0]

    @property
    def type_v(self) -> GGMLType:
        """How the memory stores values."""
        return self._types[1]
