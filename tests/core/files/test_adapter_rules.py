"""Which files are taken as LoRA adapters, and which would end the process."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import random_model
from reference import Llama

import pyllama
from pyllama import Batch
from pyllama.core.adapter import Adapter
from pyllama.errors import AdapterError, LoadError

TOKENS = [1, 40, 300, 7, 99, 12]
U32, F64, STRING = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT64, gguf.GGUFValueType.STRING
KEYS = {
    "general.architecture": ("llama", STRING),
    "general.type": ("adapter", STRING),
    "adapter.type": ("lora", STRING),
}
Q = "blk.0.attn_q.weight"
A, B = np.zeros((4, 64), np.float32), np.zeros((64, 4), np.float32)
PAIR = {f"{Q}.lora_a": A, f"{Q}.lora_b": B}


def write_raw(path, keys, tensors) -> Path:
    """Write any keys and tensors at all."""
    writer = gguf.GGUFWriter(path, "llama")
    del writer.kv_data[0]["general.architecture"]
    for key, (value, kind) in keys.items():
        writer.add_key_value(key, value, kind)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MALFORMED = {
    "type is a number": ({"general.type": (1, U32)}, PAIR, "general.type"),
    "another type": ({"general.type": ("model", STRING)}, PAIR, "general.type"),
    "adapter type is a number": ({"adapter.type": (1, U32)}, PAIR, "adapter.type"),
    "another adapter type": ({"adapter.type": ("ia3", STRING)}, PAIR, "adapter.type"),
    "architecture is a number": ({"general.architecture": (1, U32)}, PAIR, "architecture"),
    "alpha is a u32": ({"adapter.lora.alpha": (8, U32)}, PAIR, "finite f32"),
    "alpha is an f64": ({"adapter.lora.alpha": (8.0, F64)}, PAIR, "finite f32"),
    "alpha is text": ({"adapter.lora.alpha": ("8", STRING)}, PAIR, "finite f32"),
    "alpha is NaN": (
        {"adapter.lora.alpha": (float("nan"), gguf.GGUFValueType.FLOAT32)},
        PAIR,
        "finite f32",
    ),
    "tokens are text": ({"adapter.alora.invocation_tokens": ("5", STRING)}, PAIR, "array of u32"),
    "no tensors": ({}, {}, "no LoRA tensors"),
    "half a pair": ({}, {f"{Q}.lora_a": A}, "lora_a tensor only"),
    "a foreign tensor": ({}, {**PAIR, Q: A}, "no factor"),
    "a suffix twice": ({}, {f"{Q}.lora_a.lora_a": A, f"{Q}.lora_b": B}, "no factor"),
    "whole numbers": ({}, {f"{Q}.lora_a": A.astype(np.int32), f"{Q}.lora_b": B}, "type i32"),
    "f64": ({}, {f"{Q}.lora_a": A, f"{Q}.lora_b": B.astype(np.float64)}, "type f64"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused(model, tmp_path, name):
    """Before libllama sees them: most of these end the process there."""
    keys, tensors, words = MALFORMED[name]
    path = write_raw(tmp_path / "lora.gguf", {**KEYS, **keys}, tensors)
    with pytest.raises(LoadError, match=words):
        Adapter(model, path)


MISFITS = {
    "another architecture": ({"general.architecture": ("qwen2", STRING)}, PAIR),
    "an unknown weight": ({}, {"blk.7.attn_q.weight.lora_a": A, "blk.7.attn_q.weight.lora_b": B}),
    "a wider input": ({}, {f"{Q}.lora_a": np.zeros((4, 65), np.float32), f"{Q}.lora_b": B}),
    "a wider output": ({}, {f"{Q}.lora_a": A, f"{Q}.lora_b": np.zeros((65, 4), np.float32)}),
    "two ranks": ({}, {f"{Q}.lora_a": A, f"{Q}.lora_b": np.zeros((64, 5), np.float32)}),
    "three dimensions": ({}, {f"{Q}.lora_a": np.zeros((2, 4, 64), np.float32), f"{Q}.lora_b": B}),
    "a norm": (
        {},
        {
            "output_norm.weight.lora_a": A,
            "output_norm.weight.lora_b": np.zeros((1, 4), np.float32),
        },
    ),
    "embedding as a matrix": (
        {},
        {
            "token_embd.weight.lora_a": A,
            "token_embd.weight.lora_b": np.zeros((512, 4), np.float32),
        },
    ),
    "embedding of two ranks": (
        {},
        {
            "token_embd.weight.lora_a": np.zeros((512, 4), np.float32),
            "token_embd.weight.lora_b": np.zeros((64, 5), np.float32),
        },
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_adapters_of_other_models_are_refused(model, tmp_path, name):
    """Wrong shapes would end the process at the next decode, or be added somewhere."""
    keys, tensors = MISFITS[name]
    path = write_raw(tmp_path / "lora.gguf", {**KEYS, **keys}, tensors)
    with pytest.raises(AdapterError):
        Adapter(model, path)


def test_invocation_tokens_are_of_the_vocabulary(model, tmp_path):
    """512 is one too many for this model."""
    path = random_model.write_lora(tmp_path / "lora.gguf", {Q: (64, 64)}, invocation=[512])
    with pytest.raises(AdapterError, match="token 512"):
        Adapter(model, path)


def test_a_refusal_of_libllama_is_told_in_its_words(model, tmp_path, monkeypatch):
    """With the checks passed, what libllama says is in the error."""
    monkeypatch.setattr("pyllama.core.adapter.check_adapter", lambda model, header: None)
    path = write_raw(tmp_path / "lora.gguf", {**KEYS, "general.type": ("model", STRING)}, PAIR)
    with pytest.raises(LoadError, match=r"expect general\.type to be 'adapter'"):
        Adapter(model, path)


def test_every_truncation_is_refused(model, tmp_path):
    """A file that ends early never reaches libllama."""
    path = random_model.write_lora(tmp_path / "cut.gguf", {Q: (64, 64)}, invocation=[5])
    data = path.read_bytes()
    for length in range(0, len(data) - 40, 17):
        path.write_bytes(data[:length])
        with pytest.raises(LoadError):
            Adapter(model, path)


def test_an_adapter_for_experts_is_three_dimensional(tmp_path):
    """Each expert has factors of its own."""
    path = random_model.write_llama(tmp_path / "moe.gguf", n_expert=4, n_expert_used=2)
    name = "blk.0.ffn_up_exps.weight"
    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.2, (4, 3, 64)).astype(np.float32)
    b = rng.normal(0, 0.2, (4, 128, 3)).astype(np.float32)
    lora = write_raw(tmp_path / "l.gguf", KEYS, {f"{name}.lora_a": a, f"{name}.lora_b": b})
    reference = Llama(path)
    reference.weights[name] += b @ a
    with (
        pyllama.Model(path) as model,
        Adapter(model, lora) as adapter,
        model.context(n_ctx=256, exact=True, n_threads=1, n_threads_batch=1) as context,
    ):
        context.set_adapters({adapter: 1.0})
        context.decode(Batch(TOKENS, output="all"))
        assert np.abs(context.logits() - reference.logits(TOKENS)).max() < 1e-4
