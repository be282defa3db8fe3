"""Samplers inside the graph: that they choose as they do outside."""

from __future__ import annotations

import numpy as np
import pytest

import pyllama
from pyllama import Batch, Context, Model, SamplerChain, samplers
from pyllama.errors import (
    ClosedError,
    GrammarError,
    InvalidBatchError,
    SamplingError,
    StateError,
)

PROMPT = [1, 5, 9, 13]


@pytest.fixture
def pair(model: Model):
    """Return two equal contexts, one to attach chains to, one to sample from outside."""
    options = {"n_ctx": 256, "n_seq_max": 4, "n_threads": 1, "n_threads_batch": 1}
    with model.context(**options) as inside, model.context(**options) as outside:
        yield inside, outside


def nothing(candidates: pyllama.LiveCandidates) -> None:
    """Be a sampler that changes nothing."""


# Those that leave their candidates in the order of the vocabulary, or sort them: token for token
# the same, as dist goes through them in their order.
SAME = {
    "greedy": lambda m: [samplers.greedy()],
    "dist": lambda m: [samplers.dist(seed=3)],
    "temp, dist": lambda m: [samplers.temp(0.7), samplers.dist(seed=3)],
    "temp 0": lambda m: [samplers.temp(0), samplers.dist(seed=3)],
    "top_k, top_p": lambda m: [samplers.top_k(40), samplers.top_p(0.9), samplers.dist(seed=3)],
    "min_p": lambda m: [samplers.min_p(0.2), samplers.dist(seed=3)],
    "penalties": lambda m: [
        samplers.penalties(m.n_vocab, penalty_last_n=8, penalty_repeat=1.5), samplers.dist(seed=3)
    ],
    "logit_bias": lambda m: [
        samplers.logit_bias(m.n_vocab, {7: 9.0, 3: -np.inf}), samplers.dist(seed=3)
    ],
    "on the CPU after top_k": lambda m: [
        samplers.top_k(40), samplers.typical(0.9), samplers.dist(seed=3)
    ],
    "Python after temp": lambda m: [
        samplers.temp(0.7), samplers.python(nothing), samplers.dist(seed=3)
    ],
    "Python first": lambda m: [samplers.python(nothing), samplers.dist(seed=3)],
    "grammar": lambda m: [samplers.grammar(m.vocab, "root ::= [a-z]*"), samplers.dist(seed=3)],
    "no-ops": lambda m: [
        samplers.top_k(0), samplers.temp(1.0), samplers.top_p(1.0), samplers.dist(seed=3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_a_chain_chooses_in_the_graph_what_it_chooses_outside(kind, pair, model):
    """Token for token, accepting each, over a generated text."""
    inside, outside = pair
    chain = SamplerChain(SAME[kind](model))
    inside.attach_sampler(chain)
    step = Batch(PROMPT)
    for n_past in range(len(PROMPT), len(PROMPT) + 16):
        inside.decode(step)
        outside.decode(step)
        token = inside.sample()
        assert token == chain.sample(outside.logits()[-1])
        step = Batch([token], pos=n_past)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [samplers.top_k(9), samplers.temp(0.8)],
        lambda: [samplers.temp_ext(0.9, delta=0.5, exponent=1)],
        lambda: [samplers.top_k(9), samplers.temp_ext(0.9, delta=0.5, exponent=1)],
    ],
    ids=["top_k", "temp_ext", "both"],
)
def test_the_same_tokens_have_the_same_probabilities(make, pair):
    """Where the order of rows is another than outside, a random number gives another token."""
    inside, outside = pair
    chain = SamplerChain([*make(), samplers.dist(seed=1)])
    inside.attach_sampler(chain)
    inside.decode(Batch(PROMPT))
    outside.decode(Batch(PROMPT))
    candidates = pyllama.Candidates(outside.logits()[-1])
    chain.apply(candidates)
    ours = np.sort(inside.sampled_candidates(), order="id")
    theirs = np.sort(candidates.data, order="id")
    assert (ours["id"] == theirs["id"]).all()
    np.testing.assert_allclose(ours["logit"], theirs["logit"], rtol=1e-4)
    np.testing.assert_allclose(ours["p"], theirs["p"], rtol=1e-3)


def test_what_was_chosen_can_be_read_without_sampling(pair):
    """The token if the graph chose it, else None; and what is left."""
    inside, outside = pair
    inside.attach_sampler(SamplerChain([samplers.greedy()]), seq=0)
    inside.attach_sampler(SamplerChain([samplers.top_k(5)]), seq=2)
    batch = Batch([1, 2, 3], seq_id=[0, 1, 2], pos=[0, 0, 0], output="all")
    inside.decode(batch)
    outside.decode(batch)
    raw = outside.logits()
    assert inside.sampled_token(0) == raw[0].argmax()
    assert inside.sampled_token(2) is inside.sampled_token(-1) is None
    assert set(inside.sampled_candidates(2)["id"]) == set(np.argsort(-raw[2])[:5].tolist())
    whole = inside.sampled_candidates(0)
    assert (whole["id"] == np.arange(len(raw[0]))).all()
    assert (whole["logit"] == raw[0]).all()
    assert (whole["p"] == 0).all()


def test_logits_of_a_row_sampled_in_the_graph_are_refused(pair):
    """libllama leaves older numbers there; rows of other sequences can be read."""
    inside, outside = pair
    inside.attach_sampler(SamplerChain([samplers.greedy()]), seq=1)
    batch = Batch([1, 2], seq_id=[0, 1], pos=[0, 0], output="all")
    inside.decode(batch)
    outside.decode(batch)
    for read in (
        inside.logits, inside.logits_view, lambda: inside.logits_view(1),
        lambda: inside.logits_view(-1), lambda: inside._decode_with_last_row(None, np.copy),
    ):  # fmt: skip
        with pytest.raises(StateError, match="stayed in the graph"):
            read()
    assert (inside.logits_view(0) == outside.logits()[0]).all()
    assert inside.sample(1) == outside.logits()[1].argmax()
    with pytest.raises(StateError, match="of a sequence that no chain was attached to"):
        inside.sample(0)


def test_a_run_of_the_loop_on_a_sampled_sequence_says_so(pair):
    """It reads logits, and there are none."""
    inside, _ = pair
    inside.attach_sampler(SamplerChain([samplers.greedy()]))
    with pytest.raises(StateError, match="stayed in the graph"):
        list(pyllama.generate.tokens(inside, PROMPT, max_tokens=2))


def test_rows_that_libllama_must_reorder_stay_right_when_chains_change(model):
    """Its order of sequences is not the batch's; a chain may come or go before they are read."""
    options = {"n_ctx": 1024, "n_seq_max": 4, "n_threads": 1, "n_threads_batch": 1}
    ids = [3, 0, 2, 1, 0, 3, 1, 2]
    pos = [0, 0, 0, 0, 1, 1, 1, 1]
    batch = Batch(range(1, 9), seq_id=ids, pos=pos, output=[False] * 4 + [True] * 4)
    with model.context(**options) as one, model.context(**options) as plain:
        plain.decode(batch)
        wanted = plain.logits()
        one.decode(batch)
        one.attach_sampler(SamplerChain([samplers.greedy()]), seq=3)
        assert (one.logits() == wanted).all()
        one.memory.clear()
        one.decode(batch)
        one.attach_sampler(SamplerChain([samplers.greedy()]), seq=0)
        assert one.sampled_token(1) == wanted[1].argmax()
        one.detach_sampler(0)
        assert one.sampled_token(1) == wanted[1].argmax()
        assert (one.logits_view(2) == wanted[2]).all()


def test_several_rows_of_one_sequence(model):
    """As many as the context was made for; random numbers go on from row to row."""
    options = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}
    batch = Batch(PROMPT, output="all")
    chain = SamplerChain([samplers.dist(seed=5)])
    with model.context(n_outputs_max_per_seq=4, **options) as inside:
        inside.attach_sampler(chain)
        inside.decode(batch)
        tokens = [inside.sample(row) for row in range(4)]
    with model.context(**options) as outside:
        outside.decode(batch)
        assert tokens == [chain.sample(row) for row in outside.logits()]
        outside.attach_sampler(chain)
        with pytest.raises(InvalidBatchError, match="at most 1 outputs per sequence"):
            outside.decode(Batch(PROMPT, pos=4, output="all"))
        outside.decode(Batch(PROMPT, pos=4))


