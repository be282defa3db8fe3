"""The numbers of a ggml tensor as a numpy array, and back: what a hook is given and gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.enums import GGMLType
from pyllama.core.library import ffi, lib
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_STORED: dict[GGMLType, np.dtype[Any]] = {  # how numpy sees the bytes
    GGMLType.F32: np.dtype(np.float32),
    GGMLType.F16: np.dtype(np.float16),
    GGMLType.BF16: np.dtype(np.uint16),
    GGMLType.I8: np.dtype(np.int8),
    GGMLType.I16: np.dtype(np.int16),
    GGMLType.I32: np.dtype(np.int32),
    GGMLType.I64: np.dtype(np.int64),
    GGMLType.F64: np.dtype(np.float64),
}
_SAME: dict[GGMLType, np.dtype[Any]] = {
    GGMLType.I64: np.dtype(np.int64),
    GGMLType.F64: np.dtype(np.float64),
}
_INTEGERS = {GGMLType.I8, GGMLType.I16, GGMLType.I32}


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return the shape in numpy order, rows last; leading ones are dropped down to two axes."""
    return _axes(tensor.ne)


def _axes(numbers: Any, n: int | None = None) -> tuple[int, ...]:
    axes = [int(each) for each in reversed(ffi.unpack(numbers, lib.GGML_MAX_DIMS))]
    if n is not None:
        return tuple(axes[len(axes) - n :])
    while len(axes) > 2 and axes[0] == 1:
        del axes[0]
    return tuple(axes)


def dtype_of(kind: GGMLType) -> np.dtype[Any]:
    """Return the dtype of the arrays that `read` gives for tensors of *kind*."""
    return _SAME.get(kind, np.dtype(np.int32 if kind in _INTEGERS else np.float32))


def read(tensor: Any) -> NDArray[Any]:
    """Return a copy of a tensor that was computed.

    Parameters
    ----------
    tensor
        A ``ggml_tensor *``; it may be a view, and lie in a device.

    Returns
    -------
    ndarray of float32 (int32, int64 or float64 if the tensor holds those)
        In C order; the shape is `shape_of` it.

    Calls: ggml_nbytes, ggml_backend_tensor_get, ggml_get_type_traits
    """
    kind, shape = GGMLType(tensor.type), shape_of(tensor)
    if 0 in shape:
        return np.zeros(shape, dtype_of(kind))
    data = _bytes_of(tensor)
    if kind not in _STORED:
        return _dequantise(tensor, kind, data, shape)
    stored = _strided(tensor, kind, data)
    if kind is GGMLType.BF16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return np.array(stored, dtype_of(kind), order="C")


def write(tensor: Any, values: ArrayLike) -> None:
    """Replace the numbers of a tensor that was computed.

    Parameters
    ----------
    tensor
        A ``ggml_tensor *``.
    values
        Of the shape of the tensor.

    Raises
    ------
    TypeError, ValueError
        If they are not such numbers, have another shape, or do not fit the tensor's type.
    UnsupportedError
        If the tensor is quantised, or holds integers whose range is not known.

    Calls: ggml_nbytes, ggml_backend_tensor_get, ggml_backend_tensor_set
    """
    kind, shape = GGMLType(tensor.type), shape_of(tensor)
    array = np.asarray(values)
    if array.shape != shape:
        message = f"a replacement must have the shape {shape} of the tensor, not {array.shape}"
        raise ValueError(message)
    converted = _integers(tensor, array) if kind is GGMLType.I32 else _floats(kind, array)
    if array.size == 0:
        return
    if lib.ggml_is_contiguous(tensor):
        data = np.ascontiguousarray(converted)
    else:  # what lies between its rows belongs to other tensors, and stays
        data = _bytes_of(tensor)
        _strided(tensor, kind, data)[...] = converted
    lib.ggml_backend_tensor_set(tensor, ffi.from_buffer(data), 0, data.nbytes)


def _bytes_of(tensor: Any) -> NDArray[np.uint8]:
    """Copy all bytes from the first number of a tensor to its last."""
    data = np.empty(lib.ggml_nbytes(tensor), np.uint8)
    lib.ggml_backend_tensor_get(tensor, ffi.from_buffer(data), 0, data.nbytes)
    return data


def _strided(tensor: Any, kind: GGMLType, data: NDArray[np.uint8]) -> NDArray[Any]:
    shape = shape_of(tensor)
    strides = _axes(tensor.nb, len(shape))
    return np.ndarray(shape, _STORED[kind], data, strides=strides)


def _dequantise(
    tensor: Any, kind: GGMLType, data: NDArray[np.uint8], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Turn blocks into numbers row by row: rows may lie apart, blocks do not."""
    convert = lib.ggml_get_type_traits(kind).to_float
    if convert == ffi.NULL:
        message = f"a tensor of type {kind.name.lower()} cannot be read as numbers"
        raise UnsupportedError(message)
    numbers = np.empty((math.prod(shape[:-1]), shape[-1]), np.float32)
    strides = _axes(tensor.nb, len(shape))
    start = ffi.from_buffer("char[]", data)
    for row, index in zip(numbers, np.ndindex(shape[:-1]), strict=True):
        offset = sum(i * stride for i, stride in zip(index, strides, strict=False))
        convert(start + offset, ffi.from_buffer("float[]", row), row.size)
    return numbers.reshape(shape)


def _floats(kind: GGMLType, array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as a tensor of *kind* stores them."""
    if kind not in (GGMLType.F32, GGMLType.F16, GGMLType.BF16):
        message = f"a tensor of type {kind.name.lower()} can be read, not replaced"
        raise UnsupportedError(message)
    if array.dtype.kind not in "fiu":
        message = f"a replacement must be an array of numbers, not of {array.dtype}"
        raise TypeError(message)
    try:
        with np.errstate(over="raise"):
            if kind is not GGMLType.BF16:
                return array.astype(_STORED[kind])
            single = np.ascontiguousarray(array, np.float32)
    except FloatingPointError:
        message = f"a replacement holds numbers too large for {kind.name.lower()}"
        raise ValueError(message) from None
    rounded = np.empty(single.shape, np.uint16)
    target = ffi.cast("ggml_bf16_t *", ffi.from_buffer(rounded))
    lib.ggml_fp32_to_bf16_row(ffi.from_buffer("float[]", single), target, single.size)
    return rounded


def _integers(tensor: Any, array: NDArray[Any]) -> NDArray[np.int32]:
    """Return indices that the graph can take: others end the process (ggml-cpu.c: mul_mat_id)."""
    if array.dtype.kind not in "iu":
        message = f"a replacement of indices must be an array of integers, not of {array.dtype}"
        raise TypeError(message)
    source = tensor
    while source.view_src != ffi.NULL:
        source = source.view_src
    if source.op not in (lib.GGML_OP_ARGSORT, lib.GGML_OP_TOP_K):
        message = "integers can be replaced only where they are indices out of a sort"
        raise UnsupportedError(message)
    n = source.src[0].ne[0]
    if array.size and not 0 <= array.min() <= array.max() < n:
        message = f"indices go from 0 to {n} (not included), not {array.min()} to {array.max()}"
        raise ValueError(message)
    return array.astype(np.int32)
