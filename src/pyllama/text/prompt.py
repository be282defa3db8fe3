"""A rendered chat: the text, its tokens, and what the reply to it has to look like."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.enums import TokenAttr
from pyllama.core.params import flag
from pyllama.core.sampler import grammar, grammar_lazy_patterns
from pyllama.core.vocab import Vocab
from pyllama.errors import StateError
from pyllama.text.calls import CallGrammar
from pyllama.text.reply import ReplyStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyllama.core.sampler import Sampler
    from pyllama.text.constrained import Constraint
    from pyllama.text.messages import Message

_C_SPACE = " \t\n\v\f\r"  # isspace()
_ECMASCRIPT = re.compile(r"[.^$|()*+?\[\]{}\\]")


@dataclass(frozen=True)
class Trigger:
    """What makes a lazy grammar begin.

    Attributes
    ----------
    type : str
        "word", "pattern" (searched in the reply), or "pattern_full" (matches the reply so far).
    value : str
        The word, or a regular expression in the ECMAScript dialect.
    """

    type: str
    value: str


@dataclass(frozen=True)
class Prompt:
    """What `ChatTemplate.render` gives.

    Attributes
    ----------
    text : str
        The whole prompt.
    pieces : tuple of (str, bool)
        The text in order, each piece with whether it is a special token that the template wrote.
        Text of the caller is never special, whatever it looks like.
    generation_prompt : str
        The end of the prompt, which begins the reply.
    grammar : str
        GBNF that the reply has to follow; empty if it is free.
    grammar_lazy : bool
        Whether it is to be followed only after one of the triggers.
    triggers : tuple of Trigger
        Of a lazy grammar.
    preserved_tokens : tuple of str
        Special tokens whose text belongs to the reply.
    stop : tuple of str
        Strings that end the reply, besides the model's own end tokens.
    format : str
        What llama.cpp calls the format of the reply.
    supports_thinking : bool
        Whether the template knows of reasoning.
    thinking_start_tag : str
        What reasoning begins with.
    thinking_end_tags : tuple of str
        What it may end with.
    media_marker : str
        What stands in the text for an image or a sound.
    media : tuple of dict
        The content parts that the markers stand for, in order.
    has_specials : bool
        Whether special tokens were told apart; a template without a model does not know them.
    details : dict
        What the parser of the reply needs.
    """

    text: str
    pieces: tuple[tuple[str, bool], ...]
    generation_prompt: str
    grammar: str
    grammar_lazy: bool
    triggers: tuple[Trigger, ...]
    preserved_tokens: tuple[str, ...]
    stop: tuple[str, ...]
    format: str
    supports_thinking: bool
    thinking_start_tag: str
    thinking_end_tags: tuple[str, ...]
    media_marker: str
    media: tuple[dict[str, Any], ...]
    has_specials: bool
    details: dict[str, Any] = field(repr=False)

    def tokens(self, vocab: Vocab) -> NDArray[np.int32]:
        """Turn the prompt into tokens: those of libllama, but for special tokens in user text.

        Parameters
        ----------
        vocab
            Of the model that the template was made for.

        Returns
        -------
        ndarray of int32, shape (n,)
            With BOS in front where the vocabulary adds it, once.

        Raises
        ------
        StateError
            If the template was made without its model's special tokens.
        TokenizeError, UnsupportedError, MemoryError
            As for `Vocab.tokenize`.

        Notes
        -----
        Text between two special tokens is tokenized in one piece, whoever wrote it, so words that
        cross from the template into a message are cut as the model knows them.

        Calls: llama_tokenize
        """
        if not self.has_specials:
            message = (
                "the template does not know which tokens are special, so text of a user could "
                "become one: make it with ChatTemplate.of(model)"
            )
            raise StateError(message)
        ids = special_tokens(vocab)
        parts: list[NDArray[np.int32]] = []
        strip_next = False
        for index, (text, special) in enumerate(self.pieces):
            if special:
                parts.append(np.array([ids[text]], np.int32))
                strip_next = bool(vocab.attr(ids[text]) & TokenAttr.RSTRIP)
                continue
            plain = text.lstrip(_C_SPACE) if strip_next else text
            if index + 1 < len(self.pieces):
                following = ids[self.pieces[index + 1][0]]
                if vocab.attr(following) & TokenAttr.LSTRIP:
                    plain = plain.rstrip(_C_SPACE)
            strip_next = False
            if plain:
                parts.append(vocab.tokenize(plain, add_special=False, parse_special=False))
        tokens = np.concatenate(parts) if parts else np.empty(0, np.int32)
        if vocab.add_bos and vocab.bos is not None and (not tokens.size or tokens[0] != vocab.bos):
            tokens = np.concatenate([np.array([vocab.bos], np.int32), tokens])
        return tokens

    def sampler(self, vocab: Vocab) -> Sampler | None:
        """Make the sampler that holds the reply to the grammar.

        Parameters
        ----------
        vocab
            Of the model.

        Returns
        -------
        Sampler or None
            To stand first in the chain; None if the reply is free.

        Raises
        ------
        GrammarError
            If the grammar does not parse.

        Calls: llama_sampler_init_grammar, llama_sampler_init_grammar_lazy_patterns,
        llama_sampler_accept
        """
        if not self.grammar.strip():  # a free reply may come with a line feed for a grammar
            return None
        if self.grammar_lazy:
            tokens, patterns = self._triggers(vocab)
            return grammar_lazy_patterns(
                vocab, self.grammar, trigger_patterns=patterns, trigger_tokens=tokens
            )
        made = grammar(vocab, self.grammar)
        if not self.details["grammar_given"]:  # the template's grammar begins with its own prompt
            text = self.generation_prompt
            for token in vocab.tokenize(text, add_special=False, parse_special=True).tolist():
                piece = vocab.piece(token, special=True)
                if piece[:1].isspace() and not text[:1].isspace() and token == vocab.bos:
                    continue
                made.accept(token)
        return made

    def constraint(self, vocab: Vocab) -> Constraint | None:
        """Make what holds the reply to the grammar, for `Constrained`.

        Parameters
        ----------
        vocab
            Of the model.

        Returns
        -------
        Sampler, or what is used like one, or None
            As `sampler`, but what a model thinks about a tool is not taken for a call of it.

        Raises
        ------
        GrammarError
            If the grammar does not parse.
        TemplateError
            If the parser cannot be read.
        """
        made = self.sampler(vocab)
        words = [trigger.value for trigger in self.triggers if trigger.type == "word"]
        if made is None or not self.grammar_lazy or len(words) < len(self.triggers):
            return made
        return CallGrammar(made, vocab, self.stream(), words)

    def _triggers(self, vocab: Vocab) -> tuple[list[int], list[str]]:
        tokens: list[int] = []
        patterns: list[str] = []
        for trigger in self.triggers:
            if trigger.type == "word":
                ids = vocab.tokenize(trigger.value, add_special=False, parse_special=True)
                if len(ids) == 1:
                    tokens.append(int(ids[0]))
                else:
                    patterns.append(_ECMASCRIPT.sub(r"\\\g<0>", trigger.value))
            elif trigger.type == "pattern_full":
                patterns.append(f"^{trigger.value.removeprefix('^').removesuffix('$')}$")
            else:
                patterns.append(trigger.value)
        return tokens, patterns

    def stream(self) -> ReplyStream:
        """Return what takes the reply apart while it is written.

        Returns
        -------
        ReplyStream
        """
        return ReplyStream(self.details)

    def parse(self, text: str, *, partial: bool = False) -> Message:
        """Take a reply apart.

        Parameters
        ----------
        text
            What the model wrote, with the text of `preserved_tokens`.
        partial
            Whether more may come.

        Returns
        -------
        Message

        Raises
        ------
        TemplateError
            If the text has not the form of the template's replies.

        Calls: pyllama_chat_parse
        """
        stream = self.stream()
        stream.push(text, parse=False)
        return stream.message(partial=flag("partial", partial))


def special_tokens(vocab: Vocab) -> dict[str, int]:
    """Return the tokens that text of a user must not become: control and unknown tokens.

    Parameters
    ----------
    vocab
        A vocabulary.

    Returns
    -------
    dict of str to int
        Text and id.
    """
    if not isinstance(vocab, Vocab):
        message = f"a Vocab is needed, not {vocab!r:.80}: model.vocab"
        raise TypeError(message)

    def read() -> dict[str, int]:
        wanted = vocab.attrs & (TokenAttr.CONTROL | TokenAttr.UNKNOWN) != 0
        return {vocab.text(token): token for token in np.flatnonzero(wanted).tolist()}

    return vocab._kept("special_tokens", read)
