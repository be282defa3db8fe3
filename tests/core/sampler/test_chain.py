"""A chain: a sequence of samplers that it owns."""

from __future__ import annotations

import numpy as np
import pytest

import pyllama
from pyllama.core import sampler
from pyllama.core.library import lib
from pyllama.errors import ClosedError, StateError


@pytest.fixture
def row() -> np.ndarray:
    return np.array([0.5, 2, 1, 1.5], np.float32)


def test_is_a_sequence():
    """Length, index, slice, iteration, membership and order."""
    parts = [sampler.top_k(3), sampler.temp(0.5), sampler.greedy()]
    chain = sampler.SamplerChain(parts)
    assert len(chain) == 3
    assert list(chain) == parts
    assert chain[0] is parts[0]
    assert chain[-1] is parts[2]
    assert chain[1:] == parts[1:]
    assert parts[1] in chain
    assert chain.index(parts[2]) == 2
    assert [part.name for part in reversed(chain)] == ["greedy", "temp", "top-k"]
    with pytest.raises(IndexError):
        chain[3]


def test_holds_in_c_what_it_holds_in_python():
    """After every change both agree."""
    chain = sampler.SamplerChain([sampler.top_k(3), sampler.temp(0.5), sampler.greedy()])
    chain.pop(1)
    chain.add(sampler.dist(seed=1))
    pointer = chain.pointer
    assert lib.llama_sampler_chain_n(pointer) == len(chain)
    for index, part in enumerate(chain):
        assert lib.llama_sampler_chain_get(pointer, index) == part.pointer


def test_applies_its_samplers_in_order(row):
    """Sampling through the chain is applying one after the other."""
    chain = sampler.SamplerChain([sampler.top_k(2), sampler.temp(0.5)])
    candidates = sampler.Candidates(row)
    chain.apply(candidates)
    assert candidates.data["id"].tolist() == [1, 3]
    assert candidates.data["logit"].tolist() == [4, 3]


def test_pop_gives_a_sampler_back(row):
    """In its state, free to be used, added elsewhere and closed; by default the last one."""
    chain = sampler.SamplerChain([sampler.top_k(2), sampler.dist(seed=3)])
    expected = sampler.SamplerChain([sampler.dist(seed=3)])
    dist = chain.pop()
    assert [dist.sample(row) for _ in range(9)] == [expected.sample(row) for _ in range(9)]
    chain.pop(0)
    assert len(chain) == 0
    chain.close()
    other = sampler.SamplerChain([dist])
    other.sample(row)
    other.pop().close()
    with pytest.raises(IndexError):
        other.pop()


def test_is_greedy_only_while_it_is(row):
    """The short cut for greedy ends when another sampler comes in."""
    chain = sampler.SamplerChain([sampler.greedy()])
    assert chain.sample(row) == 1
    greedy = chain.pop()
    chain.add(sampler.logit_bias(4, {1: -np.inf}))
    chain.add(greedy)
    assert chain.sample(row) == 3


def test_a_sampler_belongs_to_one_chain():
    """Adding it twice would free it twice."""
    part = sampler.temp(0.5)
    chain = sampler.SamplerChain([part])
    for other in (chain, sampler.SamplerChain()):
        with pytest.raises(StateError, match="belongs to a chain"):
            other.add(part)
    assert len(chain) == 1


def test_a_constructor_that_fails_gives_everything_back(row):
    """The samplers before the wrong one stay usable."""
    one, two = sampler.top_k(2), sampler.greedy()
    with pytest.raises(StateError, match="belongs to a chain"):
        sampler.SamplerChain([one, two, one])
    assert two.sample(row) == 1
    assert len(sampler.SamplerChain([one, two])) == 2


@pytest.mark.parametrize("wrong", [None, "greedy", 3, lambda row: 0])
def test_holds_only_samplers(wrong):
    """libllama would follow whatever pointer it is given."""
    with pytest.raises(TypeError, match="a chain holds samplers"):
        sampler.SamplerChain([wrong])


def test_a_closed_sampler_cannot_be_added():
    """It has nothing to give."""
    part = sampler.temp(0.5)
    part.close()
    with pytest.raises(ClosedError, match="temp sampler is closed"):
        sampler.SamplerChain([part])


def test_cannot_hold_itself():
    """It would call itself until the stack is full."""
    chain = sampler.SamplerChain()
    with pytest.raises(StateError, match="cannot hold itself"):
        chain.add(chain)