def test_a_row_of_several_sequences_is_refused(model):
    """Which of their chains would sample it, libllama leaves to a hash table."""
    chain = SamplerChain([samplers.greedy()])
    with model.context(n_ctx=256, n_seq_max=3, kv_unified=True, n_threads=1) as context:
        context.attach_sampler(chain, seq=1)
        with pytest.raises(InvalidBatchError, match="one of which has a chain"):
            context.decode(Batch([1], seq_id=[[0, 1]]))
        context.decode(Batch([1], seq_id=[[0, 1]], output="none"))
        context.decode(Batch([2], seq_id=[[0, 1]], pos=1, output="none"))
        context.memory.clear()
        context.decode(Batch([2], seq_id=[[0, 2]]))
        assert np.isfinite(context.logits()).all()


def test_chains_of_sequences_that_are_not_in_the_batch_wait(pair):
    """Their random numbers do not go on."""
    inside, outside = pair
    for seq in range(3):
        inside.attach_sampler(SamplerChain([samplers.dist(seed=seq)]), seq=seq)
    chains = [SamplerChain([samplers.dist(seed=seq)]) for seq in range(3)]
    for n_past, seqs in enumerate([[0, 1, 2], [1], [2], [1, 2], [0], [2, 0]]):
        batch = Batch(seqs, seq_id=seqs, pos=[n_past * 10] * len(seqs), output="all")
        for each in pair:
            each.memory.clear()
            each.decode(batch)
        for row, seq in enumerate(seqs):
            assert inside.sample(row) == chains[seq].sample(outside.logits()[row])


