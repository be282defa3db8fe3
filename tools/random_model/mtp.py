"""A head that predicts one token further (multi-token prediction), alone or with its model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .vocab import vocabulary
from .write import Tensor, matrix, norm, output, sizes, write

CONV_KERNEL = 4
D_STATE = 16
N_KEY_HEADS = 2
N_VALUE_HEADS = 4


def write_mtp(
    path: Path | str,
    *,
    n_vocab: int = 512,
    n_embd: int = 64,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 128,
    n_ctx_train: int = 512,
    n_layer: int = 0,
    n_recurrent: int = 0,
    seed: int = 0,
) -> Path:
    """Write the draft head of the qwen35 architecture, with or without the model it belongs to.

    Parameters
    ----------
    path : Path or str
    n_vocab, n_embd, n_head, n_head_kv, n_ff, n_ctx_train : int
    n_layer : int
        Layers of the model; 0 writes the head alone.
    n_recurrent : int
        How many of them, from the first on, have a recurrent state instead of attention.
    seed : int

    Returns
    -------
    Path
    """
    head = n_embd // n_head
    n_before = n_layer or 1  # block 0 would be the model's
    block = f"blk.{n_before}."
    tensors = [Tensor("token_embd.weight", (n_vocab, n_embd), 1.0)]
    for layer in range(n_layer):
        mix = _state(n_embd) if layer < n_recurrent else _attention(n_embd, head, n_head_kv)
        tensors += _layer(f"blk.{layer}.", n_embd, n_ff, mix)
    tensors += [
        *_layer(block, n_embd, n_ff, _attention(n_embd, head, n_head_kv)),
        norm(f"{block}nextn.enorm.weight", n_embd),
        norm(f"{block}nextn.hnorm.weight", n_embd),
        matrix(f"{block}nextn.eh_proj", n_embd, 2 * n_embd),
        *output(n_vocab, n_embd),
    ]
    pairs = {
        **sizes(
            "qwen35",
            n_vocab=n_vocab,
            n_ctx_train=n_ctx_train,
            n_embd=n_embd,
            n_layer=n_before + 1,
            n_head=n_head,
            n_ff=n_ff,
        ),
        "qwen35.attention.head_count_kv": n_head_kv,
        "qwen35.attention.key_length": head,
        "qwen35.attention.value_length": head,
        "qwen35.attention.layer_norm_rms_epsilon": 1e-5,
        "qwen35.attention.recurrent_layers": [i < n_recurrent for i in range(n_before + 1)],
        "qwen35.nextn_predict_layers": 1,
        "qwen35.rope.dimension_count": head,
        "qwen35.rope.dimension_sections": np.array([2, 3, 3, 0], np.uint32),
        "qwen35.rope.freq_base": 10000.0,
        "qwen35.ssm.conv_kernel": CONV_KERNEL,
        "qwen35.ssm.inner_size": N_VALUE_HEADS * D_STATE,
        "qwen35.ssm.state_size": D_STATE,
        "qwen35.ssm.time_step_rank": N_VALUE_HEADS,
        "qwen35.ssm.group_count": N_KEY_HEADS,
        **vocabulary("spm", n_vocab, seed=seed),
    }
    return write(path, "qwen35", pairs, tensors, seed=seed)


def _layer(block: str, n_embd: int, n_ff: int, mix: list[Tensor]) -> list[Tensor]:
    """Return the tensors of one layer; *mix* are those that look at other tokens."""
    return [
        norm(f"{block}attn_norm.weight", n_embd),
        norm(f"{block}post_attention_norm.weight", n_embd),
        *(tensor._replace(name=block + tensor.name) for tensor in mix),
        matrix(f"{block}ffn_gate", n_ff, n_embd),
        matrix(f"{block}ffn_up", n_ff, n_embd),
        matrix(f"{block}ffn_down", n_embd, n_ff),
    ]


def _attention(n_embd: int, head: int, n_head_kv: int) -> list[Tensor]:
    return [
        matrix("attn_q", 2 * n_embd, n_embd),  # each query with its gate
        matrix("attn_k", n_head_kv * head, n_embd),
        matrix("attn_v", n_head_kv * head, n_embd),
        matrix("attn_output", n_embd, n_embd),
        norm("attn_q_norm.weight", head),
        norm("attn_k_norm.weight", head),
    ]


def _state(n_embd: int) -> list[Tensor]:
    """Return the tensors of linear attention with a gated delta rule."""
    keys, values = N_KEY_HEADS * D_STATE, N_VALUE_HEADS * D_STATE
    return [
        matrix("attn_qkv", 2 * keys + values, n_embd),
        matrix("attn_gate", values, n_embd),
        Tensor("ssm_conv1d.weight", (2 * keys + values, CONV_KERNEL), 0.5),
        Tensor("ssm_dt.bias", (N_VALUE_HEADS,), 0.5, mean=-2.0),
        Tensor("ssm_a", (N_VALUE_HEADS,), 0.2, mean=-1.0),
        matrix("ssm_beta", N_VALUE_HEADS, n_embd),
        matrix("ssm_alpha", N_VALUE_HEADS, n_embd),
        norm("ssm_norm.weight", D_STATE),
        matrix("ssm_out", n_embd, values),
    ]
