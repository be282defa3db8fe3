"""Choosing the next token: a native sampler, a Python function, or the likeliest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.params import whole
from pyllama.core.sampler import Sampler
from pyllama.core.sampler.candidates import likeliest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pyllama.core.batch import Batch

    Row = NDArray[np.float32]
    LogitsProcessor = Callable[[NDArray[np.int32], Row], Row]
    Chooser = Callable[[Row], int]
    # Decodes a batch, or nothing, and returns what the function makes of the last row of logits.
    Decode = Callable[[Batch | None, Callable[[Row], Any]], Any]


def advancer(
    decode: Decode,
    n_vocab: int,
    sampler: Sampler | Chooser | None,
    processors: Sequence[LogitsProcessor],
    ids: list[int],
) -> Callable[[Batch | None], int]:
    """Make the function that takes one step: decode, then pick a token.

    Parameters
    ----------
    decode
        What decodes a batch and hands over its last row.
    n_vocab
        Length of a row.
    sampler
        A native `Sampler` or chain, a function of a row of logits, or None for the likeliest.
    processors
        Functions ``f(input_ids, scores) -> scores`` applied in turn before the sampler.
    ids
        All tokens so far; whoever calls adds to it.

    Returns
    -------
    callable
        Takes the batch to decode, or None if the row is there already; returns a token id.

    Raises
    ------
    TypeError
        If *sampler* is none of these.
    """
    if sampler is not None and not isinstance(sampler, Sampler) and not callable(sampler):
        message = f"sampler must be a Sampler, a function or None, not {sampler!r}"
        raise TypeError(message)
    pick = (
        likeliest
        if sampler is None
        else sampler.sample
        if isinstance(sampler, Sampler)
        else _checked(sampler, n_vocab)
    )
    # Only code of our own may see libllama's memory itself: it keeps no row.
    own = sampler is None or getattr(type(sampler), "sample", 0) is Sampler.sample
    if own and not processors:
        return lambda step: decode(step, pick)

    def advance(step: Batch | None) -> int:
        row = decode(step, np.copy)
        for processor in processors:
            row = _scores(processor(np.array(ids, np.int32), row), row.shape)
        return pick(row)

    return advance


def _scores(row: Row, shape: tuple[int, ...]) -> Row:
    """Return what a logits processor gave back, or raise if it is no row of scores."""
    scores = np.asarray(row, np.float32)
    if scores.shape != shape:
        message = f"a logits processor returned the shape {scores.shape} instead of {shape}"
        raise ValueError(message)
    return scores


def _checked(sampler: Chooser, n_vocab: int) -> Chooser:
    """Return *sampler* with its answer looked at."""
    return lambda row: int(whole(0, n_vocab - 1)("the sampler's token", sampler(row)))
