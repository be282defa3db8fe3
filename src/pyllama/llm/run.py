"""One generation: the loop, with what an application wants of it around."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pyllama import generate, speculative
from pyllama.core.deadline import Deadline
from pyllama.core.params import flag, function, functions, whole
from pyllama.core.sampler import Sampler
from pyllama.core.sampler.candidates import likeliest
from pyllama.errors import AbortedError
from pyllama.generate import Report
from pyllama.llm.results import Completion, Part, Usage
from pyllama.text.constrained import Constrained
from pyllama.text.logprobs import Recorder
from pyllama.text.sampling import SamplingParams
from pyllama.text.stream import TextStream

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterator, Sequence

    from pyllama.choose import Chooser, LogitsProcessor
    from pyllama.core.context import Context
    from pyllama.llm.results import FinishReason
    from pyllama.text.constrained import Constraint
    from pyllama.text.logprobs import TokenLogprob


@dataclass(kw_only=True)
class Run:
    """What to generate, from what, and when to end.

    Attributes
    ----------
    context : Context
    ids : list of int
        The prompt.
    params : SamplingParams
    grammar : Sampler, Guidance or None
        Only what it allows is generated.
    stop : sequence of str
        Strings that end the text.
    max_tokens : int or None
        Most tokens to generate; None goes on until the context is full.
    logprobs : int or None
        How many likeliest tokens to tell at each position; None tells nothing.
    logits_processor : sequence of functions
        As for `generate.tokens`.
    callback : function or None
        Called with each part; if it returns False the run ends.
    cancelled : threading.Event
        Set from another thread to end the run.
    visible : sequence of int
        Special tokens whose text belongs to the text generated.
    loop : mapping
        Further options of `generate.tokens`, or with ``draft`` of `speculative.tokens`.
    """

    context: Context
    ids: list[int]
    params: SamplingParams
    grammar: Constraint | None = None
    stop: Sequence[str] = ()
    max_tokens: int | None = None
    logprobs: int | None = None
    logits_processor: Sequence[LogitsProcessor] = ()
    callback: Callable[[Part], object] | None = None
    cancelled: threading.Event
    visible: Sequence[int] = ()
    loop: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the sampler, so that what is wrong shows before the first token."""
        if self.max_tokens is not None:
            whole(0, 2**31 - 1)("max_tokens", self.max_tokens)
        functions("logits_processor", self.logits_processor)
        function("callback", self.callback)
        flag("ignore_eog", self.loop.get("ignore_eog", False))
        Deadline.after(self.loop.get("timeout"))
        if not isinstance(self.params, SamplingParams):
            message = f"sampling must be SamplingParams, not {self.params!r:.60}"
            raise TypeError(message)
        self.params = self.params.seeded()
        self._text = TextStream(self.stop)
        self._recorder: Recorder | None = None
        self._choose = self._chooser()

    def _chooser(self) -> Sampler | Chooser | None:
        """Return what chooses the tokens."""
        model = self.context.model
        sampler = self.params.sampler(model, self.ids)
        chosen: Sampler | Chooser | None = sampler
        if self.grammar is not None:
            chosen = Constrained(self.grammar, sampler)
        if self.logprobs is not None:
            sample = chosen.sample if isinstance(chosen, Sampler) else chosen
            pieces = model.vocab.piece_table(special=True)
            chosen = self._recorder = Recorder(sample or likeliest, self.logprobs, pieces)
        return chosen

    def parts(self) -> Iterator[Part]:
        """Generate.

        Yields
        ------
        Part
            The last one holds the whole.

        Raises
        ------
        LlamaError
            As `generate.tokens`.
        """
        report = Report()
        texts: list[str] = []
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        text, recorder, callback = self._text, self._recorder, self.callback
        push, pieces = text.push, self._pieces()
        try:
            with closing(self._source(report)) as source:
                for token in source:
                    logprob = None
                    if recorder is not None:
                        logprobs.append(logprob := recorder.last)
                    part = Part(push(pieces[token]), token, logprob)
                    texts.append(part.text)
                    tokens.append(token)
                    if callback is not None and callback(part) is False:
                        self.cancelled.set()
                    if text.stopped_by is not None:
                        report.finish_reason = "stop"
                    yield part
                    if text.stopped_by is not None or self.cancelled.is_set():
                        break
        except AbortedError:
            if not self.cancelled.is_set():  # somebody else's abort()
                raise
        texts.append(text.finish())
        last = self._last(report, "".join(texts), tuple(tokens), texts[-1], tuple(logprobs))
        if callback is not None:
            callback(last)
        yield last

    def _pieces(self) -> Sequence[bytes]:
        """Return the bytes that each token adds to the text."""
        vocab = self.context.model.vocab
        if not self.visible:
            return vocab.piece_table()
        pieces = list(vocab.piece_table())
        for token in self.visible:
            pieces[token] = vocab.piece(token, special=True)
        return pieces

    def _source(self, report: Report) -> Generator[int, None, None]:
        loop = speculative.tokens if "draft" in self.loop else generate.tokens
        return loop(
            self.context,
            self.ids,
            sampler=self._choose,
            logits_processor=self.logits_processor,
            max_tokens=self.max_tokens,
            report=report,
            **self.loop,
        )

    def _last(
        self,
        report: Report,
        text: str,
        tokens: tuple[int, ...],
        rest: str,
        logprobs: tuple[TokenLogprob, ...],
    ) -> Part:
        reason = cast("FinishReason", report.finish_reason or "cancelled")
        completion = Completion(
            text=text,
            tokens=tokens,
            finish_reason=reason,
            stopped_by=self._text.stopped_by,
            usage=Usage(len(self.ids), len(tokens), report.n_reused),
            timings=report,
            seed=cast("int", self.params.seed),
            logprobs=None if self.logprobs is None else logprobs,
        )
        return Part(rest, finish_reason=reason, completion=completion)
