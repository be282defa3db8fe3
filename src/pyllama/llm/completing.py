"""The part of `LLM` that continues a text."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np

from pyllama.core import sampler as samplers
from pyllama.core.params import flag
from pyllama.llm.loading import Loading
from pyllama.llm.options import SamplingFields
from pyllama.llm.run import Run
from pyllama.text.guidance import Guidance
from pyllama.text.sampling import SamplingParams
from pyllama.text.schema import grammar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Unpack

    from pyllama.choose import LogitsProcessor
    from pyllama.llm.loading import Adapters
    from pyllama.llm.options import CompleteOptions
    from pyllama.llm.results import Completion, Part
    from pyllama.text.constrained import Constraint


class Completing(Loading):
    """Continue texts and token sequences."""

    @overload
    def complete(
        self,
        prompt: str | bytes | ArrayLike,
        *,
        stream: Literal[False] = False,
        **options: Unpack[CompleteOptions],
    ) -> Completion: ...
    @overload
    def complete(
        self,
        prompt: str | bytes | ArrayLike,
        *,
        stream: Literal[True],
        **options: Unpack[CompleteOptions],
    ) -> Iterator[Part]: ...
    def complete(
        self,
        prompt: str | bytes | ArrayLike,
        *,
        stream: bool = False,
        **options: Unpack[CompleteOptions],
    ) -> Completion | Iterator[Part]:
        """Continue a text.

        Parameters
        ----------
        prompt
            Text, of which nothing is parsed for special tokens, or token ids.
        stream
            Whether to return the parts as they come, instead of the whole at the end.
        max_tokens : int
            Most tokens to generate; left out, until the model ends or the context is full.
        stop : sequence of str
            Strings that end the text; they are not part of it.
        schema : optional
            What the text must look like: a JSON schema as a dict, a dataclass, a pydantic model, a
            compiled regular expression, or a list of choices.
        grammar : str
            The same as a GBNF grammar; one of the two.
        guidance : bool
            Whether llguidance (extra ``[guidance]``) follows the schema: see `pyllama.Guidance`.
        sampling : SamplingParams
            How to choose tokens; or its fields one by one (``temperature=0.2, seed=1``).
        logprobs : int
            Tell the log-probability of each token, and so many of the likeliest besides.
        logits_processor : sequence of functions
            ``f(input_ids, scores) -> scores``, before the samplers, as for `generate.tokens`.
        callback : function
            Called with each `Part`; if it returns False the text ends there.
        lora : mapping
            Adapters, or their files, with their scales, for this call.
        control_vector : array
            As for `Context.set_control_vector`, for this call.
        draft : bool
            Whether to let tokens be guessed ahead, where the `LLM` was made with ``draft``.
        n_keep, ignore_eog, timeout
            As for `generate.tokens`.
        **options
            These options, and the fields of `SamplingParams`.

        Returns
        -------
        Completion, or iterator of Part
            Closing the iterator stops the generation.

        Raises
        ------
        TypeError, ValueError
            If an option is unknown or wrong; nothing was computed.
        IndexError
            If the prompt holds an id that is no token.
        StateError
            If no model is loaded.
        BusyError
            If another call is running. A stream says so when its first part is asked for; it has
            ended then, and another call makes a new one.
        ContextLengthError
            If prompt and ``max_tokens`` do not fit into the context.
        GrammarError
            If the grammar or schema does not parse, or the vocabulary cannot spell what it wants.
        UnsupportedError
            If the model only embeds texts, or has an encoder.
        LlamaError
            As `generate.tokens`.
        """
        self._require("complete", "it embeds texts, or needs another text for its encoder first")
        parts = self._parts(self._ids(prompt), **options)
        return parts if flag("stream", stream) else whole(parts)

    def infill(
        self, prefix: str, suffix: str, *, stream: bool = False, **options: Unpack[CompleteOptions]
    ) -> Completion | Iterator[Part]:
        """Write what stands between two texts.

        Parameters
        ----------
        prefix, suffix
            What stands before and after.
        stream, **options
            As for `complete`.

        Returns
        -------
        Completion, or iterator of Part

        Raises
        ------
        UnsupportedError
            If the model has no tokens for it.
        LlamaError
            As `complete`.
        """
        self._require("infill", "its vocabulary has no tokens for prefix and suffix")
        vocab = self.model.vocab
        parts = [
            [vocab.bos] if vocab.add_bos and vocab.bos is not None else [],
            [vocab.fim_pre],
            vocab.tokenize(prefix, add_special=False),
            [vocab.fim_suf],
            vocab.tokenize(suffix, add_special=False),
            [vocab.fim_mid] if vocab.fim_mid is not None else [],
        ]
        ids = np.concatenate([np.asarray(part, np.int32) for part in parts]).tolist()
        made = self._parts(ids, **options)
        return made if flag("stream", stream) else whole(made)

    def tokenize(self, text: str | bytes, *, add_special: bool = True) -> NDArray[np.int32]:
        """Return the tokens of a text, of which nothing is parsed for special tokens.

        Parameters
        ----------
        text
            Text, or UTF-8 bytes.
        add_special
            Whether to add the tokens that begin and end a sequence.

        Returns
        -------
        ndarray of int32, shape (n,)

        Raises
        ------
        TokenizeError
            If the vocabulary cannot tokenize it.
        """
        return self.model.vocab.tokenize(text, add_special=add_special)

    def detokenize(self, tokens: ArrayLike) -> str:
        """Return the text of some tokens.

        Parameters
        ----------
        tokens
            Ids, shape ``(n,)``.

        Returns
        -------
        str

        Raises
        ------
        IndexError
            If there is no such token.
        """
        return self.model.vocab.detokenize(tokens)

    def _ids(self, prompt: str | bytes | ArrayLike) -> list[int]:
        if isinstance(prompt, (str, bytes)):
            return cast("list[int]", self.tokenize(prompt).tolist())
        return cast("list[int]", self.model.vocab._ids(prompt).tolist())

    def _parts(
        self,
        ids: list[int],
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        schema: Any = None,
        guidance: bool = False,
        constraint: Constraint | None = None,
        visible: Sequence[int] = (),
        sampling: SamplingParams | None = None,
        logprobs: int | None = None,
        logits_processor: Sequence[LogitsProcessor] = (),
        callback: Callable[[Part], object] | None = None,
        lora: Adapters | None = None,
        control_vector: ArrayLike | None = None,
        draft: bool = True,
        n_keep: int | None = None,
        ignore_eog: bool = False,
        timeout: float | None = None,
        **fields: Any,
    ) -> Generator[Part, None, None]:
        """Return the parts of a generation; what is wrong with the options shows at once."""
        loop: dict[str, Any] = {"n_keep": n_keep, "ignore_eog": ignore_eog, "timeout": timeout}
        if flag("draft", draft) and self._drafter is not None:
            loop |= {"draft": self._drafter, "n_draft": self._n_draft}
        run = Run(
            context=self.context,
            ids=ids,
            params=self._params(sampling, fields),
            grammar=constraint or self._constraint(grammar, schema, guidance=guidance),
            visible=visible,
            stop=stop,
            max_tokens=max_tokens,
            logprobs=logprobs,
            logits_processor=logits_processor,
            callback=callback,
            cancelled=self._cancelled,
            loop=loop,
        )
        parts = self._running_parts(run, lora, control_vector)
        self._streams.add(parts)
        return parts

    def _running_parts(
        self, run: Run, lora: Adapters | None, control_vector: ArrayLike | None
    ) -> Generator[Part, None, None]:
        with self._run_alone():
            self._cancelled.clear()
            self.context._forget_abort()
            self._adapt(lora, control_vector)
            run.loop["decode_prompt"] = partial(self._cache.prefill, key=self._cache_key())
            yield from run.parts()

    def _params(self, sampling: SamplingParams | None, fields: dict[str, Any]) -> SamplingParams:
        if unknown := sorted(fields.keys() - SamplingFields.__annotations__.keys()):
            message = f"unknown option(s): {', '.join(unknown)}"
            raise TypeError(message)
        if sampling is None:
            return SamplingParams.of(self.model, **fields)
        return dataclasses.replace(sampling, **fields) if fields else sampling

    def _constraint(
        self, grammar: str | None, schema: Any, *, guidance: bool = False
    ) -> Constraint | None:
        """Return what lets only come what was asked for."""
        if grammar is not None and schema is not None:
            message = "give a schema or a grammar, not both"
            raise ValueError(message)
        if flag("guidance", guidance):
            if schema is None:
                raise ValueError("guidance=True follows a schema: give one")
            return Guidance(self.model.vocab, schema)
        if schema is not None:
            grammar = grammar_of(schema)
        return None if grammar is None else samplers.grammar(self.model.vocab, grammar)


def whole(parts: Iterator[Part]) -> Completion:
    """Return what the last of some parts holds."""
    *_, last = parts
    return cast("Completion", last.completion)
