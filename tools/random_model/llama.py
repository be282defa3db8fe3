"""Models of the llama architecture: dense, with experts, and the shapes that benchmarks use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .vocab import vocabulary
from .write import Tensor, matrix, norm, output, sizes, write


def write_llama(
    path: Path | str,
    *,
    arch: str = "llama",
    n_vocab: int = 512,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 128,
    n_ctx_train: int = 512,
    n_expert: int = 0,
    n_expert_used: int = 0,
    qk_norm: bool = False,
    type: str = "f32",  # noqa: A002 - as gguf calls it
    vocab: str = "spm",
    vocab_options: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
    split: int = 0,
) -> Path:
    """Write a model of the llama architecture.

    Parameters
    ----------
    path : Path or str
    arch : str
        Another one with the same tensors, such as ``llada``, which is a diffusion model.
    n_vocab, n_embd, n_layer, n_head, n_head_kv, n_ff, n_ctx_train : int
    n_expert, n_expert_used : int
        0 for a dense model.
    qk_norm : bool
        Norms of queries and keys, which ``qwen3`` has.
    type : str
        Of the matrices: ``f32``, ``f16``, ``q8_0``, ``q4_K`` or the mixture ``q4_K_M``.
        The K types need rows that divide by 256.
    vocab : str
        See `random_model.vocabulary`, as for *vocab_options*.
    vocab_options : dict, optional
    metadata : dict, optional
        More key-value pairs, such as ``tokenizer.chat_template``, or others for those written.
    seed : int
    split : int
        The most tensors a file may have; 0 writes one file.

    Returns
    -------
    Path
        Of the file; of the first one if it was split.
    """
    head = n_embd // n_head
    tensors = [Tensor("token_embd.weight", (n_vocab, n_embd), 1.0, _mix(type, "token_embd"))]
    shapes = {
        "attn_q": (n_embd, n_embd),
        "attn_k": (n_head_kv * head, n_embd),
        "attn_v": (n_head_kv * head, n_embd),
        "attn_output": (n_embd, n_embd),
        **_feed_forward(n_embd, n_ff, n_expert),
    }
    for layer in range(n_layer):
        block = f"blk.{layer}."
        tensors += [norm(f"{block}{name}_norm.weight", n_embd) for name in ("attn", "ffn")]
        qk = ("attn_q", "attn_k") if qk_norm else ()
        tensors += [norm(f"{block}{name}_norm.weight", head) for name in qk]
        tensors += [matrix(f"{block}ffn_gate_inp", n_expert, n_embd)] if n_expert else []
        for name, shape in shapes.items():
            tensors.append(matrix(block + name, *shape, kind=_mix(type, name, layer, n_layer)))
    tensors += output(n_vocab, n_embd, _mix(type, "output"))
    pairs = {
        **sizes(
            arch,
            n_vocab=n_vocab,
            n_ctx_train=n_ctx_train,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
        ),
        f"{arch}.attention.head_count_kv": n_head_kv,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.dimension_count": head,
        f"{arch}.rope.freq_base": 10000.0,
        **({f"{arch}.expert_count": n_expert} if n_expert else {}),
        **({f"{arch}.expert_used_count": n_expert_used} if n_expert else {}),
        **vocabulary(vocab, n_vocab, seed=seed, **(vocab_options or {})),
        **(metadata or {}),
    }
    return write(path, arch, pairs, tensors, seed=seed, split=split)


def _feed_forward(n_embd: int, n_ff: int, n_expert: int) -> dict[str, tuple[int, ...]]:
    if n_expert:
        return {
            "ffn_gate_exps": (n_expert, n_ff, n_embd),
            "ffn_up_exps": (n_expert, n_ff, n_embd),
            "ffn_down_exps": (n_expert, n_embd, n_ff),
        }
    return {"ffn_gate": (n_ff, n_embd), "ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff)}


def _mix(kind: str, name: str, layer: int = 0, n_layer: int = 1) -> str:
    """Return the type of a matrix: in q4_K_M half the values that matter most get q6_K."""
    if kind != "q4_K_M":
        return kind
    first = n_layer // 8
    better = layer < first or layer >= 7 * n_layer // 8 or (layer - first) % 3 == 2
    return "q6_K" if name == "output" or (name in ("attn_v", "ffn_down") and better) else "q4_K"


def write_overhead(path: Path | str, *, seed: int = 0) -> Path:
    """Write 4 M parameters in one layer: 0.3 ms a token, so that what surrounds C shows."""
    return write_llama(
        path,
        n_vocab=32000,
        n_embd=64,
        n_layer=1,
        n_ff=256,
        n_ctx_train=4096,
        type="q8_0",
        seed=seed,
    )


def write_tinyllama(path: Path | str, *, seed: int = 0) -> Path:
    """Write 1.1 G parameters in the shape and types of TinyLlama Q4_K_M (668 MB)."""
    return write_llama(
        path,
        n_vocab=32000,
        n_embd=2048,
        n_layer=22,
        n_head=32,
        n_head_kv=4,
        n_ff=5632,
        n_ctx_train=2048,
        type="q4_K_M",
        seed=seed,
    )


def write_big_vocab(path: Path | str, *, seed: int = 0) -> Path:
    """Write 128,256 tokens with 280,147 merges, as Llama 3 has them, and almost no weights."""
    options = {"n_merges": 280147, "pre": "llama-bpe"}
    return write_llama(
        path, n_vocab=128256, n_embd=8, n_layer=1, n_head=1, n_head_kv=1, n_ff=8, type="f16",
        vocab="bpe", vocab_options=options, seed=seed,
    )  # fmt: skip
