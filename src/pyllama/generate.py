"""The loop: decode the prompt, choose a token, decode it, and again.

Three steps, each thin over the one before: `tokens` yields token ids, `stream` adds text, and
`generate` gives the whole text at once. This is the file to read to see how generation works.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyllama.choose import advancer
from pyllama.core.batch import Batch, int32
from pyllama.core.context import Context
from pyllama.core.deadline import Deadline
from pyllama.core.params import flag, functions, whole
from pyllama.errors import AbortedError, ContextLengthError, StateError, UnsupportedError
from pyllama.prefill import batches, one_by_one, prefill, shift
from pyllama.text.stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from pyllama.choose import Chooser, Decode, LogitsProcessor
    from pyllama.core.sampler import Sampler
    from pyllama.prefill import Held

    Prompt = str | bytes | ArrayLike
    Prefill = Callable[[Context, list[int], int, Deadline | None], tuple[Held, int]]
    Steps = Callable[[Context, Held, int, int, Deadline | None], Decode]


@dataclass
class Report:
    """What a run of the loop did; complete when the loop has ended.

    Attributes
    ----------
    n_prompt, n_reused, n_generated : int
        Tokens of the prompt, those of them that the memory held already, and tokens generated.
    n_drafted, n_accepted : int
        Tokens that were guessed and decoded ahead, and those of them that the text went on with.
    prompt_seconds, generation_seconds : float
        Time to decode the prompt, and from then on without the caller's own.
    finish_reason : str or None
        "stop" (the model ended, or a stop string came), "length" (``max_tokens``, or the context
        is full), "cancelled" (the caller left, or called abort), "error"; None while it runs.
    """

    n_prompt: int = 0
    n_reused: int = 0
    n_generated: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    finish_reason: str | None = None

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens decoded per second; those reused do not count."""
        return (self.n_prompt - self.n_reused) / (self.prompt_seconds or float("inf"))

    @property
    def generation_per_second(self) -> float:
        """Tokens generated per second."""
        return self.n_generated / (self.generation_seconds or float("inf"))


class Piece(NamedTuple):
    """A part of a generated text.

    Attributes
    ----------
    text : str
        Whole characters; may be empty, while a character or a stop string may still go on.
    token : int or None
        The token it came with; None in the last piece, which holds what was still held back.
    finish_reason : str or None
        Set in the last piece: "stop" or "length".
    timings : Report or None
        Set in the last piece.
    """

    text: str
    token: int | None = None
    finish_reason: str | None = None
    timings: Report | None = None


