"""What all samplers share: choosing, accepting, copies, ownership and refusals."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import pyllama
from pyllama.core import sampler
from pyllama.errors import BusyError, ClosedError, SamplingError, StateError

N = 300
SELECTING = {
    "greedy": sampler.greedy,
    "dist": lambda: sampler.dist(seed=1),
    "mirostat": lambda: sampler.mirostat(N, tau=3, eta=0.1, seed=1),
    "mirostat_v2": lambda: sampler.mirostat_v2(tau=3, eta=0.1, seed=1),
    "adaptive_p": lambda: sampler.adaptive_p(0.4, decay=0.9, seed=1),
}
OTHERS = {
    "top_k": lambda: sampler.top_k(5),
    "top_p": lambda: sampler.top_p(0.9),
    "min_p": lambda: sampler.min_p(0.1),
    "typical": lambda: sampler.typical(0.9),
    "top_n_sigma": lambda: sampler.top_n_sigma(1),
    "xtc": lambda: sampler.xtc(0.5, 0.1, seed=1),
    "temp": lambda: sampler.temp(0.5),
    "temp_ext": lambda: sampler.temp_ext(1, delta=0.5, exponent=1),
    "penalties": lambda: sampler.penalties(N, penalty_last_n=8, penalty_repeat=1.1),
    "logit_bias": lambda: sampler.logit_bias(N, {1: 1.0}),
}
ANY = {**SELECTING, **OTHERS}


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, N).astype(np.float32)


def chain_with(*samplers: sampler.Sampler) -> sampler.SamplerChain:
    return sampler.SamplerChain(samplers)


@pytest.mark.parametrize("kind", SELECTING)
def test_a_sampler_that_selects_chooses_a_token(kind, logits):
    """Alone it does, and at the end of a chain."""
    assert 0 <= SELECTING[kind]().sample(logits) < N
    assert 0 <= chain_with(sampler.top_k(9), SELECTING[kind]()).sample(logits) < N


@pytest.mark.parametrize("kind", OTHERS)
def test_a_sampler_that_does_not_select_says_so(kind, logits):
    """libllama ends the process when nothing selects."""
    for chooser in (OTHERS[kind](), chain_with(sampler.greedy(), OTHERS[kind]())):
        with pytest.raises(SamplingError, match="does not choose a token"):
            chooser.sample(logits)


@pytest.mark.parametrize("kind", SELECTING)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_with_nonsense_is_an_error(kind, wrong, logits):
    """One such logit is enough, wherever it stands."""
    for index in (0, N // 2, N - 1):
        row = logits.copy()
        row[index] = wrong
        with pytest.raises(SamplingError, match="no token can be chosen"):
            SELECTING[kind]().sample(row)


@pytest.mark.parametrize("kind", SELECTING)
def test_a_row_that_rules_out_everything_is_an_error(kind):
    """libllama would return the first or the last token."""
    with pytest.raises(SamplingError, match="ruled out"):
        SELECTING[kind]().sample(np.full(N, -np.inf, np.float32))


@pytest.mark.parametrize("kind", SELECTING)
def test_tokens_ruled_out_are_never_chosen(kind):
    """A row may be -inf nearly everywhere."""
    row = np.full(N, -np.inf, np.float32)
    row[[7, 200]] = 1.0
    chooser = SELECTING[kind]()
    assert {chooser.sample(row) for _ in range(50)} <= {7, 200}


@pytest.mark.parametrize("kind", SELECTING)
def test_samplers_that_rule_out_everything_are_an_error(kind, logits):
    """And the chain works again on the next row."""
    everything = sampler.logit_bias(N, dict.fromkeys(range(N), -np.inf))
    chain = chain_with(everything, SELECTING[kind]())
    with pytest.raises(SamplingError, match="ruled out every token"):
        chain.sample(logits)
    chooser = chain.pop()
    assert chooser.sample(logits) == SELECTING[kind]().sample(logits) or kind != "greedy"
    assert len({chooser.sample(logits) for _ in range(60)}) < N // 3


def test_a_temperature_near_zero_that_overflows_is_an_error(logits):
    """Dividing by it gives infinities, of which no softmax can be made."""
    with pytest.raises(SamplingError, match="ruled out every token"):
        chain_with(sampler.temp(1e-38), sampler.dist(seed=1)).sample(logits * 100)


@pytest.mark.parametrize("logits", [np.zeros(0, np.float32), np.zeros((2, 5), np.float32)])
def test_sample_refuses_other_shapes(logits):
    """A row has one dimension and at least one token."""
    with pytest.raises(ValueError, match="shape"):
        sampler.greedy().sample(logits)


def test_sample_refuses_a_row_of_another_vocabulary(logits):
    """A sampler that knows its number of tokens compares."""
    chain = chain_with(sampler.penalties(N, penalty_last_n=8, penalty_freq=1), sampler.greedy())
    assert chain.n_vocab == N
    with pytest.raises(ValueError, match="299 logits"):
        chain.sample(logits[:-1])


def test_sample_accepts_what_it_chose_unless_told_otherwise():
    """A penalty sees the tokens only when they are accepted."""
    row = np.array([1, 1.5, 0], np.float32)
    chain = chain_with(sampler.penalties(3, penalty_last_n=8, penalty_freq=1), sampler.greedy())
    assert [chain.sample(row, accept=False) for _ in range(3)] == [1, 1, 1]
    assert [chain.sample(row) for _ in range(4)] == [1, 0, 1, 0]


@pytest.mark.parametrize("token", [-1, N, 2**31])
def test_accept_refuses_tokens_out_of_range(token):
    """libllama would end the process, or count a token that is none."""
    with pytest.raises(ValueError, match="token="):
        sampler.penalties(N, penalty_last_n=8, penalty_freq=1).accept(token)


def test_accept_refuses_what_is_no_integer():
    """Not even a float that could be one."""
    with pytest.raises(TypeError, match="integer"):
        sampler.greedy().accept(1.0)


@pytest.mark.parametrize("kind", ["dist", "mirostat", "mirostat_v2", "adaptive_p", "xtc"])
def test_a_clone_goes_on_alone(kind, logits):
    """It draws what the original would have drawn, and does not move it."""
    chooser = chain_with(ANY[kind](), sampler.dist(seed=9)) if kind == "xtc" else ANY[kind]()
    for _ in range(5):
        chooser.sample(logits)
    if kind == "adaptive_p":  # its clone begins its random numbers anew, see Sampler.clone
        chooser.reset()
    clone = chooser.clone()
    theirs = [clone.sample(logits) for _ in range(20)]
    assert [chooser.sample(logits) for _ in range(20)] == theirs
    chooser.close()
    clone.sample(logits)


def test_a_clone_remembers_accepted_tokens(logits):
    """And forgets none when the original is reset."""
    kind = sampler.penalties(N, penalty_last_n=8, penalty_freq=1)
    kind.accept(3)
    clone = kind.clone()
    kind.reset()
    candidates = sampler.Candidates(logits)
    clone.apply(candidates)
    assert candidates.data["logit"][3] == logits[3] - 1


def test_a_clone_between_choosing_and_accepting_is_safe(logits):
    """libllama's clone of adaptive_p points into probabilities that it did not copy."""
    chooser = SELECTING["adaptive_p"]()
    token = chooser.sample(logits, accept=False)
    for copy in (chooser.clone(), chain_with(chooser).clone()):
        copy.accept(token)
        assert 0 <= copy.sample(logits) < N


