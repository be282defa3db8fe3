"""Writing a GGUF file of random tensors, and the pieces that the architectures share."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .blocks import random_tensor

GGUF_PY = Path(__file__).resolve().parents[2] / "vendor" / "llama.cpp" / "gguf-py"
sys.path.insert(0, str(GGUF_PY))

import gguf  # noqa: E402 - from the pinned llama.cpp

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_K": gguf.GGMLQuantizationType.Q4_K,
    "q6_K": gguf.GGMLQuantizationType.Q6_K,
}
LOGIT_STD = 3.0


class Tensor(NamedTuple):
    """What to draw: numbers with *mean* and *std*; shape as numpy has it, a row comes last."""

    name: str
    shape: tuple[int, ...]
    std: float
    kind: str = "f32"
    mean: float = 0.0


def write(
    path: Path | str,
    arch: str,
    metadata: dict[str, Any],
    tensors: list[Tensor],
    *,
    seed: int = 0,
    split: int = 0,
) -> Path:
    """Write a GGUF file, drawing one tensor after another so that memory stays small.

    Parameters
    ----------
    path : Path or str
    arch : str
        ``general.architecture``.
    metadata : dict
        Whole numbers are written as u32, numpy arrays as arrays of u32.
    tensors : list of Tensor
    seed : int
    split : int
        The most tensors a file may have; 0 writes one file.

    Returns
    -------
    Path
        Of the file; of the first one if it was split.
    """
    path = Path(path)
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
           str: writer.add_string, list: writer.add_array,
           np.ndarray: partial(_add_u32, writer)}  # fmt: skip
    for key, value in metadata.items():
        add[type(value)](key, value)
    for tensor in tensors:
        _announce(writer, tensor)
    names = writer.format_shard_names(path)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, tensor in enumerate(tensors):
        rng = np.random.default_rng([seed, index])
        data = random_tensor(tensor.kind, tensor.shape, tensor.std, rng)
        writer.write_tensor_data(data + np.float32(tensor.mean) if tensor.mean else data)
    writer.close()
    return names[0]


def _add_u32(writer: gguf.GGUFWriter, key: str, values: NDArray[np.uint32]) -> None:
    kinds = gguf.GGUFValueType
    writer.add_key_value(key, values.tolist(), kinds.ARRAY, sub_type=kinds.UINT32)


def _announce(writer: gguf.GGUFWriter, tensor: Tensor) -> None:
    """Enter the tensor in the file's table; gguf-py wants quantised shapes in bytes."""
    kind = TYPES[tensor.kind]
    block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    size = int(np.prod(tensor.shape)) // block * n_bytes
    dtype = {"f32": np.float32, "f16": np.float16}.get(tensor.kind, np.uint8)
    shape = tensor.shape
    if dtype is np.uint8:
        shape = (*shape[:-1], shape[-1] // block * n_bytes)
    writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), size, raw_dtype=kind)


def sizes(
    arch: str, *, n_vocab: int, n_ctx_train: int, n_embd: int, n_layer: int, n_head: int, n_ff: int
) -> dict[str, Any]:
    """Return the metadata that every architecture has."""
    return {
        "general.name": f"random {arch}",
        "general.quantization_version": 2,
        f"{arch}.vocab_size": n_vocab,
        f"{arch}.block_count": n_layer,
        f"{arch}.context_length": n_ctx_train,
        f"{arch}.embedding_length": n_embd,
        f"{arch}.feed_forward_length": n_ff,
        f"{arch}.attention.head_count": n_head,
    }


def norm(name: str, n: int) -> Tensor:
    """Return the weights of an RMS norm: near 1."""
    return Tensor(name, (n,), 0.1, mean=1.0)


def layer_norm(name: str, n: int) -> list[Tensor]:
    """Return the weights and the bias of a layer norm."""
    return [norm(f"{name}.weight", n), Tensor(f"{name}.bias", (n,), 0.1)]


def matrix(name: str, *shape: int, kind: str = "f32") -> Tensor:
    """Return weights that keep the size of what they multiply."""
    return Tensor(f"{name}.weight", shape, shape[-1] ** -0.5, kind)


def output(n_vocab: int, n_embd: int, kind: str = "f32") -> list[Tensor]:
    """Return the last norm and the matrix that makes the logits."""
    std = LOGIT_STD * n_embd**-0.5
    return [
        norm("output_norm.weight", n_embd),
        Tensor("output.weight", (n_vocab, n_embd), std, kind),
    ]
