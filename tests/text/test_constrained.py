"""Choosing under a grammar: as probable as among the allowed tokens alone, and safe in errors."""

from __future__ import annotations

import numpy as np
import pytest

import pyllama
from pyllama import samplers
from pyllama.errors import GrammarError, SamplingError
from pyllama.text.constrained import Constrained

EOS = 2
N_DRAWS = 5_000


@pytest.fixture
def token(model):
    """Return a function that gives the token of a single character."""
    pieces = model.vocab.pieces(range(model.vocab.n_tokens))
    return lambda text: max(i for i, piece in enumerate(pieces) if piece == text.encode())


@pytest.fixture
def row(model) -> np.ndarray:
    """Return a row of logits in which no two are equal."""
    return np.random.default_rng(1).normal(0, 1, model.n_vocab).astype(np.float32)


def masked(grammar: samplers.Sampler, row: np.ndarray) -> np.ndarray:
    """Return *row* with -inf for what the grammar does not allow."""
    candidates = pyllama.Candidates(row)
    grammar.apply(candidates)
    return candidates.data["logit"].copy()


def drawn(grammar, chain, row) -> np.ndarray:
    """Choose many times at the same place, and count the tokens."""
    tokens = [Constrained(grammar.clone(), chain)(row) for _ in range(N_DRAWS)]
    return np.bincount(tokens, minlength=len(row))


def chi_squared(counts: np.ndarray, logits: np.ndarray) -> tuple[float, int]:
    """Return the statistic, and how many tokens there were to choose from."""
    allowed = np.isfinite(logits)
    assert counts[~allowed].sum() == 0
    p = np.exp(logits[allowed].astype(np.float64))
    expected = p / p.sum() * counts.sum()
    return float(((counts[allowed] - expected) ** 2 / expected).sum()), int(allowed.sum())


@pytest.mark.parametrize("likely", [0, 6], ids=["rarely-refused", "mostly-refused"])
def test_the_distribution_is_that_of_masking_first(model, token, row, likely):
    """Whether the first choice is mostly allowed or mostly not."""
    grammar = samplers.grammar(model.vocab, "root ::= [a-h]")
    row[[token(letter) for letter in "abcdefgh"]] += 8 - 2 * likely
    expected = masked(grammar, row)
    counts = drawn(grammar, samplers.dist(seed=5), row)
    statistic, n_allowed = chi_squared(counts, expected)
    assert n_allowed == 16  # each letter, and its byte
    assert statistic < 37.7  # 15 degrees of freedom: exceeded once in 1,000 seeds


def test_the_temperature_counts(model, token, row):
    """The chain's samplers see the allowed tokens alone."""
    grammar = samplers.grammar(model.vocab, "root ::= [a-h]")
    expected = masked(grammar, row)
    chain = pyllama.SamplerChain([samplers.temp(0.5), samplers.dist(seed=6)])
    statistic, _ = chi_squared(drawn(grammar, chain, row), expected * 2)
    assert statistic < 37.7


def test_without_a_chain_the_likeliest_allowed_is_chosen(model, row):
    """Token by token, to the end."""
    grammar = samplers.grammar(model.vocab, 'root ::= [a-d] "x" [0-9]')
    choose, told = Constrained(grammar), samplers.grammar(model.vocab, 'root ::= [a-d] "x" [0-9]')
    tokens = []
    while not tokens or tokens[-1] != EOS:
        expected = int(masked(told, row).argmax())
        tokens.append(choose(row))
        assert tokens[-1] == expected
        told.accept(expected)
    assert len(tokens) == 4


def test_an_allowed_choice_costs_no_look_through_the_vocabulary(model, token, row):
    """The candidates for it are made only after a refusal."""
    choose = Constrained(samplers.grammar(model.vocab, 'root ::= "a" "b"'))
    row[token("a")] = 50
    assert choose(row) == token("a")
    assert choose._candidates is None
    assert model.vocab.piece(choose(row)) == b"b"
    assert choose._candidates is not None


def test_the_chain_is_told_once_what_came(model, token, row):
    """Not the token that the grammar refused."""
    seen = []

    class Listener:
        def accept(self, token):
            seen.append(token)

    chain = pyllama.SamplerChain([samplers.python(Listener()), samplers.greedy()])
    row[token("z")] = 50
    chosen = Constrained(samplers.grammar(model.vocab, "root ::= [a-c]"), chain)(row)
    assert seen == [chosen] != [token("z")]


def test_a_lazy_grammar_waits_for_its_trigger(model, token, row):
    """Before it everything is free, behind it only the grammar's text."""
    grammar = samplers.grammar_lazy_patterns(
        model.vocab, 'root ::= "{" [0-9] "}"', trigger_tokens=[token("{")]
    )
    choose = Constrained(grammar)
    for letter in "az{":
        free = row.copy()
        free[token(letter)] = 50
        assert choose(free) == token(letter)
    free = row.copy()
    free[token("z")] = 50
    assert model.vocab.piece(choose(free)).isdigit()
    assert model.vocab.piece(choose(free)) == b"}"
    assert choose(free) == EOS


def test_nothing_allowed_is_a_grammar_error(model, token, row):
    """The logits rule out all that the grammar wants; then the same place is tried again."""
    choose = Constrained(samplers.grammar(model.vocab, 'root ::= "a" "b"'), samplers.dist(seed=1))
    choose(row)
    ruled_out = row.copy()
    ruled_out[[t for t in range(len(row)) if model.vocab.piece(t) == b"b"]] = -np.inf
    with pytest.raises(GrammarError, match="allows none of the tokens"):
        choose(ruled_out)
    assert model.vocab.piece(choose(row)) == b"b"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers(model, row, value):
    """Are refused before the grammar sees a token, and the next row works."""
    choose = Constrained(samplers.grammar(model.vocab, 'root ::= "ab"'))
    broken = row.copy()
    broken[5] = value
    with pytest.raises(SamplingError):
        choose(broken)
    assert model.vocab.piece(choose(row)) == b"a"


def test_a_chain_that_insists_is_an_error(model, token, row):
    """A sampler in Python that gives back what the grammar ruled out."""

    def insist(candidates: pyllama.LiveCandidates) -> None:
        candidates["logit"][candidates["id"] == token("z")] = 50

    chain = pyllama.SamplerChain([samplers.python(insist), samplers.greedy()])
    choose = Constrained(samplers.grammar(model.vocab, 'root ::= "a"'), chain)
    with pytest.raises(GrammarError, match=f"does not allow token {token('z')}"):
        choose(row)