def test_copy_from_takes_a_state_back(logits):
    """The same tokens come once more."""
    chain = chain_with(
        sampler.penalties(N, penalty_last_n=8, penalty_freq=1),
        sampler.xtc(0.5, 0.01, seed=2),
        sampler.top_k(40),
        sampler.dist(seed=1),
    )
    chain.sample(logits)
    before = chain.clone()
    tokens = [chain.sample(logits) for _ in range(20)]
    chain.copy_from(before)
    assert [chain.sample(logits) for _ in range(20)] == tokens


@pytest.mark.parametrize("kind", ANY)
def test_every_kind_can_be_copied(kind, logits):
    """Also onto a clone of itself, and onto itself."""
    one = ANY[kind]()
    other = one.clone()
    other.copy_from(one)
    other.copy_from(other)
    candidates = sampler.Candidates(logits)
    other.apply(candidates)
    assert candidates.size >= 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: sampler.top_k(5), lambda: sampler.top_p(0.5)),
        (lambda: sampler.top_k(5), lambda: sampler.top_k(0)),
        (lambda: sampler.top_k(5), lambda: sampler.top_k(6)),
        (lambda: chain_with(sampler.greedy()), lambda: chain_with()),
        (lambda: chain_with(sampler.greedy()), lambda: sampler.greedy()),
        (lambda: chain_with(sampler.temp(0.5)), lambda: chain_with(sampler.temp(0.6))),
    ],
)
def test_copy_from_refuses_what_is_made_otherwise(one, other):
    """libllama asserts that kinds and lengths agree, and trusts that options do."""
    ours, theirs = one(), other()
    for a, b in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match="other kinds or options"):
            a.copy_from(b)


