"""What a model says of itself: metadata, sizes, kinds."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import FType, RopeType
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyllama.core.files.gguf import TensorInfo


class ModelFacts(Handle):
    """The part of `Model` that says what it is."""

    _tensors: Mapping[str, TensorInfo]
    _overrides: Mapping[str, str]
    _metadata_functions = (
        lib.llama_model_meta_count,
        lib.llama_model_meta_key_by_index,
        lib.llama_model_meta_val_str_by_index,
    )

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
            message = f"the name of a template must be a string, not {name!r:.80}"
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
