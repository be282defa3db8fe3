"""What a text has to look like, followed by llguidance instead of libllama's grammars.

llguidance is a package of its own (extra ``[guidance]``). It knows a token's bytes from the
vocabulary, and asks how a text that can only go one way is cut into tokens. It would take the
address of ``llama_tokenize`` for that, but then nothing stands between a constant in a schema and
the stack that a long word overflows (src/unicode.cpp:606 recurses for each character), or a model
that was closed: so it is given `Vocab.tokenize`, which checks, and costs microseconds when asked.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core import bigstack
from pyllama.core.enums import TokenAttr
from pyllama.core.params import whole
from pyllama.core.sampler import Candidates
from pyllama.core.vocab import Vocab
from pyllama.errors import ClosedError, GrammarError
from pyllama.text.schema import MAX_BYTES, check_choices, json_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Left to itself llguidance lets any amount of white space stand between the parts of a document,
# and a model may never come out of it. These are regular expressions.
_SPACES = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_STACK_PER_BYTE = 1 << 10  # of a grammar; a rule takes eight bytes to name, and 3 KiB (measured)

_n_tokens = whole(0, 2**31 - 1)


class Guidance:
    """A constraint like a grammar sampler, for `Constrained`.

    Parameters
    ----------
    vocab
        The vocabulary that writes the text: ``model.vocab``.
    what
        As for `pyllama.grammar_of`: a JSON schema (dict), a type with one, a compiled regular
        expression (in the dialect of the regex crate of Rust), or a list of strings.
    lark
        A grammar in llguidance's variant of Lark, instead of *what*.

    Raises
    ------
    ImportError
        If llguidance is not installed; the message names the extra.
    GrammarError
        If llguidance cannot follow it, or would leave a part of it out.
    TypeError, ValueError
        If an argument is not what it must be.
    UnsupportedError
        If the model has no vocabulary.

    Notes
    -----
    The first one of a model takes 8 µs a token to make; what it learns of the vocabulary is kept
    with the model. It has no bound on time: a hostile grammar can take seconds (``multipleOf``
    with a large number does). `pyllama.grammar_of` has one.

    An object of a schema may have keys that it does not name unless ``additionalProperties`` is
    false, as JSON Schema has it. Types have it false.
    """

    def __init__(self, vocab: Vocab, what: Any = None, *, lark: str | None = None) -> None:
        if not isinstance(vocab, Vocab):
            message = f"a Vocab is needed, not {vocab!r:.80}: model.vocab"
            raise TypeError(message)
        if (what is None) == (lark is None):
            raise TypeError("a Guidance follows a schema, a pattern or choices, or a lark grammar")
        module = _module()
        self._vocab = vocab
        self._words: _Words = vocab._kept("llguidance", lambda: _Words(vocab, module))
        matcher = module.LLMatcher
        grammar = _grammar(matcher, what, lark)
        if len(grammar) > MAX_BYTES:
            message = f"the grammar has {len(grammar)} bytes; at most {MAX_BYTES} are allowed"
            raise GrammarError(message)

        def make() -> Any:
            wrong, notes = matcher.validate_grammar_with_warnings(grammar, self._words.tokenizer)
            if wrong or notes:
                message = f"llguidance cannot follow the whole of it: {_first(notes)}"
                raise GrammarError(message)
            return matcher(self._words.tokenizer, grammar, log_level=0)

        self._matcher = bigstack.call(make, (1 << 20) + len(grammar) * _STACK_PER_BYTE)
        self._n_ends = 0
        self.mask()  # a grammar that allows nothing at all shows now

    def mask(self) -> NDArray[np.bool_]:
        """Return which tokens may come next.

        Returns
        -------
        ndarray of bool, shape (n_vocab,)
            At the end of the text only tokens that end generation.

        Raises
        ------
        GrammarError
            If no token may come, or llguidance gave up.

        Notes
        -----
        Takes 20 to 100 µs in a vocabulary of 32,000 tokens.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, count=self._vocab.n_tokens, bitorder="little").view(np.bool_)

    def apply(self, candidates: Candidates) -> None:
        """Rule out what may not come next, as `Sampler.apply` of a grammar does.

        Parameters
        ----------
        candidates
            The tokens; the others get a logit of -inf.

        Raises
        ------
        GrammarError
            As for `mask`.
        TypeError
            If they are no Candidates.
        """
        if not isinstance(candidates, Candidates):
            message = f"apply takes Candidates, not {candidates!r:.60}"
            raise TypeError(message)
        rows = candidates.data
        rows["logit"][~self.mask()[rows["id"]]] = -np.inf

    def accept(self, token: int) -> None:
        """Go on by a token.

        Parameters
        ----------
        token
            An id.

        Raises
        ------
        GrammarError
            If it may not come here; then nothing has changed.
        IndexError
            If there is no such token.
        """
        token = self._vocab._token(token)
        if self._matcher.is_stopped() and token in self._vocab.eog_tokens:
            self._n_ends += 1  # llguidance takes them, and counts none
        elif not self._matcher.validate_tokens([token]) or not self._matcher.consume_token(token):
            self._check()
            piece = self._vocab.piece_table(special=True)[token]
            message = f"the grammar does not allow token {token} ({piece!r}) here"
            raise GrammarError(message)

    def rollback(self, n_tokens: int) -> None:
        """Take back the last tokens that were accepted.

        Parameters
        ----------
        n_tokens
            How many.

        Raises
        ------
        ValueError
            If there were not so many.
        """
        n_ends = min(_n_tokens("n_tokens", n_tokens), self._n_ends)
        done = self._matcher.deep_copy()  # one that fails is of no more use
        if not done.rollback(n_tokens - n_ends):
            message = f"n_tokens={n_tokens}: fewer tokens were accepted"
            raise ValueError(message)
        self._matcher = done
        self._n_ends -= n_ends

    def clone(self) -> Guidance:
        """Return another one at the same place, which goes its own way.

        Returns
        -------
        Guidance
        """
        other = object.__new__(Guidance)
        other._vocab = self._vocab
        other._words = self._words
        other._matcher = self._matcher.deep_copy()
        other._n_ends = self._n_ends
        return other

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())

    def _check(self) -> None:
        """Raise what went wrong inside llguidance, which itself only stops."""
        if (error := self._words.taken()) is not None:
            raise error
        matcher = self._matcher
        if matcher.is_error():
            message = f"llguidance: {_first([matcher.get_error()])}"
            raise GrammarError(message)
        if matcher.is_stopped() and not matcher.is_accepting():
            message = f"the grammar allows none of the tokens here: {matcher.stop_reason()}"
            raise GrammarError(message)


