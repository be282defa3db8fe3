"""Grow a small model of any architecture: write what libllama complains of, until it decodes.

The loader names each metadata key and each tensor that it misses, and the shape that it expects;
so a file that begins with the sizes of a small llama, and no tensors, becomes one of the
architecture it names. What remains are the few that want numbers that fit together, for which
`EXTRA` has them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import random_model

import pyllama
from fuzz.mutate import ARRAY, STRING, File, Tensor, Value, parse
from fuzz.seeds import LLAMA
from pyllama import Batch
from pyllama.errors import LlamaError, LoadError

STEPS = 500
MAX_WEIGHTS = 1 << 20  # of one tensor
U32, I32, F32, BOOL = 4, 5, 6, 7  # enum gguf_type, ggml/include/gguf.h
TYPES = {"u32": U32, "i32": I32, "f32": F32, "bool": BOOL, "str": STRING, "arr": ARRAY}
GUESSES: dict[int, Value] = {F32: 1.0, BOOL: 1, STRING: b"x", ARRAY: (I32, [1, 0])}

# Keys that a number other than the guess suits, whatever the architecture.
DEFAULTS: dict[str, tuple[int, Value]] = {
    "attention.group_norm_epsilon": (F32, 1e-5),
    "attention.group_norm_groups": (U32, 1),
    "attention.indexer.key_length": (U32, 64),
    "attention.key_length": (U32, 16),
    "attention.key_length_mla_swa": (U32, 16),
    "attention.key_length_swa": (U32, 16),
    "attention.kv_lora_rank": (U32, 16),
    "attention.kv_lora_rank_swa": (U32, 16),
    "attention.layer_norm_epsilon": (F32, 1e-5),
    "attention.q_lora_rank": (U32, 16),
    "attention.sliding_window": (U32, 16),
    "attention.value_length": (U32, 16),
    "attention.value_length_mla_swa": (U32, 16),
    "attention.value_length_swa": (U32, 16),
    "convnext.embedding_length": (U32, 32),
    "expert_count": (U32, 4),
    "expert_feed_forward_length": (U32, 32),
    "expert_shared_count": (U32, 1),
    "expert_shared_feed_forward_length": (U32, 32),
    "expert_used_count": (U32, 2),
    "features_length": (U32, 32),
    "hash_layer_count": (U32, 0),
    "hyper_connection.count": (U32, 4),
    "kda.gate_lower_bound": (F32, -5.0),
    "kda.head_dim": (U32, 16),
    "leading_dense_block_count": (U32, 1),
    "posnet.block_count": (U32, 6),
    "posnet.embedding_length": (U32, 32),
    "rope.dimension_sections": (ARRAY, (I32, [2, 3, 3, 0])),
    "ssm.conv_kernel": (U32, 4),
    "ssm.group_count": (U32, 1),
    "ssm.inner_size": (U32, 64),
    "ssm.state_size": (U32, 16),
    "ssm.time_step_rank": (U32, 2),
    "wkv.head_size": (U32, 16),
}
EXPERTS: dict[str, tuple[int, Value]] = {"expert_count": (U32, 4), "expert_used_count": (U32, 2)}
HALF_RECURRENT: dict[str, tuple[int, Value]] = {
    "attention.head_count_kv": (ARRAY, (I32, [0, 1])),
}
DELTA: dict[str, tuple[int, Value]] = {
    "ssm.inner_size": (U32, 32),
    "full_attention_interval": (U32, 2),
}
# Keys and values are made of a smaller vector, beside which a key has a part that turns.
LATENT: dict[str, tuple[int, Value]] = {
    "attention.key_length": (U32, 24),
    "attention.key_length_mla": (U32, 16),
    "attention.value_length": (U32, 16),
    "attention.value_length_mla": (U32, 16),
    "rope.dimension_count": (U32, 8),
}
LATENT_DELTA = {**LATENT, **HALF_RECURRENT}
ONE_SHIFT: dict[str, tuple[int, Value]] = {"token_shift_count": (U32, 1)}
NOT_GROUPED: dict[str, tuple[int, Value]] = {"attention.head_count_kv": (U32, 2)}
EXPERTS_NOT_GROUPED = {**EXPERTS, **NOT_GROUPED, "expert_gating_func": (U32, 2)}
HALF_WITHOUT_FFN = {**HALF_RECURRENT, "feed_forward_length": (ARRAY, (I32, [0, 0]))}
EXTRA: dict[str, dict[str, tuple[int, Value]]] = {
    **dict.fromkeys(("phimoe", "arctic", "ernie4_5-moe", "hunyuan-moe"), EXPERTS),
    "minimax-m2": {**EXPERTS, "expert_gating_func": (U32, 2), "rope.dimension_count": (U32, 16)},
    **dict.fromkeys(("gpt-oss", "minimax-01", "minimax-m3", "smallthinker"), EXPERTS),
    **dict.fromkeys(("lfm2", "lfm2moe", "jamba", "granitehybrid"), HALF_RECURRENT),
    **dict.fromkeys(("nemotron_h", "nemotron_h_moe"), HALF_WITHOUT_FFN),
    **dict.fromkeys(("olmoe", "dots1"), EXPERTS_NOT_GROUPED),
    **dict.fromkeys(("qwen3next", "qwen35", "qwen35moe", "qwen4exp"), DELTA),
    **dict.fromkeys(("deepseek2", "deepseek32", "glm-dsa", "mistral4"), LATENT),
    "deepseek2-ocr": NOT_GROUPED,
    "gemma-embedding": {"attention.sliding_window": (U32, 16), "block_count": (U32, 6)},
    "minicpm3": {**NOT_GROUPED, "rope.dimension_count": (U32, 8)},
    "minimax-01": {"full_attention_interval": (U32, 2)},
    "plamo2": {**HALF_RECURRENT, "ssm.group_count": (U32, 0)},
    **dict.fromkeys(("kimi-linear", "kimi-k3", "bailingmoe3"), LATENT_DELTA),
    "glm5-next": {
        **LATENT_DELTA,
        "attention.key_length": (U32, 16),
        "rope.dimension_count": (U32, 0),
    },
    "dots3note": {
        **LATENT,
        "attention.key_length_swa": (U32, 24),
        "attention.sliding_window_pattern": (ARRAY, (I32, [0, 1])),
    },
    "hy_v4": {
        **LATENT,
        "attention.indexer.head_count": (U32, 2),
        "attention.indexer.key_length": (U32, 64),
        "attention.indexer.top_k": (U32, 2),
        "attention.indexer.types": (ARRAY, (I32, [1, 0])),
        "expert_gating_func": (U32, 2),
    },
    "deepseek4": {
        "attention.compress_ratios": (ARRAY, (I32, [4, 128])),
        "expert_gating_func": (U32, 4),
        "rope.dimension_count": (U32, 8),
    },
    "llama4": {"block_count": (U32, 4)},
    "hrm_text": dict.fromkeys(("hrm.layers_per_stack", "hrm.h_cycles", "hrm.l_cycles"), (U32, 1)),
    "rwkv6": {"attention.head_count_kv": (U32, 2)},
    "rwkv7": {"attention.gate_lora_rank": (U32, 16)},
    "wavtokenizer-dec": {"block_count": (U32, 6)},
    **dict.fromkeys(("rwkv6qwen2", "arwkv7"), ONE_SHIFT),
    "gemma2": {"attention.sliding_window": (U32, 16)},
    "afmoe": {**EXPERTS, "attention.sliding_window": (U32, 16)},
    "paddleocr": {"rope.dimension_sections": (ARRAY, (I32, [2, 3, 3, 0]))},
}
# Tensors that the loader does not ask for, or not by their shape.
TENSORS: dict[str, dict[str, list[int]]] = {
    "laguna": {f"blk.{layer}.attn_gate.weight": [32, 2] for layer in range(2)},
    "rwkv6": {f"blk.{layer}.time_mix_lerp_fused.weight": [32, 1, 1, 5] for layer in range(2)},
}
# Chameleon makes the tokens of images unlikely, and those are 4 to 8195.
VOCABS = {"chameleon": 8200}


def architectures(source: Path) -> list[str]:
    """Return the names of all that libllama knows.

    Parameters
    ----------
    source
        The folder of llama.cpp.
    """
    text = (source / "src" / "llama-arch.cpp").read_text()
    return re.findall(r'LLM_ARCH_\w+, *"([\w.-]+)"', text)


def keys(source: Path) -> list[str]:
    """Return the keys, without the architecture before them, that libllama knows.

    Parameters
    ----------
    source
        The folder of llama.cpp.
    """
    text = (source / "src" / "llama-arch.cpp").read_text()
    return re.findall(r'"%s\.([\w.-]+)"', text)


def grow_all(folder: Path, names: list[str]) -> list[str]:
    """Grow each in a process of its own, for half-grown ones may end it; return what came out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (folder / f"{name}.gguf").exists():
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                code = int(not grow(folder, name))
            finally:
                os._exit(code)
        os.waitpid(pid, 0)
        (folder / f"{name}.part").unlink(missing_ok=True)
    return [name for name in names if (folder / f"{name}.gguf").exists()]


