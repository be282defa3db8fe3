"""Encoding: the half of a projector that computes embeddings of prepared images and sounds."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core import log
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.media.chunks import Chunk
from pyllama.errors import LibraryAbortError, LibraryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# libmtmd catches what is thrown, a failed assertion too, and logs it: "file.cpp:12: GGML_ASSERT".
_ASSERTION = re.compile(r"\.(?:c|cpp|h|hpp|cu|m):\d+: ")


class Encoder(Handle):
    """The part of `Projector` that computes."""

    _n_embd: int

    def encode(self, chunk: Chunk) -> NDArray[np.float32]:
        """Return the embeddings of an image or a sound.

        Parameters
        ----------
        chunk
            Of an image or a sound, from this projector's `tokenize`.

        Returns
        -------
        ndarray of float32, shape (n_tokens, n_embd)
            A copy; what `Batch` takes as ``embd``.

        Raises
        ------
        TypeError
            If it is no chunk.
        ValueError
            If it is text, a placeholder's, or of another projector.
        LibraryError
            If libllama cannot encode it.

        Calls: mtmd_encode_chunk, mtmd_get_output_embd
        """
        self._require_media(chunk)
        with self._call as pointer, chunk._chunks._call as chunks:
            since = log.mark()
            if lib.mtmd_encode_chunk(pointer, chunk._pointer(chunks)):
                raise failure(LibraryError, f"the {chunk.kind} cannot be encoded", since)
            return self._rows(lib.mtmd_get_output_embd(pointer), chunk.n_tokens)

    def encode_all(self, chunks: Iterable[Chunk]) -> list[NDArray[np.float32]]:
        """Return the embeddings of several images or sounds, computed together where that works.

        Parameters
        ----------
        chunks
            Of images or sounds, from this projector's `tokenize`.

        Returns
        -------
        list of ndarray of float32, each of shape (n_tokens, n_embd)
            In the order of *chunks*.

        Raises
        ------
        TypeError, ValueError, LibraryError
            As for `encode`.

        Notes
        -----
        Images of one size are computed together, up to ``batch_max_tokens``, by the projectors
        that libllama can batch; others one after another.

        Calls: mtmd_batch_init, mtmd_batch_add_chunk, mtmd_batch_encode,
        mtmd_batch_get_output_embd, mtmd_batch_free
        """
        waiting = list(chunks)
        for chunk in waiting:
            self._require_media(chunk)
        results: list[NDArray[np.float32]] = []
        with ExitStack() as stack, self._call as pointer:
            owners = {id(chunk._chunks): chunk._chunks for chunk in waiting}
            lent = {key: stack.enter_context(owner._call) for key, owner in owners.items()}
            pairs = [(chunk._pointer(lent[id(chunk._chunks)]), chunk.n_tokens) for chunk in waiting]
            while pairs:
                results += (rows := self._encode_some(pointer, pairs))
                del pairs[: len(rows)]
        return results

    def _encode_some(self, pointer: Any, pairs: list[tuple[Any, int]]) -> list[NDArray[np.float32]]:
        """Encode as many chunks, from the first, as go into one batch."""
        batch = ffi.gc(lib.mtmd_batch_init(pointer), lib.mtmd_batch_free)
        taken: list[tuple[Any, int]] = []
        for chunk, n_tokens in pairs:
            # Twice the same one would be found once: the output is looked up by its address.
            if chunk in (each for each, _ in taken) or lib.mtmd_batch_add_chunk(batch, chunk):
                break
            taken.append((chunk, n_tokens))
        since = log.mark()
        if not taken or lib.mtmd_batch_encode(batch):
            raise failure(LibraryError, "the chunks cannot be encoded", since)
        return [self._rows(lib.mtmd_batch_get_output_embd(batch, c), n) for c, n in taken]

    def _rows(self, memory: Any, n_tokens: int) -> NDArray[np.float32]:
        data = ffi.buffer(memory, 4 * n_tokens * self._n_embd)
        return np.frombuffer(data, np.float32).reshape(n_tokens, self._n_embd).copy()

    def _require_own(self, chunk: Chunk) -> None:
        if not isinstance(chunk, Chunk):
            message = f"a Chunk is needed, not {chunk!r:.80}: tokenize() gives them"
            raise TypeError(message)
        if chunk._chunks.projector is not self:
            message = "the chunk was made by another projector: tokenize with this one"
            raise ValueError(message)

    def _require_media(self, chunk: Chunk) -> None:
        self._require_own(chunk)
        if chunk.kind == "text":
            message = "a chunk of text has tokens, and nothing to encode"
            raise ValueError(message)
        if chunk._chunks.is_placeholder:
            message = "these chunks were made with a placeholder: they count tokens only"
            raise ValueError(message)


def failure(kind: type[Exception], message: str, since: int) -> Exception:
    """Return the error for a call into libmtmd that failed.

    Parameters
    ----------
    kind
        Of the error, if no assertion failed.
    message
        What failed.
    since
        The `log.mark` before the call: what was logged after it is quoted.

    Returns
    -------
    Exception
    """
    words = log.complaints(since)
    if any(_ASSERTION.search(line) for line in words):
        kind = LibraryAbortError  # poisons the projector: it may have stored half of its work
    return kind("\n  ".join([message, *words]))
