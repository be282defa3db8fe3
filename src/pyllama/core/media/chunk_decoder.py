"""Decoding chunks: text as tokens, images and sounds as embeddings, into one sequence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyllama.core.batch import Batch
from pyllama.core.context import Context
from pyllama.core.library import lib
from pyllama.core.media.chunks import MAX_POS
from pyllama.core.params import whole
from pyllama.errors import ClosedError, InvalidBatchError, StateError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyllama.core.media.chunks import Chunk
    from pyllama.core.media.projector import Projector


def decode_chunks(
    projector: Projector,
    context: Context,
    chunks: Iterable[Chunk],
    *,
    pos: int,
    seq: int,
    output: str,
) -> int:
    """Decode chunks; see `Projector.decode`.

    Parameters
    ----------
    projector, context, chunks, pos, seq, output
        As there.

    Returns
    -------
    int
        The position behind the last token.
    """
    waiting = _checked(projector, context, chunks, output)
    seq = int(whole(0, context.n_seq_max - 1)("seq", seq))
    n_pos = sum(chunk.n_pos for chunk in waiting)
    start = int(whole(0, MAX_POS - sum(chunk.n_tokens for chunk in waiting))("pos", pos))
    stored = False  # whether any of it is in the memory
    try:
        for index, chunk in enumerate(waiting):
            last = output == "last" and index == len(waiting) - 1
            with _causality(projector, context, chunk):
                for batch in _batches(projector, context, chunk, pos, seq, last=last):
                    context.decode(batch)
                    stored = True
            pos += chunk.n_pos
    except BaseException:
        if stored:
            _take_back(context, seq, start)
        raise
    context._edited(seq)  # holds what no list of tokens tells
    return start + n_pos


def _checked(
    projector: Projector, context: Context, chunks: Iterable[Chunk], output: str
) -> list[Chunk]:
    """Return the chunks as a list; raise for what is wrong before anything is computed."""
    if not isinstance(context, Context):
        message = f"chunks are decoded into a Context, not into {context!r:.80}"
        raise TypeError(message)
    if context.model is not projector.model:
        message = "the context is of another model than the projector: make one of its model"
        raise ValueError(message)
    if output not in ("last", "none"):
        message = f"output={output!r:.80} is not one of: last, none"
        raise ValueError(message)
    if not context._has_memory or context._has_encoder:
        message = "this model is no decoder: it cannot read images or sounds"
        raise UnsupportedError(message)
    waiting = list(chunks)
    if not waiting:
        message = "there are no chunks to decode"
        raise ValueError(message)
    for chunk in waiting:
        projector._require_own(chunk)
        if chunk.kind != "text":
            projector._require_media(chunk)
        if _whole(projector, chunk) and chunk.n_tokens > context.n_ubatch:
            message = (
                f"this model reads an image at once: {chunk.n_tokens} tokens, but this context "
                f"has n_ubatch={context.n_ubatch}: make it with a larger one"
            )
            raise InvalidBatchError(-1, message)
    return waiting


def _whole(projector: Projector, chunk: Chunk) -> bool:
    """Whether each token of a chunk sees all others, so that they are decoded in one go."""
    if chunk.kind == "text":
        return False
    with projector._call as pointer, chunk._chunks._call as chunks:
        return bool(lib.mtmd_decode_use_non_causal(pointer, chunk._pointer(chunks)))


@contextmanager
def _causality(projector: Projector, context: Context, chunk: Chunk) -> Iterator[None]:
    """Switch the causal mask off where the model wants that for a chunk."""
    if not _whole(projector, chunk) or not context.causal_attn:
        yield
        return
    context.set_causal_attn(False)
    try:
        yield
    finally:
        if context._record.usable:
            context.set_causal_attn(True)


def _batches(
    projector: Projector, context: Context, chunk: Chunk, pos: int, seq: int, *, last: bool
) -> Iterator[Batch]:
    """Yield a chunk in batches that the context can take."""
    embd = None if chunk.kind == "text" else projector.encode(chunk)
    places = chunk.positions(pos)
    step = context._limits.n_tokens
    for start in range(0, chunk.n_tokens, step):
        part = slice(start, start + step)
        final = last and start + step >= chunk.n_tokens
        yield Batch(
            None if chunk.tokens is None else chunk.tokens[part],
            embd=None if embd is None else embd[part],
            pos=places[..., part],
            seq_id=seq,
            output="last" if final else "none",
        )


def _take_back(context: Context, seq: int, start: int) -> None:
    """Remove what was stored; of a memory that cannot be cut, the sequence."""
    try:
        context.memory.remove(seq, start)
    except UnsupportedError:
        context.memory.remove(seq)
    except (ClosedError, StateError):  # there is nothing left to put right
        pass
