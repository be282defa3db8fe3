"""A LoRA adapter: small changes to a model's weights, which a context adds while it computes."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pyllama.core import log
from pyllama.core.files.adapter_rules import check_adapter
from pyllama.core.files.gguf import read_header
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.metadata import Metadata
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyllama.core.adapted import Adapted
    from pyllama.core.model import Model


class Adapter(Handle):
    """Load a LoRA adapter from a GGUF file; `Context.set_adapters` then applies it.

    Parameters
    ----------
    model
        The model it was made for; the adapter is closed with it.
    path
        The file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the file system says.
    LoadError
        If the file is broken, is no LoRA, or libllama refuses it; ``.log`` holds libllama's words.
    AdapterError
        If the adapter was made for another model.
    BusyError
        If a context of the model is in a call.
    TypeError
        If *model* is no Model.
    UnsupportedError
        If the model has no weights.

    Notes
    -----
    Any number of contexts may use it at once. One that is dropped without `close` stays in memory
    until its model is closed: it cannot be freed while a context of the model may compute.

    Calls: llama_adapter_lora_init, llama_adapter_lora_free
    """

    _metadata_functions = (
        lib.llama_adapter_meta_count,
        lib.llama_adapter_meta_key_by_index,
        lib.llama_adapter_meta_val_str_by_index,
    )

    def __init__(self, model: Model, path: str | os.PathLike[str]) -> None:
        if not isinstance(model, Handle) or not hasattr(model, "_require_weights"):
            message = f"an Adapter is loaded for a Model, not for {model!r:.80}"
            raise TypeError(message)
        path = os.fspath(path)
        model._require_weights()
        check_adapter(model, read_header(path))
        since = log.mark()
        with _still(model) as model_pointer:
            pointer = lib.llama_adapter_lora_init(model_pointer, os.fsencode(path))
            if pointer == ffi.NULL:
                raise LoadError(f"{path}: the adapter was not loaded", log.complaints(since))
            super().__init__(pointer, lib.llama_adapter_lora_free, model, shared=True)
        self.model = model
        self.path = path
        self._contexts: WeakSet[Adapted] = WeakSet()  # those it is set on

    @cached_property
    def metadata(self) -> Metadata:
        """The file's metadata, a read-only mapping of str to str; arrays are not in it."""
        return Metadata(self)

    @property
    def alora_invocation_tokens(self) -> tuple[int, ...]:
        """The tokens after which an activated LoRA (aLoRA) is meant to be switched on, or ()."""
        with self._call as pointer:
            count = lib.llama_adapter_get_alora_n_invocation_tokens(pointer)
            tokens = lib.llama_adapter_get_alora_invocation_tokens(pointer)
            return tuple(ffi.unpack(tokens, count)) if count else ()

    def close(self) -> None:
        """Free the adapter now, after it is taken off every context. Closing twice is allowed.

        Raises
        ------
        BusyError
            If a context of the model is in a call; nothing happened.

        Calls: llama_set_adapters_lora, llama_adapter_lora_free
        """
        if self.closed or self._record.process.forked:
            super().close()
            return
        with _still(self.model):
            for context in tuple(self._contexts):
                context._drop_adapter(self)
            super().close()

    def __del__(self) -> None:
        """Leave the freeing to the model: a finaliser cannot wait until no context computes."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"for {self.model!r}"
        return f"<Adapter {os.path.basename(self.path)!r}: {state}>"  # noqa: PTH119 - a name only


@contextmanager
def _still(model: Model) -> Iterator[Any]:
    """Keep the contexts of a model out of C, and new ones from being made; lend its pointer.

    Its list of adapters is about to change, which a context reads when it lays out its graph
    (src/llama-context.cpp:2423).
    """
    with ExitStack() as stack:
        pointer = stack.enter_context(model._call)
        stack.enter_context(model._building)
        for record in tuple(model._record.children):
            if record.free is lib.llama_free:
                record.enter(shared=False)
                stack.callback(record.leave)
        yield pointer
