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

from pyllama.core.files.file_kind import FilePath, check_start, open_regular
from pyllama.core.files.gguf_reader import Reader
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.errors import LoadError

Value = int | float | bool | str | NDArray[np.generic] | list[str]

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# less ends the process when the file is mapped: ggml/src/ggml-backend.cpp:2527
ALIGNMENTS = tuple(1 << n for n in range(5, 21))
MAX_DIMS = 4  # ggml/include/ggml.h:222
MAX_NAME = 64  # ggml/include/ggml.h:229, with the final NUL

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10  # enum gguf_type, ggml/include/gguf.h
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", U32: "<u4", 5: "<i4", F32: "<f4", BOOL: "<i1",
    U64: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
DTYPES = {number: np.dtype(code) for number, code in SCALARS.items()}

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
        if kind == STRING:
            texts = self._texts(start, count)
            return texts[0] if length is None else texts
        array = np.frombuffer(self._data, DTYPES[kind], count, start)
        array = array != 0 if kind == BOOL else array.copy()
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

    @property
    def architecture(self) -> str:
        """What ``general.architecture`` says, as text; "None" where it is missing."""
        return str(self.metadata.get("general.architecture"))

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
        return parse_header(os.fsdecode(path), file, os.fstat(file.fileno()).st_size)


def parse_header(name: str, file: BinaryIO, size: int) -> Header:
    """Read a header from where *file* stands, as `read_header` does.

    Parameters
    ----------
    name : str
        What the data are called in messages.
    file : BinaryIO
    size : int
        Bytes from there to the end of the data; offsets are counted from there, too.

    Returns
    -------
    Header

    Raises
    ------
    LoadError
        As `read_header`.
    """
    reader = Reader(name, file, size)
    check_start(reader.path, bytes(reader.data[:64]))
    reader.take(4, "the magic")
    version = _read_version(reader)
    n_tensors = _read_count(reader, "tensors", 24)
    n_pairs = _read_count(reader, "metadata pairs", 14)
    metadata = Metadata(reader.data, _read_entries(reader, n_pairs))
    alignment = _read_alignment(reader, metadata)
    tensors = _read_tensors(reader, n_tensors, alignment)
    return Header(reader.path, version, alignment, metadata, tensors, reader.size)


def _read_version(reader: Reader) -> int:
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


def _read_count(reader: Reader, what: str, least: int) -> int:
    """Read how many *what* follow, each of which takes *least* bytes or more."""
    start = reader.position
    count = reader.u64(f"the number of {what}")
    if count > (reader.size - start) // least:
        raise reader.error(
            start, f"{count} {what} cannot be in the {reader.size - start} bytes from here"
        )
    return count


def _read_entries(reader: Reader, n_pairs: int) -> dict[str, _Entry]:
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


def _read_entry(reader: Reader, key: str) -> _Entry:
    what = f"the value of {key!r}"
    start = reader.position
    kind, length = reader.u32(f"the type of {key!r}"), None
    if kind == ARRAY:
        kind, length = reader.u32(f"the type of {key!r}"), reader.u64(f"the length of {key!r}")
    if kind != STRING and kind not in DTYPES:
        raise reader.error(start, f"{what} has the type {kind}, which GGUF does not have")
    n_bytes = 8 if kind == STRING else DTYPES[kind].itemsize
    count, start = 1 if length is None else length, reader.position
    if count > 1 and count > (reader.size - start) // n_bytes:
        raise reader.error(start, f"{what} has {count} elements, but the file ends before they do")
    if kind == STRING:
        reader.skip_strings(count, what)
    else:
        reader.take(n_bytes * count, what)
    return _Entry(kind, length, start)


def _read_alignment(reader: Reader, metadata: Metadata) -> int:
    entry = metadata._entries.get("general.alignment")
    if entry is None:
        return DEFAULT_ALIGNMENT
    value = metadata["general.alignment"]
    if isinstance(value, int) and entry.type == U32 and value in ALIGNMENTS:
        return value
    what = f"general.alignment is {str(value)[:40]}, not a power of two (u32) from 32 to 1048576"
    raise reader.error(entry.start, what)


def _read_tensors(reader: Reader, n_tensors: int, alignment: int) -> tuple[TensorInfo, ...]:
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


def _read_tensor(reader: Reader, index: int) -> TensorInfo:
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


def _place(reader: Reader, info: TensorInfo, data: int) -> TensorInfo:
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