@pytest.mark.parametrize("kind", ANY)
def test_closing_twice_is_allowed_and_using_it_then_is_not(kind, logits):
    """A closed sampler names itself."""
    one = ANY[kind]()
    with one:
        pass
    one.close()
    assert one.closed
    for use in (
        lambda: one.name,
        lambda: one.apply(sampler.Candidates(logits)),
        lambda: one.accept(1),
        one.reset,
        one.clone,
    ):
        with pytest.raises(ClosedError, match=f"this {kind} sampler is closed"):
            use()


@pytest.mark.parametrize(
    "make", [sampler.infill, lambda vocab: sampler.grammar(vocab, 'root ::= "a"')]
)
def test_a_sampler_of_a_vocabulary_closes_with_its_model(make, tiny_path):
    """It would read freed memory; a chain that holds it closes as well."""
    model = pyllama.Model(tiny_path)
    alone = make(model.vocab)
    chain = chain_with(sampler.top_k(3), make(model.vocab), sampler.greedy())
    model.close()
    row = np.zeros(512, np.float32)
    for use in (alone.reset, lambda: chain.sample(row), chain.clone, chain[1].reset):
        with pytest.raises(ClosedError):
            use()
    assert alone.closed
    assert chain.closed


def test_a_dropped_sampler_is_freed_at_once(tiny_path):
    """The model does not collect the records of samplers that are gone."""
    with pyllama.Model(tiny_path) as model:
        before = len(model._record.children)
        for _ in range(50):
            chain_with(sampler.grammar(model.vocab, 'root ::= "a"'), sampler.greedy())
            sampler.infill(model.vocab)
        assert len(model._record.children) == before


def test_a_garbage_cycle_of_samplers_is_freed():
    """Chain and sampler may be collected in any order."""
    for _ in range(5):
        chain = chain_with(sampler.dist(seed=1), sampler.greedy())
        chain.keep = chain[0].keep = [chain, chain[0], chain[1]]
        gone = weakref.ref(chain)
        del chain
        gc.collect()
        assert gone() is None


def test_a_sampler_is_for_one_thread_at_a_time(logits):
    """A second thread is refused while the first is inside; nothing breaks."""
    chain = chain_with(sampler.top_p(0.99), sampler.dist(seed=1))
    row = np.tile(logits, 400)
    busy, unexpected = [], []

    def use() -> None:
        for _ in range(30):
            try:
                chain.sample(row)
            except BusyError as error:
                busy.append(error)
            except BaseException as error:  # noqa: BLE001 - reported below
                unexpected.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not unexpected
    assert 0 <= chain.sample(row) < len(row)


def test_shows_kind_and_options():
    """A repr is what would make it again."""
    assert repr(sampler.top_p(0.5)) == "<Sampler top_p(p=0.5, min_keep=1)>"


def test_a_sampler_in_a_chain_is_not_used_directly(logits):
    """What changes it goes through the chain; what reads it works."""
    inner = sampler.dist(seed=4)
    chain = chain_with(inner)
    for use in (
        lambda: inner.sample(logits),
        lambda: inner.apply(sampler.Candidates(logits)),
        lambda: inner.accept(1),
        lambda: inner.copy_from(sampler.dist(seed=4)),
        inner.close,
    ):
        with pytest.raises(StateError, match="belongs to a chain"):
            use()
    assert (inner.name, inner.seed) == ("dist", 4)
    inner.reset()
    assert inner.clone().sample(logits) == chain.sample(logits)