@dataclass(frozen=True)
class Generation:
    """A generated text.

    Attributes
    ----------
    text : str
    tokens : tuple of int
        Those generated, without the token that ended it.
    finish_reason : str
        "stop" or "length".
    timings : Report
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    timings: Report


def tokens(
    context: Context,
    prompt: Prompt,
    *,
    sampler: Sampler | Chooser | None = None,
    logits_processor: Sequence[LogitsProcessor] = (),
    max_tokens: int | None = None,
    n_keep: int | None = None,
    ignore_eog: bool = False,
    seq: int = 0,
    timeout: float | None = None,
    decode_prompt: Prefill = prefill,
    decode_steps: Steps = one_by_one,
    report: Report | None = None,
) -> Generator[int, None, None]:
    """Generate token ids until the model ends its text.

    Parameters
    ----------
    context
        Where to decode. What the memory holds of this prompt from an earlier run is reused.
    prompt
        Text (tokenized with special tokens added, none parsed), or token ids, shape ``(n,)``.
    sampler
        A native `Sampler` or chain; or any function of a row of logits, float32 ``(n_vocab,)``,
        that returns a token id; None takes the likeliest token.
    logits_processor
        Functions ``f(input_ids, scores) -> scores`` applied in turn before the sampler:
        ``input_ids`` int32 ``(n,)``, all tokens so far; ``scores`` float32 ``(n_vocab,)``, theirs
        to change.
    max_tokens
        Most tokens to generate; None goes on until the model ends or the context is full.
    n_keep
        When the context is full, keep this many tokens at the beginning, drop half of the others
        and go on; None does not shift.
    ignore_eog
        Go on after tokens that end a text.
    seq
        The sequence of the memory to use.
    timeout
        Seconds that the whole run may take, the caller's own included; None sets no limit.
    decode_prompt
        What decodes the prompt: `prefill`, or `PromptCache.prefill`.
    decode_steps
        What makes the function that decodes each token; see `speculative.tokens`.
    report
        Filled in; complete when the loop has ended.

    Yields
    ------
    int
        A token id. The one that ends the text is not yielded.

    Raises
    ------
    ContextLengthError
        If prompt and ``max_tokens`` do not fit into the context; nothing was decoded.
    SamplingError
        If the logits are NaN, rule out every token, or a Python sampler returned no token id.
    UnsupportedError
        If ``n_keep`` is given and the memory cannot shift.
    DecodeError
        As `Context.decode`.
    TimeoutError
        If the time was not enough; the tokens yielded until then stay decoded, but the last.
    StateError
        If another run was started on the same sequence meanwhile.

    Notes
    -----
    A token is decoded when the next one is asked for.
    """
    report = _begin(context, report)
    report.finish_reason, n_generated, spent = None, 0, 0.0
    try:
        deadline = Deadline.after(timeout)
        ids = _token_ids(context, prompt, deadline)
        limit = _room(context, len(ids), max_tokens, n_keep)
        functions("logits_processor", logits_processor)
        eog = frozenset() if flag("ignore_eog", ignore_eog) else context.model.vocab.eog_tokens
        clock = time.perf_counter
        begin = clock()
        held, report.n_reused = decode_prompt(context, ids, seq, deadline)
        report.n_prompt = len(ids)
        decode = decode_steps(context, held, seq, limit, deadline)
        advance = advancer(decode, context.n_vocab, sampler, logits_processor, held.tokens)
        resumed = clock()
        report.prompt_seconds = resumed - begin

        step = Batch([0], seq_id=seq, output="all")
        cell, position, run = step._token, step.pos, held.run
        n_past, n_ctx = len(ids), context.n_ctx_seq
        token = advance(None) if limit else 0
        while n_generated < limit:
            if token in eog:
                report.finish_reason = "stop"
                return
            n_generated += 1
            spent += clock() - resumed
            yield token
            resumed = clock()
            if held.run != run:
                message = f"another run has taken sequence {seq} over: give each its own seq"
                raise StateError(message, expected=f"run {run}", actual=f"run {held.run}")
            if n_generated < limit:
                if n_past == n_ctx:
                    n_past = shift(context, seq, n_keep or 0, held)
                cell[0] = token  # type: ignore[index]
                position[0] = n_past
                n_past += 1
                held.tokens.append(token)
                token = advance(step)
        report.finish_reason = "length"
    except BaseException as error:
        if report.finish_reason is None:
            left = isinstance(error, (GeneratorExit, AbortedError))
            report.finish_reason = "cancelled" if left else "error"
        raise
    finally:
        report.n_generated = n_generated
        report.generation_seconds = spent


def stream(
    context: Context,
    prompt: Prompt,
    *,
    stop: Sequence[str] = (),
    report: Report | None = None,
    **options: Any,
) -> Iterator[Piece]:
    """Generate text, a piece for each token.

    Parameters
    ----------
    context
        As for `tokens`.
    prompt
        As for `tokens`.
    stop
        Strings that end the text; see `TextStream`. They are not part of it.
    report
        As for `tokens`.
    **options
        Those of `tokens`.

    Yields
    ------
    Piece
        Texts that concatenate to the whole. The last has a ``finish_reason`` and ``timings``.

    Raises
    ------
    TypeError, ValueError
        If *stop* is not a sequence of strings that are not empty.
    LlamaError
        As `tokens`.
    """
    report = _begin(context, report)
    text = TextStream(stop)
    pieces, push = context.model.vocab.piece_table(), text.push
    for token in tokens(context, prompt, report=report, **options):
        ready = push(pieces[token])
        if text.stopped_by is not None:
            report.finish_reason = "stop"
            yield Piece(ready, token)
            break
        yield Piece(ready, token)
    yield Piece(text.finish(), None, report.finish_reason, report)


def generate(context: Context, prompt: Prompt, **options: Any) -> Generation:
    """Generate a text and return it whole.

    Parameters
    ----------
    context
        As for `tokens`.
    prompt
        As for `tokens`.
    **options
        Those of `stream`.

    Returns
    -------
    Generation

    Raises
    ------
    LlamaError
        As `tokens`.
    """
    *pieces, last = stream(context, prompt, **options)
    return Generation(
        "".join(piece.text for piece in (*pieces, last)),
        tuple(piece.token for piece in pieces if piece.token is not None),
        last.finish_reason or "",
        last.timings or Report(),
    )


def prompt_logits(
    context: Context, prompt: Prompt, *, seq: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Decode a prompt and yield the logits at each of its positions, a batch at a time.

    Parameters
    ----------
    context
        Where to decode; the sequence is emptied first.
    prompt
        As for `tokens`.
    seq
        The sequence of the memory to use.

    Yields
    ------
    start : int
        The position of the first row.
    rows : ndarray of float32, shape (n, n_vocab), read-only
        ``rows[i]`` predicts the token at position ``start + i + 1``. A view: drop it before the
        next step, or take a copy.

    Raises
    ------
    ContextLengthError
        If the prompt does not fit into the context; nothing was decoded.
    DecodeError
        As `Context.decode`.
    """
    _begin(context, None)
    ids = _token_ids(context, prompt)
    _room(context, len(ids), 0, None)
    context.memory.remove(seq)
    for start, batch in batches(context, ids, 0, seq, output="all"):
        context.decode(batch)
        yield start, context.logits_view()


