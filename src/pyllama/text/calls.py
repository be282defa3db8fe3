"""A lazy grammar that does not begin in what the model thinks: no tool is called there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyllama.core.sampler import Candidates, Sampler
    from pyllama.core.vocab import Vocab
    from pyllama.text.reply import ReplyStream


class CallGrammar:
    """A lazy grammar that begins where the parser of the reply sees a call, not at its words alone.

    A model that thinks about a tool may write what begins a call, and go on thinking. A grammar
    that began there would end the reply in the middle of the thoughts.

    Parameters
    ----------
    grammar
        The lazy grammar; it begins by itself at the words.
    vocab
        Of the model.
    reply
        What takes the reply apart.
    words
        What begins a call.
    """

    def __init__(
        self, grammar: Sampler, vocab: Vocab, reply: ReplyStream, words: Sequence[str]
    ) -> None:
        self._grammar = grammar
        self._pieces = vocab.piece_table(special=True)
        self._reply = reply
        self._words = [word.encode() for word in words]
        self._text = b""
        self._tokens: list[tuple[int, int]] = []  # each with where it begins in the text
        self._n_seen = 0
        self._begun = False

    def accept(self, token: int) -> None:
        """Go on by a token.

        Parameters
        ----------
        token
            An id.

        Raises
        ------
        GrammarError
            If the grammar has begun and does not allow it.
        """
        if self._begun:
            self._grammar.accept(token)
            return
        self._tokens.append((token, len(self._text)))
        self._text += self._pieces[token]
        n_seen = sum(map(self._text.count, self._words))
        if n_seen == self._n_seen:
            return
        self._n_seen = n_seen
        if self._is_call():
            self._begun = True
            at = max(map(self._text.rfind, self._words))
            first = max(i for i, (_, begin) in enumerate(self._tokens) if begin <= at)
            for each, _ in self._tokens[first:]:
                self._grammar.accept(each)

    def apply(self, candidates: Candidates) -> None:
        """Rule out what the grammar does not allow, once it has begun.

        Parameters
        ----------
        candidates
            The tokens.
        """
        if self._begun:
            self._grammar.apply(candidates)

    def _is_call(self) -> bool:
        """Whether one of the words is in no text that the parser found."""
        self._reply.text = self._text.decode("utf-8", "replace")
        try:
            found = self._reply.message(partial=True)
        except TemplateError:
            return True
        text = (found.reasoning_content + found.content).encode()
        bare = [word.strip() for word in self._words]  # the parser may hold a line feed back
        return sum(map(text.count, bare)) < sum(map(self._text.count, bare))
