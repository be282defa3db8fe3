"""Keyword options turned into llama.h's parameter structs, each value checked before C sees it.

An option left out, or None, keeps the default of the C library. An unknown name is a TypeError.
"""

from __future__ import annotations

import collections.abc
import numbers
import weakref
from typing import TYPE_CHECKING, Any, TypedDict

from pyllama.core.enums import (
    AttentionType,
    ContextType,
    FlashAttnType,
    GGMLType,
    LazyMode,
    LoadMode,
    PoolingType,
    RopeScalingType,
    SplitMode,
    member,
)
from pyllama.core.library import lib
from pyllama.core.threads import n_usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from enum import IntEnum

    from pyllama.core.device import Device

    Check = Callable[[str, Any], Any]

MAX_THREADS = lib.GGML_MAX_N_THREADS
FLOAT32_MAX = 3.4028234663852886e38
MAX_CONTEXT = 2**31 - 256  # positions are int32, and n_ctx is rounded up to 256


class ModelOptions(TypedDict, total=False):
    """The options of `Model`, as ``llama_model_params`` names them.

    Attributes
    ----------
    devices : sequence of Device
        The GPUs to use, in this order; left out, all of them; empty, none.
    tensor_buft_overrides : mapping of str to Device or str
        Where tensors go whose name a regular expression finds: a device, or a buffer type as
        libllama calls it (``CPU``, ``CUDA0``, ``CUDA_Host``). The first that fits counts.
    n_gpu_layers : int
        Layers to keep on the GPU, counted from the last; left out, all of them.
    split_mode : SplitMode or str
        How to spread the model over several GPUs: none, layer, row, tensor.
    main_gpu : int
        The GPU that takes the whole model when ``split_mode`` is none.
    tensor_split : sequence of float
        How much of the model each GPU takes, in any unit; left out, by their free memory.
    load_mode : LoadMode or str
        auto, none, mmap, mlock, mmap_mlock, direct_io.
    lazy_mode : LazyMode or str
        Whether large tensors are read on demand: off, auto, on.
    vocab_only : bool
        Load the vocabulary and metadata, no weights; such a model makes no context.
    check_tensors : bool
        Look for invalid values in the weights while loading.
    use_extra_bufts : bool
        Repack weights for faster CPU kernels.
    no_host : bool
        Bypass the pinned host buffer.
    no_alloc : bool
        Lay the model out without loading weights; such a model makes no context.
    load_mtp : bool
        Load the multi-token-prediction layers as well.
    """

    devices: Sequence[Device] | None
    tensor_buft_overrides: Mapping[str, Device | str] | None
    tensor_split: Sequence[float] | None
    n_gpu_layers: int | None
    split_mode: SplitMode | str | None
    main_gpu: int | None
    load_mode: LoadMode | str | None
    lazy_mode: LazyMode | str | None
    vocab_only: bool | None
    check_tensors: bool | None
    use_extra_bufts: bool | None
    no_host: bool | None
    no_alloc: bool | None
    load_mtp: bool | None


