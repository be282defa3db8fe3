"""A model written to a GGUF file by libllama, which says nothing when that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pyllama.core.atomic import replacing
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.library import lib
from pyllama.core.loading.model_file import check_model
from pyllama.errors import LoadError, UnsupportedError

if TYPE_CHECKING:
    from pyllama.core.model import Model

# An assertion refuses these: src/llama-model-saver.cpp:16, :31
UNSAVABLE = frozenset({"apertus", "bitnet", "gemma3n", "step35", "t5"})
# No kernel of the CPU wants these in an order of its own; the others may have been repacked, and
# such a buffer cannot be read back (ggml/src/ggml-cpu/repack.cpp:5178).
PLAIN = frozenset({"f32", "bf16", "i32"})


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to a file; see `Model.save`.

    Parameters
    ----------
    model
        With weights.
    path
        Where the file appears.

    Raises
    ------
    OSError, ValueError, UnsupportedError
        As for `Model.save`.

    Calls: llama_model_save_to_file
    """
    model._require_weights()
    _require_savable(model)
    for source in model._files:
        if Path(path).exists() and os.path.samefile(path, source):  # noqa: PTH121 - str too
            message = f"{path} is the file that the model was loaded from; save it elsewhere"
            raise ValueError(message)
    with replacing(path) as temporary:
        with model._call as pointer:
            lib.llama_model_save_to_file(pointer, os.fsencode(temporary))
        try:
            headers = check_model(temporary)
        except LoadError as error:
            _require_room(temporary, model.n_bytes, path)
            message = f"what libllama wrote of this {model.architecture} model cannot be loaded"
            raise UnsupportedError(message) from error
        lost = model._tensors.keys() - {tensor.name for tensor in headers[0].tensors}
        if lost:
            message = (
                f"libllama left out {len(lost)} tensors of this {model.architecture} model, "
                f"{min(lost)} among them; copy its file instead"
            )
            raise UnsupportedError(message)


def _require_savable(model: Model) -> None:
    if model.architecture in UNSAVABLE:
        message = f"libllama cannot write models of the architecture {model.architecture}"
        raise UnsupportedError(message)
    if not model._repacked:
        return
    for tensor in model._tensors.values():
        kind = TENSOR_TYPES[tensor.type].name
        if kind not in PLAIN:
            message = (
                f"{tensor.name} has the type {kind}, which libllama may have repacked for this "
                "CPU: load the model with use_extra_bufts=False to save it"
            )
            raise UnsupportedError(message)


def _require_room(temporary: Path, n_bytes: int, path: str | os.PathLike[str]) -> None:
    """Raise what the system says to the bytes that are missing, if they are."""
    size = temporary.stat().st_size
    if size >= n_bytes:
        return
    with temporary.open("r+b") as file:
        os.posix_fallocate(file.fileno(), size, n_bytes - size)
    raise OSError(errno.EIO, f"libllama wrote {size} bytes of more than {n_bytes}", str(path))
