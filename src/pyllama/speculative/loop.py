"""The loop of `generate.tokens`, with tokens decoded ahead that a drafter has guessed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from pyllama import generate
from pyllama.core.batch import Batch, int32
from pyllama.errors import NoSlotError, UnsupportedError
from pyllama.prefill import one_by_one, prefill
from pyllama.speculative.drafter import Drafter, n_wanted, require

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np
    from numpy.typing import NDArray

    from pyllama.choose import Decode
    from pyllama.core.context import Context
    from pyllama.core.deadline import Deadline
    from pyllama.generate import Prefill, Prompt, Report
    from pyllama.prefill import Held

    T = TypeVar("T")
    Row = NDArray[np.float32]

N_DRAFT = 4


def tokens(
    context: Context,
    prompt: Prompt,
    *,
    draft: Drafter,
    n_draft: int = N_DRAFT,
    decode_prompt: Prefill = prefill,
    report: Report | None = None,
    **options: Any,
) -> Generator[int, None, None]:
    """Generate token ids as `generate.tokens` does, and decode several at a time.

    Parameters
    ----------
    context
        As for `generate.tokens`.
    prompt
        As for `generate.tokens`.
    draft
        What guesses.
    n_draft
        Most tokens to guess at a time. Fewer are after wrong guesses, and where ``max_tokens``,
        the context, its micro-batch or its snapshots (``n_rs_seq``) leave no more room.
    decode_prompt
        As for `generate.tokens`.
    report
        As for `generate.tokens`; it counts the tokens guessed, and those that were right.
    **options
        The other options of `generate.tokens`.

    Yields
    ------
    int
        A token id.

    Raises
    ------
    TypeError, ValueError
        If *draft* is no drafter or does not fit the model, or if it guesses what is no token, or
        too many.
    UnsupportedError
        If the memory cannot go back: a recurrent one, in a context without ``n_rs_seq``.
    LlamaError
        As `generate.tokens`.

    Notes
    -----
    Each token is chosen by the caller's own sampler from the model's own logits, when it is asked
    for; a guess that is not what was chosen is removed from the memory. So the text is the same,
    and sampled texts have the same distribution, up to the rounding of logits: a batch of several
    tokens is not computed in the same order as one. While the generator is suspended the memory
    may hold guesses behind the tokens yielded.
    """
    run = _Run(context, draft, n_draft, generate._begin(context, report), decode_prompt)
    try:
        yield from generate.tokens(
            context,
            prompt,
            decode_prompt=run.prefill,
            decode_steps=run.steps,
            report=run.report,
            **options,
        )
    finally:
        run.end()


class _Run:
    """One generation: which guesses stand in the memory, and the rows they gave."""

    def __init__(
        self, context: Context, draft: Drafter, n_draft: int, report: Report, decode_prompt: Prefill
    ) -> None:
        require(Drafter, "draft", draft)
        self._n_most = min(n_wanted("n_draft", n_draft), room_to_go_back(context))
        draft.check(context)
        self.report = report
        self._context, self._draft, self._decode_prompt = context, draft, decode_prompt
        self._n_left = 0
        self._n_now = self._n_most  # how many to guess, as the last guesses were
        self._n_guessed = 0
        self._guesses: deque[int] = deque()  # in the memory, and not chosen yet
        self._rows: deque[Row] = deque()  # for each of them, the row behind it
        self._edits = -1

    def prefill(
        self, context: Context, ids: list[int], seq: int, deadline: Deadline | None = None
    ) -> tuple[Held, int]:
        """Decode the prompt, see `generate.tokens`."""
        with self._draft.watching(context, None):
            held, n_reused = self._decode_prompt(context, ids, seq, deadline)
        self._draft.begin(ids, deadline)
        return held, n_reused

    def steps(
        self, context: Context, held: Held, seq: int, limit: int, deadline: Deadline | None = None
    ) -> Decode:
        """Return what decodes, see `generate.tokens`."""
        self._held, self._run_number, self._seq, self._n_left = held, held.run, seq, limit
        self._deadline = deadline
        self._decode_one = one_by_one(context, held, seq, limit, deadline)
        return self._decode

    def _decode(self, step: Batch | None, function: Callable[[Row], T]) -> T:
        self._n_left -= 1
        if step is None:
            return self._decode_one(None, function)  # type: ignore[no-any-return]
        token, pos = int(step.token[0]), int(step.pos[0])  # type: ignore[index]
        # What was computed ahead counts no more once somebody has changed adapters or the memory.
        valid = self._context._edits[self._seq] == self._edits
        if valid and self._guesses and self._guesses[0] == token:
            if self._deadline is not None:
                self._deadline.require("the next token")
            self._guesses.popleft()
            self.report.n_accepted += 1
            return function(self._rows.popleft())
        self._adapt()
        self._take_back(pos)
        row = self._decode_ahead(token, pos)
        if row is not None:
            return function(row)
        with self._draft.watching(self._context, pos):
            return self._decode_one(step, function)  # type: ignore[no-any-return]

    def _adapt(self) -> None:
        """Guess more after guesses that were all right, and fewer after a wrong one."""
        n_wrong = len(self._guesses)
        if n_wrong:
            self._n_now = self._n_guessed - n_wrong + 1
        elif self._n_guessed:
            self._n_now = min(self._n_now + 2, self._n_most)
        self._n_guessed = 0

    def _decode_ahead(self, token: int, pos: int) -> Row | None:
        """Decode *token* with guesses behind it; None if there are none."""
        context, seq = self._context, self._seq
        # The last token of all is chosen and not decoded.
        n = min(self._n_now, self._n_left, context.n_ctx_seq - pos - 1)
        guesses = self._guess(n) if n > 0 else []
        if not guesses:
            return None
        batch = Batch([token, *guesses], pos=pos, seq_id=seq, output="all")
        try:
            with self._draft.watching(context, pos):
                context._decode_by(self._deadline, batch)
        except NoSlotError:  # other sequences fill the memory: one token may still fit
            return None
        self._guesses.extend(guesses)
        self._n_guessed = len(guesses)
        self._edits = context._edits[seq]
        self.report.n_drafted += len(guesses)
        first, *rows = context.logits()
        self._rows.extend(rows)
        return first  # type: ignore[no-any-return]

    def _guess(self, n: int) -> list[int]:
        """Return what the drafter guesses; raise if that is not up to *n* tokens."""
        guesses: list[int] = int32("the draft", self._draft.draft(self._held.tokens, n), 1).tolist()
        if len(guesses) > n:
            message = f"the draft has {len(guesses)} tokens, and {n} at most were asked for"
            raise ValueError(message)
        n_vocab = self._context.n_vocab
        if not all(0 <= guess < n_vocab for guess in guesses):
            message = f"the draft is {guesses}, but the vocabulary has {n_vocab} tokens"
            raise ValueError(message)
        return guesses

    def _take_back(self, pos: int) -> None:
        """Remove the guesses that were not chosen, from *pos* on."""
        if not self._guesses:
            return
        self._guesses.clear()
        self._rows.clear()
        context, seq, held = self._context, self._seq, self._held
        known = held.edits == context._edits[seq]
        context.memory.remove(seq, pos)
        if known:  # what is left is what the tokens say
            held.edits = context._edits[seq]

    def end(self) -> None:
        """Leave the memory as the tokens yielded would have."""
        if not self._guesses or self._context.closed:
            return
        # Somebody else's by now?
        if self._held.run == self._run_number and self._context._edits[self._seq] == self._edits:
            self._take_back(len(self._held.tokens))


def room_to_go_back(context: Context) -> int:
    """Return how many tokens can be decoded ahead and removed again.

    Parameters
    ----------
    context
        Where they would be decoded.

    Returns
    -------
    int

    Raises
    ------
    UnsupportedError
        If its memory cannot go back.
    """
    # All in one micro-batch: a sliding window forgets only what the first of them cannot see.
    n = min(context.n_batch, context.n_ubatch, int(context._limits.n_outputs)) - 1
    if not context._whole_sequences:
        return n
    if not context.n_rs_seq:
        message = (
            "a recurrent memory cannot take guesses back by itself: make the context with "
            "n_rs_seq, the tokens to guess at a time (not every architecture has it)"
        )
        raise UnsupportedError(message)
    return min(n, context.n_rs_seq)
