"""What a well-formed model file may still say that ends the process, at the latest when it decodes.

Each rule is an assertion, a NULL pointer or an endless loop that mutated files met in libllama.
What libllama refuses by itself while it loads is left to it, and so is what the file may lack as
long as nobody asks for it (`Tokenizer` says so then): no file that works is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pyllama.core.gguf import Header, TensorInfo
from pyllama.core.tensor_types import TENSOR_TYPES
from pyllama.core.vocab_rules import VOCAB_RULES
from pyllama.errors import LoadError

MAX_BLOCKS, MAX_EXPERTS = 512, 1024  # src/llama-hparams.h:11

ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")  # src/llama-model.cpp:1034

# The CPU calls a NULL pointer to multiply with these (ggml/src/ggml-cpu/ggml-cpu.c:215).
NO_PRODUCT = frozenset({"q8_1", "q8_K", "i8", "i16", "i32", "i64", "f64"})
TABLES = ("d2t", "tid2eid", "masked_embd_ordering")  # the few tensors that are integers

# T5 adds these to its attention without a look whether they are there (src/models/t5.cpp:146).
POSITION_BIASES = {
    "t5": ("enc.blk.0.attn_rel_b.weight", "dec.blk.0.attn_rel_b.weight"),
    "t5encoder": ("enc.blk.0.attn_rel_b.weight",),
}

# The models that read no embedding_length_out, but set it themselves (src/models/deepseek4.cpp:53).
OWN_WIDTH = ("deepseek4", "qwen4exp")


def check_rules(headers: Sequence[Header]) -> None:
    """Refuse a model that would end the process.

    Parameters
    ----------
    headers
        Of all its files, in order.

    Raises
    ------
    LoadError
        Naming the file, and the key or tensor at fault.
    """
    for rule in RULES:
        rule(headers)


def _check_block_count(headers: Sequence[Header]) -> None:
    first = headers[0]
    key = f"{_arch(first)}.block_count"
    n_blocks = first.count(key, 1)
    if not 1 <= n_blocks <= MAX_BLOCKS:  # an assertion in src/llama-model.cpp:1328
        raise LoadError(f"{first.path}: {key} is {n_blocks}, not from 1 to {MAX_BLOCKS}")
    for part in ("nextn_predict_layers", "posnet.block_count", "convnext.block_count"):
        n = first.count(f"{_arch(first)}.{part}")
        if not 0 <= n <= n_blocks:  # src/llama-model.cpp:1330, :1354
            what = f"{_arch(first)}.{part} is {n}, not from 0 to {key} ({n_blocks})"
            raise LoadError(f"{first.path}: {what}")


def _check_experts(headers: Sequence[Header]) -> None:
    """Check what src/llama-model.cpp:1361 asserts of the mixture of experts."""
    first, arch = headers[0], _arch(headers[0])
    n_experts = first.count(f"{arch}.expert_count")
    if arch in ("hunyuan_vl", "hunyuan-dense") and n_experts <= 1:
        n_experts, n_used = 0, 0  # as src/llama-model.cpp:1337
    else:
        n_used = _largest(first, f"{arch}.expert_used_count")
    n_groups = first.count(f"{arch}.expert_group_count")
    n_groups_used = first.count(f"{arch}.expert_group_used_count")
    if not 0 <= n_experts <= MAX_EXPERTS:
        what = f"expert_count is {n_experts}, not from 0 to {MAX_EXPERTS}"
    elif not min(n_experts, 1) <= n_used <= n_experts:
        what = f"expert_used_count is {n_used}, not from {min(n_experts, 1)} to {n_experts}"
        what += " (expert_count)"
    elif not 0 <= n_groups < max(n_experts, 1):
        what = f"expert_group_count is {n_groups}, not below the {n_experts} of expert_count"
    elif n_groups > 1 and n_experts % n_groups:
        what = f"expert_group_count is {n_groups}, which does not divide {n_experts} experts"
    elif n_groups > 1 and not 0 < n_groups_used < n_groups:
        what = f"expert_group_used_count is {n_groups_used}, not from 1 to {n_groups - 1}"
    else:
        return
    raise LoadError(f"{first.path}: {arch}.{what}")


def _check_rope_scaling(headers: Sequence[Header]) -> None:
    first = headers[0]
    key = f"{_arch(first)}.rope.scaling.type"
    value = first.metadata.get(key, "linear")
    if isinstance(value, str) and value not in ROPE_SCALINGS:  # src/llama-model.cpp:1420
        raise LoadError(f"{first.path}: {key} is {value[:40]!r}, not one of {ROPE_SCALINGS}")


def _check_epsilons(headers: Sequence[Header]) -> None:
    first = headers[0]
    for key in first.metadata:
        if not (key.startswith(f"{_arch(first)}.") and key.endswith("epsilon")):
            continue
        value = first.metadata[key]
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            # asserted in ggml/src/ggml-cpu/ops.cpp:4026, :4132
            raise LoadError(f"{first.path}: {key} is {str(value)[:40]}, not a number from 0 on")


def _check_types(headers: Sequence[Header]) -> None:
    for header in headers:
        for tensor in header.tensors:
            kind = TENSOR_TYPES[tensor.type].name
            if kind in NO_PRODUCT and not any(name in tensor.name for name in TABLES):
                what = "no weights can be multiplied with"
            elif kind != "f32" and _is_added(tensor):
                what = "libllama adds or multiplies only as f32"  # ggml-cpu/binary-ops.cpp:135
            else:
                continue
            raise LoadError(
                f"{header.path}: tensor {tensor.name!r} has the type {kind}, which {what}"
            )


def _is_added(tensor: TensorInfo) -> bool:
    """Whether a tensor is a norm, a bias, or the like: every converter writes those as f32."""
    name = tensor.name
    # ggml-cpu/ops.cpp:9949 (convolution), :10032 (scan) want f32 as well
    if name == "token_types.weight" or name.endswith((".ssm_conv1d.weight", ".ssm_a", ".ssm_d")):
        return True
    n_dims = sum(n > 1 for n in tensor.shape)
    return n_dims <= 1 and name.endswith(("norm.weight", ".bias"))


def _check_position_biases(headers: Sequence[Header]) -> None:
    wanted = POSITION_BIASES.get(_arch(headers[0]), ())
    names = {tensor.name for header in headers for tensor in header.tensors} if wanted else set()
    for name in wanted:
        if names and name not in names:  # without any tensors it is a vocabulary alone
            raise LoadError(f"{headers[0].path}: tensor {name!r} is missing")


def _check_width_out(headers: Sequence[Header]) -> None:
    """Refuse embeddings wider than those that any tensor makes: libllama would read on behind."""
    first, arch = headers[0], _arch(headers[0])
    key = f"{arch}.embedding_length_out"
    width, n_embd = first.count(key), first.count(f"{arch}.embedding_length")
    if width <= n_embd or arch in OWN_WIDTH:
        return
    sizes = {n for header in headers for tensor in header.tensors for n in tensor.shape}
    if sizes and width not in sizes:  # an assertion in ggml/src/ggml-backend.cpp:283
        raise LoadError(f"{first.path}: {key} is {width}, but no tensor has a side of that length")


def _arch(header: Header) -> str:
    return str(header.metadata.get("general.architecture"))


def _largest(header: Header, key: str) -> int:
    """Return a count that may be an array, with one for each layer."""
    value = header.metadata.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        return int(value.astype(np.uint32).max(initial=0))  # as libllama reads them
    return header.count(key)


RULES: tuple[Callable[[Sequence[Header]], None], ...] = (
    _check_block_count,
    _check_experts,
    _check_rope_scaling,
    _check_epsilons,
    _check_types,
    _check_position_biases,
    _check_width_out,
    *VOCAB_RULES,
)
