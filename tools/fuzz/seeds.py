"""Small model files that the mutants are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import random_model

SMALL: dict[str, Any] = {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_ff": 64}
LLAMA: dict[str, Any] = {**SMALL, "n_head_kv": 1, "n_vocab": 400}

# The weights of the SPM seed that its LoRA seed changes, as numpy has their shapes.
LORA = {
    "token_embd.weight": (400, 32),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.1.ffn_down.weight": (32, 64),
    "output.weight": (400, 32),
}


def write_spm(path: Path) -> Path:
    """Write the llama that adapters, states and grammars are tried on as well."""
    return random_model.write_llama(path, **LLAMA)


def write_lora(path: Path) -> Path:
    """Write an adapter for it."""
    return random_model.write_lora(path, LORA, invocation=[5, 6, 7])


def write_mamba(path: Path) -> Path:
    """Write a recurrent model."""
    return random_model.write_mamba(path, n_embd=32, n_vocab=300)


def write_jamba(path: Path) -> Path:
    """Write a hybrid of two layers."""
    return random_model.write_jamba(path, n_vocab=400, **SMALL)


def write_wide(path: Path) -> Path:
    """Write a llama whose heads are as wide as a block of a quantised memory."""
    return random_model.write_llama(path, **{**LLAMA, "n_embd": 64})


WRITERS = {
    "spm": write_spm,
    "bpe": lambda path: random_model.write_llama(path, vocab="bpe", type="q8_0", **LLAMA),
    "moe": lambda path: random_model.write_llama(
        path, n_expert=4, n_expert_used=2, type="f16", **LLAMA
    ),
    "bert": lambda path: random_model.write_bert(path, **SMALL),
    "t5": lambda path: random_model.write_t5(path, **SMALL),
    "mamba": write_mamba,
    "jamba": write_jamba,
}


def write_mrope(path: Path) -> Path:
    """Write a model that counts positions as an image has them."""
    sections = {"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
    return random_model.write_llama(path, arch="qwen2vl", metadata=sections, **LLAMA)


SMALL_PROJECTOR: dict[str, Any] = {"n_embd_text": 32, "n_embd": 16, "n_ff": 16, "n_layer": 1}
PROJECTORS = {
    **{
        kind: lambda path, kind=kind: random_model.write_projector(
            path, type=kind, **SMALL_PROJECTOR
        )
        for kind in ("janus_pro", "gemma3", "qwen2vl_merger")
    },
    "ultravox": lambda path: random_model.write_audio_projector(path, **SMALL_PROJECTOR),
}
