"""The header of a GGUF file, read and checked in Python before C is given the file.

libllama answers some broken files by ending the process, and most others with nothing but a
line in its log; here each fault has an exception that says where in the file it is.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyllama.core.file_kind import FilePath, check_start, open_regular
from pyllama.core.tensor_types import TENSOR_TYPES
from pyllama.errors import LoadError

Value = int | float | bool | str | NDArray[np.generic] | list[str]

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# less ends the process when the file is mapped: ggml/src/ggml-backend.cpp:2527
ALIGNMENTS = tuple(1 << n for n in range(5, 21))
MAX_DIMS = 4  # ggml/include/ggml.h:222
MAX_NAME = 64  # ggml/include/ggml.h:229, with the final NUL

_U32, _U64, _BOOL, _STRING, _ARRAY = 4, 10, 7, 8, 9  # enum gguf_type, ggml/include/gguf.h
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", _U32: "<u4", 5: "<i4", 6: "<f4", _BOOL: "<i1",
    _U64: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_DTYPES = {number: np.dtype(code) for number, code in _SCALARS.items()}

_unpack_u32 = struct.Struct("<I").unpack_from
_unpack_u64 = struct.Struct("<Q").unpack_from


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file.

    Attributes
    ----------
    name : str
    shape : tuple of int
        As ggml has it: the length of a row comes first.
    type : int
        A key of `TENSOR_TYPES`.
    offset : int
        Of the first byte, from the beginning of the file.
    n_bytes : int
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    n_bytes: int


class _Entry(NamedTuple):
    """One metadata value, still encoded; *length* is None unless it is an array."""

    type: int
    length: int | None
    start: int


class Metadata(Mapping[str, Value]):
    """The key-value pairs of a GGUF file, each decoded when it is asked for.

    Numbers are ``int``, ``float`` or ``bool``; text is ``str`` (bytes that are not UTF-8 as
    surrogate escapes); arrays are numpy arrays, arrays of text are lists of ``str``.
    """

    def __init__(self, data: bytearray, entries: dict[str, _Entry]) -> None:
        self._data = data
        self._entries = entries

    def __getitem__(self, key: str) -> Value:
        kind, length, start = self._entries[key]
        count = 1 if length is None else length
        if kind == _STRING:
            texts = self._texts(start, count)
            return texts[0] if length is None else texts
        array = np.frombuffer(self._data, _DTYPES[kind], count, start)
        array = array != 0 if kind == _BOOL else array.copy()
        return array.item() if length is None else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _texts(self, start: int, count: int) -> list[str]:
        data, texts = self._data, []
        for _ in range(count):
            end = start + 8 + _unpack_u64(data, start)[0]
            texts.append(data[start + 8 : end].decode("utf-8", "surrogateescape"))
            start = end
        return texts


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes
    ----------
    path : str
    version : int
    alignment : int
        Of the tensors, in bytes.
    metadata : Metadata
    tensors : tuple of TensorInfo
    n_bytes : int
        The size of the whole file.

    Notes
    -----
    The metadata keep the header's bytes in memory (10 MB for a large vocabulary).
    """

    path: str
    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[TensorInfo, ...]
    n_bytes: int

    def count(self, key: str, default: int = 0) -> int:
        """Return the metadata value *key* as a whole number.

        Parameters
        ----------
        key : str
        default : int, optional
            What an absent key counts as.

        Returns
        -------
        int

        Raises
        ------
        LoadError
            If the value is not a whole number.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise LoadError(f"{self.path}: {key} must be a whole number, not {str(value)[:40]!r}")
        return value


class _Reader:
    """Steps through a header, and reads the file no further than that needs."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.data = bytearray()
        self.position = 0
        self._fill(min(self.size, 1 << 20))

    def error(self, offset: int, what: str) -> LoadError:
        return LoadError(f"{self.path}, byte {offset}: {what}")

    def _fill(self, end: int) -> None:
        """Have the first *end* bytes of the file in `data`; doubling keeps this linear."""
        if end > len(self.data):
            wanted = min(self.size, max(end, 2 * len(self.data)))
            self.data += self.file.read(wanted - len(self.data))
            if end > len(self.data):
                raise self.error(len(self.data), "the file became shorter while it was read")

    def take(self, n_bytes: int, what: str) -> int:
        """Step over *n_bytes* bytes, and return where they begin."""
        start, end = self.position, self.position + n_bytes
        if end > self.size:
            raise self.error(
                start,
                f"{what} takes {n_bytes} bytes, but the file ends after {self.size - start} more; "
                "the download is probably incomplete, or the file damaged",
            )
        self._fill(end)
        self.position = end
        return start

    def u32(self, what: str) -> int:
        start = self.take(4, what)
        return int(_unpack_u32(self.data, start)[0])

    def u64(self, what: str) -> int:
        start = self.take(8, what)
        return int(_unpack_u64(self.data, start)[0])

    def string(self, what: str) -> str:
        n_bytes = self.u64(f"the length of {what}")
        start = self.take(n_bytes, what)
        return self.data[start : start + n_bytes].decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        """Step over *count* strings; this loop is where the time of a header goes."""
        data, start, position, ready = self.data, self.position, self.position, len(self.data) - 8
        for index in range(count):
            if position > ready:
                self.position = start
                self.take(position - start, f"text {index - 1} of {what}")
                self.take(8, f"the length of text {index} of {what}")
                ready = len(data) - 8
            start = position
            position += 8 + _unpack_u64(data, position)[0]
        self.position = start
        self.take(position - start, f"text {count - 1} of {what}")


