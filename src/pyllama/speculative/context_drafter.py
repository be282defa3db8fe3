"""What drafters have in common that compute their guesses in a context of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from pyllama.core.context import Context
from pyllama.core.deadline import Deadline
from pyllama.core.params import real, whole
from pyllama.speculative.drafter import Drafter, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pyllama.core.model import Model

SPECIAL = ("type", "bos", "eos", "eot")


class ContextDrafter(Drafter):
    """Guess with a second context, which is not closed; for the arguments see `DraftModel`."""

    def __init__(self, context: Context, *, p_min: float, seq: int) -> None:
        self._context = context
        self._p_min = real(0, 1)("p_min", p_min)
        self._seq = whole(0, context.n_seq_max - 1)("seq", seq)
        self._deadline: Deadline | None = None
        self._fits: WeakSet[Model] = WeakSet()

    @property
    def context(self) -> Context:
        """Where it guesses."""
        return self._context

    def check(self, context: Context) -> None:
        """Raise if it cannot guess for a context; see `Drafter.check`.

        Parameters
        ----------
        context
            As for `Drafter.check`.

        Raises
        ------
        ValueError
            If the two do not belong together, with the first difference.
        UnsupportedError
            If the context lacks what the drafter needs.
        """
        require(Context, "context", context)
        self._check(context)
        if context.model not in self._fits:
            require_same_vocab(context.model, self._context.model)
            self._fits.add(context.model)

    @abstractmethod
    def _check(self, context: Context) -> None:
        """Raise if the two do not belong together for another reason than the vocabulary."""

    def begin(self, ids: Sequence[int], deadline: Deadline | None = None) -> None:
        """Take note of a prompt and of the time there is; see `Drafter.begin`.

        Parameters
        ----------
        ids, deadline
            As for `Drafter.begin`.
        """
        if deadline is not None:
            require(Deadline, "deadline", deadline)
        self._deadline = deadline
        self._context._forget_abort()
        self._begin(list(ids))

    @abstractmethod
    def _begin(self, ids: list[int]) -> None:
        """Make the memory ready for a prompt."""

    def _likely(self, row: NDArray[np.float32]) -> int | None:
        """Return the likeliest token, or None if it is not likely enough."""
        token = int(row.argmax())
        if self._p_min and 1 / float(np.exp(row - row[token]).sum()) < self._p_min:
            return None
        return token

    def abort(self) -> None:
        """Stop what another thread computes in the context; see `Drafter.abort`."""
        self._context.abort()


def require_same_vocab(model: Model, other: Model) -> None:
    """Raise unless a token means the same in two models.

    Parameters
    ----------
    model, other
        The larger and the smaller one.

    Raises
    ------
    ValueError
        With the first difference.
    """
    if model is other:
        return
    one, two = model.vocab, other.vocab
    if model.n_vocab != other.n_vocab:
        message = f"{model.n_vocab} tokens, and the draft model {other.n_vocab}"
        raise ValueError(f"the vocabularies differ: the model has {message}")
    for name in SPECIAL:
        if getattr(one, name) != getattr(two, name):
            message = f"{name} is {getattr(one, name)!r}, and {getattr(two, name)!r} in the draft"
            raise ValueError(f"the vocabularies differ: {message} model")
    pieces, others = one.piece_table(special=True), two.piece_table(special=True)
    if pieces != others:
        token = next(i for i in range(model.n_vocab) if pieces[i] != others[i])
        message = f"token {token} is {pieces[token]!r}, and {others[token]!r} in the draft model"
        raise ValueError(f"the vocabularies differ: {message}")
