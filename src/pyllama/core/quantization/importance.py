"""Importance matrices: how strongly each column of each weight is used, for `quantize`.

A quantised weight is off by a little in every column, and an error in a column that is multiplied
by large activations costs more. So the activations that meet each weight are squared and summed
over a text. llama.cpp's files of them are read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.files.array_file import read_arrays, write_arrays
from pyllama.core.files.gguf import MAX_NAME, read_header
from pyllama.core.params import strings, whole
from pyllama.errors import LoadError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from pyllama.core.files.gguf_writer import MetadataValue

    Sums = NDArray[np.float64]
    Counts = NDArray[np.int64]

CHUNK_SIZE = 512  # tokens, as llama-imatrix has it
_SUMS, _COUNTS = ".in_sum2", ".counts"  # what llama.cpp adds to the name of a weight
_chunk_size = whole(1, 2**31 - 1)


class ImportanceMatrix:
    """Hold, for each weight, the squares of the activations it was multiplied with, summed.

    Parameters
    ----------
    sums
        For the name of each weight an array of shape (n_experts, n_columns); one row if it has no
        experts. Finite, not negative.
    counts
        For the same names, how many activations are in each row, of shape (n_experts,).
    chunk_size
        Tokens of a chunk of the text.
    datasets
        What the text was, for those who read the file.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not hold such numbers, or do not fit together.
    """

    def __init__(
        self,
        sums: Mapping[str, ArrayLike],
        counts: Mapping[str, ArrayLike],
        *,
        chunk_size: int = CHUNK_SIZE,
        datasets: Iterable[str] = (),
    ) -> None:
        if not isinstance(sums, Mapping) or not isinstance(counts, Mapping):
            message = "sums and counts must be mappings of weight to array"
            raise TypeError(message)
        if sums.keys() != counts.keys() or not sums:
            message = "sums and counts must be of the same weights, one at least"
            raise ValueError(message)
        self.sums: Mapping[str, Sums] = MappingProxyType(
            {_name(name): _sums(name, sums[name]) for name in sorted(sums)}
        )
        self.counts: Mapping[str, Counts] = MappingProxyType(
            {name: _counts(name, counts[name], len(rows)) for name, rows in self.sums.items()}
        )
        self.chunk_size = int(_chunk_size("chunk_size", chunk_size))
        self.datasets = tuple(strings("datasets", datasets))

    @property
    def n_chunks(self) -> int:
        """Number of whole chunks that were seen."""
        return max(int(counts.max()) for counts in self.counts.values()) // self.chunk_size

    def mean(self, name: str) -> NDArray[np.float32]:
        """Return the mean square of the activations of each column, as `quantize` gives it to C.

        Parameters
        ----------
        name
            Of a weight.

        Returns
        -------
        ndarray of float32, shape (n_experts * n_columns,)
            1 for an expert that was never chosen.

        Raises
        ------
        KeyError
            If there is nothing of that weight.
        """
        sums, counts = self.sums[name], self.counts[name][:, np.newaxis]
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1)
        return np.asarray(mean, np.float32).ravel()

    def __add__(self, other: ImportanceMatrix) -> ImportanceMatrix:
        """Return what both texts together would have given."""
        if not isinstance(other, ImportanceMatrix):
            return NotImplemented
        sums, counts = dict(self.sums), dict(self.counts)
        for name, rows in other.sums.items():
            if name not in sums:
                sums[name], counts[name] = rows, other.counts[name]
                continue
            if sums[name].shape != rows.shape:
                shapes = f"{sums[name].shape} and {rows.shape}"
                message = f"{name} has the shapes {shapes}: these are of different models"
                raise ValueError(message)
            sums[name] = sums[name] + rows
            counts[name] = counts[name] + other.counts[name]
        datasets = dict.fromkeys((*self.datasets, *other.datasets))
        return ImportanceMatrix(sums, counts, chunk_size=self.chunk_size, datasets=datasets)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a GGUF file that `save` or llama-imatrix wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        ImportanceMatrix

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
            As the file system says.
        LoadError
            If the file is broken, is no importance matrix, or of the older format (.dat).
        """
        header = read_header(path)
        if header.metadata.get("general.type") != "imatrix":
            message = f"{header.path} is no importance matrix: its general.type is not 'imatrix'"
            raise LoadError(message)
        arrays = read_arrays(header)
        sums = _ending(arrays, _SUMS)
        counts = {name: np.rint(array.ravel()) for name, array in _ending(arrays, _COUNTS).items()}
        datasets = header.metadata.get("imatrix.datasets", [])
        try:
            return cls(
                sums,
                {name: array.astype(np.int64) for name, array in counts.items()},
                chunk_size=header.count("imatrix.chunk_size", CHUNK_SIZE),
                datasets=datasets if isinstance(datasets, list) else (),
            )
        except (TypeError, ValueError) as error:
            message = f"{header.path}: {error}"
            raise LoadError(message) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a GGUF file that llama-imatrix and llama-quantize read.

        Parameters
        ----------
        path
            Where; an older file is replaced once the new one is whole.

        Raises
        ------
        OSError
            If it cannot be written; the older file is then as it was.
        """
        arrays: dict[str, NDArray[np.float32]] = {}
        for name, sums in self.sums.items():
            arrays[name + _SUMS] = sums.astype(np.float32)
            arrays[name + _COUNTS] = self.counts[name][:, np.newaxis].astype(np.float32)
        metadata: dict[str, MetadataValue] = {
            "general.type": "imatrix",
            "imatrix.datasets": list(self.datasets),
            "imatrix.chunk_count": self.n_chunks,
            "imatrix.chunk_size": self.chunk_size,
        }
        write_arrays(path, metadata, arrays)

    def __repr__(self) -> str:
        return (
            f"<ImportanceMatrix of {len(self.sums)} weights, "
            f"{self.n_chunks} chunks of {self.chunk_size} tokens>"
        )


def _name(name: str) -> str:
    if not isinstance(name, str):
        message = f"the name of a weight must be text, not {name!r:.80}"
        raise TypeError(message)
    if not name or "\0" in name or len((name + _SUMS).encode()) >= MAX_NAME:
        message = f"{name!r} is not the name of a weight: 1 to {MAX_NAME - len(_SUMS) - 1} bytes"
        raise ValueError(message)
    return name


def _sums(name: str, values: ArrayLike) -> Sums:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        message = f"the sums of {name} must be numbers, not {array.dtype}"
        raise TypeError(message)
    sums = np.atleast_2d(np.array(array, np.float64))
    if sums.ndim != 2 or not sums.size or not (np.isfinite(sums) & (sums >= 0)).all():
        message = f"the sums of {name} must be finite, not negative, and in rows"
        raise ValueError(message)
    sums.flags.writeable = False
    return sums


def _counts(name: str, values: ArrayLike, n_rows: int) -> Counts:
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "iu":
        message = f"the counts of {name} must be integers, not {array.dtype}"
        raise TypeError(message)
    counts = np.array(array, np.int64)
    if counts.shape != (n_rows,) or counts.min() < 0:
        message = f"the counts of {name} must be {n_rows}, none negative"
        raise ValueError(message)
    counts.flags.writeable = False
    return counts


def _ending(
    arrays: Mapping[str, NDArray[np.float32]], suffix: str
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays whose names end so, without the ending."""
    return {
        name.removesuffix(suffix): array for name, array in arrays.items() if name.endswith(suffix)
    }
