"""What a context's options must fulfil together, and what its batches may then hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import ContextType, FlashAttnType, GGMLType, PoolingType
from pyllama.core.library import ffi, lib
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from pyllama.core.model import Model

LEARNED_POSITIONS = "position_embd.weight"
# What these compute with is another model's hidden states, which no `Batch` holds for them, and for
# some its context (llama-context.cpp:147). libllama would look for both behind NULL.
DRAFTS = frozenset(["dflash", "eagle3", "gemma4-assistant"])
# Their `n_embd_out` is the width of what their heads for multi-token prediction read, and libllama
# takes it for that of the embeddings too: it would read on behind them (llama-context.cpp:1579).
NO_EMBEDDINGS = frozenset(["deepseek4", "qwen4exp"])
# Hybrid models whose multi-token-prediction head has a plain memory (llama-model.cpp:2661).
DENSE_HEADS = frozenset(["bailingmoe3", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next"])


def check_together(model: Model, params: Any, *, allocates: bool = True) -> None:
    """Refuse options that are each in range and still end the process, or cannot work.

    Parameters
    ----------
    model
        The model of the context to be.
    params
        A filled ``llama_context_params``.
    allocates
        Whether the context will have memory, and not only a size.

    Raises
    ------
    ValueError
        If options contradict each other.
    UnsupportedError
        If the model cannot do what they ask for.
    MemoryError
        If the keys and values would take more memory than there is.
    """
    if model.architecture in DRAFTS:
        message = (
            f"a {model.architecture} model drafts for another one from what that had in its "
            "layers, which is not offered here: take a smaller model of the same vocabulary instead"
        )
        raise UnsupportedError(message)
    if model.architecture == "llama4" and not model.n_swa:
        message = (  # MobileLLM: an assertion at each decode (llama-graph.cpp:161)
            "this version of libllama cannot compute a llama4 model without a sliding window"
        )
        raise UnsupportedError(message)
    if params.embeddings:
        require_embeddings(model)
    n_ctx = params.n_ctx or model.n_ctx_train
    if n_ctx == 0:
        message = "n_ctx=0 takes the trained context, but this model does not say one: give n_ctx"
        raise ValueError(message)
    # llama-context.cpp:2273 asserts it, after n_batch was lowered to n_ctx.
    room = min(n_ctx, params.n_batch, params.n_outputs_max or params.n_batch)
    if params.n_seq_max > room:
        message = (
            f"n_seq_max={params.n_seq_max} is more than the {room} tokens or outputs that one "
            "batch can hold (n_ctx, n_batch, n_outputs_max): every sequence needs one"
        )
        raise ValueError(message)
    if params.pooling_type == PoolingType.RANK and not model.n_cls_out:
        message = "pooling_type='rank' needs a model with a classifier head; this one has none"
        raise UnsupportedError(message)
    if params.ctx_type == ContextType.MTP and not model.n_layer_nextn:
        message = "ctx_type='mtp' needs a model with multi-token-prediction layers; this has none"
        raise UnsupportedError(message)
    if params.ctx_type != ContextType.MTP and model.n_layer_nextn and not _has_trunk(model):
        message = (  # libllama follows a NULL to the layers that are not there
            "this file holds a multi-token-prediction head without its model: make the context "
            "with ctx_type='mtp'"
        )
        raise UnsupportedError(message)
    _check_cache_types(model, params)
    if allocates:
        _check_memory(model, params, max(n_ctx, 256 * params.n_seq_max))


def require_embeddings(model: Model) -> None:
    """Raise unless libllama can give the embeddings of this kind of model.

    Parameters
    ----------
    model
        The model of a context.

    Raises
    ------
    UnsupportedError
        If it cannot.
    """
    if model.architecture in NO_EMBEDDINGS:
        message = (
            f"libllama cannot read the embeddings of a {model.architecture} model; a hook on its "
            "last norm sees them (Context.hooks)"
        )
        raise UnsupportedError(message)


def _has_trunk(model: Model) -> bool:
    return model.n_layer > 0 and any(name.startswith("blk.0.") for name in model._tensors)


def head_sizes(model: Model) -> tuple[int, int]:
    """Return the width of one head's key and value; 0 where the model does not say."""
    arch = model.architecture
    default = model.n_embd // model.n_head if model.n_head else 0
    keys = (f"{arch}.attention.key_length", f"{arch}.attention.value_length")
    k, v = (int(model.metadata.get(key, default)) for key in keys)
    return k, v