def read_header(path: FilePath) -> Header:
    """Read the header of a GGUF file, and check its structure against the size of the file.

    Parameters
    ----------
    path : str, bytes or os.PathLike

    Returns
    -------
    Header

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the system names them.
    LoadError
        If the file is not GGUF, is cut short, or contradicts itself; the message says at which
        byte.

    Notes
    -----
    A header with 128,000 tokens and 280,000 merges takes about 30 ms. Tensor data are not read.
    """
    with open_regular(path) as file:
        reader = _Reader(os.fsdecode(path), file)
        check_start(reader.path, bytes(reader.data[:64]))
        reader.take(4, "the magic")
        version = _read_version(reader)
        n_tensors = _read_count(reader, "tensors", 24)
        n_pairs = _read_count(reader, "metadata pairs", 14)
        metadata = Metadata(reader.data, _read_entries(reader, n_pairs))
        alignment = _read_alignment(reader, metadata)
        tensors = _read_tensors(reader, n_tensors, alignment)
    return Header(reader.path, version, alignment, metadata, tensors, reader.size)


def _read_version(reader: _Reader) -> int:
    version = reader.u32("the version")
    if version not in VERSIONS:
        if version and version & 0xFFFF == 0:
            what = "the file was written for big-endian machines"
        elif version == 1:
            what = "GGUF version 1 is no longer read by llama.cpp; convert the model again"
        else:
            what = f"GGUF version {version} is not known; this build reads versions 2 and 3"
        raise reader.error(4, what)
    return version


def _read_count(reader: _Reader, what: str, least: int) -> int:
    """Read how many *what* follow, each of which takes *least* bytes or more."""
    start = reader.position
    count = reader.u64(f"the number of {what}")
    if count > (reader.size - start) // least:
        raise reader.error(
            start, f"{count} {what} cannot be in the {reader.size - start} bytes from here"
        )
    return count


def _read_entries(reader: _Reader, n_pairs: int) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for index in range(n_pairs):
        start = reader.position
        key = reader.string(f"metadata key {index}")
        if not key:
            raise reader.error(start, f"metadata key {index} is empty")
        if key in entries:
            raise reader.error(start, f"metadata key {key!r} appears twice")
        entries[key] = _read_entry(reader, key)
    return entries


def _read_entry(reader: _Reader, key: str) -> _Entry:
    what = f"the value of {key!r}"
    start = reader.position
    kind, length = reader.u32(f"the type of {key!r}"), None
    if kind == _ARRAY:
        kind, length = reader.u32(f"the type of {key!r}"), reader.u64(f"the length of {key!r}")
    if kind != _STRING and kind not in _DTYPES:
        raise reader.error(start, f"{what} has the type {kind}, which GGUF does not have")
    n_bytes = 8 if kind == _STRING else _DTYPES[kind].itemsize
    count, start = 1 if length is None else length, reader.position
    if count > 1 and count > (reader.size - start) // n_bytes:
        raise reader.error(start, f"{what} has {count} elements, but the file ends before they do")
    if kind == _STRING:
        reader.skip_strings(count, what)
    else:
        reader.take(n_bytes * count, what)
    return _Entry(kind, length, start)


