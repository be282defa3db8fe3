"""A context: the memory of some sequences, and the buffers that decode tokens into logits."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pyllama.core import backend, log
from pyllama.core import batch as batches
from pyllama.core.backend_sampling import BackendSampling
from pyllama.core.batch import Batch
from pyllama.core.deadline import Deadline
from pyllama.core.enums import ContextType, FlashAttnType, GGMLType
from pyllama.core.fingerprint import fingerprint
from pyllama.core.handle import Handle
from pyllama.core.hooks import Hooked, Trampoline
from pyllama.core.library import ffi, lib
from pyllama.core.limits import batch_limits, check_together, moves_keys, whole_sequences
from pyllama.core.memory import Memory
from pyllama.core.params import ContextOptions, context_params, flag
from pyllama.errors import (
    DECODE_ERRORS,
    AbortedError,
    LoadError,
    StateError,
    UnsupportedError,
    decode_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from pyllama.core.adapter import Adapter
    from pyllama.core.model import Model
    from pyllama.core.threadpool import ThreadPool

T = TypeVar("T")

# With these the logits are those of the weights in the file, to about 1e-4 for f32 weights:
# flash attention rounds keys and values to f16, and so does the default memory.
EXACT: ContextOptions = {
    "flash_attn_type": FlashAttnType.DISABLED,
    "type_k": GGMLType.F32,
    "type_v": GGMLType.F32,
    "n_ubatch": 512,
}


class Context(BackendSampling, Hooked):
    """Make a context from a model; `Model.context` is the short way.

    Parameters
    ----------
    model
        The model; it is closed after its contexts.
    exact
        Compute as precisely as libllama can: flash attention off, keys and values in f32, a fixed
        micro-batch. None of these options may then be given.
    hooks
        Keep the door open for `hooks` and `observe`, which libllama must know of from the start.
        Without it several GPUs work at the same time: else libllama waits after each part.
    **options
        See `ContextOptions`.

    Raises
    ------
    LoadError
        If libllama refuses the options; ``.log`` holds its words.
    TypeError, ValueError
        If an option is unknown, out of range, or contradicts another.
    MemoryError
        If keys and values would take more memory than there is.
    UnsupportedError
        If the model has no weights, or not what an option needs.

    Notes
    -----
    One thread at a time: a second gets `BusyError`. Only `abort` may come from another thread.

    Calls: llama_init_from_model, llama_free
    """

    def __init__(
        self,
        model: Model,
        *,
        exact: bool = False,
        hooks: bool = True,
        **options: Unpack[ContextOptions],
    ) -> None:
        if not isinstance(model, Handle) or not hasattr(model, "_require_weights"):
            message = f"a Context is made from a Model, not from {model!r}"
            raise TypeError(message)
        model._require_weights()
        if flag("exact", exact):
            given = sorted(EXACT.keys() & options.keys())
            if given:
                message = f"exact=True sets {', '.join(given)} itself; give one or the other"
                raise ValueError(message)
            options = {**options, **EXACT}
        params = context_params(options)
        check_together(model, params)
        stop = ffi.new("pyllama_stop *")  # abort() raises its flag, C reads it
        params.abort_callback = ffi.addressof(lib, "pyllama_should_stop")
        params.abort_callback_data = stop
        trampoline = Trampoline(stop) if flag("hooks", hooks) else None
        if trampoline is not None:
            trampoline.install(params)

        backend.begin_computing()
        since = log.mark()
        # Until the model knows its child and all is read: close() comes after.
        with model._call as model_pointer, model._building:
            pointer = lib.llama_init_from_model(model_pointer, params)
            if pointer == ffi.NULL:
                message = "libllama could not create this context"
                raise LoadError(message, log.complaints(since))
            super().__init__(pointer, lib.llama_free, model)
            self._stop = stop
            self._trampoline = trampoline
            self._pools: tuple[ThreadPool, ...] = ()
            self._past_pools: list[Any] = []
            self.model = model
            self._limits = batch_limits(model, pointer, params)
            self._report = ffi.new("pyllama_batch_report *")
            self._has_memory = lib.llama_get_memory(pointer) != ffi.NULL
            self._has_encoder = model.has_encoder
            self._is_mtp = params.ctx_type == ContextType.MTP
            self._whole_sequences = whole_sequences(model, params)
            # Where a state has snapshots: how far a sequence can go back, and at which edit.
            self._snapshots: dict[int, tuple[int, int]] | None = (
                {} if self._whole_sequences and lib.llama_n_rs_seq(pointer) else None
            )
            self._moves_keys = moves_keys(model, params)
            self._unified = bool(params.kv_unified)
            self._embeddings = bool(params.embeddings)
            self._n_outputs = 0
            self._encoded: frozenset[int] | None = None  # sequences that encode() saw
            self._adapters: dict[Adapter, float] = {}
            self._fingerprint = fingerprint(model, params)
            self._types = GGMLType(params.type_k), GGMLType(params.type_v)
            # How often each sequence was changed other than by decoding at its end: whoever
            # remembers what the memory holds compares it.
            self._edits = [0] * self._limits.n_seq_max
            self._keep_numbers(pointer)
            self._apply_modes(pointer)

    def decode(self, batch: Batch, *, timeout: float | None = None) -> None:
        """Run *batch* through the model, and add its tokens to the memory.

        Parameters
        ----------
        batch
            At most `n_batch` tokens, whose positions follow what the memory holds.
        timeout
            Seconds that it may take; None sets no limit.

        Raises
        ------
        InvalidBatchError
            If the batch does not fit; nothing happened.
        NoSlotError
            If the memory has no room for it; nothing happened.
        AbortedError
            If `abort` was called; the memory is as before.
        TimeoutError
            If the time was not enough; the memory is as before.
        DecodeError
            If computing failed; the memory is as before.
        StateError
            If the model has an encoder and `encode` was not called for these sequences.
        BufferError
            If a view of the outputs still lives.

        Notes
        -----
        A recurrent memory cannot be taken back part of the way: after AbortedError, TimeoutError
        or DecodeError the batch's sequences are empty. The CPU looks at the clock at each node of
        the graph; other devices finish what they were given first.

        Calls: llama_decode
        """
        if timeout is not None:
            self._decode_by(Deadline(timeout), batch)
            return
        with self._call as pointer:
            self._decode(pointer, batch)

    def _decode_by(self, deadline: Deadline | None, batch: Batch) -> None:
        with self._call as pointer, self._stopping_at(deadline):
            self._decode(pointer, batch)

    def _decode(self, pointer: Any, batch: Batch) -> None:
        self._require_batch(batch)
        if self._has_encoder:
            self._require_encoded(batch)
        row_seqs = self._find_row_seqs(batch) if self._chains else ()
        code = self._run(lib.pyllama_decode, pointer, batch, self._limits)
        if code:
            self._fail(code, batch, lib.llama_get_memory(pointer))
        self._row_seqs = row_seqs
        if self._snapshots is not None:
            self._count_snapshots(self._snapshots, batch)

    def _count_snapshots(self, snapshots: dict[int, tuple[int, int]], batch: Batch) -> None:
        """Note how far each sequence of *batch* can go back: to within the batch, no further."""
        rows = zip(batch.seq_id.tolist(), batch.n_seq_id.tolist(), strict=True)
        for seq, n in Counter(seq for row, width in rows for seq in row[:width]).items():
            snapshots[seq] = n - 1, self._edits[seq]

    def _decode_with_last_row(
        self, batch: Batch | None, function: Callable[[NDArray[np.float32]], T]
    ) -> T:
        """Decode, and return *function* of the last row of logits, which it may not keep."""
        with self._call as pointer:  # one bracket for both: the loop does this for every token
            if batch is not None:
                self._decode(pointer, batch)
            return function(self._last_row(pointer))

    def _decode_with_last_row_by(
        self, deadline: Deadline, batch: Batch | None, function: Callable[[NDArray[np.float32]], T]
    ) -> T:
        """Do the same before a moment."""
        with self._call as pointer:
            if batch is not None:
                with self._stopping_at(deadline):
                    self._decode(pointer, batch)
            return function(self._last_row(pointer))

    @contextmanager
    def _stopping_at(self, deadline: Deadline | None) -> Iterator[None]:
        """Let C look at the clock in the calls inside; they raise TimeoutError from `_fail`."""
        if deadline is None:
            yield
            return
        deadline.require("the batch")
        self._stop.deadline = deadline.at
        try:
            yield
        finally:
            self._stop.deadline = 0

    def encode(self, batch: Batch, *, timeout: float | None = None) -> None:
        """Run *batch* through the encoder, whole.

        Parameters
        ----------
        batch
            At most `n_ubatch` tokens.
        timeout
            Seconds that it may take; None sets no limit.

        Raises
        ------
        UnsupportedError
            If the model has no encoder.
        InvalidBatchError, AbortedError, TimeoutError, DecodeError, BufferError
            As for `decode`.

        Calls: llama_encode
        """
        if self._has_memory and not self._has_encoder:
            message = "this model has no encoder; use decode()"
            raise UnsupportedError(message)
        with self._call as pointer, self._stopping_at(Deadline.after(timeout)):
            self._require_batch(batch)
            limits = ffi.new("pyllama_limits *", self._limits[0])
            limits.n_tokens = lib.llama_n_ubatch(pointer)
            limits.output_all = True
            code = self._run(lib.pyllama_encode, pointer, batch, limits)
            if code:
                self._fail(code, batch, ffi.NULL)
            if self._has_memory:  # what decode() then attends to; nothing to read for the caller
                whole = self._n_outputs > 0  # else a hook stopped it
                self._encoded = frozenset(batch.seq_id.ravel().tolist()) if whole else None
                self._n_outputs = 0

    def _run(
        self, function: Callable[[Any, Any, Any, Any], int], pointer: Any, batch: Batch, limits: Any
    ) -> int:
        """Compute *batch* if it is sound, and return libllama's code."""
        report, n_outputs = self._report, self._n_outputs
        self._n_outputs = 0  # until it succeeds there is nothing to read
        if self._watched is not None:
            function = self._with_hooks(function, batch)
        if self._pools:
            with ExitStack() as stack:  # other contexts may share a pool; it runs one at a time
                for pool in set(self._pools):
                    stack.enter_context(pool._call)
                code = function(pointer, batch._struct, limits, report)
        else:
            code = function(pointer, batch._struct, limits, report)
        if code == 0:
            self._n_outputs = report.n_outputs
            if self._past_pools:
                self._past_pools = []
        elif report.fault:  # nothing happened
            self._n_outputs = n_outputs
            raise batches.fault(report)
        return code

    def _require_batch(self, batch: Batch) -> None:
        """Raise unless *batch* is one, and of what C does not see has the right shape."""
        if not isinstance(batch, Batch):
            message = f"a Batch is needed, not {type(batch).__name__}: pyllama.Batch(tokens)"
            raise TypeError(message)
        if self._record.views:
            self._record.require_no_views("decode")
        if batch._embd is not None or self._is_mtp:
            self._check_embd(batch)

    def _check_embd(self, batch: Batch) -> None:
        model, sections = self.model, self._limits.n_pos_per_embd
        if self._is_mtp:  # llama-batch.cpp:1028, llama_batch_ext_select_n_embd_inp
            batches.require_both(batch, model.n_embd_out)
        else:
            batches.require_embd(batch, model.n_embd_inp, sections)

    def _require_encoded(self, batch: Batch) -> None:
        """Raise unless the encoder saw the sequences of *batch* (an assertion in libllama)."""
        wanted = frozenset(batch.seq_id.ravel().tolist())
        if self._encoded != wanted:
            seen = "nothing" if self._encoded is None else f"sequences {sorted(self._encoded)}"
            message = (
                f"the encoder has seen {seen}, but the batch decodes {sorted(wanted)}: "
                "encode() exactly the sequences that you decode"
            )
            raise StateError(message, expected="encoded", actual=f"{seen} encoded")

    def _fail(self, code: int, batch: Batch, memory: Any) -> None:
        """Take back what a failed call may have stored, and raise the error for *code*."""
        aborted, self._stop.raised = self._stop.raised, 0
        if code not in (1, -1):
            self._roll_back(batch, memory)
        if DECODE_ERRORS.get(code) is AbortedError:
            log.drain(logging.DEBUG)  # it was asked for, though libllama logs errors
            if not aborted:
                message = (
                    "the timeout came before the batch was computed, and its tokens are removed "
                    "again: give it more time, or decode fewer tokens at a time"
                )
                raise TimeoutError(message)
        raise decode_error(code, log.fresh_complaints())

    def abort(self) -> None:
        """Stop the `decode` that another thread is in, or the next one if none is running.

        The decode raises `AbortedError` at the next node of its graph. Devices other than the CPU
        finish what they were given first.
        """
        lib.pyllama_stop_raise(self._stop)

    def _forget_abort(self) -> None:
        """Begin a run that an `abort` meant for the one before does not end."""
        self._stop.raised = 0

    def warmup(self) -> None:
        """Touch all weights once, so that the first real decode is not the slow one.

        Raises
        ------
        StateError
            If the memory holds tokens: warming up would clear it.

        Calls: llama_decode, llama_encode, llama_memory_clear, llama_perf_context_reset
        """
        if any(self.memory.pos_max(seq) is not None for seq in range(self.n_seq_max)):
            message = "warmup() would clear the memory, and it is not empty: call it first"
            raise StateError(message, expected="empty memory", actual="tokens in memory")
        vocab = self.model.vocab
        tokens = [token for token in (vocab.bos, vocab.eos) if token is not None] or [0]
        run = self.encode if self._has_encoder or not self._has_memory else self.decode
        run(Batch(tokens))
        if self._has_memory:
            self.memory.clear()
        self._n_outputs, self._encoded = 0, None
        self.perf_reset()

    @property
    def memory(self) -> Memory:
        """The keys and values, or states, of the sequences."""
        return Memory(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"n_ctx={self.n_ctx}, n_seq_max={self.n_seq_max}"
        return f"<Context of {self.model!r}: {state}>"