class ContextOptions(TypedDict, total=False):
    """The options of `Context`, as ``llama_context_params`` names them.

    Attributes
    ----------
    n_ctx : int
        Tokens the memory holds, over all sequences; 0 takes what the model was trained with.
        libllama rounds it up to a multiple of 256.
    n_batch, n_ubatch : int
        Most tokens in one `decode`, and in one pass through the graph.
    n_seq_max : int
        Sequences kept apart in the memory, 1 to 256.
    n_rs_seq : int
        Snapshots per sequence that a recurrent memory can go back to.
    n_outputs_max, n_outputs_max_per_seq : int
        Most output rows in one `decode`; 0 is ``n_batch``.
    n_threads, n_threads_batch : int
        Threads for single tokens and for batches. Left out: the CPUs this process may use
        (libllama's own default of 4 is far slower where there are fewer); for batches, as many
        as for single tokens.
    ctx_type : ContextType or str
        default, or mtp for the multi-token-prediction head.
    rope_scaling_type : RopeScalingType or str
        unspecified (from the model), none, linear, yarn, longrope.
    rope_freq_base, rope_freq_scale : float
        0 takes the model's.
    yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow : float
        Parameters of YaRN, left out: the model's.
    yarn_orig_ctx : int
        Context the model was trained with before YaRN; 0 takes the model's.
    pooling_type : PoolingType or str
        unspecified (from the model), none, mean, cls, last, rank.
    attention_type : AttentionType or str
        unspecified (from the model), causal, non_causal.
    flash_attn_type : FlashAttnType or str
        auto, disabled, enabled.
    type_k, type_v : GGMLType or str
        How the memory stores keys and values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl.
    embeddings : bool
        Compute embeddings; every token is then an output.
    offload_kqv, op_offload : bool
        Keep the memory on the GPU; send large host operations there.
    no_perf : bool
        Measure no timings.
    swa_full : bool
        Keep the whole context for sliding-window layers, so that it can be cut anywhere.
    kv_unified : bool
        One buffer for all sequences instead of one each.
    """

    n_ctx: int | None
    n_batch: int | None
    n_ubatch: int | None
    n_seq_max: int | None
    n_rs_seq: int | None
    n_outputs_max: int | None
    n_outputs_max_per_seq: int | None
    n_threads: int | None
    n_threads_batch: int | None
    ctx_type: ContextType | str | None
    rope_scaling_type: RopeScalingType | str | None
    rope_freq_base: float | None
    rope_freq_scale: float | None
    yarn_ext_factor: float | None
    yarn_attn_factor: float | None
    yarn_beta_fast: float | None
    yarn_beta_slow: float | None
    yarn_orig_ctx: int | None
    pooling_type: PoolingType | str | None
    attention_type: AttentionType | str | None
    flash_attn_type: FlashAttnType | str | None
    type_k: GGMLType | str | None
    type_v: GGMLType | str | None
    embeddings: bool | None
    offload_kqv: bool | None
    op_offload: bool | None
    no_perf: bool | None
    swa_full: bool | None
    kv_unified: bool | None


def whole(low: int, high: int) -> Check:
    """Return a check for an integer from *low* to *high*, both allowed."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            message = f"{name} must be an integer, not {value!r:.80}"
            raise TypeError(message)
        number = int(value.__index__())
        if not low <= number <= high:
            message = f"{name}={number} is out of range: it goes from {low} to {high}"
            raise ValueError(message)
        return number

    return check


def real(low: float = -FLOAT32_MAX, high: float = FLOAT32_MAX) -> Check:
    """Return a check for a number from *low* to *high*, both allowed, that C's float can hold."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number:
            message = f"{name} must be a number, not {value!r:.80}"
            raise TypeError(message)
        if not low <= value <= high:  # so that it is False for NaN
            bounds = f"at least {low}" if high == FLOAT32_MAX else f"from {low} to {high}"
            message = f"{name}={value} is out of range: it must be finite and {bounds}"
            raise ValueError(message)
        return float(value)

    return check


def flag(name: str, value: Any) -> bool:
    """Return *value* if it is True or False; anything else is a TypeError."""
    if not isinstance(value, bool):
        message = f"{name} must be True or False, not {value!r:.80}"
        raise TypeError(message)
    return value


def function(name: str, value: Any) -> Any:
    """Return *value* if it can be called or is None; anything else is a TypeError."""
    if value is not None and not callable(value):
        message = f"{name} must be a function, not {value!r:.80}"
        raise TypeError(message)
    return value


def functions(name: str, value: Any) -> Sequence[Any]:
    """Return *value* if it is a sequence of functions; anything else is a TypeError."""
    if not isinstance(value, collections.abc.Sequence) or not all(map(callable, value)):
        message = f"{name} must be a sequence of functions, not {value!r:.80}"
        raise TypeError(message)
    return value


def pairs(name: str, value: Any) -> Mapping[Any, Any]:
    """Return *value* if it is a mapping; anything else is a TypeError."""
    if not isinstance(value, collections.abc.Mapping):
        message = f"{name} must be a mapping, not {value!r:.80}"
        raise TypeError(message)
    return value