def _read_alignment(reader: _Reader, metadata: Metadata) -> int:
    entry = metadata._entries.get("general.alignment")
    if entry is None:
        return DEFAULT_ALIGNMENT
    value = metadata["general.alignment"]
    if isinstance(value, int) and entry.type == _U32 and value in ALIGNMENTS:
        return value
    what = f"general.alignment is {str(value)[:40]}, not a power of two (u32) from 32 to 1048576"
    raise reader.error(entry.start, what)


def _read_tensors(reader: _Reader, n_tensors: int, alignment: int) -> tuple[TensorInfo, ...]:
    infos: dict[str, TensorInfo] = {}
    end = 0  # of the tensors so far, from the beginning of the tensor data, with padding
    for index in range(n_tensors):
        start = reader.position
        info = _read_tensor(reader, index)
        if info.name in infos:
            raise reader.error(start, f"tensor {info.name!r} appears twice")
        if info.offset != end:
            raise reader.error(reader.position - 8, _misplaced(info, end, alignment))
        infos[info.name] = info
        end = _pad(info.offset + info.n_bytes, alignment)
    data = _pad(reader.position, alignment)
    return tuple(_place(reader, info, data) for info in infos.values())


def _read_tensor(reader: _Reader, index: int) -> TensorInfo:
    """Read one tensor's entry; its offset is still counted from the tensor data."""
    start = reader.position
    name = reader.string(f"the name of tensor {index}")
    if len(name.encode("utf-8", "surrogateescape")) >= MAX_NAME:
        raise reader.error(start, f"the name of tensor {index} is longer than {MAX_NAME - 1} bytes")
    at = reader.position
    n_dims = reader.u32(f"the number of dimensions of {name!r}")
    if n_dims > MAX_DIMS:
        raise reader.error(at, f"tensor {name!r} has {n_dims} dimensions; ggml has {MAX_DIMS}")
    shape = tuple(reader.u64(f"the shape of {name!r}") for _ in range(n_dims))
    # as gguf.cpp, which refuses whatever does not fit an int64 on the way to the product
    if max((*shape, *itertools.accumulate(shape, operator.mul)), default=0) >= 1 << 63:
        raise reader.error(at, f"tensor {name!r} has the impossible shape {shape}")
    at = reader.position
    kind = reader.u32(f"the type of {name!r}")
    stored = TENSOR_TYPES.get(kind)
    if stored is None:
        raise reader.error(at, f"tensor {name!r} has the type {kind}, which ggml does not have")
    row = shape[0] if shape else 1
    if row % stored.block:
        raise reader.error(
            at, f"tensor {name!r} has rows of {row}, but {stored.name} has blocks of {stored.block}"
        )
    n_bytes = math.prod(shape) // stored.block * stored.n_bytes
    return TensorInfo(name, shape, kind, reader.u64(f"the offset of {name!r}"), n_bytes)


def _misplaced(info: TensorInfo, expected: int, alignment: int) -> str:
    if info.offset % alignment:
        return (
            f"tensor {info.name!r} has the offset {info.offset}, not a multiple of the "
            f"alignment {alignment}"
        )
    return (
        f"tensor {info.name!r} has the offset {info.offset}, but the tensors before it "
        f"end at {expected}"
    )


def _place(reader: _Reader, info: TensorInfo, data: int) -> TensorInfo:
    """Count the offset of *info* from the beginning of the file, and check that it fits."""
    offset = data + info.offset
    if offset + info.n_bytes > reader.size:
        raise reader.error(
            offset,
            f"tensor {info.name!r} ends at byte {offset + info.n_bytes}, but the file has "
            f"{reader.size} bytes; the download is probably incomplete",
        )
    return replace(info, offset=offset)


def _pad(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment
