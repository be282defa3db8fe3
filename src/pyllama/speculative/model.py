"""Drafts from a smaller model with the same vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from pyllama.core.batch import Batch
from pyllama.core.context import Context
from pyllama.core.deadline import Deadline
from pyllama.core.params import real, whole
from pyllama.errors import UnsupportedError
from pyllama.prefill import one_by_one, prefill
from pyllama.speculative.drafter import Drafter, n_wanted, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pyllama.core.model import Model

SPECIAL = ("type", "bos", "eos", "eot")


class DraftModel(Drafter):
    """Guess what a smaller model finds likeliest.

    Parameters
    ----------
    context
        Of the smaller model, whose vocabulary must be that of the larger one. What its memory
        holds is reused, and it is not closed.
    p_min
        Stop where the likeliest token has a probability below this.
    seq
        The sequence of its memory to use.

    Raises
    ------
    TypeError, ValueError
        If *p_min* is no probability, or *seq* no sequence of the context.
    UnsupportedError
        If the context has a recurrent memory: every guess would decode the whole text again.
    """

    def __init__(self, context: Context, *, p_min: float = 0.6, seq: int = 0) -> None:
        if not isinstance(context, Context):
            message = f"a DraftModel needs a Context of the smaller model, not {context!r:.80}"
            raise TypeError(message)
        if context._whole_sequences:
            message = "this model has a recurrent memory: it cannot take its guesses back"
            raise UnsupportedError(message)
        self._context = context
        self._p_min = probability("p_min", p_min)
        self._seq = whole(0, context.n_seq_max - 1)("seq", seq)
        self._deadline: Deadline | None = None
        self._step = Batch([0], seq_id=self._seq, output="all")
        self._fits: WeakSet[Model] = WeakSet()

    @property
    def context(self) -> Context:
        """The context of the smaller model."""
        return self._context

    def check(self, context: Context) -> None:
        """Raise if the vocabularies differ; see `Drafter.check`.

        Parameters
        ----------
        context
            As for `Drafter.check`.

        Raises
        ------
        ValueError
            If they do, with the first difference; or if it is the drafting context itself.
        """
        require(Context, "context", context)
        if context is self._context:
            message = "the draft model needs a context of its own, not the one it drafts for"
            raise ValueError(message)
        if context.model not in self._fits:
            require_same_vocab(context.model, self._context.model)
            self._fits.add(context.model)

    def begin(self, ids: Sequence[int], deadline: Deadline | None = None) -> None:
        """Decode the prompt; see `Drafter.begin`.

        Parameters
        ----------
        ids, deadline
            As for `Drafter.begin`.
        """
        if deadline is not None:
            require(Deadline, "deadline", deadline)
        self._deadline = deadline
        self._context._forget_abort()
        if len(ids) <= self._context.n_ctx_seq:
            prefill(self._context, list(ids), self._seq, deadline)

    def draft(self, ids: Sequence[int], n: int) -> list[int]:
        """Guess the next tokens; see `Drafter.draft`.

        Parameters
        ----------
        ids, n
            As for `Drafter.draft`.

        Returns
        -------
        list of int
            Empty where the smaller model's context is full.
        """
        context, seq, deadline = self._context, self._seq, self._deadline
        n = min(n_wanted("n", n), context.n_ctx_seq - len(ids) + 1)
        if n <= 0:
            return []
        held, _ = prefill(context, list(ids), seq, deadline)
        decode, step = one_by_one(context, held, seq, n, deadline), self._step
        drafted: list[int] = []
        token = decode(None, self._likeliest)
        while token is not None:
            drafted.append(token)
            if len(drafted) == n:
                break
            step.token[0] = token  # type: ignore[index]
            step.pos[0] = len(held.tokens)
            held.tokens.append(token)
            token = decode(step, self._likeliest)
        return drafted

    def _likeliest(self, row: NDArray[np.float32]) -> int | None:
        """Return the likeliest token, or None if it is not likely enough."""
        return likeliest(row, self._p_min)

    def abort(self) -> None:
        """Stop what another thread computes in the context; see `Drafter.abort`."""
        self._context.abort()


def probability(name: str, value: float) -> float:
    """Return *value* if it is a probability.

    Parameters
    ----------
    name
        What the caller calls it, for the message.
    value
        0 to 1.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if real(0)(name, value) > 1:
        message = f"{name}={value} is no probability: it must be between 0 and 1"
        raise ValueError(message)
    return float(value)


def likeliest(row: NDArray[np.float32], p_min: float) -> int | None:
    """Return the likeliest token, if it is likely enough.

    Parameters
    ----------
    row
        Logits, shape ``(n_vocab,)``.
    p_min
        The least probability.

    Returns
    -------
    int or None
    """
    token = int(row.argmax())
    if p_min:
        p = 1 / float(np.exp(row - row[token]).sum())
        return token if p >= p_min else None
    return token


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
