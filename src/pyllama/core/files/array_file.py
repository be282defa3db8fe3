"""A GGUF file of a few f32 arrays, read and written whole: control vectors, importance matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.atomic import write_whole
from pyllama.core.files.gguf import DEFAULT_ALIGNMENT
from pyllama.core.files.gguf_writer import encode_header, stored_tensor
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.errors import LoadError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pyllama.core.files.gguf import Header
    from pyllama.core.files.gguf_writer import MetadataValue


def read_arrays(header: Header) -> dict[str, NDArray[np.float32]]:
    """Read all tensors of a file.

    Parameters
    ----------
    header
        Of the file.

    Returns
    -------
    dict of str to ndarray of float32
        Each in its numpy shape: a row comes last.

    Raises
    ------
    LoadError
        If a tensor is not f32, or the file became shorter since its header was read.
    """
    arrays = {}
    with Path(header.path).open("rb") as file:
        for tensor in header.tensors:
            kind = TENSOR_TYPES[tensor.type].name
            if kind != "f32":
                message = f"{header.path}: tensor {tensor.name!r} is {kind}, not f32"
                raise LoadError(message)
            file.seek(tensor.offset)
            data = file.read(tensor.n_bytes)
            if len(data) != tensor.n_bytes:
                message = f"{header.path} became shorter while it was read"
                raise LoadError(message)
            arrays[tensor.name] = np.frombuffer(data, "<f4").reshape(tensor.shape[::-1])
    return arrays


def write_arrays(
    path: str | os.PathLike[str],
    metadata: Mapping[str, MetadataValue],
    arrays: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write a file, whole or not at all.

    Parameters
    ----------
    path
        Where; an older file is replaced once the new one is whole.
    metadata
        As for `encode_header`.
    arrays
        The tensors, in order.

    Raises
    ------
    OSError
        If it cannot be written; the older file is then as it was.
    """
    tensors = {name: stored_tensor(name, array) for name, array in arrays.items()}
    parts: list[Any] = [encode_header(metadata, tensors)]
    for tensor in tensors.values():
        parts += [tensor.data, bytes(-tensor.data.nbytes % DEFAULT_ALIGNMENT)]
    write_whole(path, parts)
