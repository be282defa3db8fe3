"""A model: weights, vocabulary and metadata, shared by any number of contexts and threads."""

from __future__ import annotations

import os
import threading
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pyllama.core import backend
from pyllama.core.context import Context
from pyllama.core.deadline import Deadline
from pyllama.core.enums import FType, RopeType
from pyllama.core.fingerprint import sample_weights
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.loading.kv_overrides import KvOverrides
from pyllama.core.loading.model_arrays import Arrays
from pyllama.core.loading.model_save import save
from pyllama.core.loading.model_source import checked, source_of
from pyllama.core.loading.placement import model_params
from pyllama.core.loading.watch import Watch, load
from pyllama.core.metadata import Metadata
from pyllama.core.vocab import Vocab
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from typing_extensions import Self, Unpack

    from pyllama.core.files.gguf_writer import MetadataValue, TensorValue
    from pyllama.core.loading.kv_overrides import Override
    from pyllama.core.params import ContextOptions, ModelOptions


class Model(Handle):
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

    _metadata_functions = (
        lib.llama_model_meta_count,
        lib.llama_model_meta_key_by_index,
        lib.llama_model_meta_val_str_by_index,
    )

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
        super().__init__(load(origin, params, watch), lib.llama_model_free, shared=True)
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

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, a read-only mapping of str to str; arrays are not in it."""
        self._record.require_usable()
        return self._metadata

    @cached_property
    def _metadata(self) -> Metadata:
        return Metadata(self, self._overrides)

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the Jinja source of a chat template.

        Parameters
        ----------
        name
            Which of several ("tool_use"); None is the default one.

        Returns
        -------
        str or None
            None if the file has no such template.

        Raises
        ------
        TypeError
            If *name* is no string.

        Calls: llama_model_chat_template
        """
        if name is not None and not isinstance(name, str):
            message = f"the name of a template must be a string, not {name!r}"
            raise TypeError(message)
        key = ffi.NULL if name is None else name.encode()
        with self._call as pointer:
            text = lib.llama_model_chat_template(pointer, key)
            return None if text == ffi.NULL else ffi.string(text).decode("utf-8", "replace")

    def _ask(self, function: Callable[[Any], Any]) -> Any:
        with self._call as pointer:
            return function(pointer)

    @property
    def n_params(self) -> int:
        """Number of weights."""
        return int(self._ask(lib.llama_model_n_params))

    @property
    def n_bytes(self) -> int:
        """Size of all tensors, in bytes."""
        return int(self._ask(lib.llama_model_size))

    @property
    def n_ctx_train(self) -> int:
        """Tokens of context the model was trained with."""
        return int(self._ask(lib.llama_model_n_ctx_train))

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary; the width of a row of logits."""
        with self._call as pointer:
            return int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(pointer)))

    @property
    def n_embd(self) -> int:
        """Width of the hidden state."""
        return int(self._ask(lib.llama_model_n_embd))

    @property
    def n_embd_inp(self) -> int:
        """Width of an embedding given as input."""
        return int(self._ask(lib.llama_model_n_embd_inp))

    @property
    def n_embd_out(self) -> int:
        """Width of an embedding that comes out."""
        return int(self._ask(lib.llama_model_n_embd_out))

    @property
    def n_layer(self) -> int:
        """Number of layers."""
        return int(self._ask(lib.llama_model_n_layer))

    @property
    def n_layer_nextn(self) -> int:
        """Number of multi-token-prediction layers."""
        return int(self._ask(lib.llama_model_n_layer_nextn))

    @property
    def n_head(self) -> int:
        """Number of attention heads."""
        return int(self._ask(lib.llama_model_n_head))

    @property
    def n_head_kv(self) -> int:
        """Number of heads that keys and values have."""
        return int(self._ask(lib.llama_model_n_head_kv))

    @property
    def n_swa(self) -> int:
        """Width of the sliding attention window, in tokens; 0 without one."""
        return int(self._ask(lib.llama_model_n_swa))

    @property
    def n_cls_out(self) -> int:
        """Number of classifier outputs; 0 if the model is no classifier."""
        return int(self._ask(lib.llama_model_n_cls_out)) if self._is_classifier else 0

    @property
    def cls_labels(self) -> tuple[str | None, ...]:
        """The label of each classifier output, None where it has none."""
        with self._call as pointer:
            labels = [lib.llama_model_cls_label(pointer, i) for i in range(self.n_cls_out)]
            return tuple(
                None if label == ffi.NULL else ffi.string(label).decode() for label in labels
            )

    @property
    def _is_classifier(self) -> bool:
        return any(name.startswith("cls.") for name in self._tensors)

    @property
    def description(self) -> str:
        """Architecture, size and tensor type in a few words."""
        buffer = ffi.new("char[256]")
        self._ask(lambda pointer: lib.llama_model_desc(pointer, buffer, len(buffer)))
        return str(ffi.string(buffer).decode("utf-8", "replace"))

    @property
    def architecture(self) -> str:
        """What ``general.architecture`` says: llama, qwen2, bert, ..."""
        return self.metadata["general.architecture"]

    @property
    def ftype(self) -> FType:
        """What mix of tensor types the file mostly holds."""
        return FType(self._ask(lib.llama_model_ftype))

    @property
    def rope_type(self) -> RopeType:
        """How positions are rotated into queries and keys."""
        return RopeType(self._ask(lib.llama_model_rope_type))

    @property
    def rope_freq_scale_train(self) -> float:
        """The RoPE frequency scaling factor of training."""
        return float(self._ask(lib.llama_model_rope_freq_scale_train))

    @property
    def has_encoder(self) -> bool:
        """Whether `Context.encode` must come before decoding."""
        return bool(self._ask(lib.llama_model_has_encoder))

    @property
    def has_decoder(self) -> bool:
        """Whether the model can generate."""
        return bool(self._ask(lib.llama_model_has_decoder))

    @property
    def decoder_start_token(self) -> int | None:
        """The token an encoder-decoder model begins its output with."""
        token = int(self._ask(lib.llama_model_decoder_start_token))
        return None if token < 0 else token

    @property
    def is_recurrent(self) -> bool:
        """Whether the memory is a state (Mamba, RWKV) instead of keys and values."""
        return bool(self._ask(lib.llama_model_is_recurrent))

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers attend and others are recurrent."""
        return bool(self._ask(lib.llama_model_is_hybrid))

    @property
    def is_diffusion(self) -> bool:
        """Whether the model denoises whole passages instead of predicting the next token."""
        return bool(self._ask(lib.llama_model_is_diffusion))

    def _require_weights(self) -> None:
        """Raise where a vocabulary alone cannot do: libllama would end the process."""
        if self._without_weights:
            name = self._without_weights[0]
            message = f"{self.path} was loaded with {name}=True; load it without, to decode"
            raise UnsupportedError(message)

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.description
        return f"<Model {os.path.basename(self.path)!r}: {state}>"  # noqa: PTH119 - a name only