def grow(folder: Path, arch: str) -> bool:
    """Write a file of an architecture into *folder*; return whether it came to decode."""
    n_vocab = VOCABS.get(arch, LLAMA["n_vocab"])
    base = folder / f"base-{n_vocab}.gguf"
    if not base.exists():
        random_model.write_llama(base, **{**LLAMA, "n_vocab": n_vocab})
    file = parse(base)
    file.tensors = [_random(name, shape, 0) for name, shape in TENSORS.get(arch, {}).items()]
    prefix = arch.encode() + b"."
    file.pairs = [
        (re.sub(rb"^llama\.", prefix, key), kind, arch.encode() if value == b"llama" and key ==
         b"general.architecture" else value)
        for key, kind, value in file.pairs
    ]  # fmt: skip
    for short, (kind, value) in EXTRA.get(arch, {}).items():
        _set(file, f"{arch}.{short}", kind, value)
    path = folder / f"{arch}.part"
    for step in range(STEPS):
        path.write_bytes(file.encode()[0])
        try:
            _decode(path)
        except LoadError as error:
            if not any(cure(file, arch, str(error), step) for cure in CURES):
                return False
        except LlamaError:
            return False
        else:
            path.rename(folder / f"{arch}.gguf")
            return True
    return False


def write_window(path: Path) -> Path:
    """Write a model of which every second layer sees 16 tokens back."""
    grow(path.parent, "gemma2")
    return (path.parent / "gemma2.gguf").rename(path)


