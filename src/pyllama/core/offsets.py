"""Where each token lies in the text it was made from, by laying the tokens' pieces along it.

Nothing is assumed to fit: every byte of every piece is compared with the text, so that a span is
either exact or refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ESCAPED_SPACE = "\u2581".encode()  # what SentencePiece writes for a space
_SPACE = re.compile(rb"[ \t\n\v\f\r]*")  # isspace() of the C locale


class Spelling(NamedTuple):
    """How a vocabulary writes text down in its tokens.

    Parameters
    ----------
    adds_space
        Whether a space is put before each stretch of ordinary text (SentencePiece does).
    unescapes
        Whether a U+2581 in the text comes back as a space.
    """

    adds_space: bool
    unescapes: bool


def align(
    text: bytes, pieces: Sequence[bytes], special: NDArray[np.bool_], spelling: Spelling
) -> NDArray[np.int32]:
    """Find the bytes of *text* that each piece stands for.

    Parameters
    ----------
    text
        What was tokenized.
    pieces
        The bytes of each token, without those that `Vocab.tokenize` added around the text.
    special : ndarray of bool, shape (n_tokens,)
        Which tokens may have been cut out of the text before the rest was tokenized: those have
        their own text as piece, and may have swallowed the white space beside them.
    spelling
        How the vocabulary writes text down.

    Returns
    -------
    ndarray of int32, shape (n_tokens, 2)
        Byte offsets into *text*, half-open.

    Raises
    ------
    UnsupportedError
        If the pieces do not spell the text.
    """
    marks = np.empty(0, np.int64)
    if spelling.unescapes and ESCAPED_SPACE in text:
        found = [match.start() for match in re.finditer(ESCAPED_SPACE, text)]
        marks = np.array(found) - 2 * np.arange(len(found))  # where they are once shortened
        text = text.replace(ESCAPED_SPACE, b" ")
        pieces = [piece.replace(ESCAPED_SPACE, b" ") for piece in pieces]
    spans = _lay(text, pieces, np.flatnonzero(special).tolist(), int(spelling.adds_space))
    spans += 2 * np.searchsorted(marks, spans)
    return spans.astype(np.int32)


def _lay(
    text: bytes, pieces: Sequence[bytes], special: Sequence[int], added: int
) -> NDArray[np.int64]:
    """Lay the special pieces, and the stretches of ordinary ones between them, along the text."""
    spans = np.empty((len(pieces), 2), np.int64)
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    place = first = 0
    for index in (*special, len(pieces)):
        if first < index:
            spelled = b"".join(pieces[first:index])
            if spelled[:added] != b" " * added:
                raise _not_spelled(place)
            place = _find(text, spelled[added:], place, may_skip=first > 0)
            ends = place - added + np.cumsum(sizes[first:index])
            spans[first:index, 0] = np.maximum(ends - sizes[first:index], place)
            spans[first:index, 1] = ends
            place = int(ends[-1])
        if index < len(pieces):
            place = _find(text, pieces[index], place, may_skip=True)
            spans[index] = place, place + sizes[index]
            place += int(sizes[index])
        first = index + 1
    if text[place:].strip() or (place < len(text) and len(pieces) - 1 not in special):
        raise _not_spelled(place)
    return spans


def _find(text: bytes, piece: bytes, place: int, *, may_skip: bool) -> int:
    """Return where *piece* is: at *place*, or behind white space that a special token swallowed."""
    if text.startswith(piece, place):
        return place
    behind = _SPACE.match(text, place)
    if may_skip and behind is not None and text.startswith(piece, behind.end()):
        return behind.end()
    raise _not_spelled(place)


def _not_spelled(place: int) -> UnsupportedError:
    return UnsupportedError(
        f"from byte {place} on the tokens do not spell the text: this vocabulary changes text "
        "before it tokenizes, so they have no offsets in it"
    )
