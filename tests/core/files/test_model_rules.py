"""Model files that are well-formed and would end the process, and all those that must load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import random_model
from fuzz.mutate import TYPES, parse

import pyllama
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.loading.model_file import check_model
from pyllama.errors import LoadError

VOCABULARIES = sorted((Path(__file__).parents[3] / "vendor/llama.cpp/models").glob("*.gguf"))
NUMBERS = {stored.name: number for number, stored in TENSOR_TYPES.items()}
TOKENS = random_model.vocabulary("spm", 512)["tokenizer.ggml.tokens"]
# Not the 668 MB of write_tinyllama, whose tensors are those of write_llama with type="q4_K_M".
MODELS = [f"write_{name}" for name in "llama bert t5 mamba jamba overhead big_vocab".split()]
EXPERTS = {"llama.expert_count": 4, "llama.expert_used_count": 2}


def rwkv(*tokens: str) -> dict[str, object]:
    """Return metadata of an RWKV vocabulary with these tokens, and others to 512."""
    more = [f"w{index}" for index in range(512 - len(tokens))]
    return {"tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": [*tokens, *more]}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.block_count": 0}, r"llama\.block_count is 0, not from 1 to 512"),
        ({"llama.nextn_predict_layers": 3}, r"nextn_predict_layers is 3, not from 0 to .* \(2\)"),
        ({"llama.posnet.block_count": 3}, r"posnet\.block_count is 3, not from 0"),
        ({"llama.expert_count": 1025}, r"expert_count is 1025, not from 0 to 1024"),
        ({"llama.expert_used_count": 1}, r"expert_used_count is 1, not from 0 to 0"),
        ({**EXPERTS, "llama.expert_used_count": 5}, "expert_used_count is 5, not from 1 to 4"),
        ({**EXPERTS, "llama.expert_used_count": 0}, "expert_used_count is 0, not from 1 to 4"),
        ({**EXPERTS, "llama.expert_used_count": [2, 5]}, "expert_used_count is 5"),
        ({**EXPERTS, "llama.expert_used_count": [2, -1]}, "expert_used_count is 4294967295"),
        ({**EXPERTS, "llama.expert_used_count": [2.0, 1.0]}, "must be a whole number"),
        ({"llama.expert_group_count": 1}, "expert_group_count is 1, not below the 0"),
        ({**EXPERTS, "llama.expert_group_count": 4}, "expert_group_count is 4, not below the 4"),
        ({**EXPERTS, "llama.expert_group_count": 3}, "is 3, which does not divide 4 experts"),
        ({**EXPERTS, "llama.expert_group_count": 2}, "group_used_count is 0, not from 1 to 1"),
        ({"llama.rope.scaling.type": "magic"}, r"rope\.scaling\.type is 'magic', not one of"),
        ({"llama.attention.layer_norm_rms_epsilon": -1e-5}, "epsilon is -9.*, not a number from 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan"),
        ({"llama.attention.layer_norm_rms_epsilon": float("inf")}, "epsilon is inf"),
        ({"llama.embedding_length_out": 77}, "length_out is 77, but no tensor makes embeddings so"),
        ({"llama.embedding_length_out": 512}, "is 512, but no tensor makes embeddings so wide"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:511], "<s>"]}, "'<s>' twice, as token 1 and .* 511"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:511], "<s>\0x"]}, "'<s>' twice, as token 1"),
        ({"tokenizer.ggml.model": "bert"}, r"token_type\[3\] is 6 \(byte\)"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "whitespace"}, "as well"),
        (rwkv(r"\na"), r"which begins with a line feed"),
        (rwkv("\na", r"\x0A"), r"which begins with a line feed"),  # A is no digit to libllama
        (rwkv(r"\x0ab"), r"which begins with a line feed"),
    ],
)
def test_metadata_that_end_the_process_are_refused(tmp_path, metadata, message):
    """The message has the file, the key, the value, and what it must be."""
    path = random_model.write_llama(tmp_path / "model.gguf", metadata=metadata)
    with pytest.raises(LoadError, match=rf"(?s)model\.gguf: .*{message}"):
        check_model(path)


@pytest.mark.parametrize(
    ("write", "name", "kind", "message"),
    [
        ("write_llama", "blk.0.attn_q.weight", "i32", "no weights can be multiplied with"),
        ("write_llama", "blk.0.ffn_up.weight", "q8_1", "no weights can be multiplied with"),
        ("write_llama", "output.weight", "f64", "no weights can be multiplied with"),
        ("write_llama", "token_embd.weight", "i8", "no weights can be multiplied with"),
        ("write_llama", "blk.1.attn_norm.weight", "f16", "adds or multiplies only as f32"),
        ("write_bert", "blk.0.ffn_up.bias", "bf16", "adds or multiplies only as f32"),
        ("write_bert", "token_types.weight", "f16", "adds or multiplies only as f32"),
        ("write_mamba", "blk.0.ssm_conv1d.weight", "f16", "adds or multiplies only as f32"),
        ("write_mamba", "blk.1.ssm_a", "f16", "adds or multiplies only as f32"),
        ("write_mamba", "blk.1.ssm_d", "f16", "adds or multiplies only as f32"),
        ("write_t5", "enc.blk.0.attn_rel_b.weight", None, "is missing"),
        ("write_t5", "dec.blk.0.attn_rel_b.weight", None, "is missing"),
    ],
)
def test_tensors_that_end_the_process_are_refused(tmp_path, write, name, kind, message):
    """The message has the file, the tensor and its type."""
    path = getattr(random_model, write)(tmp_path / "model.gguf")
    file = parse(path)
    (tensor,) = (tensor for tensor in file.tensors if tensor.name.decode() == name)
    if kind is None:
        file.tensors.remove(tensor)
    else:
        tensor.type = NUMBERS[kind]
        tensor.fit()
    path.write_bytes(file.encode()[0])
    with pytest.raises(LoadError, match=rf"model\.gguf: tensor '{name}' .*{message}"):
        check_model(path)


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_every_vocabulary_of_llama_cpp_is_accepted(path):
    """They have no weights; rules about weights do not apply."""
    check_model(path)


@pytest.mark.parametrize("name", MODELS)
def test_every_random_model_is_accepted(tmp_path, name):
    """Whatever tests and benchmarks run on passes."""
    check_model(getattr(random_model, name)(tmp_path / "model.gguf"))


def test_the_model_that_ships_is_accepted():
    """The demo must run."""
    check_model(pyllama.demo_model())


@pytest.mark.parametrize(
    "options",
    [
        {"type": "q4_K_M", "n_embd": 256, "n_ff": 256},
        {"n_expert": 4, "n_expert_used": 2, "type": "f16"},
        {"metadata": {"llama.rope.scaling.type": "yarn"}},
        {"metadata": {"llama.attention.layer_norm_rms_epsilon": 0.0}},
        {"metadata": {"tokenizer.ggml.tokens": [*TOKENS[:510], "", ""]}},
        {"metadata": {"tokenizer.ggml.bos_token_id": 2**32 - 1}},
        {"metadata": {"training.epsilon": -1.0}},
        {"metadata": {"llama.embedding_length_out": 32}},
    ],
)
def test_what_libllama_runs_is_accepted(tmp_path, options):
    """Odd is not broken: the model loads and decodes."""
    path = random_model.write_llama(tmp_path / "model.gguf", **options)
    with pyllama.Model(path) as model, model.context(n_ctx=32, n_threads=1) as context:
        context.decode(pyllama.Batch([3, 4]))
        assert np.isfinite(context.logits()).all()


def test_a_vocabulary_without_weights_loads(tmp_path):
    """No rule asks for tensors where there are none."""
    path = random_model.write_llama(tmp_path / "model.gguf")
    file = parse(path)
    file.tensors.clear()
    path.write_bytes(file.encode()[0])
    with pyllama.Model(path, vocab_only=True) as model:
        assert model.vocab.n_tokens == 512


@pytest.mark.parametrize("line_feed", ["\n", "\\\n", r"\n", r"\x0a"])
def test_an_rwkv_vocabulary_with_a_line_feed_is_accepted(tmp_path, line_feed):
    """However it is spelt, libllama finds it."""
    path = random_model.write_llama(
        tmp_path / "model.gguf", metadata=rwkv(r"\na", line_feed, *map(chr, range(0x21, 0x7F)))
    )
    with pyllama.Model(path) as model:
        assert model.vocab.nl == 1


def test_types_of_the_fuzzer_are_those_of_the_reader():
    """gguf-py and pyllama know the same block sizes, where both know a type."""
    shared = TYPES.keys() & TENSOR_TYPES.keys()
    assert len(shared) > 30
    assert all(TYPES[number] == TENSOR_TYPES[number][1:] for number in shared)