def moves_keys(model: Model, params: Any) -> bool:
    """Return whether positions of keys of this type can be moved; libllama does not look.

    The next decode would end the process with bf16 (ggml-cpu/ops.cpp:6486), with quantised keys
    that it does not rotate, for their size or on demand (llama-kv-cache.cpp:315), and where no
    layer's keys turn with their position (llama-kv-cache.cpp:2032).
    """
    if not _turns_keys(model):
        return False
    if not lib.ggml_is_quantized(params.type_k):
        return bool(params.type_k != GGMLType.BF16)
    width, _ = head_sizes(model)
    windowed = int(model.metadata.get(f"{model.architecture}.attention.key_length_swa", width))
    allowed = os.environ.get("LLAMA_ATTN_ROT_DISABLE", "0") == "0"
    return allowed and width % 64 == 0 and windowed % 64 == 0


def _turns_keys(model: Model) -> bool:
    """Whether some layer uses RoPE: a Granite may say that none does, or list those that do."""
    arch = model.architecture
    if not arch.startswith("granite"):
        return True
    listed = arch == "granite_swa"  # libllama does not tell what is in arrays
    return not listed and model.metadata.get(f"{arch}.rope.scaling.finetuned") != "false"


def whole_sequences(model: Model, params: Any) -> bool:
    """Return whether a memory holds states, of which no part can be taken back."""
    is_dense = params.ctx_type == ContextType.MTP and model.architecture in DENSE_HEADS
    return (model.is_recurrent or model.is_hybrid) and not is_dense


def _check_cache_types(model: Model, params: Any) -> None:
    """Refuse the cache types that the kernels have no code for."""
    if lib.ggml_is_quantized(params.type_v) and params.flash_attn_type == FlashAttnType.DISABLED:
        message = (
            f"type_v={GGMLType(params.type_v).name.lower()!r} needs flash attention: leave "
            "flash_attn_type out, or take f16, bf16 or f32"
        )
        raise ValueError(message)
    for option, kind, width in zip(
        ("type_k", "type_v"), (params.type_k, params.type_v), head_sizes(model), strict=True
    ):
        block = lib.ggml_blck_size(kind)
        if width % block:
            message = (
                f"{option}={GGMLType(kind).name.lower()!r} stores blocks of {block} values, which "
                f"does not divide this model's head size of {width}"
            )
            raise ValueError(message)


def _check_memory(model: Model, params: Any, n_ctx: int) -> None:
    """Refuse a cache larger than free memory: the system would end the process for it."""
    available = available_bytes()
    if available is None or model.n_swa or model.is_recurrent or model.is_hybrid:
        return
    if lib.llama_supports_gpu_offload():  # then the cache need not lie in main memory
        return
    k, v = head_sizes(model)
    per_token = lib.ggml_row_size(params.type_k, k) + lib.ggml_row_size(params.type_v, v)
    needed = n_ctx * model.n_layer * model.n_head_kv * per_token
    if needed > available:
        message = (
            f"a context of {n_ctx} tokens takes {needed / 2**30:.1f} GiB for keys and values, and "
            f"{available / 2**30:.1f} GiB are free: take a smaller n_ctx, or type_k='q8_0'"
        )
        raise MemoryError(message)


def available_bytes() -> int | None:
    """Return the memory that can be had without swapping.

    Returns
    -------
    int or None
        None where the system does not say.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(values["MemAvailable"]) * 1024 if "MemAvailable" in values else None


def batch_limits(model: Model, pointer: Any, params: Any) -> Any:
    """Return the ``pyllama_limits`` of a context; `Context` updates them as it is switched.

    Parameters
    ----------
    model
        The context's model.
    pointer
        The ``llama_context *``.
    params
        The ``llama_context_params`` it was made with.

    Returns
    -------
    cdata
        A ``pyllama_limits *``.

    Calls: llama_n_batch, llama_n_seq_max
    """
    n_batch = lib.llama_n_batch(pointer)
    m_rope = model.rope_type.name in ("MROPE", "IMROPE")  # llama-hparams.cpp, n_pos_per_embd
    limits = ffi.new("pyllama_limits *")
    limits.n_vocab = model.n_vocab
    limits.n_seq_max = lib.llama_n_seq_max(pointer)
    # libllama gives encoders the whole batch as outputs (llama-context.cpp, n_outputs_max).
    limits.n_outputs = n_batch if model.has_encoder else params.n_outputs_max or n_batch
    # A learned table of positions ends; reading behind it aborts in a worker (ops.cpp:5363).
    learned = LEARNED_POSITIONS in model._tensors
    limits.n_pos = model.n_ctx_train if learned else 2**31 - 1
    limits.n_pos_per_embd = 4 if m_rope else 1
    limits.positions_may_jump = m_rope
    # In buffers of their own a shared token finds no slot (llama-batch.cpp, split_equal).
    limits.tokens_shared = params.kv_unified or limits.n_seq_max == 1 or model.is_recurrent
    return limits