class _Words:
    """What llguidance knows of a vocabulary; kept with the model, which it must not hold."""

    def __init__(self, vocab: Vocab, module: Any) -> None:
        self._model = weakref.ref(vocab._model)
        self._error: Exception | None = None
        special = TokenAttr.CONTROL | TokenAttr.UNKNOWN | TokenAttr.UNUSED
        # The names are those that llguidance asks for.
        self.bos_token_id = vocab.bos
        self.eos_token_id = vocab.eos
        self.special_token_ids = np.flatnonzero(vocab.attrs & special).tolist()
        self.tokens = list(vocab.piece_table(special=True))
        ends = sorted(vocab.eog_tokens)
        if not ends:
            raise GrammarError("the vocabulary has no token that ends a text: llguidance needs one")
        if self.eos_token_id is None:
            self.eos_token_id = ends[0]
        self.tokenizer = module.LLTokenizer(module.TokenizerWrapper(self), eos_token=ends)

    def __call__(self, text: str | bytes) -> list[int]:
        """Return tokens whose bytes, joined, are *text*; called by llguidance."""
        try:
            model = self._model()
            if model is None:
                raise ClosedError("the model of this Guidance is gone")
            lead, led = model.vocab._lead
            data = text.encode() if isinstance(text, str) else text
            tokens = model.vocab.tokenize(lead + data, add_special=False)
            return [int(token) for token in tokens[len(led) :].tolist()]
        except Exception as error:  # noqa: BLE001 - frames of Rust are below, which would panic
            self._error = error
            return []

    def taken(self) -> Exception | None:
        """Return what was raised in between, once."""
        error, self._error = self._error, None
        return error


def _module() -> Any:
    try:
        return import_module("llguidance")
    except ImportError as error:
        message = "Guidance needs llguidance: pip install llguidance"
        raise ImportError(message) from error


def _grammar(matcher: Any, what: Any, lark: str | None) -> str:
    """Return the grammar in llguidance's own form."""
    if lark is not None:
        if not isinstance(lark, str):
            message = f"lark must be a string, not {lark!r:.60}"
            raise TypeError(message)
        return str(matcher.grammar_from_lark(lark))
    if isinstance(what, re.Pattern):
        if not isinstance(what.pattern, str) or what.flags & ~re.UNICODE:
            message = f"a grammar follows patterns of text without flags, not {what!r:.80}"
            raise GrammarError(message)
        return str(matcher.grammar_from_regex(what.pattern))
    if isinstance(what, Sequence):
        check_choices(what)
        literals = " | ".join(json.dumps(each, ensure_ascii=False) for each in what)
        return str(matcher.grammar_from_lark(f"start: {literals}"))
    schema = json_schema(what)
    try:
        text = json.dumps(schema, allow_nan=False)
        return str(matcher.grammar_from_json_schema(text, overrides=_SPACES))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"a JSON schema holds only what JSON can hold: {error}"
        raise GrammarError(message) from None


def _first(notes: list[str]) -> str:
    """Return the first of what llguidance says, without the state of its parser."""
    return notes[0].partition("\n<state>")[0].strip() if notes else "it does not say why"