def _decode(path: Path) -> None:
    with (
        pyllama.Model(path) as model,
        model.context(n_ctx=64, n_batch=32, n_ubatch=32, n_threads=1, n_threads_batch=1) as context,
    ):
        if model.has_encoder:
            context.encode(Batch([1, 2, 3]))
        if model.has_decoder:
            context.decode(Batch([1, 2, 3]))


def _set(file: File, key: str, kind: int, value: Value) -> None:
    file.pairs = [pair for pair in file.pairs if pair[0] != key.encode()]
    file.pairs.append((key.encode(), kind, value))


def _random(name: str, shape: list[int], seed: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(math.prod(shape))
    values = values * max(shape[0], 1) ** -0.5 if len(shape) > 1 else 1 + 0.1 * values
    return Tensor(name.encode(), shape, 0, values.astype("<f4").tobytes())


def _add_tensor(file: File, _arch: str, text: str, _step: int) -> bool:
    found = re.search(r"tensor '([^']+)' not found", text)
    if found:
        file.tensors.append(Tensor(found[1].encode(), [1], 0, bytes(4)))
    return bool(found)


def _add_group(file: File, _arch: str, text: str, _step: int) -> bool:
    """Add what the loader lets be absent and our own rules do not."""
    found = re.search(r"is there without (.+?)(?: or |$)", text)
    if found:
        file.tensors += [Tensor(name.encode(), [1], 0, bytes(4)) for name in found[1].split(", ")]
    return bool(found)


def _shape_tensor(file: File, _arch: str, text: str, step: int) -> bool:
    found = re.search(r"tensor '([^']+)' has wrong shape; expected ([\d, ]+), got", text)
    if not found:
        return False
    shape = [int(n) for n in found[2].split(",")]
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    tensor = next(tensor for tensor in file.tensors if tensor.name.decode() == found[1])
    if tensor.shape == shape or math.prod(shape) > MAX_WEIGHTS:
        return False
    file.tensors[file.tensors.index(tensor)] = _random(found[1], shape, step)
    return True


def _add_key(file: File, _arch: str, text: str, _step: int) -> bool:
    found = re.search(r"(array )?key not found in model: (\S+)", text)
    if found:
        kind, value = DEFAULTS.get(found[2].partition(".")[2], (U32, 2))
        _set(file, found[2], *((ARRAY, GUESSES[ARRAY]) if found[1] else (kind, value)))
    return bool(found)


def _change_type(file: File, _arch: str, text: str, _step: int) -> bool:
    found = re.search(r"key (\S+) has wrong type \S+ but expected type (\S+)", text)
    kind = TYPES.get(found[2]) if found else None
    if found and kind is not None:
        _set(file, found[1], kind, GUESSES.get(kind, 2))
    return kind is not None


def _add_experts(file: File, arch: str, text: str, _step: int) -> bool:
    asked = "expert" in text or "n_ids_used" in text
    if not asked or any(b"expert_count" in pair[0] for pair in file.pairs):
        return False
    for short, (kind, value) in EXPERTS.items():
        _set(file, f"{arch}.{short}", kind, value)
    return True


def _add_token_types(file: File, _arch: str, text: str, _step: int) -> bool:
    key = "tokenizer.ggml.token_type_count"
    if "token type count" not in text or any(pair[0] == key.encode() for pair in file.pairs):
        return False
    _set(file, key, U32, 2)
    return True


CURES: tuple[Callable[[File, str, str, int], bool], ...] = (
    _add_tensor,
    _add_group,
    _shape_tensor,
    _add_key,
    _change_type,
    _add_experts,
    _add_token_types,
)
