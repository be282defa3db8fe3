"""The content of a GGUF file as `Model.from_arrays` takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyllama.core.files.gguf import read_header
from pyllama.core.files.tensor_types import TENSOR_TYPES

DTYPES = {"f32": np.float32, "f16": np.float16}


def arrays_of(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metadata and tensors of a file."""
    header, data = read_header(path), np.fromfile(path, np.uint8)
    tensors: dict[str, Any] = {}
    for each in header.tensors:
        raw, kind = data[each.offset : each.offset + each.n_bytes], TENSOR_TYPES[each.type].name
        if kind in DTYPES:
            tensors[each.name] = raw.view(DTYPES[kind]).reshape(each.shape[::-1])
        else:
            tensors[each.name] = kind, raw.reshape(*each.shape[:0:-1], -1)
    return dict(header.metadata), tensors
