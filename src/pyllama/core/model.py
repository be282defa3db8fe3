"""A model: weights, vocabulary and metadata, shared by any number of contexts and threads."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal

from pyllama.core import backend
from pyllama.core.context import Context
from pyllama.core.deadline import Deadline
from pyllama.core.fingerprint import sample_weights
from pyllama.core.library import lib
from pyllama.core.loading.kv_overrides import KvOverrides
from pyllama.core.loading.model_arrays import Arrays
from pyllama.core.loading.model_save import save
from pyllama.core.loading.model_source import checked, source_of
from pyllama.core.loading.placement import model_params
from pyllama.core.loading.watch import Watch, load
from pyllama.core.model_facts import ModelFacts
from pyllama.core.vocab import Vocab
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from typing_extensions import Self, Unpack

    from pyllama.core.files.gguf_writer import MetadataValue, TensorValue
    from pyllama.core.loading.kv_overrides import Override
    from pyllama.core.params import ContextOptions, ModelOptions


class Model(ModelFacts):
    """Load a model from GGUF files; `from_arrays` builds one without any.

    Parameters
    ----------
    source
        The path of the file; for a split model that of its first part
        (``name-00001-of-00003.gguf``), or a sequence of the paths of all parts, in order, whatever
        they are called. Or a file opened with ``"rb"``, in which the GGUF data begin where it
        stands; the file object stays as it was, and may be closed afterwards.
    progress
        Called with the fraction loaded, 0.0 to 1.0. If it returns False the load is cancelled;
        what it raises is raised here.
    timeout
        Seconds that the load may take; None sets no limit. The time is looked at after each tensor.
    kv_overrides
        Metadata keys of the file, and the values that count instead: numbers, booleans, strings.
    verify
        "check": the file is held against what libllama assumes of it. "trial": the model is also
        loaded once, and computes, in a process that may die of it; the verdict is kept until the
        file changes.
    **options
        See `ModelOptions`.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the file system says.
    LoadError
        If the file is broken, is of another kind, or libllama refuses it; ``.log`` holds
        libllama's words.
    TimeoutError
        If the time was not enough; nothing is left of the model.
    TypeError, ValueError
        If an option is unknown or out of range, or *kv_overrides* does not fit the file.

    Notes
    -----
    `close` it, or use it in a ``with`` statement: the contexts made from it are closed first. The
    file must stay as it is while the model is open; it is mapped into memory.

    Calls: llama_model_load_from_file, llama_model_load_from_splits,
    llama_model_load_from_file_ptr, llama_model_free
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | BinaryIO,
        *,
        progress: Callable[[float], object] | None = None,
        timeout: float | None = None,
        kv_overrides: Mapping[str, Override] | None = None,
        verify: Literal["check", "trial"] = "check",
        **options: Unpack[ModelOptions],
    ) -> None:
        watch = Watch(progress, Deadline.after(timeout))
        origin = source_of(source)
        overrides = KvOverrides(kv_overrides or {})
        backend.init()
        params = model_params(options)
        if options.get("devices") is None:
            backend.require_gpu(options.get("n_gpu_layers"), params.main_gpu)
        headers = checked(origin, overrides, params, verify)
        free = lib.llama_model_free
        pointer = load(origin.name, params, watch, lambda: origin.load(params, watch), free)
        super().__init__(pointer, free, shared=True)
        self.path = origin.name
        self._files = tuple(origin.files)
        self._overrides = overrides.texts()
        self._tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
        self._weights_sample = sample_weights(origin.samples(headers))
        self._building = threading.Lock()  # while a context is made, or the adapters change
        self._vocab: weakref.ref[Vocab] | None = None
        self._without_weights = [n for n in ("vocab_only", "no_alloc") if getattr(params, n)]
        self._repacked = bool(params.use_extra_bufts) and not isinstance(origin, Arrays)

    @classmethod
    def from_arrays(
        cls,
        metadata: Mapping[str, MetadataValue],
        tensors: Mapping[str, TensorValue],
        **options: Any,
    ) -> Self:
        """Build a model from numpy arrays, without a file.

        Parameters
        ----------
        metadata
            What a GGUF file has: ``general.architecture``, the sizes, the tokenizer. Numpy values
            keep their type; of others, whole numbers become u32 if they fit, the rest f32.
        tensors
            Name and numbers of each: float32 or float16, the length of a row comes last; or a
            tensor type and the bytes of each row as uint8: ``("q8_0", array)``.
        **options
            Those of `Model`, without ``load_mode`` and what else concerns a file.

        Returns
        -------
        Model

        Raises
        ------
        LoadError
            As for a file; and naming tensors that are missing, have another shape, or are none of
            this architecture.
        TypeError, ValueError
            As for a file; and if something cannot be stored in GGUF.

        Notes
        -----
        The arrays are copied. What a file may leave out may be left out here too: biases, scales,
        and the output matrix where the embeddings serve for it; of other tensors, none.

        Calls: llama_model_init_from_user
        """
        return cls(Arrays(metadata, tensors), **options)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a GGUF file.

        Parameters
        ----------
        path
            Where the file appears; an older one is replaced, once the new one is complete.

        Raises
        ------
        OSError
            If it cannot be written, or the disk is full; an older file is then as it was.
        ValueError
            If *path* is a file that the model was loaded from.
        UnsupportedError
            If libllama cannot write this architecture, or repacked the weights.

        Notes
        -----
        libllama keeps what it uses: not chat templates, licence, author and the like.

        Calls: llama_model_save_to_file
        """
        save(self, path)

    def context(
        self, *, exact: bool = False, hooks: bool = True, **options: Unpack[ContextOptions]
    ) -> Context:
        """Make a context: the memory and buffers that decode tokens of this model.

        Parameters
        ----------
        exact, hooks
            See `Context`.
        **options
            See `ContextOptions`.

        Returns
        -------
        Context
        """
        return Context(self, exact=exact, hooks=hooks, **options)

    @property
    def vocab(self) -> Vocab:
        """The vocabulary: text to tokens and back."""
        # Weakly: the vocabulary holds the model, and a cycle would keep its memory until the
        # garbage collector comes by.
        vocab = None if self._vocab is None else self._vocab()
        if vocab is None:
            vocab = Vocab(self)
            self._vocab = weakref.ref(vocab)
        return vocab

    def _require_weights(self) -> None:
        """Raise where a vocabulary alone cannot do: libllama would end the process."""
        if self._without_weights:
            name = self._without_weights[0]
            message = f"{self.path} was loaded with {name}=True; load it without, to decode"
            raise UnsupportedError(message)

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.description
        return f"<Model {os.path.basename(self.path)!r}: {state}>"  # noqa: PTH119 - a name only
