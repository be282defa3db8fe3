"""Models that are not plain decoders: an encoder, an encoder-decoder, a recurrent one, a hybrid."""

from __future__ import annotations

from pathlib import Path

from .vocab import vocabulary
from .write import LOGIT_STD, Tensor, layer_norm, matrix, norm, output, sizes, write

CONV_KERNEL = 4


def write_bert(
    path: Path | str,
    *,
    n_vocab: int = 256,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_ff: int = 128,
    n_ctx_train: int = 64,
    pooling: int = 1,
    n_labels: int = 0,
    metadata: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write an encoder for embeddings (BERT, WordPiece).

    Parameters
    ----------
    path : Path or str
    n_vocab, n_embd, n_layer, n_head, n_ff, n_ctx_train : int
    pooling : int
        ``enum llama_pooling_type``; 1 is the mean, 2 the first token, 4 the classifier.
    n_labels : int
        Outputs of a classifier, if there is to be one.
    metadata : dict
        Further keys.
    seed : int

    Returns
    -------
    Path
    """
    tensors = [
        Tensor("token_embd.weight", (n_vocab, n_embd), 1.0),
        Tensor("token_types.weight", (2, n_embd), 0.1),
        Tensor("position_embd.weight", (n_ctx_train, n_embd), 0.5),
        *layer_norm("token_embd_norm", n_embd),
    ]
    for layer in range(n_layer):
        block = f"blk.{layer}."
        for name, rows, columns in (
            ("attn_q", n_embd, n_embd),
            ("attn_k", n_embd, n_embd),
            ("attn_v", n_embd, n_embd),
            ("attn_output", n_embd, n_embd),
            ("ffn_up", n_ff, n_embd),
            ("ffn_down", n_embd, n_ff),
        ):
            tensors += [
                matrix(f"{block}{name}", rows, columns),
                Tensor(f"{block}{name}.bias", (rows,), 0.1),
            ]
        tensors += layer_norm(f"{block}attn_output_norm", n_embd)
        tensors += layer_norm(f"{block}layer_output_norm", n_embd)
    more: dict[str, object] = dict(metadata or {})
    if n_labels:
        tensors += [
            matrix("cls", n_embd, n_embd),
            Tensor("cls.bias", (n_embd,), 0.1),
            matrix("cls.output", n_labels, n_embd),
            Tensor("cls.output.bias", (n_labels,), 0.1),
        ]
        more["bert.classifier.output_labels"] = [f"label {i}" for i in range(n_labels)]
    pairs = {
        **more,
        **sizes(
            "bert",
            n_vocab=n_vocab,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
            n_ctx_train=n_ctx_train,
        ),
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        **vocabulary("wpm", n_vocab, seed=seed),
    }
    return write(path, "bert", pairs, tensors, seed=seed)


def write_t5(
    path: Path | str,
    *,
    n_vocab: int = 256,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_ff: int = 128,
    n_ctx_train: int = 128,
    seed: int = 0,
) -> Path:
    """Write an encoder-decoder (T5).

    Parameters
    ----------
    path : Path or str
    n_vocab, n_embd, n_layer, n_head, n_ff, n_ctx_train : int
    seed : int

    Returns
    -------
    Path
    """
    tensors = [Tensor("token_embd.weight", (n_vocab, n_embd), 1.0)]
    for side, parts in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
        for layer in range(n_layer):
            block = f"{side}.blk.{layer}."
            for part in parts:
                tensors.append(norm(f"{block}{part}_norm.weight", n_embd))
                tensors += [matrix(f"{block}{part}_{letter}", n_embd, n_embd) for letter in "qkvo"]
            tensors += [
                *([Tensor(f"{block}attn_rel_b.weight", (32, n_head), 0.5)] if layer == 0 else []),
                norm(f"{block}ffn_norm.weight", n_embd),
                matrix(f"{block}ffn_up", n_ff, n_embd),
                matrix(f"{block}ffn_down", n_embd, n_ff),
            ]
        tensors.append(norm(f"{side}.output_norm.weight", n_embd))
    tensors.append(Tensor("output.weight", (n_vocab, n_embd), LOGIT_STD * n_embd**-0.5))
    pairs = {
        **sizes(
            "t5",
            n_vocab=n_vocab,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
            n_ctx_train=n_ctx_train,
        ),
        "t5.attention.key_length": n_embd // n_head,
        "t5.attention.value_length": n_embd // n_head,
        "t5.attention.layer_norm_rms_epsilon": 1e-6,
        "t5.attention.relative_buckets_count": 32,
        "t5.decoder_start_token_id": 0,
        **vocabulary("ugm", n_vocab, seed=seed),
    }
    return write(path, "t5", pairs, tensors, seed=seed)


def write_mamba(
    path: Path | str,
    *,
    n_vocab: int = 512,
    n_embd: int = 64,
    n_layer: int = 2,
    d_state: int = 16,
    n_ctx_train: int = 512,
    seed: int = 0,
) -> Path:
    """Write a recurrent model (Mamba).

    Parameters
    ----------
    path : Path or str
    n_vocab, n_embd, n_layer, n_ctx_train : int
    d_state : int
        The size of the state of each inner channel.
    seed : int

    Returns
    -------
    Path
    """
    tensors = [Tensor("token_embd.weight", (n_vocab, n_embd), 1.0)]
    for layer in range(n_layer):
        tensors += _mamba_layer(f"blk.{layer}.", n_embd, d_state)
    tensors += output(n_vocab, n_embd)
    pairs = {
        **sizes(
            "mamba",
            n_vocab=n_vocab,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=0,
            n_ff=0,
            n_ctx_train=n_ctx_train,
        ),
        **_mamba_sizes("mamba", n_embd, d_state),
        "mamba.attention.layer_norm_rms_epsilon": 1e-5,
        **vocabulary("bpe", n_vocab, seed=seed),
    }
    return write(path, "mamba", pairs, tensors, seed=seed)


def write_jamba(
    path: Path | str,
    *,
    n_vocab: int = 512,
    n_embd: int = 64,
    n_layer: int = 4,
    n_head: int = 4,
    n_ff: int = 128,
    d_state: int = 16,
    n_ctx_train: int = 512,
    seed: int = 0,
) -> Path:
    """Write a hybrid model (Jamba): recurrent layers, and attention in every second one.

    Parameters
    ----------
    path : Path or str
    n_vocab, n_embd, n_layer, n_head, n_ff, n_ctx_train : int
    d_state : int
        The size of the state of each inner channel.
    seed : int

    Returns
    -------
    Path
    """
    tensors = [Tensor("token_embd.weight", (n_vocab, n_embd), 1.0)]
    for layer in range(n_layer):
        block = f"blk.{layer}."
        if layer % 2:
            names = ("attn_q", "attn_k", "attn_v", "attn_output")
            tensors.append(norm(f"{block}attn_norm.weight", n_embd))
            tensors += [matrix(block + name, n_embd, n_embd) for name in names]
        else:
            tensors += _mamba_layer(block, n_embd, d_state)
            parts = {"dt": _rank(n_embd), "b": d_state, "c": d_state}
            tensors += [norm(f"{block}ssm_{part}_norm.weight", n) for part, n in parts.items()]
        tensors += [
            norm(f"{block}ffn_norm.weight", n_embd),
            matrix(f"{block}ffn_gate", n_ff, n_embd),
            matrix(f"{block}ffn_up", n_ff, n_embd),
            matrix(f"{block}ffn_down", n_embd, n_ff),
        ]
    tensors += output(n_vocab, n_embd)
    pairs = {
        **sizes(
            "jamba",
            n_vocab=n_vocab,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
            n_ctx_train=n_ctx_train,
        ),
        **_mamba_sizes("jamba", n_embd, d_state),
        "jamba.attention.head_count_kv": [n_head * (layer % 2) for layer in range(n_layer)],
        "jamba.attention.layer_norm_rms_epsilon": 1e-5,
        **vocabulary("spm", n_vocab, seed=seed),
    }
    return write(path, "jamba", pairs, tensors, seed=seed)


def _rank(n_embd: int) -> int:
    return max(1, n_embd // 16)


def _mamba_sizes(arch: str, n_embd: int, d_state: int) -> dict[str, int]:
    return {
        f"{arch}.ssm.conv_kernel": CONV_KERNEL,
        f"{arch}.ssm.inner_size": 2 * n_embd,
        f"{arch}.ssm.state_size": d_state,
        f"{arch}.ssm.time_step_rank": _rank(n_embd),
    }


def _mamba_layer(block: str, n_embd: int, d_state: int) -> list[Tensor]:
    inner, rank = 2 * n_embd, _rank(n_embd)
    return [
        norm(f"{block}attn_norm.weight", n_embd),
        matrix(f"{block}ssm_in", 2 * inner, n_embd),
        Tensor(f"{block}ssm_conv1d.weight", (inner, CONV_KERNEL), 0.5),
        Tensor(f"{block}ssm_conv1d.bias", (inner,), 0.1),
        matrix(f"{block}ssm_x", rank + 2 * d_state, inner),
        matrix(f"{block}ssm_dt", inner, rank),
        Tensor(f"{block}ssm_dt.bias", (inner,), 0.5, mean=-2.0),
        Tensor(f"{block}ssm_a", (inner, d_state), 0.2, mean=-1.0),
        Tensor(f"{block}ssm_d", (inner,), 0.1, mean=1.0),
        matrix(f"{block}ssm_out", n_embd, inner),
    ]