def strings(name: str, values: Iterable[str]) -> list[str]:
    """Return *values* as a list, if they are strings and not one string."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        message = f"{name} must be a sequence of strings, not {values!r:.60}"
        raise TypeError(message)
    checked = list(values)
    for value in checked:
        if not isinstance(value, str):
            message = f"{name} must hold strings, not {value!r:.80}"
            raise TypeError(message)
    return checked


def one_of(kind: type[IntEnum], *, only: frozenset[str] = frozenset()) -> Check:
    """Return a check for a member of *kind*, or of its part *only*."""

    def check(name: str, value: Any) -> int:
        found = member(kind, value, name)
        if only and found.name not in only:
            names = ", ".join(sorted(each.lower() for each in only))
            message = f"{name}={found.name.lower()!r} cannot be used there; these can: {names}"
            raise ValueError(message)
        return int(found)

    return check


# The types that a memory was seen to decode with; the others end the process (ggml.c:1774, :1797).
CACHE_TYPES = frozenset(["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"])

MODEL_CHECKS: dict[str, Check] = {
    "n_gpu_layers": whole(0, 2**31 - 1),
    "split_mode": one_of(SplitMode),
    "main_gpu": whole(0, 2**31 - 1),
    "load_mode": one_of(LoadMode),
    "lazy_mode": one_of(LazyMode),
    **dict.fromkeys(
        ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp"),
        flag,
    ),
}

CONTEXT_CHECKS: dict[str, Check] = {
    "n_ctx": whole(0, MAX_CONTEXT),
    "n_batch": whole(1, 2**31 - 1),
    "n_ubatch": whole(1, 2**31 - 1),
    "n_seq_max": whole(1, int(lib.llama_max_parallel_sequences())),
    "n_rs_seq": whole(0, 2**16),
    "n_outputs_max": whole(0, 2**31 - 1),
    "n_outputs_max_per_seq": whole(0, 2**31 - 1),
    "n_threads": whole(1, MAX_THREADS),
    "n_threads_batch": whole(1, MAX_THREADS),
    "ctx_type": one_of(ContextType),
    "rope_scaling_type": one_of(RopeScalingType),
    "pooling_type": one_of(PoolingType),
    "attention_type": one_of(AttentionType),
    "flash_attn_type": one_of(FlashAttnType),
    "rope_freq_base": real(0),
    "rope_freq_scale": real(0),
    "yarn_ext_factor": real(0),
    "yarn_attn_factor": real(0),
    "yarn_beta_fast": real(0),
    "yarn_beta_slow": real(0),
    "yarn_orig_ctx": whole(0, MAX_CONTEXT),
    "type_k": one_of(GGMLType, only=CACHE_TYPES),
    "type_v": one_of(GGMLType, only=CACHE_TYPES),
    **dict.fromkeys(
        ("embeddings", "offload_kqv", "op_offload", "no_perf", "swa_full", "kv_unified"), flag
    ),
}


def checked(options: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return the options that were given, as their checks return them.

    Parameters
    ----------
    options
        Option names and values; None counts as left out.
    checks
        What is known of each option.

    Returns
    -------
    dict of str to object

    Raises
    ------
    TypeError
        If an option has an unknown name or a value of the wrong type.
    ValueError
        If a value is out of range.
    """
    unknown = options.keys() - checks.keys()
    if unknown:
        message = (
            f"there is no option {min(unknown)!r}; the options are: {', '.join(sorted(checks))}"
        )
        raise TypeError(message)
    return {name: checks[name](name, each) for name, each in options.items() if each is not None}


# What a struct points to lives as long as the struct.
_pointed_to: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


def fill(params: Any, options: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Check *options* and write them into the C struct *params*.

    Parameters
    ----------
    params
        A ``llama_model_params`` or ``llama_context_params`` that holds the C defaults.
    options, checks
        As for `checked`.

    Raises
    ------
    TypeError, ValueError
        As for `checked`.
    """
    for name, value in checked(options, checks).items():
        setattr(params, name, value)
        _pointed_to.setdefault(params, []).append(value)


def context_params(options: ContextOptions) -> Any:
    """Return the ``llama_context_params`` that options stand for.

    Parameters
    ----------
    options
        Those given; the others get libllama's defaults, but for the threads.

    Returns
    -------
    cdata

    Raises
    ------
    TypeError, ValueError
        If an option is unknown or out of range.

    Calls: llama_context_default_params
    """
    params = lib.llama_context_default_params()
    params.n_threads = params.n_threads_batch = 0
    fill(params, options, CONTEXT_CHECKS)
    params.n_threads = params.n_threads or n_usable_cores()
    params.n_threads_batch = params.n_threads_batch or params.n_threads
    return params
