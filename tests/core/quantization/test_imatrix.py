"""Collecting an importance matrix, compared with sums made by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill
from reference import Llama, softmax

import pyllama
from pyllama.errors import StateError, UnsupportedError

TOKENS = tuple(range(3, 43))


class Spy(Llama):
    """The reference, which keeps what each of its weights is multiplied with."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seen: dict[str, list[np.ndarray]] = {}

    def _attention(self, layer, x):
        for name in "qkv":
            self._see(layer, f"attn_{name}", x)
        return super()._attention(layer, x)

    def _dense(self, layer, x):
        gate = x @ self._block(layer, "ffn_gate").T
        hidden = gate / (1 + np.exp(-gate)) * (x @ self._block(layer, "ffn_up").T)
        for name, met in (("ffn_gate", x), ("ffn_up", x), ("ffn_down", hidden)):
            self._see(layer, name, met)
        return super()._dense(layer, x)

    def _see(self, layer, name, x):
        self.seen.setdefault(f"blk.{layer}.{name}.weight", []).append(x)


@pytest.fixture
def exact(model):
    """Make a context whose numbers can be compared with the reference."""
    with model.context(exact=True, **SMALL) as context:
        yield context


def test_sums_equal_those_of_the_reference(exact, tiny_path):
    """Two chunks, each of which begins with the token that texts begin with."""
    matrix = pyllama.imatrix(exact, TOKENS, chunk_size=20)
    spy = Spy(tiny_path)
    for start in (0, 20):
        spy.logits([exact.model.vocab.bos, *TOKENS[start + 1 : start + 20]])
    assert len(spy.seen) == 12
    for name, seen in spy.seen.items():
        expected = (np.concatenate(seen) ** 2).sum(axis=0)
        np.testing.assert_allclose(matrix.sums[name][0], expected, rtol=1e-4)
        assert matrix.counts[name] == len(TOKENS)


def test_experts_are_counted_one_by_one(tmp_path):
    """Each is given the tokens that it was chosen for."""
    path = random_model.write_llama(tmp_path / "experts.gguf", n_expert=4, n_expert_used=2)
    with (
        pyllama.Model(path) as model,
        model.context(exact=True, **SMALL) as context,
        context.observe("ffn_norm-0", "ffn_moe_topk-0") as seen,
    ):
        matrix = pyllama.imatrix(context, TOKENS)
    (_, x), (_, chosen) = seen
    for expert in range(4):
        rows = x[(chosen == expert).any(axis=1)]
        found = matrix.sums["blk.0.ffn_up_exps.weight"][expert]
        np.testing.assert_allclose(found, (rows.astype(float) ** 2).sum(axis=0), rtol=1e-5)
        assert matrix.counts["blk.0.ffn_up_exps.weight"][expert] == len(rows)
    assert matrix.counts["blk.0.ffn_down_exps.weight"].sum() == 2 * len(TOKENS)


def test_the_router_is_dense(tmp_path):
    """softmax of what is seen is what chooses, and each token meets all of it."""
    path = random_model.write_llama(tmp_path / "experts.gguf", n_expert=4, n_expert_used=2)
    with (
        pyllama.Model(path) as model,
        model.context(exact=True, **SMALL) as context,
        context.observe("ffn_moe_logits-0", "ffn_moe_probs-0") as seen,
    ):
        matrix = pyllama.imatrix(context, TOKENS)
    (_, logits), (_, likelihood) = seen
    np.testing.assert_allclose(softmax(logits), likelihood, atol=1e-6)
    assert matrix.counts["blk.0.ffn_gate_inp.weight"].tolist() == [len(TOKENS)]


def test_micro_batches_and_batches_make_no_difference(model):
    """A chunk may take several of both."""
    with model.context(exact=True, **SMALL) as context:
        whole = pyllama.imatrix(context, TOKENS)
    sizes = {"n_batch": 16, "n_ubatch": 8, "type_k": "f32", "type_v": "f32"}
    with model.context(flash_attn_type="disabled", **sizes, **SMALL) as context:
        pieces = pyllama.imatrix(context, TOKENS)
    for name, sums in whole.sums.items():
        np.testing.assert_allclose(pieces.sums[name], sums, rtol=1e-4)
        assert pieces.counts[name] == whole.counts[name]


