"""Samplers that libllama cannot run inside the graph, or would run wrongly there, are refused."""

from __future__ import annotations

import numpy as np
import pytest
import random_model

from pyllama import Batch, Model, SamplerChain, samplers
from pyllama.errors import StateError, UnsupportedError


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: samplers.greedy(), TypeError, "a SamplerChain is attached"),
        (lambda m: None, TypeError, "a SamplerChain is attached"),
        (lambda m: SamplerChain(), ValueError, "empty chain"),
        (lambda m: SamplerChain([SamplerChain([samplers.greedy()])]), UnsupportedError, "flat"),
        (lambda m: [samplers.top_k(5), samplers.greedy()], UnsupportedError, "row for the token"),
        (lambda m: [samplers.temp(0), samplers.greedy()], UnsupportedError, "row for the token"),
        (lambda m: [samplers.top_k(m.n_vocab + 1)], UnsupportedError, "k is more than"),
        (lambda m: [samplers.top_k(5), samplers.top_k(6)], UnsupportedError, "than the 5"),
        (lambda m: [samplers.top_p(0.9, min_keep=2)], UnsupportedError, "no min_keep"),
        (lambda m: [samplers.min_p(1.0)], UnsupportedError, "no token at p=1"),
        (
            lambda m: [samplers.top_k(5), samplers.logit_bias(m.n_vocab, {1: 1.0})],
            UnsupportedError,
            "wrong rows",
        ),
        (
            lambda m: [samplers.top_k(1), samplers.temp_ext(1, delta=0.5, exponent=1)],
            UnsupportedError,
            "entropy",
        ),
        (lambda m: [samplers.dist(1), samplers.top_k(5)], UnsupportedError, "must be the last"),
        (lambda m: [samplers.logit_bias(9, {1: 1.0})], ValueError, "is for 9 tokens"),
    ],
)
def test_what_goes_wrong_in_the_graph_is_refused(make, error, message, context, model):
    """libllama would end the process, or choose other tokens, without a word."""
    made = make(model)
    chain = SamplerChain(made) if isinstance(made, list) else made
    with pytest.raises(error, match=message):
        context.attach_sampler(chain)
    context.decode(Batch([1, 5, 9, 13]))
    assert np.isfinite(context.logits()).all()


def test_a_chain_of_another_model_is_refused(context, tiny_path):
    """It dies with that model."""
    with Model(tiny_path) as other:
        chain = SamplerChain([samplers.grammar(other.vocab, 'root ::= "a"'), samplers.greedy()])
        with pytest.raises(ValueError, match="another model"):
            context.attach_sampler(chain)


def test_sequences_out_of_range_are_refused(context):
    """libllama stores them and says nothing."""
    chain = SamplerChain([samplers.greedy()])
    for wrong in (-7, 4, 2**31):
        for use in (
            lambda seq=wrong: context.attach_sampler(chain, seq=seq),
            lambda seq=wrong: context.detach_sampler(seq),
            lambda seq=wrong: context.accept(1, seq=seq),
        ):
            with pytest.raises(ValueError, match="seq"):
                use()
    with pytest.raises(StateError, match="sequence 1 has no chain"):
        context.detach_sampler(1)
    context.attach_sampler(chain, seq=1)
    with pytest.raises(StateError, match="sequence 1 has a chain"):
        context.attach_sampler(chain, seq=1)


def test_a_model_that_makes_no_text_is_refused(tmp_path):
    """It has no logits to sample from."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    chain = SamplerChain([samplers.greedy()])
    with (
        Model(path) as model,
        model.context(n_ctx=128) as context,
        pytest.raises(UnsupportedError, match="models that generate"),
    ):
        context.attach_sampler(chain)
