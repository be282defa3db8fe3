"""Grammar samplers: what they let through, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.core import sampler
from pyllama.core.sampler.grammar import _broken
from pyllama.errors import GrammarError, UnsupportedError

LLAMA_CPP = Path(__file__).parents[3] / "vendor" / "llama.cpp"
EOS = 2
BYTE_0 = 3  # the token of the byte 0 in the tiny model's vocabulary


@pytest.fixture
def token(model) -> Callable[[str], int]:
    """Return the token of a single character."""
    pieces = model.vocab.pieces(range(model.vocab.n_tokens))
    return lambda text: max(i for i, piece in enumerate(pieces) if piece == text.encode())


def allowed(grammar: sampler.Sampler, n_vocab: int) -> set[int]:
    candidates = sampler.Candidates(np.zeros(n_vocab, np.float32))
    grammar.apply(candidates)
    rows = candidates.data
    return set(rows["id"][np.isfinite(rows["logit"])].tolist())


def test_allows_only_what_continues_the_text(model, token):
    """Token by token, and the end only at the end."""
    grammar = sampler.grammar(model.vocab, 'root ::= [ab] "c"')
    n = model.vocab.n_tokens
    bytes_of_a_and_b = {BYTE_0 + ord("a"), BYTE_0 + ord("b")}
    assert {token("a"), token("b")} | bytes_of_a_and_b <= allowed(grammar, n)
    assert EOS not in allowed(grammar, n)
    grammar.accept(token("b"))
    assert allowed(grammar, n) == {token("c"), BYTE_0 + ord("c")}
    grammar.accept(token("c"))
    assert allowed(grammar, n) == {EOS}
    grammar.accept(EOS)


def test_bytes_of_no_text_are_never_allowed(model):
    """libllama takes 0xF8 to 0xFF for the first byte of a letter, and C0 A2 for a quote."""
    grammar = sampler.grammar(model.vocab, 'root ::= [^"]*')
    never = {BYTE_0 + byte for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
    here = allowed(grammar, model.vocab.n_tokens)
    assert not never & here
    assert {BYTE_0 + 0xC2, BYTE_0 + 0xF4} <= here  # they may begin a letter
    with pytest.raises(GrammarError, match="does not allow token"):
        grammar.accept(BYTE_0 + 0xF8)


@pytest.mark.parametrize(
    ("piece", "broken"),
    [
        (b"abc", False),
        ("\u4e2d".encode(), False),
        (b"\xb8\xadx", False),  # the end of a letter, and more
        (b"x\xe4\xb8", False),  # a letter that has not ended
        (b"\x80\x80\x80\x80", True),
        (b"\xe4bc", True),
        (b"x\xed\xa0\x80", True),  # a surrogate
        (b"\xf8", True),
        (b"\0", False),  # libllama never allows it
        (b"a\0b", True),
    ],
)
def test_only_pieces_of_utf8_are_text(piece, broken):
    """A token may begin or end within a letter."""
    assert _broken(piece) is broken


def test_a_grammar_that_rules_bytes_out_is_cloned_whole(model, token):
    """The copy goes on where it stands, and without those bytes."""
    grammar = sampler.grammar(model.vocab, 'root ::= "a" [^"]*')
    grammar.accept(token("a"))
    twin = grammar.clone()
    assert allowed(twin, model.vocab.n_tokens) == allowed(grammar, model.vocab.n_tokens)
    grammar.accept(token("b"))
    twin.copy_from(grammar)
    assert BYTE_0 + 0xF8 not in allowed(twin, model.vocab.n_tokens)


@pytest.mark.parametrize("text", ["c", "ac", "</s>"])
def test_accept_refuses_what_it_does_not_allow(text, model, token):
    """libllama throws, or ends the process at an early end; the grammar goes on as before."""
    grammar = sampler.grammar(model.vocab, 'root ::= "abc"')
    grammar.accept(token("a"))
    before = allowed(grammar, model.vocab.n_tokens)
    wrong = EOS if text == "</s>" else token(text[0])
    with pytest.raises(GrammarError, match=f"does not allow token {wrong}"):
        grammar.accept(wrong)
    assert allowed(grammar, model.vocab.n_tokens) == before
    grammar.accept(token("b"))


def test_accept_refuses_tokens_after_the_end(model, token):
    """Only the end of text comes after the end."""
    grammar = sampler.grammar(model.vocab, 'root ::= "a"')
    grammar.accept(token("a"))
    with pytest.raises(GrammarError, match="does not allow"):
        grammar.accept(token("a"))
    grammar.accept(EOS)


def test_a_chain_that_accepts_a_wrong_token_changes_none_of_its_samplers(model, token):
    """Not even those that stand before the grammar."""
    n = model.vocab.n_tokens
    chain = sampler.SamplerChain(
        [
            sampler.penalties(n, penalty_last_n=8, penalty_freq=1),
            sampler.grammar(model.vocab, 'root ::= "ab"'),
        ]
    )
    with pytest.raises(GrammarError, match="does not allow"):
        chain.accept(token("b"))
    candidates = sampler.Candidates(np.zeros(n, np.float32))
    chain[0].clone().apply(candidates)
    assert not candidates.data["logit"].any()
    chain.accept(token("a"))


def test_generates_a_text_of_the_grammar(model):
    """Whatever the logits are."""
    rng = np.random.default_rng(0)
    source = (LLAMA_CPP / "grammars" / "arithmetic.gbnf").read_text()
    chain = sampler.SamplerChain(
        [sampler.grammar(model.vocab, 'root ::= [0-9]{1,4} "=" [a-f]{2}'), sampler.dist(seed=1)]
    )
    tokens = []
    while not tokens or tokens[-1] != EOS:
        tokens.append(chain.sample(rng.normal(0, 3, model.vocab.n_tokens).astype(np.float32)))
    text = b"".join(model.vocab.pieces(tokens[:-1])).decode()
    number, _, letters = text.partition("=")
    assert number.isdigit()
    assert set(letters) <= set("abcdef")
    assert len(letters) == 2
    sampler.grammar(model.vocab, source).close()


def test_nothing_left_is_a_grammar_error(model, token):
    """When other samplers took away all that the grammar allows."""
    n = model.vocab.n_tokens
    row = np.zeros(n, np.float32)
    row[token("z")] = 9
    grammar = sampler.grammar(model.vocab, 'root ::= "a"')
    chain = sampler.SamplerChain([sampler.top_k(1), grammar, sampler.mirostat_v2(tau=3, eta=0.1)])
    with pytest.raises(GrammarError, match="allows none of the tokens"):
        chain.sample(row)
    row[token("a")] = 99
    assert chain.sample(row) == token("a")


def test_infill_cannot_smuggle_a_token_past_a_grammar(model, token):
    """It puts the end of text where it finds nothing better, also after a grammar."""
    row = np.linspace(0, 0.1, model.vocab.n_tokens, dtype=np.float32)
    parts = [
        sampler.top_k(300),
        sampler.grammar(model.vocab, 'root ::= "abc"'),
        sampler.infill(model.vocab),
        sampler.greedy(),
    ]
    chain = sampler.SamplerChain(parts)
    try:
        chosen = chain.sample(row)
    except GrammarError:
        return
    assert bytes(model.vocab.pieces([chosen])[0]) == b"a"


def test_a_clone_and_a_reset_know_the_place_in_the_text(model, token):
    """The clone stays in the middle while the original begins again."""
    grammar = sampler.grammar(model.vocab, 'root ::= "ab"')
    grammar.accept(token("a"))
    clone = grammar.clone()
    grammar.reset()
    clone.accept(token("b"))
    grammar.accept(token("a"))
    with pytest.raises(GrammarError):
        grammar.accept(EOS)  # it is in the middle
    grammar.copy_from(clone)
    grammar.accept(EOS)


def test_a_clone_follows_every_reading(model, token):
    """It goes on without the original, whose rules its readings no longer point into."""
    grammar = sampler.grammar(
        model.vocab, 'root ::= x "." | x "!"\nx ::= "a" x "b" | "a" x "c" | "d"'
    )
    for text in "aad":
        grammar.accept(token(text))
    twin = grammar.clone()
    grammar.close()
    for text in "bc":
        assert {token("b"), token("c")} <= allowed(twin, model.vocab.n_tokens)
        twin.accept(token(text))
    assert {token("."), token("!")} <= allowed(twin, model.vocab.n_tokens)


def test_the_root_may_have_another_name(model, token):
    """The other rules are then only for its use."""
    grammar = sampler.grammar(model.vocab, 'root ::= "a"\nstart ::= "b"', grammar_root="start")
    grammar.accept(token("b"))
    with pytest.raises(GrammarError):
        grammar.accept(token("b"))


@pytest.mark.parametrize(
    "make",
    [
        lambda vocab: sampler.grammar(vocab, 'root ::= "a"'),
        lambda vocab: sampler.grammar_lazy_patterns(vocab, 'root ::= "a"', trigger_tokens=[1]),
        sampler.infill,
        lambda vocab: sampler.dry(
            vocab, dry_multiplier=1, dry_base=2, dry_allowed_length=2, dry_penalty_last_n=9
        ),
    ],
)
def test_a_model_without_a_vocabulary_is_refused(make, tmp_path):
    """libllama would end the process when the sampler is applied."""
    path = random_model.write_llama(tmp_path / "none.gguf", vocab="none")
    with pyllama.Model(path) as model, pytest.raises(UnsupportedError, match="vocabulary"):
        make(model.vocab)


@pytest.mark.parametrize("vocab", [None, "vocab", 3])
def test_a_vocabulary_must_be_one(vocab):
    """The model itself is not."""
    with pytest.raises(TypeError, match="must be a Vocab"):
        sampler.grammar(vocab, 'root ::= "a"')


def test_a_lazy_grammar_waits_for_its_token(model, token):
    """Anything goes before; the token itself is the first of the grammar."""
    grammar = sampler.grammar_lazy_patterns(
        model.vocab, 'root ::= "{" "a"', trigger_tokens=[token("{")]
    )
    n = model.vocab.n_tokens
    for text in "xyz":
        assert len(allowed(grammar, n)) == n
        grammar.accept(token(text))
    grammar.accept(token("{"))
    assert allowed(grammar, n) == {token("a"), BYTE_0 + ord("a")}
    with pytest.raises(GrammarError, match="does not allow"):
        grammar.accept(EOS)
    grammar.reset()
    assert len(allowed(grammar, n)) == n


def test_a_lazy_grammar_waits_for_its_pattern(model, token):
    """The first group of the pattern begins the grammar."""
    grammar = sampler.grammar_lazy_patterns(
        model.vocab, 'root ::= "<a>" "b"', trigger_patterns=["x(<a>)"]
    )
    for text in "<a>x<a>":
        grammar.accept(token(text))
    assert allowed(grammar, model.vocab.n_tokens) == {token("b"), BYTE_0 + ord("b")}


def test_a_lazy_grammar_that_its_trigger_contradicts_waits_again(model, token):
    """The text that triggered it is no beginning of the grammar."""
    grammar = sampler.grammar_lazy_patterns(
        model.vocab, 'root ::= "b"', trigger_patterns=["(a)"], trigger_tokens=[token("c")]
    )
    for text in "ac":
        with pytest.raises(GrammarError, match="begins anew"):
            grammar.accept(token(text))
        assert len(allowed(grammar, model.vocab.n_tokens)) == model.vocab.n_tokens
    grammar.accept(token("z"))


def test_a_grammar_that_cannot_go_on_begins_anew(model, token):
    """libllama allows a token whose end it then cannot follow: a token rule after characters."""
    pieces = model.vocab.pieces(range(model.vocab.n_tokens))
    two = next(i for i, piece in enumerate(pieces) if len(piece) == 2 and piece.isalpha())
    first = pieces[two][:1].decode()
    grammar = sampler.grammar(model.vocab, f'root ::= "{first}" <[{two}]>')
    with pytest.raises(GrammarError, match="begins anew"):
        grammar.accept(two)
    grammar.accept(token(first))
    grammar.accept(two)
    grammar.accept(EOS)


@pytest.mark.parametrize("pattern", ["(", "[", "a{", "*", "(?<x>a)"])
def test_a_pattern_must_be_a_regular_expression(pattern, model):
    """Of C++: what it throws becomes an error that names the cause."""
    with pytest.raises(GrammarError, match="no regular expression"):
        sampler.grammar_lazy_patterns(model.vocab, 'root ::= "a"', trigger_patterns=[pattern])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ValueError),
        ({"trigger_patterns": "abc"}, TypeError),
        ({"trigger_patterns": [b"abc"]}, TypeError),
        ({"trigger_patterns": [""]}, ValueError),
        ({"trigger_patterns": ["a\0b"]}, ValueError),
        ({"trigger_patterns": ["(" * 5000 + ")" * 5000]}, ValueError),
        ({"trigger_tokens": [-1]}, ValueError),
        ({"trigger_tokens": [512]}, ValueError),
        ({"trigger_tokens": ["a"]}, TypeError),
    ],
)
def test_a_lazy_grammar_checks_its_triggers(options, error, model):
    """Before libllama sees them."""
    with pytest.raises(error):
        sampler.grammar_lazy_patterns(model.vocab, 'root ::= "a"', **options)


def test_a_long_text_before_the_trigger_does_not_end_the_process(tmp_path):
    """std::regex recurses once for each of 24,000 bytes; 16,000 overflow an ordinary stack."""
    path = random_model.write_llama(
        tmp_path / "long.gguf", vocab_options={"special": ["x" * 3000, "<tool>"]}
    )
    with pyllama.Model(path) as model:
        long, trigger = model.vocab.n_tokens - 2, model.vocab.n_tokens - 1
        grammar = sampler.grammar_lazy_patterns(
            model.vocab, 'root ::= "a"', trigger_patterns=[r"^(.|\n)*(<tool>)(.*)$"]
        )
        for _ in range(8):
            grammar.accept(long)
        with pytest.raises(GrammarError, match="begins anew"):
            grammar.accept(trigger)
