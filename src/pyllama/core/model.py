"""A model: weights, vocabulary and metadata, shared by any number of contexts and threads."""

from __future__ import annotations

import os
import threading
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyllama.core import backend, log
from pyllama.core.context import Context
from pyllama.core.enums import FType, RopeType
from pyllama.core.fingerprint import sample_weights
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.metadata import Metadata
from pyllama.core.model_file import check_model
from pyllama.core.params import MODEL_CHECKS, ModelOptions, fill
from pyllama.core.vocab import Vocab
from pyllama.errors import LoadError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from pyllama.core.params import ContextOptions


class Model(Handle):
    """Load a model from a GGUF file.

    Parameters
    ----------
    path
        The file; for a split model its first part (``name-00001-of-00003.gguf``).
    progress
        Called with the fraction loaded, 0.0 to 1.0. If it returns False the load is cancelled;
        what it raises is raised here.
    **options
        See `ModelOptions`.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the file system says.
    LoadError
        If the file is broken, is of another kind, or libllama refuses it; ``.log`` holds
        libllama's words.
    TypeError, ValueError
        If an option is unknown or out of range.

    Notes
    -----
    `close` it, or use it in a ``with`` statement: the contexts made from it are closed first. The
    file must stay as it is while the model is open; it is mapped into memory.

    Calls: llama_model_load_from_file, llama_model_free
    """

    _metadata_functions = (
        lib.llama_model_meta_count,
        lib.llama_model_meta_key_by_index,
        lib.llama_model_meta_val_str_by_index,
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[float], object] | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        path = os.fspath(path)
        backend.init()
        params = lib.llama_model_default_params()
        fill(params, options, MODEL_CHECKS)
        backend.require_gpu(options.get("n_gpu_layers"), params.main_gpu)
        headers = check_model(path)
        super().__init__(_load(path, params, progress), lib.llama_model_free, shared=True)
        self.path = path
        self._tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
        self._weights_sample = sample_weights(headers)
        self._building = threading.Lock()  # while a context is made, or the adapters change
        self._vocab: weakref.ref[Vocab] | None = None
        self._vocab_only = bool(params.vocab_only)

    def context(self, *, exact: bool = False, **options: Unpack[ContextOptions]) -> Context:
        """Make a context: the memory and buffers that decode tokens of this model.

        Parameters
        ----------
        exact
            See `Context`.
        **options
            See `ContextOptions`.

        Returns
        -------
        Context
        """
        return Context(self, exact=exact, **options)

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

    @cached_property
    def metadata(self) -> Metadata:
        """The file's metadata, a read-only mapping of str to str; arrays are not in it."""
        return Metadata(self)

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
        with self._call as pointer:
            text = lib.llama_model_chat_template(
                pointer, ffi.NULL if name is None else name.encode()
            )
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
        if self._vocab_only:
            message = f"{self.path} was loaded with vocab_only=True; load it without, to decode"
            raise UnsupportedError(message)

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.description
        return f"<Model {os.path.basename(self.path)!r}: {state}>"  # noqa: PTH119 - a name only


class _Progress:
    """A Python progress callback, and what it raised, carried through C's ``user_data``."""

    def __init__(self, function: Callable[[float], object]) -> None:
        self.function = function
        self.error: BaseException | None = None
        self.cancelled = False
        self.user_data = ffi.new_handle(self)  # valid while this object lives

    def __call__(self, fraction: float) -> bool:
        try:
            self.cancelled = self.function(fraction) is False
        except BaseException as error:  # noqa: BLE001 - a C frame is below us
            self.error = error
        return not self.cancelled and self.error is None


@ffi.def_extern()
def pyllama_progress(progress: float, user_data: Any) -> bool:
    """See ``llama_progress_callback``: False stops the load."""
    return bool(ffi.from_handle(user_data)(progress))


def _load(path: str, params: Any, progress: Callable[[float], object] | None) -> Any:
    """Return a ``llama_model *``, or raise what went wrong."""
    callback = None if progress is None else _Progress(progress)
    if callback is not None:
        params.progress_callback = lib.pyllama_progress
        params.progress_callback_user_data = callback.user_data
    since = log.mark()
    pointer = lib.llama_model_load_from_file(os.fsencode(path), params)
    log.drain()
    if callback is not None and callback.error is not None:
        if pointer != ffi.NULL:
            lib.llama_model_free(pointer)
        raise callback.error
    if pointer == ffi.NULL:
        cancelled = callback is not None and callback.cancelled
        what = "the load was cancelled by its progress callback" if cancelled else "not loaded"
        raise LoadError(f"{path}: {what}", () if cancelled else log.complaints(since))
    return pointer
