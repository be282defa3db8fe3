"""Hooks: what they are shown of a graph, and what follows when they change it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import random_model
from decoding import PROMPT, SMALL, go_on, prefill
from reference import Llama

import pyllama

LONG = tuple(range(1, 62))


@pytest.fixture(scope="module")
def experts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a llama with four experts, of which two answer."""
    path = tmp_path_factory.mktemp("hooks") / "experts.gguf"
    return random_model.write_llama(path, n_expert=4, n_expert_used=2)


@pytest.fixture
def exact(model):
    """Make a context whose numbers can be compared with the reference."""
    with model.context(exact=True, **SMALL) as context:
        yield context


@pytest.fixture
def experts(experts_path):
    """Make a context of a model with experts."""
    with pyllama.Model(experts_path) as model, model.context(**SMALL) as context:
        yield context


def all_logits(context: pyllama.Context, tokens=PROMPT):
    """Decode from an empty memory, and return a row for each token."""
    context.memory.clear()
    context.decode(pyllama.Batch(tokens, output="all"))
    return context.logits()


def observed(context: pyllama.Context, *names: str):
    """Return what is seen of these names when the prompt is decoded."""
    with context.observe(*names) as seen:
        prefill(context)
    return seen


def test_observing_every_node_leaves_the_logits_bit_identical(exact):
    """Looking does not change what is computed."""
    alone = all_logits(exact)
    with exact.observe("*") as seen:
        watched = all_logits(exact)
    assert len(seen) > 50
    assert np.array_equal(alone, watched)


def test_a_function_is_called_for_its_names_only(context):
    """The other nodes are passed over in C."""
    with context.observe("l_out-0", "ffn_out-*") as seen:
        prefill(context)
    assert [node.name for node, _ in seen] == ["ffn_out-0", "l_out-0", "ffn_out-1"]


def test_nothing_is_called_after_the_block(context):
    """The names are watched as long as the block lasts."""
    with context.observe("*") as seen:
        prefill(context)
    n_seen = len(seen)
    go_on(context)
    assert len(seen) == n_seen


def test_hidden_states_equal_those_of_the_reference(exact, tiny_path):
    """What a hook sees of the last norm is what numpy computes."""
    with exact.observe("result_norm") as seen:
        all_logits(exact)
    (_, array), *_ = seen
    np.testing.assert_allclose(array, Llama(tiny_path).hidden(PROMPT), atol=1e-4)


def test_a_node_says_what_it_is(context):
    """Name, operation, layer, type and shape."""
    with context.observe("Qcur-1") as seen:
        prefill(context)
    node, array = seen[-1]
    found = node.name, node.op, node.occurrence, node.layer, node.type
    assert found == ("Qcur-1", "ROPE", 2, 1, pyllama.GGMLType.F32)
    assert node.shape == array.shape == (len(PROMPT), 4, 16)
    assert node.dtype == array.dtype == np.float32


def test_repeated_names_are_counted(context):
    """Three nodes are called Qcur-0, and two norm-0."""
    with context.observe("Qcur-0", "norm-0") as seen:
        prefill(context)
    found = [(node.name, node.op, node.occurrence) for node, _ in seen]
    assert found == [
        ("norm-0", "RMS_NORM", 0),
        ("Qcur-0", "MUL_MAT", 0),
        ("Qcur-0", "RESHAPE", 1),
        ("Qcur-0", "ROPE", 2),
        ("norm-0", "RMS_NORM", 1),
    ]


def test_each_micro_batch_calls_again(model):
    """61 tokens in micro-batches of 16: occurrences are counted in each."""
    with model.context(n_ubatch=16, **SMALL) as context, context.observe("l_out-0") as seen:
        context.decode(pyllama.Batch(LONG))
    assert [(node.micro_batch, node.occurrence, len(rows)) for node, rows in seen] == [
        (0, 0, 16),
        (1, 0, 16),
        (2, 0, 16),
        (3, 0, 13),
    ]


def test_moving_the_keys_is_no_micro_batch(context):
    """After a shift libllama runs another graph first, which no hook sees."""
    prefill(context, LONG)
    context.memory.remove(0, 0, 5)
    context.memory.shift(0, delta=-5)
    with context.observe("*") as seen:
        prefill(context, pos=len(LONG) - 5)
    assert seen[0][0].name == "embd"
    assert {node.micro_batch for node, _ in seen} == {0}


def test_embeddings_as_input_are_one_micro_batch_too(context):
    """The graph begins with another node then."""
    rows = np.ones((3, context.model.n_embd_inp), np.float32)
    with context.observe("l_out-0") as seen:
        context.decode(pyllama.Batch(embd=rows))
        context.decode(pyllama.Batch(embd=rows, pos=3))
    assert [(node.micro_batch, len(array)) for node, array in seen] == [(0, 3), (0, 3)]


def test_the_last_layer_has_rows_for_outputs_only(context):
    """It is narrowed before its feed-forward step, so outputs must be asked for."""
    with context.observe("l_out-*") as seen:
        prefill(context)
        context.decode(pyllama.Batch(PROMPT, seq_id=1, output="all"))
    assert [len(array) for _, array in seen] == [len(PROMPT), 1, len(PROMPT), len(PROMPT)]


