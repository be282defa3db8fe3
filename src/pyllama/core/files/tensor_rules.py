"""What the tensors of a model file must be, and which it must have, beyond what the loader asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pyllama.core.files.gguf import Header, TensorInfo
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.errors import LoadError

# The CPU calls a NULL pointer to multiply with these (ggml/src/ggml-cpu/ggml-cpu.c:215).
NO_PRODUCT = frozenset({"q8_1", "q8_K", "i8", "i16", "i32", "i64", "f64"})
# What is added or multiplied with, or read by the convolution and the scan (ggml-cpu/ops.cpp:9949,
# :10032), or by an operation of its own (ggml/src/ggml.c:4304, :5590, :6477); and what is if it is
# one row.
ADDED = (
    *(".bias", "_norm.weight", ".shortconv.conv.weight", ".ssm_a", ".ssm_d", "_lerp_fused.weight"),
    *(f".ssm_conv1d{part}.weight" for part in ("", "_q", "_k", "_v")),
)
ADDED_ROWS = (
    *("norm.weight", "norm", "norm1.weight", "norm2.weight", "norm_2.weight", "norm_exps.weight"),
    *("_scale.weight", "_base.weight", "_sinks.weight", "_res_score.weight", "gamma.weight"),
    *("rope_freqs.weight", "_lerp_x.weight", "_lerp_k.weight", "_lerp_r.weight", "z_l_init"),
    *(f".time_mix_{part}.weight" for part in ("a0", "w0", "v0", "decay", "ln")),
    *(f".time_mix_{part}.weight" for part in ("k_k", "k_a", "r_k")),
)
ADDED_BY = {"glm5-next": (".indexer_compressor_ape.weight",)}  # which others read row by row
TABLES = ("d2t", "tid2eid", "masked_embd_ordering")  # the few tensors that are integers

# T5 adds these to its attention without a look whether they are there (src/models/t5.cpp:146).
POSITION_BIASES = {
    "t5": ("enc.blk.0.attn_rel_b.weight", "dec.blk.0.attn_rel_b.weight"),
    "t5encoder": ("enc.blk.0.attn_rel_b.weight",),
}

# In the layers that have the first, the loader lets be absent what the model then computes with:
# all of one of the groups must be there.
APART = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
ANY_QKV = ("attn_norm.weight", (("attn_qkv.weight",), APART))
GATED = ("attn_qkv.weight", "attn_gate.weight")
EXPERTS = ("ffn_up_exps.weight", "ffn_down_exps.weight")
SHIFTED = ("ssm_conv1d.weight", (("ssm_conv1d.bias",),))
NEEDS = {
    "mimo2": ("ffn_gate_inp.weight", (EXPERTS,)),  # src/models/mimo2.cpp:213
    "phi3": ANY_QKV,  # src/models/phi3.cpp:46
    "pockettts": ANY_QKV,  # src/models/pockettts.cpp:32
    "qwen3next": ("ssm_conv1d.weight", (GATED, ("ssm_in.weight",))),  # src/models/qwen3next.cpp:86
    "qwen35": ("ssm_conv1d.weight", (GATED,)),  # src/models/qwen35.cpp:77
    "qwen35moe": ("ssm_conv1d.weight", (GATED,)),  # src/models/qwen35moe.cpp:83
    "falcon-h1": SHIFTED,  # src/models/mamba-base.cpp:235, and the next two
    "granitehybrid": SHIFTED,
    "nemotron_h": SHIFTED,
    "nemotron_h_moe": SHIFTED,
}

# What a layer reads that chooses what it attends to by itself (src/models/glm-dsa.cpp:264).
INDEXER = ("indexer.attn_q_b.weight", "indexer.attn_k.weight", "indexer.proj.weight")

# The models that read no embedding_length_out, but set it themselves (src/models/deepseek4.cpp:53).
OWN_WIDTH = ("deepseek4", "qwen4exp")
WIDENING = ("dense_", "nextn.")  # what the tensors are called that make embeddings wider


def _check_types(headers: Sequence[Header]) -> None:
    added = ADDED_BY.get(headers[0].architecture, ())
    for header in headers:
        for tensor in header.tensors:
            kind = TENSOR_TYPES[tensor.type].name
            if kind in NO_PRODUCT and not any(name in tensor.name for name in TABLES):
                what = "no weights can be multiplied with"
            elif kind != "f32" and (_is_added(tensor) or tensor.name.endswith(added)):
                what = "libllama adds or multiplies only as f32"  # ggml-cpu/binary-ops.cpp:135
            else:
                continue
            raise LoadError(
                f"{header.path}: tensor {tensor.name!r} has the type {kind}, which {what}"
            )


def _is_added(tensor: TensorInfo) -> bool:
    """Whether a tensor is a norm, a bias, or the like: every converter writes those as f32."""
    if tensor.name == "token_types.weight" or tensor.name.endswith(ADDED):
        return True
    return sum(n > 1 for n in tensor.shape) <= 1 and tensor.name.endswith(ADDED_ROWS)


def _check_position_biases(headers: Sequence[Header]) -> None:
    wanted = POSITION_BIASES.get(headers[0].architecture, ())
    names = _names(headers) if wanted else set()
    for name in wanted:
        if names and name not in names:  # without any tensors it is a vocabulary alone
            raise LoadError(f"{headers[0].path}: tensor {name!r} is missing")


def _check_needs(headers: Sequence[Header]) -> None:
    """Refuse a layer without what its model computes with: libllama would read behind NULL."""
    needs = NEEDS.get(headers[0].architecture)
    if needs is None:
        return
    first, groups = needs
    names = _names(headers)
    for name in sorted(name for name in names if name.endswith(f".{first}")):
        layer = name.removesuffix(first)
        if not any(all(layer + part in names for part in group) for group in groups):
            wanted = " or ".join(", ".join(layer + part for part in group) for group in groups)
            raise LoadError(f"{headers[0].path}: tensor {name!r} is there without {wanted}")


def _check_indexers(headers: Sequence[Header]) -> None:
    """Refuse a layer that chooses what to attend to, without what it chooses by."""
    first, arch = headers[0], headers[0].architecture
    if arch not in ("glm-dsa", "dots3note"):
        return
    names = _names(headers)
    n_layers = first.count(f"{arch}.block_count", 1) - first.count(f"{arch}.nextn_predict_layers")
    for index in range(n_layers):
        layer = f"blk.{index}."
        gone = [layer + part for part in INDEXER if layer + part not in names]
        if gone and f"{layer}attn_norm.weight" in names and _has_indexer(first, index):
            what = f"tensor '{layer}attn_norm.weight' is there without {', '.join(gone)}"
            raise LoadError(f"{first.path}: {what}")
    own = [_has_indexer(first, index) for index in range(n_layers)]
    if names and own and not any(own):
        # The memory of what such layers choose by is empty then: libllama divides by its size for
        # glm-dsa, and finds no mask for dots3note (ggml/src/ggml-backend.cpp:205).
        raise LoadError(f"{first.path}: no layer of this {arch} chooses what it attends to")


def _has_indexer(header: Header, index: int) -> bool:
    """Whether a layer reads one of its own: src/models/glm-dsa.cpp:59, dots3note.cpp:184."""
    if header.architecture == "dots3note":
        windows = header.metadata.get("dots3note.attention.sliding_window_pattern")
        return not (isinstance(windows, np.ndarray) and windows[index : index + 1].any())
    types = header.metadata.get("glm-dsa.attention.indexer.types")
    if isinstance(types, np.ndarray):
        return index < len(types) and bool(types[index])
    if types is not None:
        return bool(types)
    shares = header.count("glm-dsa.context_length") >= 1 << 20
    return not shares or index < 2 or index % 4 == 2


def _check_window(headers: Sequence[Header]) -> None:
    """Refuse an afmoe without a window, which it takes for granted: src/models/afmoe.cpp:123."""
    first = headers[0]
    key = "afmoe.attention.sliding_window"
    if first.architecture == "afmoe" and first.tensors and not first.count(key):
        raise LoadError(f"{first.path}: {key} is missing or 0")


def _check_width_out(headers: Sequence[Header]) -> None:
    """Refuse embeddings wider than those that any tensor makes: libllama would read on behind."""
    first, arch = headers[0], headers[0].architecture
    key = f"{arch}.embedding_length_out"
    width, n_embd = first.count(key), first.count(f"{arch}.embedding_length")
    if width <= n_embd or arch in OWN_WIDTH:
        return
    tensors = [tensor for header in headers for tensor in header.tensors]
    sizes = {n for tensor in tensors for n in tensor.shape if tensor.name.startswith(WIDENING)}
    if tensors and width not in sizes:  # an assertion in ggml/src/ggml-backend.cpp:283
        raise LoadError(f"{first.path}: {key} is {width}, but no tensor makes embeddings so wide")


def _names(headers: Sequence[Header]) -> set[str]:
    return {tensor.name for header in headers for tensor in header.tensors}


TENSOR_RULES: tuple[Callable[[Sequence[Header]], None], ...] = (
    _check_types,
    _check_position_biases,
    _check_needs,
    _check_indexers,
    _check_window,
    _check_width_out,
)
