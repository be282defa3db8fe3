"""Drafts from a smaller model with the same vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.core.batch import Batch
from pyllama.core.context import Context
from pyllama.errors import UnsupportedError
from pyllama.prefill import one_by_one, prefill
from pyllama.speculative.context_drafter import ContextDrafter
from pyllama.speculative.drafter import n_wanted, require

if TYPE_CHECKING:
    from collections.abc import Sequence


class DraftModel(ContextDrafter):
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
        require(Context, "context", context)
        if context._whole_sequences:
            message = "this model has a recurrent memory: it cannot take its guesses back"
            raise UnsupportedError(message)
        super().__init__(context, p_min=p_min, seq=seq)
        self._step = Batch([0], seq_id=self._seq, output="all")

    def _check(self, context: Context) -> None:
        if context is self._context:
            message = "the draft model needs a context of its own, not the one it drafts for"
            raise ValueError(message)

    def _begin(self, ids: list[int]) -> None:
        if len(ids) <= self._context.n_ctx_seq:
            prefill(self._context, ids, self._seq, self._deadline)

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
        token = decode(None, self._likely)
        while token is not None:
            drafted.append(token)
            if len(drafted) == n:
                break
            step.token[0] = token  # type: ignore[index]
            step.pos[0] = len(held.tokens)
            held.tokens.append(token)
            token = decode(step, self._likely)
        return drafted
