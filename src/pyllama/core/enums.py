"""The enumerations of llama.h and ggml.h, their values taken from the library.

Wherever an option takes one of these, the lower-case name as a string does as well:
``pooling_type="mean"``, ``type_k="q8_0"``. A test compares the members with the headers.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, TypeVar

from pyllama.core.library import lib

E = TypeVar("E", bound=IntEnum)


def member(kind: type[E], value: Any, option: str) -> E:
    """Return *value* as a member of *kind*.

    Parameters
    ----------
    kind
        The enumeration.
    value
        A member, its number, or its name in any case.
    option
        What the caller calls it, for the message.

    Returns
    -------
    IntEnum
        The member.

    Raises
    ------
    TypeError
        If *value* is neither a number nor a string.
    ValueError
        If *kind* has no such member. libllama would end the process on most of them.
    """
    names = ", ".join(each.name.lower() for each in kind)
    message = f"{option}={value!r:.80} is not one of: {names}"
    if isinstance(value, str):
        found = kind.__members__.get(value.upper())
        if found is None:
            raise ValueError(message)
        return found
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(message)
    try:
        return kind(value)
    except ValueError:
        raise ValueError(message) from None


class VocabType(IntEnum):
    """How a vocabulary tokenizes."""

    NONE = lib.LLAMA_VOCAB_TYPE_NONE
    SPM = lib.LLAMA_VOCAB_TYPE_SPM
    BPE = lib.LLAMA_VOCAB_TYPE_BPE
    WPM = lib.LLAMA_VOCAB_TYPE_WPM
    UGM = lib.LLAMA_VOCAB_TYPE_UGM
    RWKV = lib.LLAMA_VOCAB_TYPE_RWKV
    PLAMO2 = lib.LLAMA_VOCAB_TYPE_PLAMO2
    TEST = lib.LLAMA_VOCAB_TYPE_TEST


class TokenAttr(IntFlag):
    """What a token is; flags."""

    UNDEFINED = lib.LLAMA_TOKEN_ATTR_UNDEFINED
    UNKNOWN = lib.LLAMA_TOKEN_ATTR_UNKNOWN
    UNUSED = lib.LLAMA_TOKEN_ATTR_UNUSED
    NORMAL = lib.LLAMA_TOKEN_ATTR_NORMAL
    CONTROL = lib.LLAMA_TOKEN_ATTR_CONTROL
    USER_DEFINED = lib.LLAMA_TOKEN_ATTR_USER_DEFINED
    BYTE = lib.LLAMA_TOKEN_ATTR_BYTE
    NORMALIZED = lib.LLAMA_TOKEN_ATTR_NORMALIZED
    LSTRIP = lib.LLAMA_TOKEN_ATTR_LSTRIP
    RSTRIP = lib.LLAMA_TOKEN_ATTR_RSTRIP
    SINGLE_WORD = lib.LLAMA_TOKEN_ATTR_SINGLE_WORD


class RopeType(IntEnum):
    """How a model rotates positions into queries and keys."""

    NONE = lib.LLAMA_ROPE_TYPE_NONE
    NORM = lib.LLAMA_ROPE_TYPE_NORM
    NEOX = lib.LLAMA_ROPE_TYPE_NEOX
    MROPE = lib.LLAMA_ROPE_TYPE_MROPE
    IMROPE = lib.LLAMA_ROPE_TYPE_IMROPE
    VISION = lib.LLAMA_ROPE_TYPE_VISION


class RopeScalingType(IntEnum):
    """How RoPE is stretched beyond the trained context."""

    UNSPECIFIED = lib.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED
    NONE = lib.LLAMA_ROPE_SCALING_TYPE_NONE
    LINEAR = lib.LLAMA_ROPE_SCALING_TYPE_LINEAR
    YARN = lib.LLAMA_ROPE_SCALING_TYPE_YARN
    LONGROPE = lib.LLAMA_ROPE_SCALING_TYPE_LONGROPE


class PoolingType(IntEnum):
    """How the embeddings of a sequence become one."""

    UNSPECIFIED = lib.LLAMA_POOLING_TYPE_UNSPECIFIED
    NONE = lib.LLAMA_POOLING_TYPE_NONE
    MEAN = lib.LLAMA_POOLING_TYPE_MEAN
    CLS = lib.LLAMA_POOLING_TYPE_CLS
    LAST = lib.LLAMA_POOLING_TYPE_LAST
    RANK = lib.LLAMA_POOLING_TYPE_RANK


class AttentionType(IntEnum):
    """Whether a token sees those after it."""

    UNSPECIFIED = lib.LLAMA_ATTENTION_TYPE_UNSPECIFIED
    CAUSAL = lib.LLAMA_ATTENTION_TYPE_CAUSAL
    NON_CAUSAL = lib.LLAMA_ATTENTION_TYPE_NON_CAUSAL


class FlashAttnType(IntEnum):
    """When the fused attention kernel is used."""

    AUTO = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    DISABLED = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    ENABLED = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED


class ContextType(IntEnum):
    """What a context computes: the model, or its multi-token-prediction head."""

    DEFAULT = lib.LLAMA_CONTEXT_TYPE_DEFAULT
    MTP = lib.LLAMA_CONTEXT_TYPE_MTP


class SplitMode(IntEnum):
    """How a model is spread over several devices."""

    NONE = lib.LLAMA_SPLIT_MODE_NONE
    LAYER = lib.LLAMA_SPLIT_MODE_LAYER
    ROW = lib.LLAMA_SPLIT_MODE_ROW
    TENSOR = lib.LLAMA_SPLIT_MODE_TENSOR


class LoadMode(IntEnum):
    """How a file gets into memory."""

    AUTO = lib.LLAMA_LOAD_MODE_AUTO
    NONE = lib.LLAMA_LOAD_MODE_NONE
    MMAP = lib.LLAMA_LOAD_MODE_MMAP
    MLOCK = lib.LLAMA_LOAD_MODE_MLOCK
    MMAP_MLOCK = lib.LLAMA_LOAD_MODE_MMAP_MLOCK
    DIRECT_IO = lib.LLAMA_LOAD_MODE_DIRECT_IO


class LazyMode(IntEnum):
    """Which tensors are read on demand."""

    OFF = lib.LLAMA_LAZY_MODE_OFF
    AUTO = lib.LLAMA_LAZY_MODE_AUTO
    ON = lib.LLAMA_LAZY_MODE_ON


class NumaStrategy(IntEnum):
    """How threads and memory are placed on NUMA nodes."""

    DISABLED = lib.GGML_NUMA_STRATEGY_DISABLED
    DISTRIBUTE = lib.GGML_NUMA_STRATEGY_DISTRIBUTE
    ISOLATE = lib.GGML_NUMA_STRATEGY_ISOLATE
    NUMACTL = lib.GGML_NUMA_STRATEGY_NUMACTL
    MIRROR = lib.GGML_NUMA_STRATEGY_MIRROR


class DeviceType(IntEnum):
    """What kind of device computes."""

    CPU = lib.GGML_BACKEND_DEVICE_TYPE_CPU
    GPU = lib.GGML_BACKEND_DEVICE_TYPE_GPU
    IGPU = lib.GGML_BACKEND_DEVICE_TYPE_IGPU
    ACCEL = lib.GGML_BACKEND_DEVICE_TYPE_ACCEL
    META = lib.GGML_BACKEND_DEVICE_TYPE_META


class GGMLType(IntEnum):
    """How the numbers of a tensor are stored."""

    F32 = lib.GGML_TYPE_F32
    F16 = lib.GGML_TYPE_F16
    Q4_0 = lib.GGML_TYPE_Q4_0
    Q4_1 = lib.GGML_TYPE_Q4_1
    Q5_0 = lib.GGML_TYPE_Q5_0
    Q5_1 = lib.GGML_TYPE_Q5_1
    Q8_0 = lib.GGML_TYPE_Q8_0
    Q8_1 = lib.GGML_TYPE_Q8_1
    Q2_K = lib.GGML_TYPE_Q2_K
    Q3_K = lib.GGML_TYPE_Q3_K
    Q4_K = lib.GGML_TYPE_Q4_K
    Q5_K = lib.GGML_TYPE_Q5_K
    Q6_K = lib.GGML_TYPE_Q6_K
    Q8_K = lib.GGML_TYPE_Q8_K
    IQ2_XXS = lib.GGML_TYPE_IQ2_XXS
    IQ2_XS = lib.GGML_TYPE_IQ2_XS
    IQ3_XXS = lib.GGML_TYPE_IQ3_XXS
    IQ1_S = lib.GGML_TYPE_IQ1_S
    IQ4_NL = lib.GGML_TYPE_IQ4_NL
    IQ3_S = lib.GGML_TYPE_IQ3_S
    IQ2_S = lib.GGML_TYPE_IQ2_S
    IQ4_XS = lib.GGML_TYPE_IQ4_XS
    I8 = lib.GGML_TYPE_I8
    I16 = lib.GGML_TYPE_I16
    I32 = lib.GGML_TYPE_I32
    I64 = lib.GGML_TYPE_I64
    F64 = lib.GGML_TYPE_F64
    IQ1_M = lib.GGML_TYPE_IQ1_M
    BF16 = lib.GGML_TYPE_BF16
    TQ1_0 = lib.GGML_TYPE_TQ1_0
    TQ2_0 = lib.GGML_TYPE_TQ2_0
    MXFP4 = lib.GGML_TYPE_MXFP4
    NVFP4 = lib.GGML_TYPE_NVFP4
    Q1_0 = lib.GGML_TYPE_Q1_0
    Q2_0 = lib.GGML_TYPE_Q2_0


class FType(IntEnum):
    """What mix of tensor types a file mostly holds."""

    ALL_F32 = lib.LLAMA_FTYPE_ALL_F32
    MOSTLY_F16 = lib.LLAMA_FTYPE_MOSTLY_F16
    MOSTLY_Q4_0 = lib.LLAMA_FTYPE_MOSTLY_Q4_0
    MOSTLY_Q4_1 = lib.LLAMA_FTYPE_MOSTLY_Q4_1
    MOSTLY_Q8_0 = lib.LLAMA_FTYPE_MOSTLY_Q8_0
    MOSTLY_Q5_0 = lib.LLAMA_FTYPE_MOSTLY_Q5_0
    MOSTLY_Q5_1 = lib.LLAMA_FTYPE_MOSTLY_Q5_1
    MOSTLY_Q2_K = lib.LLAMA_FTYPE_MOSTLY_Q2_K
    MOSTLY_Q3_K_S = lib.LLAMA_FTYPE_MOSTLY_Q3_K_S
    MOSTLY_Q3_K_M = lib.LLAMA_FTYPE_MOSTLY_Q3_K_M
    MOSTLY_Q3_K_L = lib.LLAMA_FTYPE_MOSTLY_Q3_K_L
    MOSTLY_Q4_K_S = lib.LLAMA_FTYPE_MOSTLY_Q4_K_S
    MOSTLY_Q4_K_M = lib.LLAMA_FTYPE_MOSTLY_Q4_K_M
    MOSTLY_Q5_K_S = lib.LLAMA_FTYPE_MOSTLY_Q5_K_S
    MOSTLY_Q5_K_M = lib.LLAMA_FTYPE_MOSTLY_Q5_K_M
    MOSTLY_Q6_K = lib.LLAMA_FTYPE_MOSTLY_Q6_K
    MOSTLY_IQ2_XXS = lib.LLAMA_FTYPE_MOSTLY_IQ2_XXS
    MOSTLY_IQ2_XS = lib.LLAMA_FTYPE_MOSTLY_IQ2_XS
    MOSTLY_Q2_K_S = lib.LLAMA_FTYPE_MOSTLY_Q2_K_S
    MOSTLY_IQ3_XS = lib.LLAMA_FTYPE_MOSTLY_IQ3_XS
    MOSTLY_IQ3_XXS = lib.LLAMA_FTYPE_MOSTLY_IQ3_XXS
    MOSTLY_IQ1_S = lib.LLAMA_FTYPE_MOSTLY_IQ1_S
    MOSTLY_IQ4_NL = lib.LLAMA_FTYPE_MOSTLY_IQ4_NL
    MOSTLY_IQ3_S = lib.LLAMA_FTYPE_MOSTLY_IQ3_S
    MOSTLY_IQ3_M = lib.LLAMA_FTYPE_MOSTLY_IQ3_M
    MOSTLY_IQ2_S = lib.LLAMA_FTYPE_MOSTLY_IQ2_S
    MOSTLY_IQ2_M = lib.LLAMA_FTYPE_MOSTLY_IQ2_M
    MOSTLY_IQ4_XS = lib.LLAMA_FTYPE_MOSTLY_IQ4_XS
    MOSTLY_IQ1_M = lib.LLAMA_FTYPE_MOSTLY_IQ1_M
    MOSTLY_BF16 = lib.LLAMA_FTYPE_MOSTLY_BF16
    MOSTLY_TQ1_0 = lib.LLAMA_FTYPE_MOSTLY_TQ1_0
    MOSTLY_TQ2_0 = lib.LLAMA_FTYPE_MOSTLY_TQ2_0
    MOSTLY_MXFP4_MOE = lib.LLAMA_FTYPE_MOSTLY_MXFP4_MOE
    MOSTLY_NVFP4 = lib.LLAMA_FTYPE_MOSTLY_NVFP4
    MOSTLY_Q1_0 = lib.LLAMA_FTYPE_MOSTLY_Q1_0
    MOSTLY_Q2_0 = lib.LLAMA_FTYPE_MOSTLY_Q2_0
    GUESSED = lib.LLAMA_FTYPE_GUESSED