def test_the_last_layer_sees_all_tokens(context):
    """It is narrowed to the tokens with output, so all have it."""
    matrix = pyllama.imatrix(context, TOKENS)
    assert {int(counts[0]) for counts in matrix.counts.values()} == {len(TOKENS)}
    assert len(matrix.sums) == 14


def test_the_output_matrix_is_measured_if_asked_for(context):
    """llama-imatrix leaves it out as well."""
    assert "output.weight" not in pyllama.imatrix(context, TOKENS).sums
    assert "output.weight" in pyllama.imatrix(context, TOKENS, output=True).sums


def test_text_is_tokenized(context):
    """As the model's vocabulary does it."""
    text = "hello world, hello again"
    tokens = context.model.vocab.tokenize(text)
    by_text = pyllama.imatrix(context, text, dataset="mine")
    by_tokens = pyllama.imatrix(context, tokens)
    assert all(np.array_equal(by_text.sums[name], by_tokens.sums[name]) for name in by_text.sums)
    assert by_text.datasets == ("mine",)


def test_an_encoder_is_measured_too(tmp_path):
    """It has no memory, and takes a chunk at once."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    with pyllama.Model(path) as model, model.context(embeddings=True, **SMALL) as context:
        matrix = pyllama.imatrix(context, TOKENS)
    assert {int(counts[0]) for counts in matrix.counts.values()} == {len(TOKENS)}


def test_progress_is_told_and_may_end_it(context):
    """What was seen until then is what comes back."""
    told = []

    def progress(fraction):
        told.append(fraction)
        return len(told) < 2

    matrix = pyllama.imatrix(context, TOKENS, chunk_size=10, progress=progress)
    assert told == [0.25, 0.5]
    assert matrix.counts["blk.0.attn_q.weight"] == 20


def test_what_progress_raises_comes_out(context):
    """And the memory is empty."""
    with pytest.raises(ZeroDivisionError):
        pyllama.imatrix(context, TOKENS, progress=lambda fraction: 1 / 0)
    assert context.memory.pos_max(0) is None


def test_nothing_is_collected_afterwards(context):
    """The context computes as before."""
    pyllama.imatrix(context, TOKENS)
    assert context.memory.pos_max(0) is None
    assert np.isfinite(prefill(context)).all()


def test_a_memory_that_holds_tokens_is_left_alone(context):
    """It would be cleared."""
    prefill(context)
    with pytest.raises(StateError, match="empty"):
        pyllama.imatrix(context, TOKENS)


def test_a_context_without_hooks_cannot(model):
    """Nothing is computed."""
    with (
        model.context(hooks=False, **SMALL) as context,
        pytest.raises(UnsupportedError, match="hooks=False"),
    ):
        pyllama.imatrix(context, TOKENS)


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    """It has no plain text."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    with (
        pyllama.Model(path) as model,
        model.context(**SMALL) as context,
        pytest.raises(UnsupportedError, match="encoder"),
    ):
        pyllama.imatrix(context, TOKENS)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((None,), {}, TypeError),
        (([],), {}, ValueError),
        ((b"",), {"chunk_size": 0}, ValueError),
        ((TOKENS,), {"chunk_size": 100000}, ValueError),
        ((TOKENS,), {"chunk_size": 1.5}, TypeError),
        ((TOKENS,), {"output": 1}, TypeError),
        ((TOKENS,), {"parse_special": None}, TypeError),
        ((TOKENS,), {"progress": 1}, TypeError),
        ((TOKENS,), {"dataset": None}, TypeError),
        (([99999],), {}, ValueError),
    ],
)
def test_arguments_are_checked(context, arguments, options, error):
    """And the context is as before."""
    with pytest.raises(error):
        pyllama.imatrix(context, *arguments, **options)
    assert context.memory.pos_max(0) is None


def test_a_model_is_no_context(model):
    """Only a context computes."""
    with pytest.raises(TypeError, match="Context"):
        pyllama.imatrix(model, TOKENS)
