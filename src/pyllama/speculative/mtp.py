"""Drafts from a model's own multi-token-prediction head, fed with its hidden states."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.batch import Batch
from pyllama.core.context import Context
from pyllama.errors import UnsupportedError
from pyllama.prefill import n_shared
from pyllama.speculative.context_drafter import ContextDrafter
from pyllama.speculative.drafter import n_wanted, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.float32]

# The state behind the last norm, with a row for each token (src/models/qwen35.cpp:208). Both the
# model's graph and the head's have it; llama.h has no function that returns it.
STATE = "h_nextn"


class MTPDraft(ContextDrafter):
    """Guess with a head that was trained to predict a token further.

    Parameters
    ----------
    context
        Of the head: ``model.context(ctx_type="mtp")``, of the model itself loaded with
        ``load_mtp=True``, or of the file that holds the head alone. It is not closed.
    p_min
        Stop where the likeliest token has a probability below this.
    seq
        The sequence of its memory to use.

    Raises
    ------
    TypeError, ValueError
        If *context* is none of a head, *p_min* no probability, or *seq* no sequence.
    UnsupportedError
        If the model has several heads: llama.h cannot choose one (llama-ext.h:101 can).

    Notes
    -----
    The head sees each token with the state that the model had at the one before. Tokens that the
    model did not decode in this run, because its memory held them, have no states: the head does
    not see them, and guesses less well.
    """

    def __init__(self, context: Context, *, p_min: float = 0.0, seq: int = 0) -> None:
        if not isinstance(context, Context) or not context._is_mtp:
            message = f"MTPDraft needs a context made with ctx_type='mtp', not {context!r:.80}"
            raise TypeError(message)
        if context.model.n_layer_nextn > 1:
            message = f"this model has {context.model.n_layer_nextn} heads; one alone can be used"
            raise UnsupportedError(message)
        _require_hooks(context)
        super().__init__(context, p_min=p_min, seq=seq)
        self._first = 0  # the position of the first token that the head's memory holds
        self._tokens: list[int] = []
        self._start = 0  # the position of the first state
        self._states: Rows = np.zeros((0, context.model.n_embd_out), np.float32)

    def _check(self, context: Context) -> None:
        _require_hooks(context)
        model, head = context.model, self._context.model
        for name in ("architecture", "n_embd_out"):
            one, other = getattr(model, name), getattr(head, name)
            if one != other:
                message = f"this head does not belong to the model: {name} {other}, not {one}"
                raise ValueError(message)

    @contextmanager
    def watching(self, context: Context, start: int | None) -> Iterator[None]:
        """Keep the states that a context computes; see `Drafter.watching`.

        Parameters
        ----------
        context, start
            As for `Drafter.watching`.

        Yields
        ------
        None
        """
        require(Context, "context", context)
        with context.observe(STATE) as seen:
            yield
        self._states = _rows(seen, self._states.shape[1])
        self._start = start or 0

    def _begin(self, ids: list[int]) -> None:
        # The last ones: of some models the graph has states for the tokens with output only.
        self._states = self._states[-len(ids) :]
        self._start = len(ids) - len(self._states)
        held = self._tokens
        most = max(0, min(len(held), len(ids) - self._first))
        self._cut(n_shared(held, ids[self._first :], most))

    def draft(self, ids: Sequence[int], n: int) -> list[int]:
        """Guess the next tokens; see `Drafter.draft`.

        Parameters
        ----------
        ids, n
            As for `Drafter.draft`.

        Returns
        -------
        list of int
            Empty where the head's context is full, or has not seen the last states.
        """
        context = self._context
        last = len(ids) - 1
        n = min(n_wanted("n", n), context.n_ctx_seq - last)
        if n <= 0 or not self._start < last <= self._start + len(self._states):
            return []
        if not self._start < self._first + len(self._tokens) <= last:  # there is a gap
            self._cut(0)
            self._first = self._start + 1 if self._start else 0
        try:
            row, state = self._see(ids)
            return self._go_on(row, state, last + 1, n)
        finally:
            context.memory.remove(self._seq, last + 1)

    def _see(self, ids: Sequence[int]) -> tuple[Rows, Rows]:
        """Decode the tokens that the head has not seen, each with the state before it."""
        begin = self._first + len(self._tokens)
        states = self._states[: len(ids) - 1 - self._start]  # without those of wrong guesses
        if begin == 0:  # there is none before the first
            states = np.concatenate([np.zeros_like(states[:1]), states])
        else:
            states = states[begin - 1 - self._start :]
        tokens = list(ids[begin:])
        size = int(self._context._limits.n_tokens)
        for i in range(0, len(tokens), size):
            part = tokens[i : i + size]
            row, state = self._step(part, states[i : i + size], begin + i)
            self._tokens.extend(part)
        return row, state

    def _go_on(self, row: Rows, state: Rows, pos: int, n: int) -> list[int]:
        """Return the guesses, each made from the one before and the head's own state there."""
        drafted: list[int] = []
        while (token := self._likely(row)) is not None:
            drafted.append(token)
            if len(drafted) == n:
                break
            row, state = self._step([token], state[None], pos)
            pos += 1
        return drafted

    def _step(self, tokens: list[int], states: Rows, pos: int) -> tuple[Rows, Rows]:
        """Decode, and return the last row of logits and the head's state there."""
        context = self._context
        batch = Batch(tokens, embd=states, pos=pos, seq_id=self._seq)
        with context.observe(STATE) as seen:
            context._decode_by(self._deadline, batch)
        return context.logits()[-1], _rows(seen, states.shape[1])[-1]

    def _cut(self, n: int) -> None:
        """Keep the first *n* tokens in the head's memory."""
        del self._tokens[n:]
        if n:
            self._context.memory.remove(self._seq, self._first + n)
        else:
            self._context.memory.remove(self._seq)
            self._first = 0


def _require_hooks(context: Context) -> None:
    if context._trampoline is None:
        message = "MTPDraft reads hidden states: both contexts must be made with hooks=True"
        raise UnsupportedError(message)


def _rows(seen: list[tuple[Any, NDArray[Any]]], width: int) -> Rows:
    """Return all states that were seen, in order."""
    rows = [array.reshape(-1, width) for _, array in seen]
    return np.concatenate(rows) if rows else np.zeros((0, width), np.float32)
