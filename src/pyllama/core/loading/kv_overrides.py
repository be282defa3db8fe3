"""Metadata of a model file replaced for one load: ``kv_overrides``, each checked against the file.

libllama goes on without a word where a key is not there or its type differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.files.gguf import BOOL, DTYPES, STRING, Header, Metadata, Value
from pyllama.core.library import ffi, lib
from pyllama.core.params import FLOAT32_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

Override = int | float | bool | str

MAX_BYTES = 127  # of a key, and of a text; llama.h gives both 128 with the final NUL
# What says how the file is laid out; another value would have libllama read other bytes.
LAYOUT = ("general.alignment", "split.")


class KvOverrides:
    """Values to put in the place of those in the file.

    Parameters
    ----------
    values
        Metadata keys, and what they shall be.

    Raises
    ------
    TypeError, ValueError
        If a key or value is none that llama.h can carry.
    """

    def __init__(self, values: Mapping[str, Override]) -> None:
        if not isinstance(values, Mapping):
            message = f"kv_overrides must map metadata keys to values, not be {values!r:.80}"
            raise TypeError(message)
        for key, value in values.items():
            if not isinstance(key, str):
                message = f"a key of kv_overrides must be a string, not {key!r:.80}"
                raise TypeError(message)
            _require_short("a key of kv_overrides", key)
            if not key or key.startswith(LAYOUT):
                message = f"kv_overrides cannot change {key!r}: it says how the file is laid out"
                raise ValueError(message)
            if isinstance(value, str):
                _require_short(f"kv_overrides[{key!r}]", value)
        self.values = dict(values)
        self.struct: Any = ffi.NULL

    def apply(self, headers: Sequence[Header]) -> list[Header]:
        """Return the headers as they are with the new values, and fill `struct` for C.

        Parameters
        ----------
        headers
            Of all files of the model.

        Returns
        -------
        list of Header

        Raises
        ------
        TypeError
            If a value is of another type than the one in the file.
        ValueError
            If the file has no such key, it is an array, or the value does not fit its type.
        """
        if not self.values:
            return list(headers)
        first = headers[0]
        self.values = {key: _fitting(first, key, value) for key, value in self.values.items()}
        # One more, all zeros: libllama reads on until a key is empty (llama-model-loader.cpp:552).
        self.struct = ffi.new("struct llama_model_kv_override[]", len(self.values) + 1)
        for entry, (key, value) in zip(self.struct, self.values.items(), strict=False):
            _write(entry, key, value)
        return [replace(first, metadata=_Replaced(first.metadata, self.values)), *headers[1:]]

    def texts(self) -> dict[str, str]:
        """Return the values as `Metadata` shows them."""
        return {key: _text(value) for key, value in self.values.items()}


class _Replaced(Metadata):
    """The metadata of a file with some values replaced."""

    def __init__(self, metadata: Metadata, values: Mapping[str, Value]) -> None:
        super().__init__(metadata._data, metadata._entries)
        self._values = values

    def __getitem__(self, key: str) -> Value:
        return self._values[key] if key in self._values else super().__getitem__(key)


def _require_short(what: str, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_BYTES:
        message = f"{what} has {len(data)} bytes; llama.h has room for {MAX_BYTES}: {text[:40]!r}"
        raise ValueError(message)
    if b"\0" in data:
        message = f"{what} holds a NUL, where C would end it: {text!r}"
        raise ValueError(message)


def _fitting(header: Header, key: str, value: Override) -> Override:
    """Return *value* as the type that the file has for *key*."""
    entry = header.metadata._entries.get(key)
    if entry is None:
        from difflib import get_close_matches  # noqa: PLC0415 - for this message only

        near = get_close_matches(key, header.metadata, 3)
        hint = f"; near are {', '.join(near)}" if near else ""
        message = f"kv_overrides has {key!r}, but {header.path} has no such key{hint}"
        raise ValueError(message)
    if entry.length is not None:
        message = f"kv_overrides has {key!r}, which is an array in {header.path}; those stay"
        raise ValueError(message)
    dtype = None if entry.type == STRING else DTYPES[entry.type]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if dtype is None:
        kind, fits = "a string", isinstance(value, str)
    elif entry.type == BOOL:
        kind, fits = "True or False", isinstance(value, bool)
    elif dtype.kind == "f":
        kind, fits = "a number", whole or isinstance(value, float)
    else:
        kind, fits = "a whole number", whole
    if not fits:
        message = f"kv_overrides[{key!r}] must be {kind}, as in {header.path}, not {value!r:.80}"
        raise TypeError(message)
    if dtype is None or entry.type == BOOL:
        return value
    if dtype.kind == "f":
        return _finite(key, float(value))
    limits = np.iinfo(dtype)
    if not limits.min <= int(value) <= limits.max:
        message = f"kv_overrides[{key!r}]={value}: it must be from {limits.min} to {limits.max}"
        raise ValueError(message)
    return value


def _finite(key: str, value: float) -> float:
    if not abs(value) <= FLOAT32_MAX:  # so that it is False for NaN
        message = f"kv_overrides[{key!r}]={value} is not a finite number"
        raise ValueError(message)
    return value


def _write(entry: Any, key: str, value: Override) -> None:
    """Fill one ``llama_model_kv_override``; what is longer than its text was refused."""
    entry.key = key.encode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        entry.tag, entry.val_bool = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
    elif isinstance(value, int):
        entry.tag, entry.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
    elif isinstance(value, float):
        entry.tag, entry.val_f64 = lib.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
    else:
        entry.tag = lib.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.val_str = value.encode("utf-8", "surrogateescape")


def _text(value: Override) -> str:
    """Return *value* as libllama prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, float) else str(value)
