"""Projectors (mmproj files): small vision and audio encoders with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .write import Tensor, layer_norm, matrix, norm, write

N_MEL = 80  # bands of the spectrogram, as Whisper has them
N_FRAMES = 1500  # positions for the 30 seconds that a Whisper encoder sees at a time


def write_projector(
    path: Path | str,
    *,
    type: str = "janus_pro",  # noqa: A002 - as clip.projector_type is called
    n_embd_text: int = 64,
    n_embd: int = 32,
    n_layer: int = 2,
    n_head: int = 2,
    n_ff: int = 48,
    image_size: int = 32,
    patch_size: int = 8,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a vision projector.

    Parameters
    ----------
    path : Path or str
    type : str
        ``janus_pro`` (a token for each patch), ``gemma3`` (pooled, and decoded without a causal
        mask) or ``qwen2vl_merger`` (any size, M-RoPE positions).
    n_embd_text : int
        Width of the text model.
    n_embd, n_layer, n_head, n_ff : int
    image_size, patch_size : int
        In pixels; without meaning for the image size of ``qwen2vl_merger``.
    metadata : dict, optional
        More key-value pairs, or others for those written; None as a value drops a pair.
    seed : int

    Returns
    -------
    Path
    """
    shape = (n_embd, 3, patch_size, patch_size)
    patches = [Tensor("v.patch_embd.weight", shape, (3 * patch_size**2) ** -0.5)]
    if type == "qwen2vl_merger":
        patches.append(patches[0]._replace(name="v.patch_embd.weight.1"))
    else:
        n_patches = (image_size // patch_size) ** 2
        patches += [
            Tensor("v.patch_embd.bias", (n_embd,), 0.1),
            Tensor("v.position_embd.weight", (n_patches, n_embd), 0.5),
        ]
    tensors = [
        *patches,
        *_layers("v", n_embd, n_layer, n_ff),
        *layer_norm("v.post_ln", n_embd),
        *_PROJECTIONS[type](n_embd, n_embd_text),
    ]
    pairs = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": type,
        "clip.use_gelu": True,
        "clip.vision.image_size": image_size,
        "clip.vision.patch_size": patch_size,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
        "clip.vision.projector.scale_factor": 2,
        **_sizes(
            "vision",
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
            n_embd_text=n_embd_text,
        ),
        **(metadata or {}),
    }
    return _write(path, pairs, tensors, seed)


def write_audio_projector(
    path: Path | str,
    *,
    n_embd_text: int = 64,
    n_embd: int = 32,
    n_layer: int = 2,
    n_head: int = 2,
    n_ff: int = 48,
    stack: int = 50,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write an audio projector (Ultravox: a Whisper encoder whose frames are stacked).

    Parameters
    ----------
    path : Path or str
    n_embd_text : int
        Width of the text model.
    n_embd, n_layer, n_head, n_ff : int
    stack : int
        Frames that become one token; 50 make a second of sound.
    metadata : dict, optional
        More key-value pairs, or others for those written; None as a value drops a pair.
    seed : int

    Returns
    -------
    Path
    """
    tensors = [
        Tensor("a.conv1d.1.weight", (n_embd, N_MEL, 3), (3 * N_MEL) ** -0.5, "f16"),
        Tensor("a.conv1d.1.bias", (n_embd, 1), 0.1),
        Tensor("a.conv1d.2.weight", (n_embd, n_embd, 3), (3 * n_embd) ** -0.5, "f16"),
        Tensor("a.conv1d.2.bias", (n_embd, 1), 0.1),
        Tensor("a.position_embd.weight", (N_FRAMES, n_embd), 0.5),
        *(
            tensor
            for tensor in _layers("a", n_embd, n_layer, n_ff)
            if not tensor.name.endswith("attn_k.bias")  # Whisper has none
        ),
        *layer_norm("a.post_ln", n_embd),
        norm("mm.a.norm_pre.weight", stack * n_embd),
        matrix("mm.a.mlp.1", 2 * n_embd_text, stack * n_embd),
        norm("mm.a.norm_mid.weight", n_embd_text),
        matrix("mm.a.mlp.2", n_embd_text, n_embd_text),
    ]
    pairs = {
        "clip.has_audio_encoder": True,
        "clip.projector_type": "ultravox",
        "clip.audio.num_mel_bins": N_MEL,
        "clip.audio.projector.stack_factor": stack,
        **_sizes(
            "audio",
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_ff=n_ff,
            n_embd_text=n_embd_text,
        ),
        **(metadata or {}),
    }
    return _write(path, pairs, tensors, seed)


def _sizes(
    side: str, *, n_embd: int, n_layer: int, n_head: int, n_ff: int, n_embd_text: int
) -> dict[str, Any]:
    return {
        f"clip.{side}.embedding_length": n_embd,
        f"clip.{side}.feed_forward_length": n_ff,
        f"clip.{side}.block_count": n_layer,
        f"clip.{side}.projection_dim": n_embd_text,
        f"clip.{side}.attention.head_count": n_head,
        f"clip.{side}.attention.layer_norm_epsilon": 1e-6,
    }


def _layers(prefix: str, n_embd: int, n_layer: int, n_ff: int) -> list[Tensor]:
    tensors = []
    for layer in range(n_layer):
        block = f"{prefix}.blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors += _linear(block + part, n_embd, n_embd)
        tensors += [
            *layer_norm(f"{block}ln1", n_embd),
            *layer_norm(f"{block}ln2", n_embd),
            *_linear(f"{block}ffn_up", n_ff, n_embd),
            *_linear(f"{block}ffn_down", n_embd, n_ff),
        ]
    return tensors


def _linear(name: str, rows: int, columns: int) -> list[Tensor]:
    return [matrix(name, rows, columns), Tensor(f"{name}.bias", (rows,), 0.1)]


def _janus(n_embd: int, n_embd_text: int) -> list[Tensor]:
    return [*_linear("mm.0", n_embd_text, n_embd), *_linear("mm.1", n_embd_text, n_embd_text)]


def _gemma3(n_embd: int, n_embd_text: int) -> list[Tensor]:
    # This one lies the other way round: libllama transposes it.
    projection = Tensor("mm.input_projection.weight", (n_embd, n_embd_text), n_embd**-0.5)
    return [projection, norm("mm.soft_emb_norm.weight", n_embd)]


def _qwen2vl(n_embd: int, n_embd_text: int) -> list[Tensor]:
    four = 4 * n_embd  # two by two patches become one token
    return [*_linear("mm.0", four, four), *_linear("mm.2", n_embd_text, four)]


_PROJECTIONS = {"janus_pro": _janus, "gemma3": _gemma3, "qwen2vl_merger": _qwen2vl}


def _write(path: Path | str, pairs: dict[str, Any], tensors: list[Tensor], seed: int) -> Path:
    kept = {key: value for key, value in pairs.items() if value is not None}
    return write(path, "clip", {"general.type": "mmproj", **kept}, tensors, seed=seed)
