"""The key-value pairs of a model or an adapter, read through libllama."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyllama.core.library import ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.adapter import Adapter
    from pyllama.core.model_facts import ModelFacts


class Metadata(Mapping[str, str]):
    """The metadata of a model or an adapter: every scalar as libllama prints it.

    Parameters
    ----------
    owner
        Whose metadata it is.
    overrides
        Values that count instead of those in the file.

    Raises
    ------
    TypeError
        If the owner is neither.

    Notes
    -----
    Numbers come as text, as in ``gguf-dump``; arrays (the vocabulary) are left out by libllama.

    Calls: llama_model_meta_count, llama_model_meta_key_by_index, llama_model_meta_val_str_by_index,
    llama_adapter_meta_count, llama_adapter_meta_key_by_index, llama_adapter_meta_val_str_by_index
    """

    def __init__(
        self, owner: ModelFacts | Adapter, overrides: Mapping[str, str] | None = None
    ) -> None:
        if not hasattr(owner, "_metadata_functions"):
            message = f"metadata are those of a Model or an Adapter, not of {owner!r:.80}"
            raise TypeError(message)
        count, key, value = owner._metadata_functions
        with owner._call as pointer:
            self._pairs = {
                _text(key, pointer, i): _text(value, pointer, i) for i in range(count(pointer))
            }
        self._pairs.update(overrides or {})

    def __getitem__(self, key: str) -> str:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return repr(self._pairs)


def _text(function: Callable[..., int], pointer: Any, index: int) -> str:
    """Return the text that *function* writes; it returns the length it would need."""
    size = function(pointer, index, ffi.NULL, 0) + 1
    buffer = ffi.new("char[]", size)
    function(pointer, index, buffer, size)
    return bytes(ffi.buffer(buffer, size - 1)).decode("utf-8", "replace")
