"""Grammar samplers: only tokens that continue a text of the grammar stay possible."""

from __future__ import annotations

import codecs
import math
from typing import TYPE_CHECKING, Any

from pyllama.core import log
from pyllama.core.library import ffi, lib
from pyllama.core.params import strings, whole
from pyllama.core.sampler import gbnf
from pyllama.core.sampler.base import PARSE_STACK, Sampler, on_stack
from pyllama.core.sampler.checks import for_vocab, require_vocab
from pyllama.errors import GrammarError, LibraryAbortError, LibraryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pyllama.core.handle import Handle
    from pyllama.core.vocab import Vocab

MAX_PATTERN = 1000  # characters; a regular expression is parsed recursively too
# Stack that std::regex takes for each byte of text, and for each bracket of the pattern around it
# (measured: 500 and 300): it recurses, and libllama searches all text so far at once
# (src/llama-grammar.cpp, llama_grammar_trigger_pattern::find).
STACK_PER_BYTE = 1024
STACK_PER_BRACKET = 512
LEAST_STACK = 4 << 20
SPECIAL = True  # special tokens have text too, as in libllama's own grammar code


class GrammarSampler(Sampler):
    """A sampler made by `grammar` or `grammar_lazy_patterns`."""

    def __init__(
        self,
        pointer: Any,
        kind: str,
        options: Mapping[str, Any],
        *,
        parent: Handle | None = None,
        n_vocab: int | None = None,
    ) -> None:
        super().__init__(pointer, kind, options, parent=parent, n_vocab=n_vocab)
        self._n_bytes = 0  # of accepted text, as far as a trigger pattern may have to search it
        self._one = ffi.new("llama_token_data[1]")
        self._ask = ffi.new("llama_token_data_array *")

    @property
    def name(self) -> str:
        """What libllama calls it, also where `grammar` put what rules tokens out before it."""
        with self._call:
            return "grammar"

    @property
    def _grammars(self) -> tuple[Sampler, ...]:
        return (self,)

    def _prepare(self, token: int) -> int:
        # llama_sampler_accept throws on a token that is not allowed, and leaves a grammar that
        # allows nothing (src/llama-grammar.cpp:1527); on an early end of text it ends the process
        # (:1455). Applied to this one token, the grammar tells without harm.
        one, ask = self._one[0], self._ask
        one.id, one.logit, one.p = token, 0.0, 0.0
        ask.data, ask.size, ask.selected, ask.sorted = self._one, 1, -1, False
        lib.llama_sampler_apply(self._record.pointer, ask)
        if one.logit != 0.0:
            message = f"the grammar does not allow token {token} ({self._piece(token)!r}) here"
            raise GrammarError(message)
        patterns: list[str] = self._options.get("trigger_patterns", [])
        if not patterns:
            return 0
        self._n_bytes += len(self._piece(token))
        n_brackets = max(pattern.count("(") for pattern in patterns)
        return LEAST_STACK + self._n_bytes * (STACK_PER_BYTE + STACK_PER_BRACKET * n_brackets)

    def _piece(self, token: int) -> bytes:
        vocab = lib.llama_model_get_vocab(self._parent.pointer)  # type: ignore[union-attr]
        size = 64
        while True:
            text = ffi.new("char[]", size)
            n_bytes = int(lib.llama_token_to_piece(vocab, token, text, size, 0, SPECIAL))
            if n_bytes >= 0:
                return bytes(ffi.buffer(text, n_bytes))
            size = -n_bytes

    def _forget_text(self) -> None:
        self._n_bytes = 0

    def _follow_state(self, other: Sampler) -> None:
        if isinstance(other, GrammarSampler):
            self._n_bytes = other._n_bytes

    def _twin(self, pointer: Any) -> GrammarSampler:
        twin = super()._twin(pointer)
        twin._n_bytes = self._n_bytes
        return twin


def grammar(vocab: Vocab, grammar_str: str, *, grammar_root: str = "root") -> Sampler:
    """Allow only tokens that continue a text of a grammar; the end of text only at its end.

    Parameters
    ----------
    vocab
        The vocabulary of the tokens.
    grammar_str
        Rules in GBNF, the notation of llama.cpp; at most 1 MiB.
    grammar_root
        The rule that the whole text follows.

    Returns
    -------
    Sampler
        To be put before those that cut candidates away, or it may find none that it allows.

    Raises
    ------
    GrammarError
        If the text is no grammar, with the place where it goes wrong, or if libllama would take
        too much time, memory or stack for it.
    UnsupportedError
        If the model has no vocabulary.

    Notes
    -----
    The grammar moves on when tokens are accepted; `Sampler.accept` raises GrammarError for one
    that it does not allow. Applying it to 32,000 candidates takes milliseconds. libllama follows
    every way to read the text at once, and where a grammar is ambiguous, as ``([a-z ]+)*`` is,
    their number doubles with each character: a call that computes for more than 3 seconds raises
    GrammarError. Tokens whose bytes are in no UTF-8 text are never allowed; what the tokens of
    single bytes spell together is not looked at, so three of them can be a surrogate.

    Calls: llama_sampler_init_grammar, llama_sampler_init_logit_bias, llama_sampler_chain_init,
    llama_sampler_chain_add
    """
    require_vocab(vocab, "grammar")
    gbnf.check(grammar_str, grammar_root, vocab)
    text, root = grammar_str.encode(), grammar_root.encode()
    broken = _broken_tokens(vocab)
    return for_vocab(
        GrammarSampler,
        vocab,
        "grammar",
        {"grammar_str": grammar_str, "grammar_root": grammar_root},
        lambda pointer: _without(
            broken,
            vocab.n_tokens,
            _parsed(lambda: lib.llama_sampler_init_grammar(pointer, text, root)),
        ),
    )


