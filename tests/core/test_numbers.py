"""Logits against a float64 forward pass, and against themselves computed in other ways.

Tolerances: f32 computes in float32 alone; f16 rounds activations to half precision; quantised
products round activations to 8 bits, so that only the error as a whole can be bounded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_model import write_llama
from reference import Llama, mean_kl, nmse

import pyllama

N_TOKENS = 201
SHAPE = {"n_embd": 256, "n_layer": 2, "n_head": 8, "n_head_kv": 2, "n_ff": 512, "n_vocab": 600}
MODELS = {
    "f32": {"type": "f32"},
    "experts": {"type": "f32", "n_expert": 4, "n_expert_used": 2},
    "f16": {"type": "f16"},
    "q8_0": {"type": "q8_0"},
    "q4_K": {"type": "q4_K"},
    "q4_K_M": {"type": "q4_K_M"},
}
TOKENS = np.random.default_rng(1).integers(0, SHAPE["n_vocab"], N_TOKENS).astype(np.int32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write each of `MODELS` once."""
    folder = tmp_path_factory.mktemp("numbers")
    return {
        name: write_llama(folder / f"{name}.gguf", **SHAPE, **options)
        for name, options in MODELS.items()
    }


@pytest.fixture
def context(request: pytest.FixtureRequest, paths: dict[str, Path]):
    """Open the model that the test names, with the exact settings and room for 4 sequences."""
    name, *unified = request.param.split()
    options = {"n_ctx": 1024, "n_seq_max": 4, "kv_unified": bool(unified), "exact": True}
    with pyllama.Model(paths[name]) as model, model.context(**options) as context:
        yield context


def decode_all(context, tokens, **fields) -> np.ndarray:
    """Return the logits after each of *tokens*."""
    context.decode(pyllama.Batch(tokens, output="all", **fields))
    return context.logits()


def decode_one_by_one(context, tokens, *, seq: int = 0) -> np.ndarray:
    """Return the same, from one decode for each token."""
    rows = [
        decode_all(context, [token], pos=pos, seq_id=seq)[0] for pos, token in enumerate(tokens)
    ]
    return np.array(rows)


@pytest.fixture
def measured_and_expected(request, paths):
    """Return the logits of `TOKENS` from the binding, and from the reference."""
    path = paths[request.param]
    with pyllama.Model(path) as model, model.context(n_ctx=256, exact=True) as context:
        measured = decode_all(context, TOKENS)
    assert measured.dtype == np.float32
    return measured.astype(np.float64), Llama(path).logits(TOKENS)


@pytest.mark.parametrize("measured_and_expected", ["f32", "experts"], indirect=True)
def test_f32_logits_are_those_of_the_reference(measured_and_expected):
    """Dense and with experts, each logit is within 1e-4 of the float64 one."""
    measured, expected = measured_and_expected
    assert 2 < expected.std() < 4  # the tolerance is meant for logits of this size
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("measured_and_expected", ["f16"], indirect=True)
def test_f16_logits_are_those_of_the_reference(measured_and_expected):
    """Half-precision weights round the activations too: each logit is within 5e-2."""
    measured, expected = measured_and_expected
    np.testing.assert_allclose(measured, expected, rtol=0, atol=5e-2)


@pytest.mark.parametrize(
    ("measured_and_expected", "most_nmse", "most_kl"),
    [("q8_0", 2e-3, 6e-3), ("q4_K", 4e-3, 1.2e-2), ("q4_K_M", 4e-3, 1.2e-2)],
    indirect=["measured_and_expected"],
)
def test_quantised_logits_are_close_to_the_reference(measured_and_expected, most_nmse, most_kl):
    """The distributions differ by no more than 8-bit activations explain."""
    measured, expected = measured_and_expected
    assert nmse(measured, expected) < most_nmse
    assert mean_kl(measured, expected) < most_kl


@pytest.mark.parametrize(
    ("context", "most"),
    [("f32", 1e-4), ("experts", 1e-4), ("f16", 3e-2), ("q8_0", 0), ("q4_K", 0.5)],
    indirect=["context"],
)
def test_a_prompt_gives_what_its_tokens_give_one_by_one(context, most):
    """One decode of many tokens, and many of one, agree; for q8_0 to the last bit."""
    at_once = decode_all(context, TOKENS[:64])
    context.memory.clear()
    one_by_one = decode_one_by_one(context, TOKENS[:64])
    np.testing.assert_allclose(one_by_one, at_once, rtol=0, atol=most)


@pytest.mark.parametrize("context", ["f32", "f32 unified", "experts"], indirect=True)
def test_sequences_in_one_batch_do_not_touch_each_other(context):
    """Four interleaved sequences of different lengths give what each gives alone."""
    lengths = (40, 17, 33, 5)
    starts = np.cumsum((0, *lengths[:-1]))
    parts = [TOKENS[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    rows = sorted((pos, seq) for seq, part in enumerate(parts) for pos in range(len(part)))
    pos, seq = np.array(rows, np.int32).T
    tokens = np.array([parts[s][p] for p, s in rows], np.int32)
    together = decode_all(context, tokens, pos=pos, seq_id=seq)
    for index, part in enumerate(parts):
        context.memory.clear()
        alone = decode_all(context, part, seq_id=index)
        np.testing.assert_allclose(together[seq == index], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("context", ["f32 unified"], indirect=True)
def test_a_token_shared_by_sequences_is_seen_by_both(context):
    """A prefix decoded once for two sequences serves each as if it were its own."""
    prefix, ends = TOKENS[:20], (TOKENS[20:30], TOKENS[30:40])
    decode_all(context, prefix, seq_id=[[0, 1]] * len(prefix))
    forked = [decode_all(context, end, pos=20, seq_id=seq) for seq, end in enumerate(ends)]
    for end, rows in zip(ends, forked, strict=True):
        context.memory.clear()
        whole = decode_all(context, np.concatenate([prefix, end]))
        np.testing.assert_allclose(rows, whole[20:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("context", ["f32"], indirect=True)
def test_removed_positions_leave_no_trace(context):
    """After the end of a sequence is removed, another one continues from there."""
    decode_all(context, TOKENS[:40])
    context.memory.remove(0, 25, None)
    other = TOKENS[100:110]
    continued = decode_all(context, other, pos=25)
    context.memory.clear()
    fresh = decode_all(context, np.concatenate([TOKENS[:25], other]))
    np.testing.assert_allclose(continued, fresh[25:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("context", ["f32"], indirect=True)
def test_the_last_row_is_the_same_whatever_else_is_asked_for(context):
    """Which rows are put out does not change them."""
    rows = decode_all(context, TOKENS)
    context.memory.clear()
    context.decode(pyllama.Batch(TOKENS, output="last"))
    np.testing.assert_allclose(context.logits()[-1], rows[-1], rtol=0, atol=1e-4)
    context.memory.clear()
    wanted = np.arange(N_TOKENS) % 7 == 0
    context.decode(pyllama.Batch(TOKENS, output=wanted))
    np.testing.assert_allclose(context.logits(), rows[wanted], rtol=0, atol=1e-4)


@pytest.mark.parametrize("measured_and_expected", ["f32"], indirect=True)
def test_the_same_decode_gives_the_same_bits(measured_and_expected, paths):
    """A second model and context repeat the first's logits exactly."""
    measured, _ = measured_and_expected
    with pyllama.Model(paths["f32"]) as model, model.context(n_ctx=256, exact=True) as context:
        again = decode_all(context, TOKENS)
    np.testing.assert_array_equal(again, measured)
