"""Chunks: a prompt with images or sounds in it, cut into the pieces that are decoded in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.params import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyllama.core.media.projector import Projector

KINDS = {
    lib.MTMD_INPUT_CHUNK_TYPE_TEXT: "text",
    lib.MTMD_INPUT_CHUNK_TYPE_IMAGE: "image",
    lib.MTMD_INPUT_CHUNK_TYPE_AUDIO: "audio",
}
MAX_POS = 2**31 - 1


class Chunk:
    """A piece of a prompt; `Chunks` gives it.

    Parameters
    ----------
    chunks
        Whose piece it is; it lives as long as they do.
    index
        Which one.

    Raises
    ------
    TypeError
        If *chunks* are none.
    IndexError
        If there is no such piece.

    Calls: mtmd_input_chunks_get, mtmd_input_chunk_get_type, mtmd_input_chunk_get_n_tokens,
    mtmd_input_chunk_get_n_pos, mtmd_input_chunk_get_id, mtmd_input_chunk_get_tokens_text
    """

    __slots__ = ("_chunks", "_index", "id", "kind", "n_pos", "n_tokens", "tokens")

    kind: str
    """What it is: "text", "image" or "audio"."""
    n_tokens: int
    """Tokens, or rows of embeddings, that it takes in the memory."""
    n_pos: int
    """Positions by which what follows is further on; M-RoPE models give an image few."""
    id: str | None
    """The `Bitmap.id` of what it was made from; None of a text."""
    tokens: NDArray[np.int32] | None
    """The tokens of a text, int32, shape ``(n_tokens,)``; None of an image or a sound."""

    def __init__(self, chunks: Chunks, index: int) -> None:
        if not isinstance(chunks, Chunks):
            message = f"a Chunk is a part of Chunks, not of {chunks!r:.80}"
            raise TypeError(message)
        # Beyond the end C gives NULL, and reads from it (tools/mtmd/mtmd.cpp:2312).
        index = range(len(chunks))[index]
        self._chunks, self._index = chunks, index
        with chunks._call as pointer:
            chunk = lib.mtmd_input_chunks_get(pointer, index)
            self.kind = KINDS[lib.mtmd_input_chunk_get_type(chunk)]
            self.n_tokens = int(lib.mtmd_input_chunk_get_n_tokens(chunk))
            self.n_pos = int(lib.mtmd_input_chunk_get_n_pos(chunk))
            name = lib.mtmd_input_chunk_get_id(chunk)
            self.id = None if name == ffi.NULL else ffi.string(name).decode()
            self.tokens = _tokens(chunk) if self.kind == "text" else None

    def positions(self, pos: int = 0) -> NDArray[np.int32]:
        """Return where in a sequence its tokens stand.

        Parameters
        ----------
        pos
            Position of the first.

        Returns
        -------
        ndarray of int32, shape (n_tokens,), or (4, n_tokens)
            Four sections for the embeddings of an M-RoPE model: time, row and column of an image,
            and one unused; what `Batch` takes.

        Raises
        ------
        TypeError, ValueError
            If *pos* is no position, or the last token would be beyond 2**31.

        Calls: mtmd_input_chunk_get_tokens_image, mtmd_helper_image_get_decoder_pos
        """
        pos = int(whole(0, MAX_POS - max(self.n_tokens, self.n_pos))("pos", pos))
        line = np.arange(pos, pos + self.n_tokens, dtype=np.int32)
        if self.kind == "text" or not self._chunks.projector.uses_mrope:
            return line
        if self.kind == "audio":
            return np.tile(line, (4, 1))
        with self._chunks._call as pointer:
            image = lib.mtmd_input_chunk_get_tokens_image(self._pointer(pointer))
            places = np.empty((self.n_tokens, 4), np.uint32)
            memory = ffi.from_buffer("struct mtmd_decoder_pos[]", places)
            lib.mtmd_helper_image_get_decoder_pos(image, pos, memory)
        # C has time, x, y, z; the sections are time, y, x, z (tools/mtmd/mtmd-helper-common.h:102).
        return np.ascontiguousarray(places[:, [0, 2, 1, 3]].T.astype(np.int32))

    def _pointer(self, chunks_pointer: Any) -> Any:
        return lib.mtmd_input_chunks_get(chunks_pointer, self._index)

    def __repr__(self) -> str:
        return f"<Chunk: {self.kind}, {self.n_tokens} tokens>"


class Chunks(Handle, Sequence[Chunk]):
    """The pieces of a prompt, in order; `Projector.tokenize` makes them.

    Parameters
    ----------
    pointer
        An ``mtmd_input_chunks *``.
    projector
        Which made them.
    is_placeholder
        Whether one of the bitmaps was a placeholder: such chunks count tokens only.

    Raises
    ------
    TypeError
        If they are made of anything else.

    Notes
    -----
    They hold the prepared images and sounds, and are closed with the projector.

    Calls: mtmd_input_chunks_size, mtmd_input_chunks_free
    """

    def __init__(self, pointer: Any, projector: Projector, *, is_placeholder: bool) -> None:
        if not isinstance(pointer, ffi.CData) or not isinstance(projector, Handle):
            message = "Chunks are made by Projector.tokenize"
            raise TypeError(message)
        super().__init__(pointer, lib.mtmd_input_chunks_free, projector, shared=True)
        self.projector = projector
        self.is_placeholder = is_placeholder

    def __len__(self) -> int:
        with self._call as pointer:
            return int(lib.mtmd_input_chunks_size(pointer))

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Chunk, ...]: ...
    def __getitem__(self, index: int | slice) -> Chunk | tuple[Chunk, ...]:
        places = range(len(self))[index]  # IndexError and TypeError as for a list
        if isinstance(places, range):
            return tuple(Chunk(self, each) for each in places)
        return Chunk(self, places)

    @property
    def n_tokens(self) -> int:
        """Tokens and embeddings of all chunks: what they take in the memory.

        Calls: mtmd_helper_get_n_tokens
        """
        with self._call as pointer:
            return int(lib.mtmd_helper_get_n_tokens(pointer))

    @property
    def n_pos(self) -> int:
        """Positions of all chunks.

        Calls: mtmd_helper_get_n_pos
        """
        with self._call as pointer:
            return int(lib.mtmd_helper_get_n_pos(pointer))

    def __repr__(self) -> str:
        what = "closed" if self.closed else ", ".join(f"{c.kind} {c.n_tokens}" for c in self)
        return f"<Chunks: {what}>"


def _tokens(chunk: Any) -> NDArray[np.int32]:
    count = ffi.new("size_t *")
    tokens = lib.mtmd_input_chunk_get_tokens_text(chunk, count)
    return np.frombuffer(ffi.buffer(tokens, 4 * count[0]), np.int32).copy()
