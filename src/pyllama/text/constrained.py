"""Choosing among the tokens that a grammar allows, at the price of one token where it can be."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pyllama.core.sampler import Candidates, Sampler
from pyllama.core.sampler.candidates import check_row, likeliest
from pyllama.errors import GrammarError, SamplingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Row = NDArray[np.float32]


class Constraint(Protocol):
    """What allows some tokens and no others: a grammar sampler, or a `Guidance`."""

    def accept(self, token: int) -> None:
        """Go on by a token, or raise GrammarError and stay."""

    def apply(self, candidates: Candidates) -> object:
        """Give -inf to the tokens that may not come."""


class Constrained:
    """A function of a row of logits that returns a token which a grammar allows.

    Parameters
    ----------
    grammar
        A grammar sampler, or a `Guidance`; it is told every token chosen.
    chain
        What chooses; None takes the likeliest token.

    Notes
    -----
    Looking through a whole vocabulary costs a grammar milliseconds. So the chain chooses freely
    first, and only if the grammar refuses that token does it choose again from the allowed ones.
    The probabilities are those of choosing from the allowed tokens at once, as far as the chain
    itself rules none out.
    """

    def __init__(self, grammar: Constraint, chain: Sampler | None = None) -> None:
        if not all(callable(getattr(grammar, name, None)) for name in ("accept", "apply")):
            message = f"a grammar sampler or a Guidance is needed, not {grammar!r:.80}"
            raise TypeError(message)
        if not isinstance(chain, (Sampler, NoneType)):
            message = f"chain must be a Sampler or None, not {chain!r:.80}"
            raise TypeError(message)
        self._grammar = grammar
        self._chain = chain
        self._candidates: Candidates | None = None
        # A Guidance can tell at once what it allows, without going through candidates.
        self._mask: Callable[[], NDArray[np.bool_]] | None = getattr(grammar, "mask", None)

    def __call__(self, row: Row) -> int:
        """Choose the next token and accept it.

        Parameters
        ----------
        row
            The logits that predict it, float32, shape ``(n_vocab,)``.

        Returns
        -------
        int
            A token id.

        Raises
        ------
        GrammarError
            If the grammar allows no token, or only such as the logits rule out.
        SamplingError
            If a logit is NaN or +inf.
        TypeError, ValueError
            If *row* is no row of float32 numbers.
        """
        check_row(row)
        token = self._choose(row)
        try:
            self._grammar.accept(token)
        except GrammarError:
            token = self._choose(self._allowed(row))
            self._grammar.accept(token)
        if self._chain is not None:
            self._chain.accept(token)
        return token

    def _choose(self, row: Row) -> int:
        if self._chain is not None:
            return self._chain.sample(row, accept=False)
        return likeliest(row)

    def _allowed(self, row: Row) -> Row:
        """Return *row* with -inf wherever the grammar allows no token."""
        if self._mask is not None:
            return self._possible(np.where(self._mask(), row, np.float32("-inf")))
        if self._candidates is None:
            self._candidates = Candidates(row)
        else:
            self._candidates.fill(row)
        try:
            self._grammar.apply(self._candidates)
        except SamplingError as error:
            raise GrammarError(str(error)) from error
        return self._possible(self._candidates.data["logit"].copy())

    @staticmethod
    def _possible(allowed: Row) -> Row:
        if float(allowed.max()) == float("-inf"):
            message = "the grammar allows none of the tokens of this vocabulary here"
            raise GrammarError(message)
        return allowed
