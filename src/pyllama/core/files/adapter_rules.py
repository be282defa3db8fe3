"""What a LoRA file must say, checked before libllama reads it.

libllama reads these values without asking for their type, which ends the process
(ggml/src/gguf.cpp:1152), and finds a wrong shape or type of a tensor in the middle of a decode.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.files.gguf import F32
from pyllama.core.files.tensor_rules import NO_PRODUCT
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.errors import AdapterError, LoadError

if TYPE_CHECKING:
    from pyllama.core.files.gguf import Header, TensorInfo
    from pyllama.core.model import Model

ALPHA = "adapter.lora.alpha"
INVOCATION = "adapter.alora.invocation_tokens"
_EMBEDDING = "token_embd.weight"


def check_adapter(model: Model, header: Header) -> None:
    """Refuse a file that is no LoRA, is malformed, or was made for another model.

    Parameters
    ----------
    model
        The model it is for.
    header
        Of the file.

    Raises
    ------
    LoadError
        If the file is no LoRA, or is malformed.
    AdapterError
        If it does not fit the model.
    """
    _check_kind(header)
    _check_architecture(model, header)
    _check_alpha(header)
    _check_invocation(model, header)
    for name, (a, b) in _pairs(header).items():
        _check_pair(model, header, name, a, b)


def _check_kind(header: Header) -> None:
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        found = header.metadata.get(key)
        if not isinstance(found, str) or found != wanted:
            said = f"{key} is {str(found)[:40]!r}, not {wanted!r}"
            message = f"{header.path} is no LoRA adapter: {said}"
            raise LoadError(message)


def _check_architecture(model: Model, header: Header) -> None:
    found = header.metadata.get("general.architecture")
    if not isinstance(found, str):
        message = f"{header.path}: general.architecture is {str(found)[:40]!r}, not text"
        raise LoadError(message)
    if found != model.architecture:
        message = (
            f"{header.path} was made for the architecture {found[:40]!r}; this model is "
            f"{model.architecture!r}"
        )
        raise AdapterError(message)


def _check_alpha(header: Header) -> None:
    """Refuse what is not an f32, or would make every logit NaN; without it nothing is scaled."""
    alpha = header.metadata.get(ALPHA)
    if alpha is None:
        return
    entry = header.metadata._entries[ALPHA]
    if entry.type != F32 or not isinstance(alpha, float) or not math.isfinite(alpha):
        message = f"{header.path}: {ALPHA} is {str(alpha)[:40]}, not a finite f32"
        raise LoadError(message)


def _check_invocation(model: Model, header: Header) -> None:
    tokens = header.metadata.get(INVOCATION)
    if tokens is None:
        return
    if not isinstance(tokens, np.ndarray) or tokens.dtype != np.uint32:
        message = f"{header.path}: {INVOCATION} is not an array of u32"
        raise LoadError(message)
    if tokens.size and int(tokens.max()) >= model.n_vocab:
        message = (
            f"{header.path}: {INVOCATION} holds token {tokens.max()}, but this model's vocabulary "
            f"goes from 0 to {model.n_vocab} (not included)"
        )
        raise AdapterError(message)


def _pairs(header: Header) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    """Return the two factors for each weight they change."""
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        weight, suffix = tensor.name[:-7], tensor.name[-7:]
        if suffix not in (".lora_a", ".lora_b") or ".lora_" in weight:
            if tensor.name.endswith("_norm.weight"):
                continue  # libllama leaves these out (src/llama-adapter.cpp:290)
            message = f"{header.path}: tensor {tensor.name!r} is no factor of a LoRA"
            raise LoadError(message)
        halves.setdefault(weight, {})[suffix] = tensor
    for weight, found in halves.items():
        if len(found) < 2:
            message = f"{header.path}: {weight!r} has a {next(iter(found))[1:]} tensor only"
            raise LoadError(message)
    if not halves:
        message = f"{header.path} holds no LoRA tensors"
        raise LoadError(message)
    return {weight: (each[".lora_a"], each[".lora_b"]) for weight, each in halves.items()}


def _check_pair(model: Model, header: Header, name: str, a: TensorInfo, b: TensorInfo) -> None:
    """Refuse two factors whose product cannot be added to the weight *name*."""
    for tensor in (a, b):
        kind = TENSOR_TYPES[tensor.type].name
        if kind in NO_PRODUCT:
            message = (
                f"{header.path}: tensor {tensor.name!r} has the type {kind}, which nothing can be "
                "multiplied with"
            )
            raise LoadError(message)
    base = model._tensors.get(name)
    if base is None:
        message = f"{header.path} changes {name!r}, which this model does not have"
        raise AdapterError(message)
    weight, left, right = _four(base), _four(a), _four(b)
    if name.endswith(_EMBEDDING):  # rows of A are looked up, so A lies the other way round
        fits = (weight[0], weight[1], left[0]) == (right[1], left[1], right[0])
    else:
        fits = (weight[0], weight[1], left[1]) == (left[0], right[1], right[0])
    matrices = len(base.shape) > 1 and weight[2:] == left[2:] == right[2:] and weight[3] == 1
    if not (fits and matrices) or 0 in left:
        message = (
            f"{header.path}: the factors of {name!r} have the shapes {a.shape} and {b.shape}, "
            f"which do not make its {base.shape}: the adapter is for another model"
        )
        raise AdapterError(message)


def _four(tensor: TensorInfo) -> tuple[int, ...]:
    """Return a shape with the ones that the file may leave out."""
    return (*tensor.shape, 1, 1, 1, 1)[:4]
