"""How much memory a model and a context would take, found out without loading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.core import log
from pyllama.core.library import ffi, lib
from pyllama.core.limits import check_together
from pyllama.core.memory_needs import MemoryNeeds, memory_needs
from pyllama.core.model import Model
from pyllama.core.params import context_params
from pyllama.errors import LoadError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import BinaryIO

    from typing_extensions import Unpack

    from pyllama.core.params import ContextOptions, ModelOptions


def estimate_memory(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | BinaryIO,
    *,
    model_options: ModelOptions | None = None,
    **options: Unpack[ContextOptions],
) -> dict[str, MemoryNeeds]:
    """Return the memory that a model and one context would take, without loading weights.

    Parameters
    ----------
    source
        As for `Model`.
    model_options
        The options that the model would be loaded with.
    **options
        Those of the context, see `ContextOptions`.

    Returns
    -------
    dict of str to MemoryNeeds
        By the name of the device.

    Raises
    ------
    LoadError, OSError, TypeError, ValueError, UnsupportedError
        As for `Model` and `Context`.

    Notes
    -----
    A mapped model takes main memory only as far as it is in use, and shares it with the file
    cache. `Context.memory_needs` says the same of a context that exists, and counts the whole of
    what is mapped, also where the processor has a copy of its own of some weights.

    Calls: llama_init_from_model, pyllama_memory_uses, llama_free
    """
    chosen = dict(model_options or {})
    with Model(source, no_alloc=True, **chosen) as model:  # type: ignore[arg-type]
        params = context_params(options)
        check_together(model, params, allocates=False)
        since = log.mark()
        with model._call as pointer, model._building:
            context = lib.llama_init_from_model(pointer, params)
            if context == ffi.NULL:
                message = "libllama could not lay out this context"
                raise LoadError(message, log.complaints(since))
            try:
                return memory_needs(context)
            finally:
                lib.llama_free(context)
