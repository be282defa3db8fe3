"""The log-probability of each token generated, and of those it was chosen over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyllama.core.params import whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Row = NDArray[np.float32]


class TopLogprob(NamedTuple):
    """One of the likeliest tokens at a position.

    Attributes
    ----------
    token : int
        Its id.
    bytes : bytes
        The text it stands for; often not whole characters.
    logprob : float
        Nats.
    """

    token: int
    bytes: bytes
    logprob: float


class TokenLogprob(NamedTuple):
    """How probable a generated token was.

    Attributes
    ----------
    token : int
        Its id.
    bytes : bytes
        The text it stands for; often not whole characters.
    logprob : float
        Nats, under the model's own distribution: before temperature and samplers, after
        ``logits_processor``.
    top : tuple of TopLogprob
        The likeliest tokens, most probable first.
    """

    token: int
    bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...]


class Recorder:
    """A function that chooses as another does, and keeps how probable the token was.

    Parameters
    ----------
    choose
        A function of a row of logits.
    n_top
        How many of the likeliest tokens to keep besides, at most the vocabulary.
    pieces
        The bytes of each token of the vocabulary.

    Raises
    ------
    TypeError, ValueError
        If *n_top* is no number of tokens.

    Attributes
    ----------
    last : TokenLogprob
        Of the token chosen last.
    """

    last: TokenLogprob

    def __init__(self, choose: Callable[[Row], int], n_top: int, pieces: tuple[bytes, ...]) -> None:
        self._choose = choose
        self._n_top = whole(0, len(pieces))("logprobs", n_top)
        self._pieces = pieces

    def __call__(self, row: Row) -> int:
        """Choose, and keep the log-probabilities.

        Parameters
        ----------
        row
            Logits, float32, shape ``(n_vocab,)``.

        Returns
        -------
        int
            What the other function returned.
        """
        token = self._choose(row)
        wide = row.astype(np.float64)
        peak = wide.max()
        total = peak + np.log(np.exp(wide - peak).sum())
        best = likeliest(row, self._n_top)
        pieces = self._pieces
        self.last = TokenLogprob(
            token,
            pieces[token],
            float(wide[token] - total),
            tuple(TopLogprob(i, pieces[i], float(wide[i] - total)) for i in best.tolist()),
        )
        return token


def likeliest(row: Row, n: int) -> NDArray[np.intp]:
    """Return the *n* likeliest tokens.

    Parameters
    ----------
    row
        Logits, shape ``(n_vocab,)``.
    n
        How many, at most ``n_vocab``.

    Returns
    -------
    ndarray of intp, shape (n,)
        Token ids, most probable first; of equals the first.
    """
    if n == 0:
        return np.zeros(0, np.intp)
    least = -np.partition(-row, n - 1)[n - 1]
    found = np.flatnonzero(row >= least)  # more than n where several are equal to the last
    return found[np.argsort(-row[found], kind="stable")][:n]