def test_chains_nest_without_cycles(row):
    """An inner chain belongs to the outer one and is changed no more."""
    inner = sampler.SamplerChain([sampler.top_k(2), sampler.greedy()])
    outer = sampler.SamplerChain([sampler.logit_bias(4, {1: -1.0}), inner])
    assert outer.sample(row) == 3
    for change in (lambda: inner.add(outer), lambda: inner.add(sampler.greedy()), inner.pop):
        with pytest.raises(StateError, match="belongs to a chain"):
            change()
    assert outer.clone().sample(row) == 3
    assert inner[1].name == "greedy"
    assert outer.pop() is inner
    assert inner.sample(row) == 1
    inner.add(sampler.greedy())


def test_closing_closes_what_it_holds():
    """The samplers are gone with the chain, and say so."""
    part = sampler.temp(0.5)
    with sampler.SamplerChain([part]) as chain:
        assert not part.closed
    assert part.closed
    part.close()
    for use in (lambda: part.name, chain.pop, lambda: chain.add(sampler.greedy()), part.clone):
        with pytest.raises(ClosedError):
            use()


def test_a_dropped_chain_takes_its_samplers_along():
    """There is no cycle that would keep C memory until a garbage collection."""
    part = sampler.SamplerChain([sampler.temp(0.5)])[0]
    assert part.closed


def test_a_clone_is_deep(row):
    """Its samplers are its own."""
    chain = sampler.SamplerChain([sampler.top_k(2), sampler.dist(seed=1)], no_perf=False)
    clone = chain.clone()
    assert [part.name for part in clone] == ["top-k", "dist"]
    assert repr(clone) == repr(chain)
    assert clone[0] is not chain[0]
    chain.close()
    clone.sample(row)
    assert clone.pop().sample(row) in range(4)


def test_the_seed_is_that_of_the_last_sampler_that_has_one():
    """Whatever kind it is."""
    chain = sampler.SamplerChain([sampler.dist(seed=1), sampler.xtc(0.1, 0.1, seed=2)])
    assert chain.seed == 2
    chain.pop()
    chain.add(sampler.greedy())
    assert chain.seed == 1
    assert sampler.SamplerChain().seed is None


@pytest.mark.parametrize("no_perf", ["no", 0])
def test_whether_time_is_measured_is_a_bool(no_perf):
    """Nothing else is taken for one."""
    with pytest.raises(TypeError, match="no_perf must be True or False"):
        sampler.SamplerChain(no_perf=no_perf)


def test_perf_counts_tokens_and_time(row):
    """Time only where it was asked for."""
    parts = [sampler.top_k(2), sampler.dist(seed=1)]
    chain = sampler.SamplerChain(parts, no_perf=False)
    big = np.tile(row, 20_000)
    for _ in range(5):
        chain.sample(big)
    perf = chain.perf
    assert perf.n_sample == 5
    assert perf.t_sample_ms > 0
    chain.perf_reset()
    assert chain.perf == sampler.SamplerPerf(0.0, 0)
    silent = sampler.SamplerChain([sampler.greedy()])
    silent.sample(row)
    assert silent.perf == sampler.SamplerPerf(0.0, 1)


def test_reset_reaches_every_sampler(row):
    """And of one sampler through the chain only that one."""
    chain = sampler.SamplerChain(
        [sampler.penalties(4, penalty_last_n=8, penalty_freq=9), sampler.dist(seed=1)]
    )
    tokens = [chain.sample(row) for _ in range(8)]
    chain.reset()
    assert [chain.sample(row) for _ in range(8)] == tokens
    chain[0].reset()
    candidates = sampler.Candidates(row)
    chain.apply(candidates)
    assert candidates.data["logit"].tolist() == row.tolist()


def test_refuses_samplers_of_two_models_or_sizes(model, tiny_path):
    """Their tokens are not the same."""
    with pyllama.Model(tiny_path) as other:
        chain = sampler.SamplerChain([sampler.infill(model.vocab)])
        with pytest.raises(ValueError, match="another model"):
            chain.add(sampler.infill(other.vocab))
        with pytest.raises(ValueError, match="for 7 tokens"):
            chain.add(sampler.logit_bias(7, {1: 1.0}))
        assert len(chain) == 1


def test_is_bound_to_a_model_only_while_it_needs_it(tiny_path, row):
    """Without the grammar the chain outlives the model."""
    model = pyllama.Model(tiny_path)
    grammar = sampler.grammar(model.vocab, 'root ::= "a"')
    chain = sampler.SamplerChain([grammar, sampler.greedy()])
    assert chain.pop(0) is grammar
    model.close()
    assert grammar.closed
    assert chain.sample(row) == 1
