"""Each kind of sampler against what it is meant to do, written down in numpy."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from pyllama.core import sampler
from pyllama.core.library import lib

N = 2000


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(7).normal(0, 3, N).astype(np.float32)


def apply(kind: sampler.Sampler, logits: np.ndarray) -> sampler.Candidates:
    candidates = sampler.Candidates(logits)
    kind.apply(candidates)
    return candidates


def left(kind: sampler.Sampler, logits: np.ndarray) -> set[int]:
    return set(apply(kind, logits).data["id"].tolist())


def changed(kind: sampler.Sampler, logits: np.ndarray) -> np.ndarray:
    """Return the logits after a sampler, in order of the tokens; -inf where one is gone."""
    rows = apply(kind, logits).data
    after = np.full(len(logits), -np.inf)
    after[rows["id"]] = rows["logit"]
    return after


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64) - logits.max())
    return p / p.sum()


def likeliest(logits: np.ndarray) -> np.ndarray:
    return np.argsort(-logits, kind="stable")


def frequencies(kind: sampler.Sampler, logits: np.ndarray, n: int) -> np.ndarray:
    drawn = [kind.sample(logits) for _ in range(n)]
    return np.bincount(drawn, minlength=len(logits))


def chi_squared(counts: np.ndarray, p: np.ndarray) -> float:
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_constructor_of_the_header_has_a_function(model):
    """None is forgotten, and each says which C function it calls."""
    docs = "".join(inspect.getdoc(getattr(sampler, name)) or "" for name in sampler.__all__)
    wanted = {name for name in dir(lib) if name.startswith("llama_sampler_init_")}
    assert {name for name in wanted if name not in docs} == set()


def test_greedy_takes_the_largest(logits):
    """Of equal logits it takes the first, as libllama does."""
    assert sampler.greedy().sample(logits) == logits.argmax()
    assert sampler.greedy().sample(np.array([1, 3, 3], np.float32)) == 1
    assert apply(sampler.greedy(), logits).selected == logits.argmax()


def test_dist_draws_with_the_probabilities():
    """Chi-squared over 20,000 draws stays below its 99.9 % bound for 5 degrees of freedom."""
    logits = np.array([0, 1, 2, -1, 0.5, 1.5], np.float32)
    counts = frequencies(sampler.dist(seed=3), logits, 20_000)
    assert chi_squared(counts, softmax(logits)) < 20.5


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: sampler.dist(seed),
        lambda seed: sampler.mirostat(N, tau=5, eta=0.1, seed=seed),
        lambda seed: sampler.mirostat_v2(tau=5, eta=0.1, seed=seed),
        lambda seed: sampler.adaptive_p(0.3, decay=0.9, seed=seed),
        lambda seed: sampler.SamplerChain([sampler.xtc(0.5, 0.01, seed=seed), sampler.greedy()]),
    ],
)
def test_the_same_seed_draws_the_same_tokens(make, logits):
    """And another one does not; reset begins again."""

    def draws(chooser: sampler.Sampler) -> list[int]:
        return [chooser.sample(logits) for _ in range(64)]

    first = make(11)
    tokens = draws(first)
    assert draws(make(11)) == tokens
    assert draws(make(12)) != tokens
    first.reset()
    assert draws(first) == tokens


@pytest.mark.parametrize("k", [1, 40, 500, N, 10 * N])
def test_top_k_keeps_the_k_likeliest(k, logits):
    """Sorted, the likeliest first."""
    candidates = apply(sampler.top_k(k), logits)
    assert candidates.data["id"].tolist() == likeliest(logits)[:k].tolist()
    assert candidates.sorted


@pytest.mark.parametrize(("p", "min_keep"), [(0.0, 1), (0.5, 1), (0.95, 1), (0.1, 30), (0.99, 1)])
def test_top_p_keeps_the_fewest_that_reach_p(p, min_keep, logits):
    """But at least ``min_keep``; libllama sums in float32, which may shift the end by one."""
    order = likeliest(logits)
    n = max(int(np.searchsorted(np.cumsum(softmax(logits)[order]), p)) + 1, min_keep)
    kept = left(sampler.top_p(p, min_keep=min_keep), logits)
    assert kept == set(order[: len(kept)].tolist())
    assert abs(len(kept) - n) <= (p > 0.98)


@pytest.mark.parametrize(("p", "min_keep"), [(0.05, 1), (0.9, 1), (0.9, 25), (1.0, 1)])
def test_min_p_keeps_what_is_nearly_as_likely_as_the_first(p, min_keep, logits):
    """But at least ``min_keep``."""
    n = max(int((logits >= logits.max() + math.log(p)).sum()), min_keep)
    expected = set(likeliest(logits)[:n].tolist())
    assert left(sampler.min_p(p, min_keep=min_keep), logits) == expected


@pytest.mark.parametrize("p", [0.2, 0.6, 0.9])
def test_typical_keeps_what_is_about_as_surprising_as_usual(p, logits):
    """In order of the distance from the entropy, until p is passed."""
    q = softmax(logits)
    order = np.argsort(abs(-np.log(q) - -(q * np.log(q)).sum()))
    n = int(np.searchsorted(np.cumsum(q[order]), p, side="right")) + 1
    assert left(sampler.typical(p), logits) == set(order[:n].tolist())


def test_top_n_sigma_rules_out_what_is_far_from_the_largest(logits):
    """The distance is measured in standard deviations of all logits."""
    after = changed(sampler.top_n_sigma(1.5), logits)
    near = logits >= logits.max() - 1.5 * logits.std()
    assert np.array_equal(np.isfinite(after), near)
    assert np.array_equal(after[near], logits[near])


def test_xtc_takes_the_likely_ones_away_but_the_last():
    """With p = 1 it always acts; with p = 0 never."""
    logits = np.log(np.array([0.05, 0.3, 0.15, 0.4, 0.1], np.float32))
    assert left(sampler.xtc(1.0, 0.12, seed=1), logits) == {2, 4, 0}
    assert left(sampler.xtc(1.0, 0.12, min_keep=4, seed=1), logits) == {0, 1, 2, 3, 4}
    assert left(sampler.xtc(0.0, 0.12, seed=1), logits) == {0, 1, 2, 3, 4}


def test_temp_divides(logits):
    """And 0 leaves only the likeliest possible."""
    assert np.allclose(changed(sampler.temp(0.7), logits), logits / np.float32(0.7))
    after = changed(sampler.temp(0), logits)
    assert np.flatnonzero(np.isfinite(after)).tolist() == [logits.argmax()]


def test_temp_ext_follows_the_entropy(logits):
    """The temperature lies in its range where the normalised entropy says."""
    q = softmax(logits)
    entropy = -(q * np.log(q)).sum() / math.log(N)
    t = 0.5 + (1.5 - 0.5) * entropy**1.2
    after = changed(sampler.temp_ext(1.0, delta=0.5, exponent=1.2), logits)
    assert np.allclose(after, logits / t, rtol=1e-4)


def test_penalties_look_back_over_the_last_tokens(logits):
    """Repeated tokens lose by repetition, count and presence; older ones are forgotten."""
    kind = sampler.penalties(
        N, penalty_last_n=4, penalty_repeat=1.5, penalty_freq=0.25, penalty_present=0.5
    )
    for token in (9, 5, 7, 5, 5):
        kind.accept(token)
    expected = logits.copy()
    for token, count in ((5, 3), (7, 1)):
        value = expected[token]
        scaled = value / 1.5 if value > 0 else value * 1.5
        expected[token] = scaled - 0.25 * count - 0.5
    assert np.allclose(changed(kind, logits), expected)
    kind.reset()
    assert np.array_equal(changed(kind, logits), logits)


def test_dry_makes_going_on_with_a_repetition_unlikely(model, logits):
    """After a b c d a b c, d is penalised by the length of what is repeated."""
    vocab = model.vocab
    row = logits[: vocab.n_tokens]
    options = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_penalty_last_n": 64}
    kind = sampler.dry(vocab, **options, dry_allowed_length=2)
    a, b, c, d = (int(vocab.tokenize(text, add_special=False)[-1]) for text in "xyzw")
    for token in (a, b, c, d, a, b, c):
        kind.accept(token)
    expected = row.copy()
    expected[d] -= 0.8 * 1.75 ** (3 - 2)
    assert np.allclose(changed(kind, row), expected)


def test_dry_ends_a_sequence_at_a_breaker(model, logits):
    """What stands before the breaker is not compared."""
    vocab = model.vocab
    row = logits[: vocab.n_tokens]
    options = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_penalty_last_n": 64}
    kind = sampler.dry(vocab, **options, dry_allowed_length=2, seq_breakers=["c"])
    for text in "abcdabc":
        kind.accept(int(vocab.tokenize(text, add_special=False)[-1]))
    assert np.array_equal(changed(kind, row), row)


def test_logit_bias_adds(logits):
    """Minus infinity rules a token out; the order of the candidates does not matter."""
    kind = sampler.logit_bias(N, {3: 2.5, 17: -math.inf, N - 1: -1})
    expected = logits.astype(np.float64)
    expected[[3, 17, N - 1]] += [2.5, -np.inf, -1]
    assert np.allclose(changed(kind, logits), expected)
    chain = sampler.SamplerChain([sampler.top_k(N), kind])
    assert np.allclose(changed(chain, logits), expected)


def test_mirostat_v2_chooses_no_token_more_surprising_than_its_target(logits):
    """At the beginning the limit is twice tau."""
    surprise = -np.log2(softmax(logits))
    for seed in range(50):
        token = sampler.mirostat_v2(tau=4, eta=0.1, seed=seed).sample(logits)
        assert surprise[token] <= 8 + 1e-3


@pytest.mark.parametrize("kind", ["mirostat", "mirostat_v2"])
def test_mirostat_is_as_surprising_as_asked_for(kind, logits):
    """A larger tau gives tokens that are more surprising on average, by bits."""
    size = {"n_vocab": N} if kind == "mirostat" else {}
    surprise = -np.log2(softmax(logits))
    means = []
    for tau in (1, 3, 5):
        chooser = getattr(sampler, kind)(**size, tau=tau, eta=0.1, seed=5)
        means.append(np.mean([surprise[chooser.sample(logits)] for _ in range(1000)]))
    assert means[0] + 0.3 < means[1] < means[2] - 0.3


def test_adaptive_p_without_a_target_draws_with_the_probabilities():
    """It is then the same as dist."""
    logits = np.array([0, 1, 2, -1, 0.5, 1.5], np.float32)
    counts = frequencies(sampler.adaptive_p(None, decay=0.9, seed=4), logits, 20_000)
    assert chi_squared(counts, softmax(logits)) < 20.5


def test_adaptive_p_prefers_tokens_near_its_target():
    """A token of that probability is chosen oftener than the likeliest."""
    logits = np.log(np.array([0.7, 0.2, 0.06, 0.04], np.float32))
    counts = frequencies(sampler.adaptive_p(0.2, decay=0.5, seed=4), logits, 2000)
    assert counts[1] > counts[0]


def test_infill_ends_the_text_where_that_is_likely(model):
    """Only tokens that end a text are left then."""
    vocab = model.vocab
    row = np.full(vocab.n_tokens, -1.0, np.float32)
    row[list(vocab.eog_tokens)] = 5
    chain = sampler.SamplerChain([sampler.top_k(20), sampler.infill(vocab)])
    assert left(chain, row) == set(vocab.eog_tokens)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (lambda: sampler.top_k(0), "?top-k"),
        (lambda: sampler.top_p(1.0), "?top-p"),
        (lambda: sampler.min_p(0.0), "?min-p"),
        (lambda: sampler.temp(1.0), "?temp"),
        (lambda: sampler.logit_bias(5, {}), "?logit-bias"),
        (lambda: sampler.penalties(5, penalty_last_n=0), "?penalties"),
        (lambda: sampler.greedy(), "greedy"),
        (lambda: sampler.temp(0.5), "temp"),
        (lambda: sampler.SamplerChain(), "chain"),
    ],
)
def test_names_are_libllamas(kind, name):
    """One that changes nothing says so with a question mark."""
    assert kind().name == name


def test_the_seed_is_always_known(logits):
    """A seed that was drawn makes the same tokens again, and libllama agrees about it."""
    first = sampler.dist()
    assert 0 <= first.seed < 2**32 - 1
    assert lib.llama_sampler_get_seed(first.pointer) == first.seed
    again = sampler.dist(first.seed)
    assert [first.sample(logits) for _ in range(9)] == [again.sample(logits) for _ in range(9)]
    assert sampler.dist().seed != first.seed or sampler.dist().seed != first.seed
    assert sampler.greedy().seed is None
