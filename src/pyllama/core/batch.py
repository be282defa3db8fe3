"""A batch: the tokens of one `Context.decode`, as numpy arrays that C reads in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.library import ffi, lib
from pyllama.errors import InvalidBatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

OUTPUTS = ("last", "all", "none")
INT32 = np.iinfo(np.int32)


class Batch:
    """Describe the tokens to decode: what they are, where they stand, and which answer.

    Parameters
    ----------
    tokens
        Token ids, shape ``(n_tokens,)``.
    embd
        Embeddings instead of tokens: float32, shape ``(n_tokens, n_embd_inp)``, finite. Beside
        tokens, for a context made with ``ctx_type="mtp"``: the hidden states that the model had
        at these tokens, ``(n_tokens, n_embd_out)``.
    pos
        Position of each token in its sequence, or the position of the first: the others follow.
        An M-RoPE model takes shape ``(4, n_tokens)`` with embeddings.
    seq_id
        The sequence of all tokens, or one for each, or for each token a list of the sequences
        that share it.
    output
        Which tokens get a row of logits (or an embedding): "last", "all", "none", or a boolean
        for each token.

    Raises
    ------
    TypeError
        If an array does not hold what it should.
    ValueError
        If the shapes do not fit together, or a number is no int32.

    Notes
    -----
    The arrays are C's own: writing to them changes the batch, so one batch can serve a whole
    loop. What they hold is checked against the context at each decode, before C reads it: no
    other thread may write to them meanwhile.
    """

    __slots__ = ("_embd", "_keep", "_n_seq_id", "_output", "_pos", "_seq_id", "_struct", "_token")

    def __init__(
        self,
        tokens: ArrayLike | None = None,
        *,
        embd: ArrayLike | None = None,
        pos: ArrayLike = 0,
        seq_id: int | Sequence[int] | Sequence[Sequence[int]] | NDArray[np.integer[Any]] = 0,
        output: str | ArrayLike = "last",
    ) -> None:
        if tokens is None and embd is None:
            message = "a batch holds tokens or embd, and one of them must be given"
            raise TypeError(message)
        self._token = None if tokens is None else int32("tokens", tokens, 1)
        self._embd = None if embd is None else _embeddings(embd)
        n_tokens = len(self._embd if self._token is None else self._token)  # type: ignore[arg-type]
        if self._embd is not None and len(self._embd) != n_tokens:
            message = f"there are {n_tokens} tokens, but {len(self._embd)} rows of embd"
            raise ValueError(message)
        self._pos = _positions(pos, n_tokens)
        self._seq_id, counts = _sequences(seq_id, n_tokens)
        # Read-only for good, as bytes are: C would read past a row of seq_id.
        self._n_seq_id = np.frombuffer(counts.tobytes(), np.int32)
        self._output = _flags(output, n_tokens)
        self._struct = self._make_struct(n_tokens)

    def _make_struct(self, n_tokens: int) -> Any:
        """Return a ``llama_batch *`` that points at the arrays."""
        width = self._seq_id.strides[0] if n_tokens else 0
        # C wants an int32 ** for seq_id: where each row of it begins.
        rows = np.arange(n_tokens, dtype=np.uintp) * width + self._seq_id.ctypes.data
        struct = ffi.new("struct llama_batch *")
        struct.n_tokens = n_tokens
        self._keep = []  # a struct's fields do not keep what they point at
        for field, ctype, array in (
            ("token", "int32_t[]", self._token),
            ("embd", "float[]", self._embd),
            ("pos", "int32_t[]", self._pos),
            ("n_seq_id", "int32_t[]", self._n_seq_id),
            ("seq_id", "int32_t *[]", rows),
            ("logits", "int8_t[]", self._output),
        ):
            if array is not None and array.size:
                buffer = ffi.from_buffer(ctype, array)
                setattr(struct, field, buffer)
                self._keep.append(buffer)
        return struct

    @property
    def n_tokens(self) -> int:
        """Number of tokens (or embeddings)."""
        return len(self._output)

    @property
    def token(self) -> NDArray[np.int32] | None:
        """Token ids, int32, shape ``(n_tokens,)``; None in a batch of embeddings."""
        return self._token

    @property
    def embd(self) -> NDArray[np.float32] | None:
        """Embeddings or hidden states, float32, a row for each token; None where there are none."""
        return self._embd

    @property
    def pos(self) -> NDArray[np.int32]:
        """Positions, int32, shape ``(n_tokens,)``, or ``(4, n_tokens)`` as they were given."""
        return self._pos

    @property
    def seq_id(self) -> NDArray[np.int32]:
        """Sequences, int32, shape ``(n_tokens, n)``; of row *i* the first ``n_seq_id[i]`` count."""
        return self._seq_id

    @property
    def n_seq_id(self) -> NDArray[np.int32]:
        """How many sequences each token has, int32, shape ``(n_tokens,)``, read-only."""
        return self._n_seq_id

    @property
    def output(self) -> NDArray[np.bool_]:
        """Which tokens get a row of output, bool, shape ``(n_tokens,)``."""
        return self._output

    def __len__(self) -> int:
        return self.n_tokens

    def __repr__(self) -> str:
        what = "tokens" if self._token is not None else "embeddings"
        return f"<Batch of {self.n_tokens} {what}, {int(self._output.sum())} with output>"


def int32(name: str, values: ArrayLike, n_dims: int) -> NDArray[np.int32]:
    """Return *values* as a new contiguous int32 array; refuse what does not fit exactly.

    Parameters
    ----------
    name
        What the caller calls them, for the message.
    values
        Whole numbers.
    n_dims
        The dimensions they must have.

    Returns
    -------
    ndarray of int32

    Raises
    ------
    TypeError
        If they are not whole numbers.
    ValueError
        If they have other dimensions or do not fit into 32 bits.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iu":
        message = f"{name} must be whole numbers, not {values!r:.60}"
        raise TypeError(message)
    if array.ndim != n_dims:
        message = f"{name} must have {n_dims} dimension(s), not the shape {array.shape}"
        raise ValueError(message)
    if array.size and (array.min() < INT32.min or array.max() > INT32.max):
        message = f"{name} must fit into 32 bits; they go from {array.min()} to {array.max()}"
        raise ValueError(message)
    return np.array(array, dtype=np.int32, order="C")


