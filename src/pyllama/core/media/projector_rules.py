"""What a projector file must say, checked before libllama reads it.

libmtmd takes most tensors as optional and follows their pointers later, multiplies with whatever
type they have, and counts pixels in an int. What it refuses by itself is left to it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.files.model_rules import MAX_BLOCKS
from pyllama.core.files.tensor_rules import NO_PRODUCT
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from pyllama.core.files.gguf import Header, TensorInfo

ARCHITECTURE = "clip"
PATCHES = "v.patch_embd.weight"
NO_PATCHES = frozenset({"gemma3nv", "deepseekocr", "deepseekocr2"})  # other tensors stand for them
MULTIPLIED = frozenset({"gemma4uv", "llama4", "youtuvl"})  # their patches are no convolution
WHISPER = frozenset({"ultravox", "voxtral", "qwen2a", "qwen2.5o", "glma", "meralion"}) | {
    "musicflamingo",
}
POSITIONS = "v.position_embd.weight"
POSITIONED = frozenset({"mlp", "ldp", "ldpv2", "adapter"})  # tools/mtmd/models/llava.cpp:45
# What the blocks of some must have; the others look whether it is q, k and v, or all in one.
QWEN2VL = frozenset({"qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o"})
SEPARATE = POSITIONED | {"granite4_vision", "resampler"}  # q, k and v
SEPARATE_BIASED = QWEN2VL | {"youtuvl"}
JOINT_BIASED = frozenset({"cogvlm", "mimovl", "qwen3vl_merger"})
# Two kernels: for an image, and for the second frame of a video.
TWO_KERNELS = QWEN2VL | {"qwen3vl_merger", "exaone4_5", "glm4v", "glm5v", "mimovl", "minimax_m3"}
MLP = tuple(f"mm.{n}.{part}" for n in (0, 2) for part in ("weight", "bias"))
MLP_NORM = tuple(f"mm.{n}.{part}" for n in (0, 1, 3, 4) for part in ("weight", "bias"))
# Their positions are added as they are; others are looked up, which converts them.
ADDED = WHISPER | {"janus_pro", "gemma3", "idefics3", "internvl", "cogvlm"}
MAX_SIDE = 8192  # of an image, as libmtmd bounds image_size itself (tools/mtmd/clip.cpp:2047)
MAX_TILES = 1024
MAX_PATCHES = 1 << 16  # of an image; each is compared with each, and nothing can stop that
MAX_PATCH = 64  # pixels; libmtmd lays out a graph for 46 of them, and their merging, a side
INT_MAX = 2**31 - 1
_BIAS = re.compile(
    r"(?:[av]\.blk\.\d+\.(?:attn_\w+|ffn_\w+|ln[12])|v\.patch_embd|[av]\.post_ln|mm\.\d+)\.bias"
)
_ATTENTION = re.compile(r"(([av])\.blk\.\d+\.)attn_out\.weight")


def check_projector(header: Header) -> None:
    """Refuse a file that is no projector, or would end the process.

    Parameters
    ----------
    header
        Of the file.

    Raises
    ------
    LoadError
        Naming the key or tensor at fault.
    """
    _check_kind(header)
    for side in ("vision", "audio"):
        if header.metadata.get(f"clip.has_{side}_encoder") is True:
            _check_sizes(header, side)
            _check_tensors(header, side)
    _check_tiles(header)
    _check_types(header)
    _check_biases(header)


def check_image_tokens(header: Header, least: int, most: int) -> None:
    """Refuse bounds for the tokens of an image that no int can hold as pixels.

    Parameters
    ----------
    header
        Of the file.
    least, most
        What was asked for; below 1 is the file's.

    Raises
    ------
    ValueError
        If a bound is too large, or they contradict each other.
    """
    if least > 0 and 0 < most < least:
        message = f"image_min_tokens={least} is more than image_max_tokens={most}"
        raise ValueError(message)
    merges = ("spatial_merge_size", "projector.scale_factor")
    merge = max([4, *(header.count(f"clip.vision.{key}") for key in merges)])
    area = (header.count("clip.vision.patch_size", 1) * merge) ** 2
    tokens = max(least, most)
    if tokens > 0 and tokens * area > INT_MAX:
        message = (
            f"{tokens} tokens of an image would be {tokens * area} pixels in this projector: "
            f"{INT_MAX // area} tokens are the most"
        )
        raise ValueError(message)


def _refuse(header: Header, what: str) -> LoadError:
    return LoadError(f"{header.path}: {what}")


def _check_kind(header: Header) -> None:
    found = header.metadata.get("general.architecture")
    if found != ARCHITECTURE:
        what = f"general.architecture is {str(found)[:40]!r}, but a projector has 'clip'"
        raise _refuse(header, what)
    for key in ("vision", "audio", "gen_audio"):
        value = header.metadata.get(f"clip.has_{key}_encoder", False)
        if not isinstance(value, bool):
            raise _refuse(
                header, f"clip.has_{key}_encoder is {str(value)[:40]!r}, not true or false"
            )
    if not any(header.metadata.get(f"clip.has_{key}_encoder") for key in ("vision", "audio")):
        raise _refuse(header, "it has neither an encoder for images nor one for sounds")


def _type(header: Header, side: str) -> str:
    """Return the type of the projector for images or for sounds."""
    for key in ("clip.projector_type", f"clip.{side}.projector_type"):
        value = header.metadata.get(key, "")
        if not isinstance(value, str):
            raise _refuse(header, f"{key} is {str(value)[:40]}, not text")
        if value:
            return value
    return ""


def _check_sizes(header: Header, side: str) -> None:
    """Check what libmtmd divides by, allocates, or counts to."""
    prefix = f"clip.{side}."
    n_embd = header.count(f"{prefix}embedding_length", 1)
    n_head = header.count(f"{prefix}attention.head_count", 1)
    n_head_kv = header.count(f"{prefix}attention.head_count_kv", n_head)
    n_blocks = header.count(f"{prefix}block_count")
    if n_embd < 1 or not 1 <= n_head <= n_embd or not 0 <= n_head_kv <= n_head:
        what = f"{prefix}* gives {n_embd} values to {n_head} heads ({n_head_kv} of keys)"
        raise _refuse(header, what)
    patch = header.count(f"{prefix}patch_size", 1)
    if not 1 <= patch <= MAX_PATCH:
        raise _refuse(header, f"{prefix}patch_size is {patch}, not from 1 to {MAX_PATCH}")
    if (header.count(f"{prefix}image_size") // patch) ** 2 > MAX_PATCHES:
        what = f"{prefix}image_size is {header.count(f'{prefix}image_size')}, which makes more "
        raise _refuse(header, f"{what}than {MAX_PATCHES} patches of {patch} pixels a side")
    kind = _type(header, side)
    turned = side == "vision" and kind in TWO_KERNELS
    if turned and n_embd // n_head % 4:  # half of a head is turned: ggml-cpu/ops.cpp:6356
        what = f"{prefix}* gives {n_embd} values to {n_head} heads, not a multiple of 4 to each"
        raise _refuse(header, what)
    # tools/mtmd/models/whisper-enc.cpp:33; only a block has the positions that clip.cpp:4509 sets
    least = int(turned or (side == "audio" and kind in WHISPER))
    if not least <= n_blocks <= MAX_BLOCKS:
        what = f"{prefix}block_count is {n_blocks}, not from {least} to {MAX_BLOCKS}"
        raise _refuse(header, what)
    key = f"{prefix}attention.layer_norm_epsilon"
    epsilon = header.metadata.get(key, 0.0)
    if isinstance(epsilon, float) and not (math.isfinite(epsilon) and epsilon >= 0):
        # asserted in ggml/src/ggml-cpu/ops.cpp:4026
        raise _refuse(header, f"{key} is {epsilon}, not a number from 0 on")


def _check_tensors(header: Header, side: str) -> None:
    """Check that the tensors are there that libmtmd takes as optional, and uses."""
    kind = _type(header, side)
    names = {tensor.name for tensor in header.tensors}
    wanted: list[str] = []
    if side == "vision":
        wanted += [] if kind in NO_PATCHES else [PATCHES]
        wanted += [f"{PATCHES}.1"] if kind in TWO_KERNELS else []
        wanted += [POSITIONS] if kind in POSITIONED else []
        if kind == "mlp":
            wanted += MLP_NORM if "mm.3.weight" in names else MLP
    elif kind in WHISPER:
        wanted.append("a.position_embd.weight")
    blocks = (_ATTENTION.fullmatch(name) for name in names)
    for block in (found[1] for found in blocks if found and found[2] == side[0]):
        joint = f"{block}attn_qkv.weight" in names and kind not in SEPARATE | SEPARATE_BIASED
        parts = ("qkv",) if joint or kind in JOINT_BIASED else ("q", "k", "v")
        wanted += [f"{block}attn_{part}.weight" for part in parts]
        if kind in SEPARATE_BIASED | JOINT_BIASED:
            wanted += [f"{block}attn_{part}.bias" for part in parts]
    missing = sorted(set(wanted) - names)
    if missing:
        raise _refuse(header, f"tensor {missing[0]!r} is missing")


def _check_tiles(header: Header) -> None:
    """Check the sizes into which an image is cut: they are multiplied, and tried one by one."""
    key = "clip.vision.image_grid_pinpoints"
    values = header.metadata.get(key)
    if isinstance(values, np.ndarray) and values.size:
        least, largest = int(values.min()), int(values.max())
        if least < 1 or largest > MAX_SIDE or values.size > 2 * MAX_TILES:
            what = f"{key} holds {values.size} sides from {least} to {largest}"
            raise _refuse(header, f"{what}; up to {2 * MAX_TILES} from 1 to {MAX_SIDE} are allowed")
    most = header.count("clip.vision.preproc_max_tiles")
    if not 0 <= most <= MAX_TILES:
        what = f"clip.vision.preproc_max_tiles is {most}, not from 0 to {MAX_TILES}"
        raise _refuse(header, what)


def _check_types(header: Header) -> None:
    for tensor in header.tensors:
        kind = TENSOR_TYPES[tensor.type].name
        if 0 in tensor.shape:  # a product divides by each of its sides: ggml/src/ggml.c:3346
            raise _refuse(header, f"tensor {tensor.name!r} has the shape {tensor.shape}: no values")
        if kind in NO_PRODUCT:
            what = "no weights can be multiplied with"
        elif kind != "f32" and _is_added(header, tensor):
            what = "libllama adds or multiplies only as f32"  # ggml-cpu/binary-ops.cpp:135
        elif kind not in ("f32", "f16") and _is_kernel(header, tensor):
            what = "no image or sound can be folded with"  # ggml-cpu/ops.cpp, im2col
        else:
            continue
        raise _refuse(header, f"tensor {tensor.name!r} has the type {kind}, which {what}")


def _is_added(header: Header, tensor: TensorInfo) -> bool:
    """Whether a tensor is a norm, a bias, or the like: every converter writes those as f32."""
    if tensor.name in ("v.position_embd.weight", "a.position_embd.weight"):
        return _type(header, "vision" if tensor.name[0] == "v" else "audio") in ADDED
    n_dims = sum(n > 1 for n in tensor.shape)
    norm = re.search(r"(?:norm|norm_pre|norm_mid|ln|ln1|ln2|ls1|ls2)\.weight$", tensor.name)
    return n_dims <= 1 and (norm is not None or tensor.name.endswith(".bias"))


def _is_kernel(header: Header, tensor: TensorInfo) -> bool:
    """Whether an image or a sound is folded with a tensor."""
    if tensor.name.startswith(PATCHES):
        return _type(header, "vision") not in MULTIPLIED
    return re.fullmatch(r"a\.conv1d\.\d+\.weight", tensor.name) is not None


def _check_biases(header: Header) -> None:
    """Refuse a bias that is not as long as what it is added to: that fails while computing."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for name, shape in shapes.items():
        weight = shapes.get(f"{name[:-5]}.weight") if _BIAS.fullmatch(name) else None
        if weight and math.prod(shape) != weight[-1]:
            what = f"tensor {name!r} has the shape {shape}, but its weight has {weight}"
            raise _refuse(header, what)
