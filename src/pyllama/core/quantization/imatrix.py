"""Collecting an importance matrix: a text is run, and the eval callback sees each product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core import tensor_data
from pyllama.core.batch import Batch, int32
from pyllama.core.context import Context
from pyllama.core.enums import GGMLType
from pyllama.core.hooks import Watch
from pyllama.core.library import ffi, lib
from pyllama.core.params import flag, function, whole
from pyllama.core.quantization.importance import CHUNK_SIZE, ImportanceMatrix
from pyllama.errors import StateError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from pyllama.core.quantization.importance import Counts, Sums


def imatrix(
    context: Context,
    text: str | bytes | ArrayLike,
    *,
    chunk_size: int | None = None,
    parse_special: bool = False,
    output: bool = False,
    dataset: str = "",
    progress: Callable[[float], object] | None = None,
) -> ImportanceMatrix:
    """Run a text through a model, and sum up what meets each of its weights.

    Parameters
    ----------
    context
        With an empty memory; that is how it is left, too.
    text
        Text, or tokens of shape (n_tokens,).
    chunk_size
        Tokens that are seen together; None takes 512, or what the context has room for.
    parse_special
        Whether text such as ``<|im_end|>`` is a token.
    output
        Whether the output matrix is measured too.
    dataset
        What the text is, for `ImportanceMatrix.datasets`.
    progress
        Called with the fraction done, 0.0 to 1.0. If it returns False the rest of the text is
        left out; what it raises is raised here.

    Returns
    -------
    ImportanceMatrix

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or there is no token.
    StateError
        If the memory is not empty.
    UnsupportedError
        If the context was made with ``hooks=False``, the model is an encoder with a decoder, or
        an activation is not finite.

    Notes
    -----
    Each chunk begins an empty sequence; where the vocabulary begins texts with a token, that token
    takes the place of the first one. All tokens are outputs, else the last layer would see few.
    More text is better: 100,000 tokens are usual.

    Calls: llama_decode, llama_encode
    """
    if not isinstance(context, Context):
        message = f"an importance matrix is collected in a Context, not in {context!r}"
        raise TypeError(message)
    flag("parse_special", parse_special)
    function("progress", progress)
    if not isinstance(dataset, str):
        message = f"dataset must be a string, not {dataset!r:.80}"
        raise TypeError(message)
    chunks = _Chunks(context, text, chunk_size, parse_special=parse_special)
    collector = _Collector(context, output=flag("output", output))
    with context._watching(Watch({}, products=collector), None):
        chunks.run(progress)
    return ImportanceMatrix(
        collector.sums,
        collector.counts,
        chunk_size=chunks.size,
        datasets=[dataset] if dataset else [],
    )


class _Chunks:
    """The text in pieces, each of which begins anew."""

    def __init__(
        self,
        context: Context,
        text: str | bytes | ArrayLike,
        size: int | None,
        *,
        parse_special: bool,
    ) -> None:
        self._context = context
        self._memory = context.memory if context._has_memory else None
        if context._has_encoder:
            message = "an encoder with a decoder is not run over plain text, which this needs"
            raise UnsupportedError(message)
        room = context.n_ctx_seq if self._memory else min(context.n_ubatch, context.n_ctx)
        self.size = min(CHUNK_SIZE, room) if size is None else whole(1, room)("chunk_size", size)
        vocab = context.model.vocab
        if isinstance(text, (str, bytes)):
            self._tokens = vocab.tokenize(text, parse_special=parse_special)
        else:
            self._tokens = int32("tokens", text, 1)
        if not self._tokens.size:
            message = "the text has no token"
            raise ValueError(message)
        low, high = int(self._tokens.min()), int(self._tokens.max())
        if not 0 <= low <= high < context.n_vocab:
            message = f"tokens go from 0 to {context.n_vocab} (not included), not {low} to {high}"
            raise ValueError(message)
        self._first = vocab.bos if vocab.add_bos else None
        if self._memory and any(
            self._memory.pos_max(seq) is not None for seq in range(context.n_seq_max)
        ):
            message = "the memory must be empty for an importance matrix: memory.clear() it first"
            raise StateError(message, expected="empty memory", actual="tokens in memory")

    def run(self, progress: Callable[[float], object] | None) -> None:
        """Compute one chunk after another."""
        try:
            for start in range(0, len(self._tokens), self.size):
                chunk = self._tokens[start : start + self.size].copy()
                if self._first is not None:
                    chunk[0] = self._first
                self._compute(chunk)
                done = min(1.0, (start + self.size) / len(self._tokens))
                if progress is not None and progress(done) is False:
                    break
        finally:
            if self._memory:
                self._memory.clear()

    def _compute(self, chunk: NDArray[np.int32]) -> None:
        if self._memory is None:
            self._context.encode(Batch(chunk, output="all"))
            return
        self._memory.clear()
        limits = self._context._limits
        n = min(limits.n_tokens, limits.n_outputs)
        for pos in range(0, len(chunk), n):
            self._context.decode(Batch(chunk[pos : pos + n], pos=pos, output="all"))


class _Collector:
    """What is called with each product of a weight and activations."""

    def __init__(self, context: Context, *, output: bool) -> None:
        self.sums: dict[str, Sums] = {}
        self.counts: dict[str, Counts] = {}
        self._wanted = {
            name
            for name in context.model._tensors
            if name.startswith("blk.") or (output and name == "output.weight")
        }

    def __call__(self, tensor: Any) -> None:
        weight, activations = tensor.src[0], tensor.src[1]
        # A device's copy of blk.0.attn_q.weight is called CUDA0#blk.0.attn_q.weight#0.
        name = ffi.string(weight.name).decode("utf-8", "replace")
        name = name.split("#")[1] if "#" in name else name
        if name not in self._wanted or activations.type != GGMLType.F32:
            return
        shape = tuple(reversed(ffi.unpack(activations.ne, 4)))
        squares = np.square(tensor_data.read(activations).reshape(shape), dtype=np.float64)
        if not np.isfinite(squares).all():
            message = f"the activations that meet {name} are not finite: the model overflows"
            raise UnsupportedError(message)
        if tensor.op == lib.GGML_OP_MUL_MAT_ID:
            self._add_experts(name, weight, squares[0], tensor_data.read(tensor.src[2]))
        else:
            self._add(name, weight, squares)

    def _add(self, name: str, weight: Any, squares: Sums) -> None:
        """Add the activations of all tokens; several matrices take theirs in turns."""
        outer, inner = int(weight.ne[3]), int(weight.ne[2])
        n_rows = squares.size // squares.shape[-1]
        sums = np.zeros((outer, inner, squares.shape[-1]))
        for i3, i2 in np.ndindex(squares.shape[:2]):
            sums[i3 % outer, i2 % inner] += squares[i3, i2].sum(axis=0)
        self._keep(name, sums.reshape(1, -1), np.array([n_rows // (outer * inner)]))

    def _add_experts(
        self, name: str, weight: Any, squares: Sums, chosen: NDArray[np.int32]
    ) -> None:
        """Add the activations of each token to the experts that were chosen for it."""
        n_experts = int(weight.ne[2])
        sums, counts = np.zeros((n_experts, squares.shape[-1])), np.zeros(n_experts, np.int64)
        for expert in np.unique(chosen):
            token, place = np.nonzero(chosen == expert)
            sums[expert] = squares[token, place % squares.shape[1]].sum(axis=0)
            counts[expert] = len(token)
        self._keep(name, sums, counts)

    def _keep(self, name: str, sums: Sums, counts: Counts) -> None:
        if name in self.sums:
            self.sums[name] += sums
            self.counts[name] += counts
        else:
            self.sums[name], self.counts[name] = sums, counts
