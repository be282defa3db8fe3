"""What a context computed: logits and embeddings, as copies or as views that count."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pyllama.core.enums import PoolingType
from pyllama.core.library import ffi, lib
from pyllama.core.params import whole
from pyllama.core.settings import Settings
from pyllama.errors import StateError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyllama.core.model import Model

T = TypeVar("T")
_int32 = whole(-(2**31), 2**31 - 1)


class Outputs(Settings):
    """The reading half of `Context`.

    The index rule: ``logits[i]`` belongs to the *i*-th token decoded with output, and predicts
    the token after it.
    """

    model: Model
    _n_outputs: int
    _has_memory: bool
    _embeddings: bool
    _limits: Any
    # The sequence of each row that a sampler in the graph worked on, or None; see BackendSampling.
    _row_seqs: tuple[int | None, ...] = ()
    _row_at: Any = None  # where the array `_row` lies
    _row: NDArray[np.float32]

    def logits(self) -> NDArray[np.float32]:
        """Return a copy of the logits of the last `decode`.

        Returns
        -------
        ndarray of float32, shape (n_outputs, n_vocab)
            Unnormalised, nats. Row *i* belongs to the *i*-th token decoded with output.

        Raises
        ------
        StateError
            If the last call made no output, or there was none; or if a row was sampled in the
            graph: its logits stayed there.
        UnsupportedError
            If the model computes embeddings only.

        Calls: llama_get_logits
        """
        with self._call as pointer:  # to the end: a view beside it would stop another thread
            return self._copy(self._logits_pointer(pointer), (self._n_outputs, self.n_vocab))

    def logits_view(self, row: int | None = None) -> NDArray[np.float32]:
        """Lend the logits of the last `decode`, without a copy.

        Parameters
        ----------
        row
            One row, from the end if negative; None is all of them.

        Returns
        -------
        ndarray of float32, shape (n_outputs, n_vocab) or (n_vocab,), read-only
            Unnormalised, nats.

        Raises
        ------
        StateError
            As `logits`; of a single row, if that one was sampled in the graph.
        IndexError
            If there is no such row.
        UnsupportedError
            If the model computes embeddings only.

        Notes
        -----
        The rows are libllama's own memory: while a view, or a slice of one, lives, `decode` and
        `close` raise BufferError. A view kept on its own context keeps the context for ever:
        arrays take no part in garbage collection.

        Calls: llama_get_logits
        """
        with self._call as pointer:
            n_vocab = self._limits.n_vocab
            if row is None:
                return self._lend(self._logits_pointer(pointer), (self._n_outputs, n_vocab))
            row = operator.index(row)
            memory = self._logits_pointer(pointer, row)
            if not -self._n_outputs <= row < self._n_outputs:
                message = f"row {row} is not there: the last call made {self._n_outputs}"
                raise IndexError(message)
            return self._lend(memory + row % self._n_outputs * n_vocab, (n_vocab,))

    def _logits_pointer(self, pointer: Any, row: int | None = None) -> Any:
        """Return where the logits are; raise if *row*, or any of all, has none."""
        if not self._n_outputs:
            message = "there are no logits: no decode() yet, or its batch asked for no output"
            raise StateError(message, expected="a batch with output", actual="none")
        if not self._has_memory and not self.model.is_diffusion:
            message = "this model computes embeddings, not logits: see embeddings()"
            raise UnsupportedError(message)
        if self._row_seqs:
            self._require_raw(row)
        return lib.llama_get_logits(pointer)

    def _require_raw(self, row: int | None) -> None:
        """Raise if logits were left in the graph: the memory for them holds older ones."""
        seqs = self._row_seqs if row is None else self._row_seqs[row:][:1]
        if any(seq is not None for seq in seqs):
            message = (
                "the logits stayed in the graph, where an attached chain sampled them: see "
                "sample() and sampled_candidates(), or detach_sampler() before the decode"
            )
            raise StateError(message, expected="logits", actual="sampled in the graph")

    def _last_row(self, pointer: Any) -> NDArray[np.float32]:
        """Return the last row of logits, uncounted: for code that keeps no row."""
        memory = self._logits_pointer(pointer, -1)
        if self._n_outputs > 1:
            memory += (self._n_outputs - 1) * self._limits.n_vocab
        if memory != self._row_at:  # libllama moves its buffer only when it must grow
            row = ffi.buffer(memory, 4 * self._limits.n_vocab)
            self._row = np.frombuffer(row, np.float32)
            self._row_at = memory
        return self._row

    def embeddings(self) -> NDArray[np.float32]:
        """Return a copy of the embedding of each output token.

        Returns
        -------
        ndarray of float32, shape (n_outputs, n_embd_out)
            Not normalised.

        Raises
        ------
        StateError
            If the context computes no embeddings, pools them, or made no output.

        Calls: llama_get_embeddings
        """
        with self._call as pointer:
            self._require_embeddings(pooled=False)
            memory = lib.llama_get_embeddings(pointer)
            return self._copy(memory, (self._n_outputs, self.model.n_embd_out))

    def embedding(self, seq: int = 0) -> NDArray[np.float32]:
        """Return a copy of the pooled embedding of a sequence.

        Parameters
        ----------
        seq
            The sequence; it must have been in the last batch.

        Returns
        -------
        ndarray of float32, shape (n_embd_out,), or (n_cls_out,) with rank pooling
            Not normalised; the classifier's scores with rank pooling.

        Raises
        ------
        StateError
            If the context computes no embeddings, does not pool them, or made no output.
        IndexError
            If the last batch did not hold the sequence.

        Calls: llama_get_embeddings_seq
        """
        with self._call as pointer:
            pooling = self._require_embeddings(pooled=True)
            memory = lib.llama_get_embeddings_seq(pointer, _int32("seq", seq))
            if memory == ffi.NULL:
                message = f"sequence {seq} was not in the last batch"
                raise IndexError(message)
            rank = pooling == PoolingType.RANK
            width = self.model.n_cls_out if rank else self.model.n_embd_out
            return self._copy(memory, (width,))

    def _require_embeddings(self, *, pooled: bool) -> PoolingType:
        pooling = PoolingType(lib.llama_pooling_type(self.pointer))
        if not self._embeddings:
            message = "this context computes no embeddings: make it with embeddings=True"
            raise StateError(message, expected="embeddings=True", actual="embeddings=False")
        if (pooling != PoolingType.NONE) != pooled:
            wanted = "embedding(seq)" if not pooled else "embeddings()"
            message = f"with pooling_type={pooling.name.lower()!r} use {wanted}"
            raise StateError(message, expected=wanted, actual=pooling.name.lower())
        if not self._n_outputs:
            message = "there are no embeddings: nothing was decoded yet"
            raise StateError(message, expected="a decoded batch", actual="none")
        return pooling

    def _copy(self, memory: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._lend(memory, shape).copy()