def test_the_chain_given_stays_the_callers(pair):
    """The context has a copy; the one given can be used, attached again, and closed."""
    inside, outside = pair
    chain = SamplerChain([samplers.dist(seed=1)])
    inside.attach_sampler(chain, seq=1)
    inside.attach_sampler(chain, seq=0)
    assert inside.attached_seqs == (0, 1)
    outside.attach_sampler(chain)
    row = np.zeros(9, np.float32)
    assert 0 <= chain.sample(row) < 9
    chain.close()
    inside.decode(Batch(PROMPT))
    outside.decode(Batch(PROMPT))
    assert inside.sample() == outside.sample()


def test_detaching_gives_the_chain_in_its_state(pair):
    """It goes on outside where it stood in the graph."""
    inside, outside = pair
    chain = SamplerChain([samplers.temp(0.8), samplers.dist(seed=2)])
    inside.attach_sampler(chain)
    step = Batch(PROMPT)
    for n_past in range(4, 10):
        for each in pair:
            each.decode(step)
        token = chain.sample(outside.logits()[-1])
        assert inside.sample() == token
        step = Batch([token], pos=n_past)
    back = inside.detach_sampler()
    for each in pair:
        each.decode(step)
    row = inside.logits()[-1]
    assert (row == outside.logits()[-1]).all()
    assert [back.sample(row) for _ in range(9)] == [chain.sample(row) for _ in range(9)]
    inside.attach_sampler(back)


def test_after_detaching_its_rows_cannot_be_sampled(pair):
    """Another chain knows nothing of them."""
    inside, _ = pair
    inside.attach_sampler(SamplerChain([samplers.greedy()]))
    inside.decode(Batch(PROMPT))
    inside.detach_sampler()
    inside.attach_sampler(SamplerChain([samplers.greedy()]))
    with pytest.raises(StateError, match="was detached"):
        inside.sample()
    with pytest.raises(StateError, match="stayed in the graph"):
        inside.logits()


