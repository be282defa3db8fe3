"""A GGUF header made in memory from Python values and numpy arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyllama.core.enums import GGMLType, member
from pyllama.core.files.gguf import ARRAY, BOOL, DEFAULT_ALIGNMENT, DTYPES, STRING
from pyllama.core.files.tensor_types import TENSOR_TYPES

Scalar = bool | int | float | str | np.generic
MetadataValue = Scalar | Sequence[Scalar] | NDArray[np.generic]
TensorValue = NDArray[np.generic] | tuple[GGMLType | str, NDArray[np.uint8]]

_CODES = {dtype: number for number, dtype in DTYPES.items() if number != BOOL}
_CODES[np.dtype(bool)] = BOOL
_WHOLE = tuple(np.dtype(code) for code in ("<u4", "<i4", "<u8", "<i8"))
_FLOAT = np.dtype("<f4")
_TYPES = {
    np.dtype(code): getattr(GGMLType, name)
    for code, name in (("<f4", "F32"), ("<f2", "F16"), ("<f8", "F64"), ("<i1", "I8"),
                       ("<i2", "I16"), ("<i4", "I32"), ("<i8", "I64"))
}  # fmt: skip


class StoredTensor(NamedTuple):
    """A tensor as GGUF stores it.

    Parameters
    ----------
    type
        A key of `TENSOR_TYPES`.
    shape
        As ggml has it: the length of a row comes first.
    data
        The bytes.
    """

    type: int
    shape: tuple[int, ...]
    data: NDArray[np.generic]


def stored_tensor(name: str, value: TensorValue) -> StoredTensor:
    """Return a tensor as GGUF stores it.

    Parameters
    ----------
    name
        For the message.
    value
        An array of numbers, shape as numpy has it (a row comes last); or a tensor type and the
        bytes of each row, uint8.

    Returns
    -------
    StoredTensor

    Raises
    ------
    TypeError
        If it is neither, or of a dtype that ggml does not have.
    ValueError
        If the rows are not whole blocks of the tensor type, or there are more than 4 dimensions.
    """
    kind, array = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
    if not isinstance(array, np.ndarray):
        message = f"tensor {name!r} must be an array, or a pair of a tensor type and one"
        raise TypeError(message)
    if array.ndim > 4:
        message = f"tensor {name!r} has {array.ndim} dimensions; ggml has 4"
        raise ValueError(message)
    shape = array.shape[::-1]
    if kind is None:
        number = _TYPES.get(array.dtype.newbyteorder("<"))
        if number is None:
            names = ", ".join(str(each) for each in _TYPES)
            message = (
                f"tensor {name!r} has dtype {array.dtype}; these can be stored as they are: "
                f"{names}. For others give (type, bytes of each row as uint8)"
            )
            raise TypeError(message)
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return StoredTensor(int(number), shape, data)
    number = member(GGMLType, kind, f"the type of tensor {name!r}")
    stored = TENSOR_TYPES[number]
    if array.dtype != np.uint8 or not shape or shape[0] % stored.n_bytes:
        message = (
            f"tensor {name!r} of type {stored.name} needs its bytes as uint8, in rows of a "
            f"multiple of {stored.n_bytes}; this array is {array.dtype} of shape {array.shape}"
        )
        raise ValueError(message)
    elements = shape[0] // stored.n_bytes * stored.block
    return StoredTensor(int(number), (elements, *shape[1:]), np.ascontiguousarray(array))


def encode_header(
    metadata: Mapping[str, MetadataValue], tensors: Mapping[str, StoredTensor]
) -> bytes:
    """Return what a GGUF file with this content would have before the tensor data.

    Parameters
    ----------
    metadata
        Whole numbers become u32 (else the first of i32, u64, i64 that fits), other numbers f32,
        numpy values keep their type.
    tensors
        In order.

    Returns
    -------
    bytes
        Filled up to where the tensor data would begin.

    Raises
    ------
    TypeError
        If a key is no string, or a value none that GGUF knows.
    ValueError
        If a number is too large.
    """
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    step = int(alignment) if isinstance(alignment, (int, np.integer)) and alignment > 0 else 1
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        if not isinstance(key, str):
            message = f"a key of the metadata must be a string, not {key!r:.80}"
            raise TypeError(message)
        parts += [_text(key), _encode(key, value)]
    offset = 0
    for name, (kind, shape, data) in tensors.items():
        parts += [_text(name), struct.pack(f"<I{len(shape)}Q", len(shape), *shape)]
        parts += [struct.pack("<IQ", kind, offset)]
        offset += math.ceil(data.nbytes / step) * step
    header = b"".join(parts)
    return header + bytes(-len(header) % step)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _encode(key: str, value: MetadataValue) -> bytes:
    """Return type and value of one metadata pair."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, (bool, int, float, np.generic)):
        array = _array(key, [value])
        return struct.pack("<I", _CODES[array.dtype]) + array.tobytes()
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (bytes, bytearray)):
        message = f"metadata {key!r} must be a number, a string or a sequence, not {value!r:.60}"
        raise TypeError(message)
    if len(value) and all(isinstance(each, str) for each in value):
        texts = (_text(str(each)) for each in value)
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(texts)
    array = _array(key, value)
    return struct.pack("<IIQ", ARRAY, _CODES[array.dtype], array.size) + array.tobytes()


def _array(key: str, values: Sequence[Scalar] | NDArray[np.generic]) -> NDArray[np.generic]:
    """Return numbers as a flat array of a type that GGUF has."""
    array = np.asarray(values)
    own = isinstance(values, np.ndarray) or (
        len(values) > 0 and all(isinstance(each, np.generic) for each in values)
    )
    if not own and array.dtype.kind in "iu":
        array = array.astype(_smallest(key, array))
    elif not own and array.dtype.kind == "f":
        array = array.astype(_FLOAT)
    array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype not in _CODES or array.ndim != 1:
        message = f"metadata {key!r} must hold numbers or strings alone, not {values!r:.60}"
        raise TypeError(message)
    return array


def _smallest(key: str, array: NDArray[np.generic]) -> np.dtype[np.generic]:
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    for dtype in _WHOLE:
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return dtype
    message = f"metadata {key!r} holds numbers from {low} to {high}, which no GGUF type can"
    raise ValueError(message)