def _embeddings(embd: ArrayLike) -> NDArray[np.float32]:
    array = np.array(embd, dtype=np.float32, order="C")
    if array.ndim != 2 or array.shape[1] == 0:
        message = f"embd must have the shape (n_tokens, n_embd_inp), not {array.shape}"
        raise ValueError(message)
    if not np.isfinite(array).all():
        token = int(np.argwhere(~np.isfinite(array))[0][0])
        message = f"embd[{token}] holds a value that is not finite"
        raise ValueError(message)
    return array


def _positions(pos: ArrayLike, n_tokens: int) -> NDArray[np.int32]:
    if np.ndim(pos) == 0:
        start = int32("pos", np.reshape(pos, 1), 1)[0]
        if start > INT32.max - n_tokens:
            message = f"pos={start} leaves no room for {n_tokens} tokens below 2**31"
            raise ValueError(message)
        return np.arange(start, start + n_tokens, dtype=np.int32)
    array = int32("pos", pos, np.ndim(pos))
    if array.shape not in ((n_tokens,), (4, n_tokens)):
        message = f"pos has the shape {array.shape}, but there are {n_tokens} tokens"
        raise ValueError(message)
    return array


def _sequences(seq_id: Any, n_tokens: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the sequences of each token, padded to one width, and how many each token has."""
    if not hasattr(seq_id, "__len__"):
        ids = np.full((n_tokens, 1), int32("seq_id", np.reshape(seq_id, 1), 1)[0], np.int32)
        return ids, np.ones(n_tokens, np.int32)
    if len(seq_id) != n_tokens:
        message = f"seq_id has {len(seq_id)} entries, but there are {n_tokens} tokens"
        raise ValueError(message)
    if all(hasattr(row, "__len__") for row in seq_id):  # a list for each token
        rows = [int32("seq_id", row, 1) for row in seq_id]
        counts = np.array([len(row) for row in rows], np.int32)
        ids = np.zeros((n_tokens, max(1, counts.max(initial=0))), np.int32)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        return ids, counts
    return int32("seq_id", seq_id, 1).reshape(n_tokens, 1), np.ones(n_tokens, np.int32)


def _flags(output: str | ArrayLike, n_tokens: int) -> NDArray[np.bool_]:
    if isinstance(output, str):
        if output not in OUTPUTS:
            message = f"output={output!r:.80} is not one of: {', '.join(OUTPUTS)}"
            raise ValueError(message)
        flags = np.full(n_tokens, output == "all")
        if output == "last":
            flags[-1:] = True
        return flags
    array = np.array(output)
    if array.dtype != np.bool_:
        message = f"output must be booleans or one of {OUTPUTS}, not {array.dtype}"
        raise TypeError(message)
    if array.shape != (n_tokens,):
        message = f"output has the shape {array.shape}, but there are {n_tokens} tokens"
        raise ValueError(message)
    return array


_MESSAGES = {
    lib.PYLLAMA_BATCH_EMPTY: "the batch holds no tokens",
    lib.PYLLAMA_BATCH_TOO_LONG: "the batch has {value} tokens, but this context takes at most "
    "{wanted} in one call: split it, or make the context with a larger n_batch (n_ubatch where "
    "attention is not causal)",
    lib.PYLLAMA_BATCH_TOO_MANY_OUTPUTS: "the batch asks for {value} outputs, but this context "
    "makes at most {wanted} in one call (n_outputs_max)",
    lib.PYLLAMA_BATCH_TOKEN: "token[{index}] is {value}, but the vocabulary goes from 0 to "
    "{wanted} (not included)",
    lib.PYLLAMA_BATCH_POSITION: "pos[{index}] is {value}, but positions go from 0 to {wanted} "
    "(not included)",
    lib.PYLLAMA_BATCH_NO_SEQUENCE: "token {index} belongs to no sequence",
    lib.PYLLAMA_BATCH_SHARED: "token {index} belongs to {value} sequences, which only one buffer "
    "for all of them can hold: make the context with kv_unified=True",
    lib.PYLLAMA_BATCH_SEQUENCE: "token {index} belongs to sequence {value}, but this context has "
    "the sequences 0 to {wanted} (not included): n_seq_max",
    lib.PYLLAMA_BATCH_NOT_CONSECUTIVE: "pos[{index}] is {value}, but the token before it in "
    "sequence {seq} makes it {wanted}",
    lib.PYLLAMA_BATCH_BEHIND_MEMORY: "pos[{index}] is {value}, but the memory holds sequence "
    "{seq} up to position {wanted} (not included): decode from there, or remove what is behind",
}


def fault(report: Any) -> InvalidBatchError:
    """Return the error for what ``pyllama_decode`` found wrong with a batch.

    Parameters
    ----------
    report
        Its ``pyllama_batch_report``, with a fault.

    Returns
    -------
    InvalidBatchError
        The message names the token.
    """
    message = _MESSAGES[report.fault].format(
        index=report.index, value=report.value, wanted=report.wanted, seq=report.seq
    )
    return InvalidBatchError(-1, message)


def require_embd(batch: Batch, width: int, sections: int) -> None:
    """Raise unless the embeddings of *batch* can stand for its tokens.

    Parameters
    ----------
    batch
        Has embeddings.
    width
        What the model takes.
    sections
        Positions of each embedding.

    Raises
    ------
    InvalidBatchError
        If it has tokens as well, of which libllama would take only these, or the shapes are others.
    """
    if batch.token is not None:
        message = (
            "tokens and embd together are for a context made with ctx_type='mtp'; this one takes "
            "either"
        )
        raise InvalidBatchError(-1, message)
    _require_rows(batch, width)
    if batch.pos.size != sections * batch.n_tokens:
        shape = "(n_tokens,)" if sections == 1 else f"({sections}, n_tokens)"
        message = f"embeddings of this model need pos of shape {shape}"
        raise InvalidBatchError(-1, message)


def require_both(batch: Batch, width: int) -> None:
    """Raise unless *batch* holds tokens, and the hidden states that belong to them.

    Parameters
    ----------
    batch
        Any.
    width
        Of the model's hidden state.

    Raises
    ------
    InvalidBatchError
        If one of the two is missing (libllama would compute with what is left from before), or
        the width is another.
    """
    if batch.token is None or batch.embd is None:
        message = (
            "a context with ctx_type='mtp' predicts from each token and the hidden state that the "
            "model had there: give tokens and embd"
        )
        raise InvalidBatchError(-1, message)
    _require_rows(batch, width)


def _require_rows(batch: Batch, width: int) -> None:
    embd = batch.embd
    if embd is None or embd.shape[1] != width:
        columns = 0 if embd is None else embd.shape[1]
        message = f"embd has {columns} columns, but this model takes {width}"
        raise InvalidBatchError(-1, message)
    if not np.isfinite(embd).all():  # written to since the batch was made
        message = "embd holds a value that is not finite"
        raise InvalidBatchError(-1, message)