def _broken_tokens(vocab: Vocab) -> list[int]:
    """Return the tokens that libllama reads as text though their bytes are in none.

    It takes 0xF8 for the first byte of four, goes on over bytes that continue nothing, and stops
    reading at a NUL (src/llama-grammar.cpp:34): such a token would pass as a letter.
    """
    return vocab._kept(
        "broken",
        lambda: [
            token
            for token, piece in enumerate(vocab.piece_table(special=SPECIAL))
            if _broken(piece)
        ],
    )


def _broken(piece: bytes) -> bool:
    """Whether *piece* is part of no UTF-8 text, or has more behind a NUL."""
    if 0 <= piece.find(0) < len(piece) - 1:
        return True
    n_continuing = next((i for i, byte in enumerate(piece[:4]) if byte & 0xC0 != 0x80), 3)
    try:
        codecs.utf_8_decode(piece[n_continuing:])  # it may end within a letter
    except UnicodeDecodeError:
        return True
    return False


def _without(tokens: list[int], n_vocab: int, grammar: Any) -> Any:
    """Return a C sampler that rules *tokens* out before it applies *grammar*."""
    if not tokens:
        return grammar
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    bias = ffi.new("llama_logit_bias[]", [(token, -math.inf) for token in tokens])
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_logit_bias(n_vocab, len(bias), bias))
    lib.llama_sampler_chain_add(chain, grammar)
    return chain


def grammar_lazy_patterns(
    vocab: Vocab,
    grammar_str: str,
    *,
    grammar_root: str = "root",
    trigger_patterns: Iterable[str] = (),
    trigger_tokens: Iterable[int] = (),
) -> Sampler:
    r"""Let text run freely until a trigger comes, and from there on follow a grammar.

    Parameters
    ----------
    vocab
        The vocabulary of the tokens.
    grammar_str, grammar_root
        As for `grammar`.
    trigger_patterns
        Regular expressions in the ECMAScript dialect of C++, at most 1,000 characters each,
        searched in the text accepted so far. The grammar begins with the first group that
        matched, or else with the match.
    trigger_tokens
        Token ids; the grammar begins with the token itself.

    Returns
    -------
    Sampler

    Raises
    ------
    GrammarError
        If the text is no grammar (see `grammar`), or a pattern no regular expression.
    ValueError
        If there is no trigger, or a token is not in the vocabulary.
    UnsupportedError
        If the model has no vocabulary.

    Notes
    -----
    Prefer tokens: patterns are searched in the whole text again at each token, so a long text
    before the trigger takes time that grows with its square. ``<tool_call>`` is quick; with
    ``[\s\S]*`` before it the time grows with the cube, and is 4.5 s for 400 tokens. A call that
    searches for more than 3 seconds, as with ``(a*)*b``, raises GrammarError.

    Calls: llama_sampler_init_grammar_lazy_patterns
    """
    require_vocab(vocab, "grammar")
    patterns = _patterns(trigger_patterns)
    token_check = whole(0, vocab.n_tokens - 1)
    tokens = [token_check("trigger_tokens", token) for token in trigger_tokens]
    if not patterns and not tokens:
        message = "a lazy grammar needs a trigger: give trigger_patterns or trigger_tokens"
        raise ValueError(message)
    gbnf.check(grammar_str, grammar_root, vocab)
    text, root = grammar_str.encode(), grammar_root.encode()
    texts = [ffi.new("char[]", pattern.encode()) for pattern in patterns]
    # Arrays made here: what cffi would convert for the call leaks if libllama throws.
    c_patterns, c_tokens = ffi.new("const char *[]", texts), ffi.new("llama_token[]", tokens)
    options = {
        "grammar_str": grammar_str,
        "grammar_root": grammar_root,
        "trigger_patterns": patterns,
        "trigger_tokens": tokens,
    }
    make = lib.llama_sampler_init_grammar_lazy_patterns
    return for_vocab(
        GrammarSampler,
        vocab,
        "grammar_lazy_patterns",
        options,
        lambda pointer: _parsed(
            lambda: make(pointer, text, root, c_patterns, len(texts), c_tokens, len(tokens))
        ),
    )


def _patterns(patterns: Iterable[str]) -> list[str]:
    checked = strings("trigger_patterns", patterns)
    for pattern in checked:
        if not 1 <= len(pattern) <= MAX_PATTERN or "\0" in pattern:
            message = (
                f"a trigger pattern has 1 to {MAX_PATTERN} characters and no NUL, "
                f"not {pattern!r:.60}"
            )
            raise ValueError(message)
    return checked


def _parsed(make: Callable[[], Any]) -> Any:
    """Return the sampler that *make* makes, or raise what libllama says about the grammar."""

    def run() -> Any:
        since = log.mark()
        try:
            pointer = make()
        except LibraryAbortError:
            raise
        except LibraryError as error:  # std::regex_error
            message = f"a trigger pattern is no regular expression: {error}"
            raise GrammarError(message) from error
        if pointer == ffi.NULL:
            raise GrammarError("\n  ".join(["libllama refused it", *log.complaints(since)]))
        return pointer

    return on_stack(PARSE_STACK, run)
