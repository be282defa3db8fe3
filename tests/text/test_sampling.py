"""Sampling parameters: their chain, what a model file recommends, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.text.sampling import ORDER, SamplingParams

HPARAMS = {
    "llama.context_length": 64,
    "llama.embedding_length": 8,
    "llama.block_count": 1,
    "llama.feed_forward_length": 8,
    "llama.attention.head_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
N_VOCAB = 400


@pytest.fixture
def recommending(tmp_path):
    """Return a function that makes a model whose file recommends sampling parameters."""
    models = []

    def make(**recommended):
        path = tmp_path / f"{len(models)}.gguf"
        keys = {f"general.sampling.{key}": value for key, value in recommended.items()}
        pairs = {**HPARAMS, **random_model.vocabulary("spm", N_VOCAB), **keys}
        random_model.write(path, "llama", pairs, [])
        models.append(pyllama.Model(path, vocab_only=True))
        return models[-1]

    yield make
    for model in models:
        model.close()


# What common_params_sampling holds at the pin.
DEFAULTS = {
    "seed": 0xFFFFFFFF,
    "min_keep": 0,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "typ_p": 1.0,
    "temp": 0.8,
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "penalty_last_n": 64,
    "penalty_repeat": 1.0,
    "penalty_freq": 0.0,
    "penalty_present": 0.0,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 64,
    "dry_sequence_breakers": ("\n", ":", '"', "*"),
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "top_n_sigma": -1.0,
    "samplers": (
        *"penalties dry top_n_sigma top_k".split(),
        "typical_p",  # printed as typ_p
        *"top_p min_p xtc temperature".split(),
    ),
    "logit_bias": {},
}
RENAMED = {"temperature": "temp", "typical_p": "typ_p"}
# Where a number stands for "none" or "draw one" there, None does here; min_keep 1 does what 0 does.
OURS = {"seed": None, "top_n_sigma": None, "adaptive_target": None, "min_keep": 1}
# Options, and the chain that common_sampler_print shows for the same ones at the pin; it marks
# samplers that do nothing, which are left out here.
CHAINS = [
    ({}, "top-k top-p min-p temp-ext dist"),
    (
        {
            "penalty_repeat": 1.1,
            "dry_multiplier": 0.8,
            "top_n_sigma": 2.0,
            "typical_p": 0.9,
            "xtc_probability": 0.5,
            "dynatemp_range": 0.2,
            "logit_bias": {3: 1.0},
        },
        "logit-bias penalties dry top-n-sigma top-k typical top-p min-p xtc temp-ext dist",
    ),
    ({"samplers": ("temperature", "top_k")}, "temp-ext top-k dist"),
    ({"samplers": ("infill",)}, "infill dist"),
    ({"samplers": ()}, "dist"),
    ({"mirostat": 1}, "temp mirostat"),
    ({"mirostat": 2}, "temp mirostat-v2"),
    ({"mirostat": 2, "temperature": 0}, "temp mirostat-v2"),
    ({"samplers": ("min_p", "adaptive_p"), "adaptive_target": 0.3}, "min-p adaptive-p"),
    ({"samplers": ("adaptive_p", "min_p"), "adaptive_target": 0.3}, "min-p adaptive-p"),
]


def names(params, model):
    """Return what llama.cpp calls the samplers of the chain."""
    return [part.name for part in params.sampler(model)]


def test_names_and_defaults_are_those_of_llama_cpp():
    """None is missing, and none is added."""
    params = dataclasses.asdict(SamplingParams())
    expected = {n: OURS.get(n, DEFAULTS[RENAMED.get(n, n)]) for n in params}
    assert params == expected
    assert {RENAMED.get(name, name) for name in params} == DEFAULTS.keys()


@pytest.mark.parametrize(("options", "chain"), CHAINS, ids=lambda value: str(value)[:40])
def test_the_chain_is_that_of_llama_cpp(options, chain, model):
    """The same samplers in the same order."""
    assert names(SamplingParams(**options), model) == chain.split()


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"penalty_repeat": 1.2}, "greedy"),
        ({"samplers": ("top_k",)}, "dist"),
    ],
)
def test_what_chooses_without_temperature(options, last, model):
    """The likeliest token, unless the temperature is not among the samplers."""
    assert names(SamplingParams(temperature=0, **options), model)[-1] == last


def test_temperature_zero_needs_no_sampler(model):
    """What only cuts keeps the likeliest token, so nothing is left to do."""
    assert SamplingParams(temperature=0, top_k=5, min_p=0.1).sampler(model) is None


def test_temperature_zero_takes_the_likeliest(model):
    """Also with a sampler before it that could drop it."""
    row = np.random.default_rng(0).normal(size=model.n_vocab).astype(np.float32)
    for options in ({}, {"penalty_present": 0.5}, {"xtc_probability": 0.0, "typical_p": 1.0}):
        sampler = SamplingParams(temperature=0, **options).sampler(model)
        assert (int(row.argmax()) if sampler is None else sampler.sample(row)) == row.argmax()


def test_the_seed_is_drawn_and_told(model):
    """The one told reproduces the choices."""
    params = SamplingParams().seeded()
    assert params.seed is not None
    assert params.seeded() is params
    row = np.zeros(model.n_vocab, np.float32)
    first, second = params.sampler(model), params.sampler(model)
    drawn = [first.sample(row) for _ in range(20)]
    assert drawn == [second.sample(row) for _ in range(20)]
    assert SamplingParams().seeded().seed != params.seed


def test_bias_rules_out_and_prefers(model):
    """-inf never comes; a large bias always does."""
    row = np.zeros(model.n_vocab, np.float32)
    sampler = SamplingParams(logit_bias={7: 100.0, 8: -math.inf}, seed=1).sampler(model)
    assert {sampler.sample(row) for _ in range(20)} == {7}


def liked(model, first, second):
    """Return logits of two tokens, the first a little above the second."""
    row = np.full(model.n_vocab, -9, np.float32)
    row[[first, second]] = 1.1, 1.0
    return row


def test_the_tokens_of_a_prompt_are_repeated_too(model):
    """As far back as the penalties look; here 4 tokens."""
    row = liked(model, 7, 8)
    params = SamplingParams(temperature=0, penalty_repeat=2.0, penalty_last_n=4)
    assert params.sampler(model, [7, 1, 2, 3]).sample(row) == 8
    assert params.sampler(model, [7, 1, 2, 3, 4]).sample(row) == 7
    assert params.sampler(model).sample(row) == 7


def test_a_phrase_of_the_prompt_is_repeated_too(model):
    """What would go on with it costs what DRY says, and only as far back as DRY looks."""
    row = liked(model, 7, 8)
    prompt = [4, 5, 6, 7, 9, 4, 5, 6]
    options = {"temperature": 0, "dry_multiplier": 1.0, "dry_sequence_breakers": ()}
    for n_back, token in ((64, 8), (8, 8), (4, 7)):
        params = SamplingParams(**options, dry_penalty_last_n=n_back)
        assert params.sampler(model, prompt).sample(row) == token


def test_only_the_end_of_a_long_prompt_is_read(model):
    """What comes before it is not even looked at."""
    params = SamplingParams(temperature=0, penalty_repeat=2.0, dry_multiplier=1.0)
    sampler = params.sampler(model, [*["no token"] * 10**6, *[7] * 64])
    assert sampler.sample(liked(model, 7, 8)) == 8


def test_suppressed_tokens_never_come(tmp_path):
    """The model file rules them out, whatever the caller prefers."""
    path = tmp_path / "suppress.gguf"
    pairs = {
        **HPARAMS,
        **random_model.vocabulary("spm", N_VOCAB),
        "tokenizer.ggml.suppress_tokens": [9],
    }
    random_model.write(path, "llama", pairs, [])
    with pyllama.Model(path, vocab_only=True) as model:
        row = np.zeros(model.n_vocab, np.float32)
        row[9] = 50
        sampler = SamplingParams(temperature=0, logit_bias={9: 10.0}).sampler(model)
        assert sampler.sample(row) != 9


def test_the_file_recommends_where_nothing_is_given(recommending):
    """Its values replace the defaults; what the caller gives stands above them."""
    model = recommending(temp=0.3, top_k=7, mirostat_tau=4.0, sequence="top-k;nucleus;temp")
    params = SamplingParams.of(model, top_k=9)
    assert (params.temperature, params.top_k, params.mirostat_tau) == (pytest.approx(0.3), 9, 4.0)
    assert params.samplers == ("top_k", "top_p", "temperature")


def test_a_senseless_recommendation_is_left_out(recommending, caplog):
    """With a warning that names it."""
    with caplog.at_level(logging.WARNING, "pyllama"):
        params = SamplingParams.of(recommending(top_p=7.0, temp=float("nan"), sequence="top_x"))
    assert (params.top_p, params.temperature, params.samplers) == (0.95, 0.8, ORDER)
    for name in ("top_p", "temp", "sequence"):
        assert f"general.sampling.{name}" in caplog.text


def test_an_unknown_name_is_an_error(model):
    """Nothing is swallowed."""
    with pytest.raises(TypeError, match=r"unknown sampling parameter\(s\): temprature"):
        SamplingParams.of(model, temprature=1)


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(SamplingParams)])
@pytest.mark.parametrize("value", ["x", object(), -1, math.nan, math.inf, 10**12])
def test_bad_values_are_refused(name, value):
    """Each field refuses other types and numbers out of range, with its name."""
    reals = {"penalty_freq", "penalty_present"}
    unbounded = {*reals, "penalty_repeat", "temperature", "top_n_sigma", "dynatemp_range"}
    unbounded |= {"dynatemp_exponent", "dry_multiplier", "dry_base", "mirostat_tau", "mirostat_eta"}
    if (value == -1 and name in reals) or (value == 10**12 and name in unbounded):
        SamplingParams(**{name: value})
        return
    with pytest.raises((TypeError, ValueError), match=name):
        SamplingParams(**{name: value})
