"""The bytes that tokens stand for, read out of C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.core.library import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable


def read_pieces(
    model_pointer: Any,
    tokens: Iterable[int],
    *,
    special: bool,
    lstrip: int = 0,
) -> list[bytes]:
    """Return the piece of each token.

    Parameters
    ----------
    model_pointer
        A ``llama_model *``, inside a call on it.
    tokens
        Ids that are in the vocabulary.
    special
        Whether control and unknown tokens give their text.
    lstrip
        How many spaces at most to leave out at the front of each.

    Returns
    -------
    list of bytes

    Calls: llama_model_get_vocab, llama_token_to_piece
    """
    vocab = lib.llama_model_get_vocab(model_pointer)
    read = lib.llama_token_to_piece
    size = 256
    text = ffi.new("char[]", size)
    memory = ffi.buffer(text)
    pieces = []
    for token in tokens:
        n = read(vocab, token, text, size, lstrip, special)
        if n < 0:  # the bytes it needs
            size = -n
            text = ffi.new("char[]", size)
            memory = ffi.buffer(text)
            n = read(vocab, token, text, size, lstrip, special)
        pieces.append(memory[:n])
    return pieces