@pytest.mark.parametrize("unified", [False, True])
def test_rows_of_several_sequences_are_grouped_unless_the_memory_is_unified(model, unified):
    """Row order is libllama's: only a unified memory keeps that of the batch."""
    options = {"n_seq_max": 2, "kv_unified": unified, "exact": True}
    tokens, seqs = [5, 6, 7, 8], [0, 1, 0, 1]
    with model.context(**options, **SMALL) as context, context.observe("embd") as seen:
        context.decode(pyllama.Batch(tokens, pos=[0, 0, 1, 1], seq_id=seqs))
        for token in tokens:
            context.memory.clear()
            context.decode(pyllama.Batch([token]))
    together, *alone = [array for _, array in seen]
    order = [0, 1, 2, 3] if unified else [0, 2, 1, 3]
    np.testing.assert_array_equal(together, np.concatenate([alone[i] for i in order]))


def test_attention_has_a_column_for_each_cell_of_the_memory(exact):
    """The keys are padded to 256; each row sums to 1, and sees no later token."""
    with exact.observe("kq_soft_max-0") as seen:
        all_logits(exact)
    ((_, array),) = seen
    n = len(PROMPT)
    assert array.shape == (4, n, 256)
    np.testing.assert_allclose(array.sum(axis=-1), 1, rtol=1e-5)
    assert not array[..., n:].any()
    assert not np.triu(array[0, :, :n], k=1).any()


def test_flash_attention_hides_the_attention(model):
    """The fused node has no probabilities to show; what comes after it is still there."""
    context = model.context(flash_attn_type="enabled", **SMALL)
    with context, context.observe("kq*", "kqv_out-*") as seen:
        prefill(context)
    assert [node.name for node, _ in seen] == ["kqv_out-0", "kqv_out-1"]


def test_a_view_with_gaps_is_read_by_its_strides(experts):
    """The chosen experts are a view into all experts, sorted."""
    with experts.observe("ffn_moe_probs-0", "ffn_moe_topk-0") as seen:
        prefill(experts)
    arrays = {node.name: array for node, array in seen}
    expected = np.argsort(-arrays["ffn_moe_probs-0"], axis=-1)[:, :2]
    assert arrays["ffn_moe_topk-0"].dtype == np.int32
    np.testing.assert_array_equal(arrays["ffn_moe_topk-0"], expected)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("f32", 0), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 2e-2)]
)
def test_every_type_is_read_as_numbers(tmp_path, kind, tolerance):
    """The keys in the memory are the keys that were computed, rounded to its type."""
    path = random_model.write_llama(tmp_path / "wide.gguf", n_embd=128)
    names = "Kcur-0 (view)", "cache_k_l0 (view)"
    with pyllama.Model(path) as model, model.context(type_k=kind, **SMALL) as context:
        seen = observed(context, *names)
    (_, keys), (node, cache), *_ = seen
    assert node.type is pyllama.GGMLType[kind.upper()]
    n = len(PROMPT)
    np.testing.assert_allclose(cache[:n], keys, atol=tolerance * np.abs(keys).max())


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_precision_is_written_as_it_was_read(model, kind):
    """The memory written over with itself stays as it is, bit for bit."""
    options = {"type_k": kind, "flash_attn_type": "disabled", **SMALL}
    with model.context(**options) as context:
        alone = all_logits(context)
        with context.hooks({"cache_k_l0 (view)": lambda array, node: array}):
            assert np.array_equal(all_logits(context), alone)


@pytest.mark.parametrize(
    "name", ["embd", "attn_norm-0", "Vcur-0", "kq_soft_max-0", "kqv-0 (permuted)", "l_out-0"]
)
def test_patching_with_itself_changes_nothing(exact, name):
    """Whatever the strides are, what is written back is what was read."""
    alone = all_logits(exact)
    with exact.hooks({name: lambda array, node: array}):
        assert np.array_equal(all_logits(exact), alone)


def test_an_addition_to_a_layer_equals_the_reference(exact, tiny_path):
    """What is computed after a replacement follows from it."""
    offsets = np.random.default_rng(0).standard_normal((2, exact.model.n_embd))
    with exact.hooks({"l_out-*": lambda array, node: array + offsets[node.layer]}):
        steered = all_logits(exact)
    expected = Llama(tiny_path).logits(PROMPT, offsets)
    np.testing.assert_allclose(steered, expected, atol=1e-4)


def test_an_ablated_head_equals_a_model_without_it(exact, tiny_path):
    """Head 2 of layer 0 is 16 columns of what goes into its output matrix."""

    def ablate(array, node):
        array[:, 32:48] = 0
        return array

    with exact.hooks({"kqv_out-0": ablate}):
        ablated = all_logits(exact)
    reference = Llama(tiny_path)
    reference.weights["blk.0.attn_output.weight"][:, 32:48] = 0
    np.testing.assert_allclose(ablated, reference.logits(PROMPT), atol=1e-4)


def test_an_expert_that_is_ruled_out_is_never_chosen(experts):
    """A router's logit of minus infinity leaves the choice to the others."""

    def rule_out(array, node):
        array[:, 1] = -np.inf
        return array

    with experts.hooks({"ffn_moe_logits-*": rule_out}):
        seen = observed(experts, "ffn_moe_topk-*")
    assert len(seen) == 2
    assert all(1 not in array for _, array in seen)


def test_the_functions_of_an_outer_block_come_first(exact):
    """The inner one is given what the outer one made of it."""
    with exact.hooks({"l_out-0": lambda array, node: np.full_like(array, 3)}):
        seen = observed(exact, "l_out-0")
    assert (seen[0][1] == 3).all()


def test_an_array_that_is_written_to_changes_nothing_by_itself(exact):
    """It is a copy: only what is returned replaces the tensor."""
    alone = all_logits(exact)

    def scribble(array, node) -> None:
        array[...] = 0

    with exact.hooks({"l_out-*": scribble}):
        assert np.array_equal(all_logits(exact), alone)
