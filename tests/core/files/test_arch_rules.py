"""Rules that hold for some architectures only: found by the fuzzers, on models grown for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fuzz import grow
from fuzz.mutate import ARRAY, File, Tensor, Value, parse

import pyllama
from pyllama.core.loading.model_file import check_model
from pyllama.errors import LoadError, UnsupportedError

U32, I32, F32 = 4, 5, 6  # enum gguf_type, ggml/include/gguf.h
F16 = 1  # enum ggml_type, ggml/include/ggml.h


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Return a function that grows an architecture, once, and takes it apart."""
    folder = tmp_path_factory.mktemp("grown")
    files: dict[str, File] = {}

    def one(arch: str) -> File:
        if arch not in files:
            assert grow.grow(folder, arch)
            files[arch] = parse(folder / f"{arch}.gguf")
        return files[arch]

    return one


def changed(file: File, key: str, kind: int, value: Value) -> bytes:
    """Return the bytes of a file with one key set."""
    pairs = [pair for pair in file.pairs if pair[0] != key.encode()]
    return bytes(File([*pairs, (key.encode(), kind, value)], file.tensors).encode()[0])


# The head of a grown model has 16 numbers.
CASES = {
    "half a pair to turn": ("qwen2", "rope.dimension_count", U32, 3),
    "nothing to turn, an endless loop": ("qwen2", "rope.dimension_count", U32, 0),
    "half a pair in half of the layers": ("step35", "rope.dimension_count", U32, 2),
    "more to turn than there is": ("qwen2", "rope.dimension_count", U32, 18),
    "half a pair in windows": ("gemma2", "rope.dimension_count_swa", U32, 5),
    "a head of an odd size": ("qwen2", "attention.key_length", U32, 15),
    "sections that add up to nothing": (
        "qwen2vl", "rope.dimension_sections", ARRAY, (I32, [0, 0, 0, 4]),
    ),
    "sections below 0": ("qwen2vl", "rope.dimension_sections", ARRAY, (I32, [1, -1, 0, 0])),
    "sections wider than a head": ("qwen2vl", "rope.dimension_sections", ARRAY, (I32, [9, 9])),
    "one section for all that is too wide": ("paddleocr", "rope.dimension_sections", I32, 8),
    "a division by the heads": ("olmo2", "attention.head_count", U32, 0),
    "a division by the heads with keys": ("modern-bert", "attention.head_count_kv", U32, 0),
    "a division by the groups of a norm": (
        "wavtokenizer-dec", "attention.group_norm_groups", U32, 0,
    ),
    "more groups of a norm than channels": (
        "wavtokenizer-dec", "attention.group_norm_groups", U32, 33,
    ),
    "a division by the groups of the output": (
        "deepseek4", "attention.output_group_count", U32, 0,
    ),
    "a division by how often a layer attends": ("qwen35", "full_attention_interval", U32, 0),
    "the same of another model": ("minimax-01", "full_attention_interval", U32, 0),
    "a division by the groups of a scan": ("mamba2", "ssm.group_count", U32, 0),
    "more dense layers than an int counts": ("kimi-k3", "leading_dense_block_count", U32, 2**31),
    "a scale that begins nowhere": ("mistral4", "attention.temperature_scale", F32, 0.1),
    "a division by the size of a head": ("rwkv6", "wkv.head_size", U32, 0),
    "one encoder layer without keys": (
        "modern-bert", "attention.head_count_kv", ARRAY, (I32, [2, 0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_would_end_the_process_is_refused(grown, tmp_path, name):
    """And the key is named; the model as it grew is not refused."""
    arch, short, kind, value = CASES[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(grown(arch).encode()[0])
    assert check_model(path)
    path.write_bytes(changed(grown(arch), f"{arch}.{short}", kind, value))
    with pytest.raises(LoadError, match=rf"{arch}\.(rope|{short.partition('.')[0]})"):
        check_model(path)


@pytest.mark.parametrize(
    ("arch", "gone"),
    [
        ("phi3", "attn_qkv"),
        ("qwen3next", "attn_gate"),
        ("qwen35", "attn_qkv"),
        ("granitehybrid", "ssm_conv1d.bias"),
        ("glm-dsa", "indexer.attn_k"),
    ],
)
def test_a_layer_without_what_it_computes_with_is_refused(grown, tmp_path, arch, gone):
    """The loader lets it be absent, and the graph reads it behind NULL."""
    file = grown(arch)
    tensors = [tensor for tensor in file.tensors if gone not in tensor.name.decode()]
    assert len(tensors) < len(file.tensors)
    path = tmp_path / "model.gguf"
    path.write_bytes(File(file.pairs, tensors).encode()[0])
    with pytest.raises(LoadError, match=f"is there without .*{gone}"):
        check_model(path)


@pytest.mark.parametrize("windows", [[0, 0], [1, 0], [1, 1], [0]])
def test_a_layer_without_a_window_needs_its_indexer(grown, tmp_path, windows):
    """Of the two layers that grew the first has one, and no window."""
    path = tmp_path / "model.gguf"
    key = "dots3note.attention.sliding_window_pattern"
    path.write_bytes(changed(grown("dots3note"), key, ARRAY, (I32, [0, 1])))
    assert check_model(path)
    path.write_bytes(changed(grown("dots3note"), key, ARRAY, (I32, windows)))
    with pytest.raises(LoadError, match=r"without blk\.1\.indexer|no layer .* chooses"):
        check_model(path)


@pytest.mark.parametrize("value", [(ARRAY, (I32, [1, 0])), (U32, 1)])
def test_a_layer_that_shares_its_indexer_needs_none(grown, tmp_path, value):
    """Which layers have one, the file says."""
    path, file = tmp_path / "model.gguf", grown("glm-dsa")
    tensors = [tensor for tensor in file.tensors if b"blk.1.indexer" not in tensor.name]
    kind, types = value
    data = changed(File(file.pairs, tensors), "glm-dsa.attention.indexer.types", kind, types)
    path.write_bytes(data)
    if types == 1:
        with pytest.raises(LoadError, match=r"'blk\.1\.attn_norm\.weight' is there without"):
            check_model(path)
    else:
        assert check_model(path)


def test_a_router_without_experts_is_refused(grown, tmp_path):
    """All that a layer of mimo2 computes with may be absent, but not in part."""
    file = grown("mimo2")
    router = Tensor(b"blk.0.ffn_gate_inp.weight", [32, 4], 0, bytes(512))
    path = tmp_path / "model.gguf"
    path.write_bytes(File(file.pairs, [*file.tensors, router]).encode()[0])
    with pytest.raises(LoadError, match=r"ffn_gate_inp\.weight' is there without .*ffn_up_exps"):
        check_model(path)


@pytest.mark.parametrize(("arch", "refused"), [("glm5-next", True), ("deepseek4", False)])
def test_positions_that_are_added_must_be_f32(grown, tmp_path, arch, refused):
    """Those that are read row by row may have another type."""
    file = grown(arch).copy()
    (tensor, *_) = (each for each in file.tensors if b"indexer_compressor_ape" in each.name)
    tensor.type = F16
    tensor.fit()
    path = tmp_path / "model.gguf"
    path.write_bytes(file.encode()[0])
    if refused:
        with pytest.raises(LoadError, match="adds or multiplies only as f32"):
            check_model(path)
    else:
        assert check_model(path)


def test_a_model_of_heads_alone_makes_no_plain_context(grown, tmp_path):
    """Where all layers predict further tokens, libllama divides by the number of the others."""
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(grown("deepseek32"), "deepseek32.nextn_predict_layers", U32, 2))
    with pyllama.Model(path) as model:
        assert (model.n_layer, model.n_layer_nextn) == (0, 2)
        with pytest.raises(UnsupportedError, match="without its model"):
            model.context(n_ctx=64)


def test_a_glm_dsa_whose_layers_all_share_is_refused(grown, tmp_path):
    """There is no indexer that they could share, and libllama divides by the size of its memory."""
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(grown("glm-dsa"), "glm-dsa.attention.indexer.types", U32, 0))
    with pytest.raises(LoadError, match="no layer of this glm-dsa chooses"):
        check_model(path)


def test_a_llama4_without_a_window_makes_no_context(grown, tmp_path):
    """libllama asserts at each decode of it; what one has of its vocabulary stays."""
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(grown("llama4"), "llama4.attention.sliding_window", U32, 0))
    with pyllama.Model(path) as model:
        assert len(model.vocab.tokenize("a text"))
        with pytest.raises(UnsupportedError, match="without a sliding window"):
            model.context(n_ctx=64)


def test_an_afmoe_without_a_window_is_refused(grown, tmp_path):
    """Its graph asks for the memory of the window whether there is one or not."""
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(grown("afmoe"), "afmoe.attention.sliding_window", U32, 0))
    with pytest.raises(LoadError, match="sliding_window is missing or 0"):
        check_model(path)


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("talkie", "blk.1.layer_output_scale.weight"),
        ("plamo3", "blk.0.post_ffw_norm"),
        ("gpt-oss", "blk.1.ffn_up_exps.bias"),
        ("lfm2", "blk.0.shortconv.conv.weight"),
    ],
)
def test_what_is_added_must_be_f32(grown, tmp_path, arch, name):
    """However the architecture calls its norms and scales."""
    file = grown(arch)
    tensors = [
        replace(tensor, type=1) if tensor.name.decode() == name else tensor
        for tensor in file.tensors
    ]
    for tensor in tensors:
        tensor.fit()
    path = tmp_path / "model.gguf"
    path.write_bytes(File(file.pairs, tensors).encode()[0])
    with pytest.raises(LoadError, match=f"'{name}' has the type f16"):
        check_model(path)


@pytest.mark.parametrize("arch", ["qwen35moe", "qwen4exp"])
def test_a_division_by_the_experts_in_use_is_refused(grown, tmp_path, arch):
    """They divide before they look whether there are experts at all."""
    file = grown("qwen2")
    pairs = [(key.replace(b"qwen2.", arch.encode() + b"."), kind, arch.encode() if
              key == b"general.architecture" else value) for key, kind, value in file.pairs
             ]  # fmt: skip
    path = tmp_path / "model.gguf"
    path.write_bytes(File(pairs, file.tensors).encode()[0])
    with pytest.raises(LoadError, match="expert_used_count is 0"):
        check_model(path)


def test_models_that_turn_nothing_may_say_anything_of_it(grown, tmp_path):
    """What a model does not read cannot end it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(grown("gpt2"), "gpt2.rope.dimension_count", U32, 3))
    assert check_model(path)
