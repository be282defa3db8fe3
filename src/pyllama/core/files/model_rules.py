"""What a well-formed model file may still say that ends the process, at the latest when it decodes.

Each rule is an assertion, a NULL pointer or an endless loop that mutated files met in libllama.
What libllama refuses by itself while it loads is left to it, and so is what the file may lack as
long as nobody asks for it (`Tokenizer` says so then): no file that works is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pyllama.core.files.gguf import Header
from pyllama.core.files.tensor_rules import TENSOR_RULES
from pyllama.core.files.vocab_rules import VOCAB_RULES
from pyllama.errors import LoadError

MAX_BLOCKS, MAX_EXPERTS = 512, 1024  # src/llama-hparams.h:11

ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")  # src/llama-model.cpp:1034

# The models that turn nothing by its position (src/llama-model.cpp:3026), and read no rope.* keys.
NO_ROPE = frozenset(
    "clip gpt2 gptj mpt refact bloom mamba mamba2 jamba jina-bert-v2 t5 t5encoder jais rwkv6 "
    "rwkv6qwen2 rwkv7 arwkv7 wavtokenizer-dec nemotron_h nemotron_h_moe kimi-linear kimi-k3 "
    "glm5-next".split()
)
# The models that turn by several positions at once, always (src/llama-model.cpp:3187).
M_ROPE = frozenset(
    "qwen2vl paddleocr qwen3vl qwen3vlmoe qwen35 qwen35moe qwen4exp qwen3tts".split()
)
# These divide by the number of heads (src/models/olmo2.cpp:30, phimoe.cpp:15) or of experts in use
# (src/models/qwen35moe.cpp:57, qwen4exp.cpp:198) before they look whether it is 0.
NEED_HEADS = ("olmo2", "phimoe")
NEED_EXPERTS = ("qwen35moe", "qwen4exp")
# And these by a key of their own (src/models/deepseek4.cpp:122, qwen35.cpp:21, minimax-01.cpp:16,
# mamba2.cpp:78, mamba-base.cpp:178, qwen3next.cpp:340, rwkv6.cpp:67, rwkv7-base.cpp:42).
NEED = {
    "attention.output_group_count": ("deepseek4",),
    "full_attention_interval": ("minimax-01", "qwen35", "qwen35moe", "qwen3next"),
    "ssm.group_count": (
        "falcon-h1", "granitehybrid", "mamba2", "nemotron_h", "nemotron_h_moe", "qwen35",
        "qwen35moe", "qwen3next",
    ),
    "wkv.head_size": ("arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"),
}  # fmt: skip
ENCODERS = ("bert", "modern-bert", "neo-bert", "eurobert", "nomic-bert", "nomic-bert-moe",
            "jina-bert-v2", "jina-bert-v3")  # fmt: skip


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
    key = f"{first.architecture}.block_count"
    n_blocks = first.count(key, 1)
    if not 1 <= n_blocks <= MAX_BLOCKS:  # an assertion in src/llama-model.cpp:1328
        raise LoadError(f"{first.path}: {key} is {n_blocks}, not from 1 to {MAX_BLOCKS}")
    for part in ("nextn_predict_layers", "posnet.block_count", "convnext.block_count"):
        n = first.count(f"{first.architecture}.{part}")
        if not 0 <= n <= n_blocks:  # src/llama-model.cpp:1330, :1354
            what = f"{first.architecture}.{part} is {n}, not from 0 to {key} ({n_blocks})"
            raise LoadError(f"{first.path}: {what}")
    key = f"{first.architecture}.leading_dense_block_count"
    n = first.count(key)
    if n >= 2**31:  # negative for the loader, but not for the graph (src/models/kimi-k3.cpp:139)
        raise LoadError(f"{first.path}: {key} is {n}, more than 2^31 - 1")


def _check_experts(headers: Sequence[Header]) -> None:
    """Check what src/llama-model.cpp:1361 asserts of the mixture of experts."""
    first, arch = headers[0], headers[0].architecture
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


def _check_divisors(headers: Sequence[Header]) -> None:
    """Refuse the zeros that some models divide by."""
    first, arch = headers[0], headers[0].architecture
    for part, needing in NEED.items():
        key = f"{arch}.{part}"
        if arch in needing and key in first.metadata and first.count(key) == 0:
            raise LoadError(f"{first.path}: {key} is 0, and this model divides by it")
    key = f"{arch}.attention.head_count"
    if arch in NEED_HEADS and _first(first, key) == 0:
        raise LoadError(f"{first.path}: {key} is 0, and this model divides by it")
    key = f"{arch}.expert_used_count"
    wide = _first(first, f"{arch}.expert_feed_forward_length")
    if arch in NEED_EXPERTS and not wide and _first(first, key) == 0:
        raise LoadError(f"{first.path}: {key} is 0, and this model divides by it")


def _check_norm_groups(headers: Sequence[Header]) -> None:
    """Refuse no groups or more than channels: ops.cpp:4413 divides by them and visits each."""
    first, arch = headers[0], headers[0].architecture
    key = f"{arch}.attention.group_norm_groups"
    n, n_channels = first.count(key, 1), first.count(f"{arch}.posnet.embedding_length", 1)
    if arch == "wavtokenizer-dec" and not 0 < n <= n_channels:
        raise LoadError(f"{first.path}: {key} is {n}, not from 1 to {n_channels} channels")


def _check_temperature(headers: Sequence[Header]) -> None:
    """Refuse a scale of attention that begins nowhere: src/llama-graph.cpp:162 asserts it."""
    first, arch = headers[0], headers[0].architecture
    scale, length = f"{arch}.attention.temperature_scale", f"{arch}.attention.temperature_length"
    value = first.metadata.get(scale)
    scaled = isinstance(value, float) and value != 0
    if arch in ("deepseek2", "mistral4") and scaled and not first.count(length):
        raise LoadError(f"{first.path}: {scale} is set, but {length} is missing or 0")


def _check_kv_heads(headers: Sequence[Header]) -> None:
    """Refuse heads without keys: ggml/src/ggml.c:1595 divides by their number."""
    first, arch = headers[0], headers[0].architecture
    key = f"{arch}.attention.head_count_kv"
    value = first.metadata.get(key)
    # As an array it says which layers have no attention; the encoders below have one in all.
    none = value == 0 if isinstance(value, int) else arch in ENCODERS and _smallest(value) == 0
    if none and _first(first, f"{arch}.attention.head_count"):
        raise LoadError(f"{first.path}: {key} is 0, but {arch}.attention.head_count is not")


def _check_rope_dimensions(headers: Sequence[Header]) -> None:
    """Refuse a part of a head to turn that is no number of pairs, or larger than the head.

    Asserted in ggml/src/ggml-cpu/ops.cpp:6355, in whatever thread computes; with 0 the loop of
    :6453 goes back and forth for ever.
    """
    first, arch = headers[0], headers[0].architecture
    n_heads = _first(first, f"{arch}.attention.head_count")
    if arch in NO_ROPE or n_heads == 0 or not first.tensors:
        return
    head = _head(first)
    unit = 4 if arch == "step35" else 2  # it turns half of them (src/models/step35.cpp:9)
    n_turned = first.count(f"{arch}.rope.dimension_count", head)
    windowed = first.count(f"{arch}.attention.key_length_swa", head)
    n_windowed = first.count(f"{arch}.rope.dimension_count_swa", n_turned)
    for suffix, n, size in (("", n_turned, head), ("_swa", n_windowed, windowed)):
        if n % unit or not 0 < n <= size:
            raise LoadError(
                f"{first.path}: {arch}.rope.dimension_count{suffix} is {n}, not a multiple of "
                f"{unit} up to {size} (the size of a head)"
            )


def _check_rope_sections(headers: Sequence[Header]) -> None:
    """Refuse shares of a head that do not add up: ggml-cpu/ops.cpp:6232, :6382 assert it."""
    first, arch = headers[0], headers[0].architecture
    key = f"{arch}.rope.dimension_sections"
    value = first.metadata.get(key)
    if not first.tensors or (value is None and arch not in M_ROPE):
        return
    if isinstance(value, int):
        value = np.full(4, value)  # a number alone is that of each (src/llama-model-loader.cpp:491)
    shares = value[:4] if isinstance(value, np.ndarray) else np.zeros(1, int)
    total, head = sum(shares.tolist()), _head(first)
    if shares.min(initial=0) < 0 or total > head or (arch in M_ROPE and not shares[:3].any()):
        raise LoadError(
            f"{first.path}: {key} is {shares.tolist()}, not shares that add up to at most {head} "
            "(the size of a head)"
        )


def _check_rope_scaling(headers: Sequence[Header]) -> None:
    first = headers[0]
    key = f"{first.architecture}.rope.scaling.type"
    value = first.metadata.get(key, "linear")
    if isinstance(value, str) and value not in ROPE_SCALINGS:  # src/llama-model.cpp:1420
        raise LoadError(f"{first.path}: {key} is {value[:40]!r}, not one of {ROPE_SCALINGS}")


def _check_epsilons(headers: Sequence[Header]) -> None:
    first = headers[0]
    for key in first.metadata:
        if not (key.startswith(f"{first.architecture}.") and key.endswith("epsilon")):
            continue
        value = first.metadata[key]
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            # asserted in ggml/src/ggml-cpu/ops.cpp:4026, :4132
            raise LoadError(f"{first.path}: {key} is {str(value)[:40]}, not a number from 0 on")


def _head(header: Header) -> int:
    """Return the length of a head's key, as src/llama-model.cpp:1439 has it; 0 without heads."""
    arch = header.architecture
    n_heads = _first(header, f"{arch}.attention.head_count")
    head = header.count(f"{arch}.embedding_length") // n_heads if n_heads else 0
    return header.count(f"{arch}.attention.key_length", head)


def _first(header: Header, key: str) -> int:
    """Return a count that may be an array, and then the one of the first layer."""
    value = header.metadata.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        return int(value[0]) if value.size else 0
    return header.count(key)


def _smallest(value: object) -> int:
    """Return the least of an array of counts, 1 if it is none."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu" and value.size:
        return int(value.min())
    return 1


def _largest(header: Header, key: str) -> int:
    """Return a count that may be an array, with one for each layer."""
    value = header.metadata.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        return int(value.astype(np.uint32).max(initial=0))  # as libllama reads them
    return header.count(key)


RULES: tuple[Callable[[Sequence[Header]], None], ...] = (
    _check_block_count,
    _check_experts,
    _check_divisors,
    _check_norm_groups,
    _check_temperature,
    _check_kv_heads,
    _check_rope_dimensions,
    _check_rope_sections,
    _check_rope_scaling,
    _check_epsilons,
    *TENSOR_RULES,
    *VOCAB_RULES,
)