def _begin(context: Context, report: Report | None) -> Report:
    """Return the report to fill in; raise if one of the two is something else."""
    if not isinstance(context, Context):
        message = f"a Context is needed to generate, not {context!r:.80}: model.context()"
        raise TypeError(message)
    if report is None:
        return Report()
    if not isinstance(report, Report):
        message = f"report must be a generate.Report, not {report!r:.80}"
        raise TypeError(message)
    return report


def _token_ids(context: Context, prompt: Prompt, deadline: Deadline | None = None) -> list[int]:
    if isinstance(prompt, (str, bytes)):
        timeout = None if deadline is None else deadline.left
        ids = context.model.vocab.tokenize(prompt, timeout=timeout)
    else:
        ids = int32("prompt", prompt, 1)
    if not len(ids):
        message = "the prompt holds no tokens: there is nothing to predict from"
        raise ValueError(message)
    return [int(token) for token in ids.tolist()]


def _room(context: Context, n_prompt: int, max_tokens: int | None, n_keep: int | None) -> int:
    """Return how many tokens may be generated; raise if what was asked for does not fit."""
    n_ctx = context.n_ctx_seq
    wanted = 0 if max_tokens is None else whole(0, 2**31 - 1)("max_tokens", max_tokens)
    if n_keep is not None:
        whole(0, n_ctx - 2)("n_keep", n_keep)
        if not context.memory.can_shift:
            message = "n_keep shifts the context, and this memory cannot shift"
            raise UnsupportedError(message)
    # The last token generated is never decoded, so it takes no room.
    needed = n_prompt + (max(0, wanted - 1) if n_keep is None else 0)
    if needed > n_ctx:
        asked = "" if max_tokens is None else f" and max_tokens={wanted}"
        message = (
            f"{n_prompt} prompt tokens{asked} take {needed} of the {n_ctx} "
            "tokens that a sequence of this context has: shorten the prompt, make the context "
            "with a larger n_ctx, or give n_keep to shift"
        )
        raise ContextLengthError(message)
    if max_tokens is not None:
        return wanted
    return 2**31 if n_keep is not None else n_ctx - n_prompt + 1
