"""Control vectors as files: one direction for each layer, in the format of repeng."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.files.array_file import read_arrays, write_arrays
from pyllama.core.files.gguf import read_header
from pyllama.core.params import whole
from pyllama.errors import AdapterError, LoadError

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from pyllama.core.files.gguf import Header, TensorInfo
    from pyllama.core.files.gguf_writer import MetadataValue

ARCHITECTURE = "controlvector"
_PREFIX = "direction."
_layer = whole(1, 2**31 - 1)


class ControlVector:
    """Hold a direction for some layers; `Context.set_control_vector` takes its `matrix`.

    Parameters
    ----------
    directions
        The vector, of n_embd finite numbers, of each layer; layers count from 1, since layer 0
        takes none.
    model_hint
        The architecture it was made for, for those who read the file.

    Raises
    ------
    TypeError, ValueError
        If a layer or a number is out of range, or the vectors differ in length.

    Notes
    -----
    ``direction.N`` is added to what layer *N* puts out, as repeng and llama.cpp have it. The files
    of llama.cpp's own cvector-generator are shifted by one: it measures layer *N* and stores it as
    *N* + 1.
    """

    def __init__(self, directions: Mapping[int, ArrayLike], *, model_hint: str = "") -> None:
        if not isinstance(directions, Mapping):
            message = f"directions must be a mapping of layer to vector, not {directions!r:.80}"
            raise TypeError(message)
        if not isinstance(model_hint, str):
            message = f"model_hint must be text, not {model_hint!r:.80}"
            raise TypeError(message)
        if not directions:
            message = "a control vector needs the direction of one layer at least"
            raise ValueError(message)
        found = {_layer("layer", each): _direction(each, row) for each, row in directions.items()}
        self.n_embd = next(iter(found.values())).size
        if any(row.size != self.n_embd for row in found.values()):
            lengths = sorted({row.size for row in found.values()})
            message = f"the directions have different lengths: {lengths}"
            raise ValueError(message)
        self.directions: Mapping[int, NDArray[np.float32]] = MappingProxyType(
            dict(sorted(found.items()))
        )
        self.model_hint = model_hint

    def matrix(self, n_layer: int) -> NDArray[np.float32]:
        """Return the directions as `Context.set_control_vector` takes them.

        Parameters
        ----------
        n_layer
            Of the model.

        Returns
        -------
        ndarray of float32, shape (n_layer - 1, n_embd)
            Row *i* belongs to layer *i* + 1; zeros where there is no direction.

        Raises
        ------
        AdapterError
            If a direction belongs to a layer that the model does not have.
        """
        n_layer = whole(2, 2**16)("n_layer", n_layer)
        deepest = max(self.directions)
        if deepest >= n_layer:
            message = (
                f"there is a direction for layer {deepest}, but the model's layers are 0 to "
                f"{n_layer - 1}: the control vector is for another model"
            )
            raise AdapterError(message)
        rows = np.zeros((n_layer - 1, self.n_embd), np.float32)
        for layer, row in self.directions.items():
            rows[layer - 1] = row
        return rows

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a control vector from a GGUF file, as repeng and llama.cpp write them.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        ControlVector

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
            As the file system says.
        LoadError
            If the file is broken, or is no control vector.
        """
        header = read_header(path)
        if header.architecture != ARCHITECTURE:
            message = f"{header.path} is no control vector but {header.architecture[:40]!r}"
            raise LoadError(message)
        hint = header.metadata.get(f"{ARCHITECTURE}.model_hint", "")
        try:
            return cls(_read(header), model_hint=hint if isinstance(hint, str) else "")
        except (TypeError, ValueError) as error:
            message = f"{header.path}: {error}"
            raise LoadError(message) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a GGUF file that repeng and llama.cpp read.

        Parameters
        ----------
        path
            Where; an older file is replaced once the new one is whole.

        Raises
        ------
        OSError
            If it cannot be written; the older file is then as it was.
        """
        metadata: dict[str, MetadataValue] = {
            "general.architecture": ARCHITECTURE,
            f"{ARCHITECTURE}.model_hint": self.model_hint,
            f"{ARCHITECTURE}.layer_count": len(self.directions),
        }
        rows = {f"{_PREFIX}{layer}": row for layer, row in self.directions.items()}
        write_arrays(path, metadata, rows)

    def __repr__(self) -> str:
        layers = f"{min(self.directions)} to {max(self.directions)}"
        return f"<ControlVector of {len(self.directions)} layers, {layers}, n_embd={self.n_embd}>"


def _direction(layer: int, row: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(row)
    if array.dtype.kind not in "fiu":
        message = f"the direction of layer {layer} must be numbers, not {array.dtype}"
        raise TypeError(message)
    with np.errstate(over="ignore"):
        direction = np.array(array, dtype=np.float32)
    if direction.ndim != 1 or direction.size == 0 or not np.isfinite(direction).all():
        message = f"the direction of layer {layer} must be a row of finite numbers"
        raise ValueError(message)
    direction.flags.writeable = False
    return direction


def _read(header: Header) -> dict[int, NDArray[np.float32]]:
    """Return the direction of each layer in the file."""
    layers = {tensor.name: _layer_of(header, tensor) for tensor in header.tensors}
    return {layers[name]: row.ravel() for name, row in read_arrays(header).items()}


def _layer_of(header: Header, tensor: TensorInfo) -> int:
    digits = tensor.name.removeprefix(_PREFIX)
    if not (digits.isascii() and digits.isdigit() and digits[0] != "0" and len(digits) < 9):
        message = f"{header.path}: tensor {tensor.name!r} is no direction of a layer from 1 on"
        raise LoadError(message)
    if tensor.name != _PREFIX + digits:
        message = f"{header.path}: tensor {tensor.name!r} is not called {_PREFIX}N"
        raise LoadError(message)
    if max(tensor.shape[1:], default=1) != 1:
        message = f"{header.path}: tensor {tensor.name!r} has the shape {tensor.shape}, not one row"
        raise LoadError(message)
    return int(digits)
