"""Speculative decoding gives the same text, by any drafter, sampler or grammar."""

from __future__ import annotations

import math

import numpy as np
import pytest
from speculating import ONE, PROMPT, Scripted, drafted, oracle, whole

import pyllama
from pyllama import Batch, samplers, speculative
from pyllama.errors import AbortedError, ContextLengthError
from pyllama.generate import Report, tokens
from pyllama.speculative import DraftModel, PromptLookup
from pyllama.text.constrained import Constrained
from pyllama.text.logprobs import Recorder

TEXTS = [
    "The capital of France is",
    "Once upon a time there was",
    "12 + 30 =",
    "Count from 1 to 9: 1, 2, 3,",
    "The opposite of hot is",
    "After Monday comes",
    '{"name": "',
    "Hello! Hello! Hello!",
]


def chisquare(counts, expected):
    """Return the statistic and the value that one in a thousand exceeds (Wilson-Hilferty)."""
    kept = expected >= 5
    counts = np.append(counts[kept], counts[~kept].sum())
    expected = np.append(expected[kept], expected[~kept].sum() + 1e-9)
    free = int(kept.sum())
    limit = free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3
    return ((counts - expected) ** 2 / expected).sum(), limit


@pytest.mark.parametrize("kind", ["model", "lookup"])
def test_greedy_text_of_the_shipped_pair_is_the_same(pair, kind):
    """Token for token, over several prompts, with the memories reused from one to the next."""
    model, small = pair
    options = {**ONE, "n_ctx": 512}
    with (
        model.context(**options) as one,
        model.context(**options) as other,
        small.context(**options) as third,
    ):
        draft = DraftModel(third) if kind == "model" else PromptLookup()
        report = Report()
        for text in TEXTS:
            prompt = model.vocab.tokenize(text).tolist()
            expected = whole(one, prompt)
            assert drafted(other, draft, prompt, report=report, n_draft=5) == expected
        assert 0 < report.n_accepted < report.n_drafted


@pytest.mark.parametrize("wrong_every", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("n_draft", [1, 4, 40])
def test_however_good_the_guesses_the_text_is_the_same(contexts, wrong_every, n_draft):
    """All right, all wrong, and mixtures."""
    one, other = contexts
    expected = whole(one)
    report = Report()
    draft = oracle(expected, wrong_every)
    assert drafted(other, draft, n_draft=n_draft, report=report) == expected
    assert report.n_generated == 40
    assert report.n_drafted > 0
    assert wrong_every != 0 or report.n_accepted == report.n_drafted
    assert (report.n_accepted == 0) == (wrong_every == 1)


def test_all_guesses_right_count_as_such(contexts):
    """39 tokens follow the first one: in eights, one is decoded and seven are guessed."""
    one, other = contexts
    report = Report()
    drafted(other, oracle(whole(one)), n_draft=7, report=report)
    assert (report.n_drafted, report.n_accepted) == (34, 34)


def test_a_guessed_end_is_an_end_only_if_it_is_chosen(contexts):
    """A drafter that always says the text ends changes nothing."""
    one, other = contexts
    eos = one.model.vocab.eos
    hostile = Scripted(lambda _ids, n: [eos] * n)
    assert drafted(other, hostile) == whole(one)
    expected = list(tokens(one, PROMPT, max_tokens=9))
    assert list(speculative.tokens(other, PROMPT, draft=hostile, max_tokens=9)) == expected


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (lambda n: [1] * (n + 1), ValueError, "at most"),
        (lambda n: [512] * n, ValueError, "512 tokens"),
        (lambda n: [-1] * n, ValueError, "512 tokens"),
        (lambda n: ["a"] * n, TypeError, "draft"),
        (lambda _n: 1 / 0, ZeroDivisionError, "zero"),
    ],
)
def test_what_is_no_draft_is_an_error_and_harms_nothing(contexts, answer, error, match):
    """The context goes on as if it had not been."""
    one, other = contexts
    with pytest.raises(error, match=match):
        drafted(other, Scripted(lambda _ids, n: answer(n)))
    assert whole(other) == whole(one)