def test_accept_tells_the_attached_chain(pair, model):
    """Penalties of a prompt, and grammars."""
    inside, _ = pair
    grammar = samplers.grammar(model.vocab, 'root ::= "a"')
    inside.attach_sampler(SamplerChain([grammar, samplers.greedy()]))
    letter = int(model.vocab.tokenize("b", add_special=False)[-1])
    with pytest.raises(GrammarError):
        inside.accept(letter)
    with pytest.raises(ValueError, match="token"):
        inside.accept(model.n_vocab)
    inside.decode(Batch(PROMPT))
    token = inside.sample(accept=False)
    assert token == inside.sample(accept=False)
    inside.accept(token)


def test_sampling_fails_as_outside(pair, model):
    """A chain that does not choose, and one that rules all out."""
    inside, _ = pair
    inside.attach_sampler(SamplerChain([samplers.top_k(3)]), seq=0)
    none = samplers.logit_bias(model.n_vocab, dict.fromkeys(range(model.n_vocab), -np.inf))
    inside.attach_sampler(SamplerChain([none, samplers.dist(seed=1)]), seq=1)
    inside.decode(Batch([1, 1], seq_id=[0, 1], pos=[0, 0], output="all"))
    with pytest.raises(SamplingError, match="does not choose"):
        inside.sample(0)
    with pytest.raises(SamplingError, match="every logit is -inf"):
        inside.sample(1)


def test_what_a_python_sampler_raises_is_raised_by_sample(pair):
    """And the context goes on."""

    class Sometimes:
        fails = True

        def apply(self, candidates: pyllama.LiveCandidates) -> None:
            if Sometimes.fails:
                raise KeyError

    inside, _ = pair
    inside.attach_sampler(SamplerChain([samplers.python(Sometimes()), samplers.greedy()]))
    inside.decode(Batch(PROMPT))
    with pytest.raises(KeyError):
        inside.sample()
    Sometimes.fails = False
    assert inside.sample() == inside.sampled_candidates()["logit"].argmax()


def test_rows_that_are_not_there(pair):
    """Before a decode, and beyond what it made."""
    inside, _ = pair
    inside.attach_sampler(SamplerChain([samplers.greedy()]))
    with pytest.raises(StateError, match="nothing was sampled"):
        inside.sampled_token()
    inside.decode(Batch(PROMPT))
    for row in (1, -2, 2**40):
        with pytest.raises(IndexError, match="is not there"):
            inside.sampled_candidates(row)
    with pytest.raises(TypeError):
        inside.sample("0")


def test_a_context_and_its_model_close_in_any_order(tiny_path):
    """With chains attached, of C and of Python, that need the model."""
    for first in (Context.close, lambda context: context.model.close(), lambda context: None):
        model = Model(tiny_path)
        context = model.context(n_ctx=256)
        grammar = samplers.grammar(model.vocab, 'root ::= "a"*')
        context.attach_sampler(SamplerChain([grammar, samplers.python(nothing), samplers.greedy()]))
        context.decode(Batch([1]))
        assert context.sample() >= 0
        first(context)
        context.close()
        with pytest.raises(ClosedError):
            context.sample()
        model.close()


@pytest.mark.parametrize("embeddings", [False, True])
def test_embeddings_are_made_beside_it(embeddings, model):
    """A context that outputs every token samples every token."""
    options = {"n_outputs_max_per_seq": 8} if embeddings else {}
    with model.context(n_ctx=256, embeddings=embeddings, n_threads=1, **options) as context:
        context.attach_sampler(SamplerChain([samplers.greedy()]))
        context.decode(Batch(PROMPT))
        assert context.n_outputs == (4 if embeddings else 1)
        assert [context.sample(row) for row in range(context.n_outputs)][-1] == context.sample()