def test_sampled_texts_have_the_same_distribution(pair):
    """Chi-squared against the exact probabilities of four tokens, two of them guessed."""
    model, small = pair
    with model.context(**ONE, n_ctx=256) as context, small.context(**ONE, n_ctx=256) as other:
        prompt = model.vocab.tokenize("Once upon a time").tolist()
        expected = probabilities(context, prompt, 4, top_k=3, temp=6.0)
        chain = pyllama.SamplerChain([samplers.top_k(3), samplers.temp(6.0), samplers.dist(1)])
        draft, report, n = DraftModel(other, p_min=0), Report(), 1000
        counts = dict.fromkeys(expected, 0)
        for _ in range(n):
            made = speculative.tokens(
                context,
                prompt,
                draft=draft,
                sampler=chain,
                max_tokens=4,
                ignore_eog=True,
                report=report,
            )
            counts[tuple(made)] += 1
    assert 0.1 * report.n_drafted < report.n_accepted < 0.9 * report.n_drafted
    statistic, limit = chisquare(
        np.array(list(counts.values())), n * np.array(list(expected.values()))
    )
    assert statistic < limit


def probabilities(context, prompt, n, *, top_k, temp):
    """Return the probability of each continuation of *n* tokens."""
    found = {(): 1.0}
    for _ in range(n):
        longer = {}
        for before, p in found.items():
            context.memory.clear()
            context.decode(Batch([*prompt, *before]))
            row = context.logits()[-1].astype(np.float64) / temp
            best = np.argsort(-row)[:top_k]
            weights = np.exp(row[best] - row[best[0]])
            for token, weight in zip(best.tolist(), weights / weights.sum(), strict=True):
                longer[(*before, token)] = p * weight
        found = longer
    return found


def test_a_grammar_and_log_probabilities_go_with_it(pair):
    """What is chosen, and what is recorded of it, is what the plain loop gives."""
    model, _ = pair
    prompt = model.vocab.tokenize("Count from 1 to 9: 1, 2, 3, 4, 5, 6, 7, 8, 9\nCount").tolist()
    found = []
    with model.context(**ONE, n_ctx=256) as context:
        for make, options in ((tokens, {}), (speculative.tokens, {"draft": PromptLookup(1)})):
            grammar = samplers.grammar(model.vocab, 'root ::= " from 1 to 9: 1, 2, 3" [a-z0-9, ]*')
            choose = Constrained(
                grammar, pyllama.SamplerChain([samplers.temp(0.8), samplers.dist(5)])
            )
            recorder = Recorder(choose, 2, model.vocab.piece_table(special=True))
            report = Report()
            made = make(context, prompt, sampler=recorder, max_tokens=30, report=report, **options)
            found.append([(token, recorder.last) for token in made])
    assert report.n_accepted > 0
    assert [token for token, _ in found[0]] == [token for token, _ in found[1]]
    assert all(token == last.token for token, last in found[1])
    logprobs = [[last.logprob for _, last in each] for each in found]
    np.testing.assert_allclose(logprobs[0], logprobs[1], atol=0.3)  # Q8_0 rounds per batch


def test_processors_see_the_tokens_so_far(contexts):
    """Not the guesses."""
    one, other = contexts
    expected = whole(one)
    seen = []

    def note(input_ids, scores):
        seen.append(input_ids.tolist())
        return scores

    drafted(other, oracle(expected, 3), logits_processor=[note])
    assert seen == [expected[:i] for i in range(4, 44)]


def test_no_more_is_drafted_than_can_be_used(contexts):
    """Neither beyond max_tokens nor beyond the context."""
    one, other = contexts
    draft = Scripted(lambda _ids, _n: [])
    drafted(other, draft, n=6, n_draft=8)
    assert [n for _, n in draft.asked] == [4, 3, 2, 1]
    expected = whole(one, n=None)
    assert len(expected) == 257
    draft = oracle(expected, 5)
    assert drafted(other, draft, n=None, n_draft=8) == expected
    assert all(n_ids + n <= 256 for n_ids, n in draft.asked)


def test_what_does_not_fit_is_refused_before_anything_is_decoded(contexts):
    """As in the plain loop."""
    _, other = contexts
    with pytest.raises(ContextLengthError):
        drafted(other, PromptLookup(), n=254)
    assert other.memory.pos_max(0) is None


def test_a_timeout_and_an_abort_are_those_of_the_loop(contexts):
    """The tokens until then stay, and the context is usable."""
    one, other = contexts
    expected = whole(one)
    run = speculative.tokens(other, PROMPT, draft=oracle(expected), timeout=300)
    assert next(run) == expected[4]
    other.abort()
    with pytest.raises(AbortedError):
        list(run)
    with pytest.raises(TimeoutError):
        drafted(other, oracle(expected), timeout=0)
    assert drafted(other, oracle(expected, 3)) == expected
