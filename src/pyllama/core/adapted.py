"""The part of a context that changes what its model computes: adapters and a control vector."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core import log
from pyllama.core.adapter import Adapter
from pyllama.core.library import ffi, lib
from pyllama.core.outputs import Outputs
from pyllama.core.params import real, whole
from pyllama.errors import AdapterError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_scale = real()


class Adapted(Outputs):
    """The part of `Context` that changes what its model computes.

    What the memory holds was computed with the settings of its time. It stays, and tokens decoded
    from now on attend to it; clear the memory and decode the prompt again where that matters
    (`pyllama.generate` does so by itself).
    """

    _adapters: dict[Adapter, float]
    _edits: list[int]

    @property
    def adapters(self) -> dict[Adapter, float]:
        """The adapters that are set, with their scales; a copy."""
        return dict(self._adapters)

    def set_adapters(self, adapters: Mapping[Adapter, float]) -> None:
        """Compute with these LoRA adapters from now on, and with no others.

        Parameters
        ----------
        adapters
            Adapters of this context's model, and the scale of each: 1.0 adds it as it was trained,
            0.0 adds nothing. An empty mapping takes all off.

        Raises
        ------
        AdapterError
            If an adapter belongs to another model.
        ClosedError
            If an adapter is closed.
        TypeError, ValueError
            If it is no mapping of adapters to finite float32 numbers.

        Notes
        -----
        The context keeps its adapters from being garbage collected. The logits of the last
        `decode` are gone; the memory stays, though it was computed with other adapters.

        Calls: llama_set_adapters_lora, llama_synchronize
        """
        if not isinstance(adapters, Mapping):
            message = f"adapters must be a mapping of Adapter to scale, not {adapters!r:.80}"
            raise TypeError(message)
        wanted = {each: self._check_adapter(each, scale) for each, scale in adapters.items()}
        with ExitStack() as stack:
            stack.enter_context(self._call)
            for adapter in wanted:
                stack.enter_context(adapter._call)
            self._set_adapters(wanted)

    def _check_adapter(self, adapter: Adapter, scale: float) -> float:
        if not isinstance(adapter, Adapter):
            message = f"an Adapter is needed, not {adapter!r:.80}"
            raise TypeError(message)
        if adapter.model is not self.model:  # else the next decode ends the process: ggml.c:3354
            message = f"{adapter!r} was loaded for another Model object than this context's"
            raise AdapterError(message)
        return float(_scale("scale", scale))

    def _drop_adapter(self, adapter: Adapter) -> None:
        """Compute without *adapter*, which is being closed; nothing is in C now, nor enters it."""
        if not self._record.usable:
            return  # it will not compute again
        self._set_adapters({a: scale for a, scale in self._adapters.items() if a is not adapter})

    def _set_adapters(self, wanted: dict[Adapter, float]) -> None:
        """Hand *wanted* to libllama; the caller is alone in this context."""
        pointer = self._record.pointer
        lib.llama_synchronize(pointer)  # a device may still be reading the old ones
        pointers = ffi.new("struct llama_adapter_lora *[]", [a._record.pointer for a in wanted])
        scales = ffi.new("float[]", list(wanted.values()))
        lib.llama_set_adapters_lora(pointer, pointers, len(wanted), scales)
        for adapter in self._adapters.keys() - wanted.keys():
            adapter._contexts.discard(self)
        for adapter in wanted:
            adapter._contexts.add(self)
        self._adapters = wanted
        self._computes_otherwise()

    def _computes_otherwise(self) -> None:
        """Withdraw the last logits, and tell whoever remembers the memory not to rely on it."""
        self._n_outputs = 0
        self._edited()

    def _edited(self, seq: int | None = None) -> None:
        """Note that the memory of *seq*, or of every sequence, is not what it was."""
        for each in range(len(self._edits)) if seq is None else (seq,):
            self._edits[each] += 1

    def set_control_vector(
        self, vector: ArrayLike | None, *, layers: tuple[int, int] | None = None
    ) -> None:
        """Add a vector to what each layer puts out, from now on.

        Parameters
        ----------
        vector
            Numbers of shape (n_layer - 1, n_embd); row *i* belongs to layer *i* + 1, as layer 0
            takes none. None takes the vector off.
        layers
            The layers to apply it to, half-open: (start, end) with 1 <= start < end <= n_layer.
            Left out, all of them.

        Raises
        ------
        TypeError, ValueError
            If the shape or the range does not fit, or a number is not finite.
        UnsupportedError
            If the model has one layer only.
        AdapterError
            If libllama refuses it.

        Notes
        -----
        libllama copies the numbers. The logits of the last `decode` are gone; the memory stays.
        Which models apply a control vector is up to llama.cpp: most that generate text do.

        Calls: llama_set_adapter_cvec, llama_synchronize
        """
        if vector is None:
            if layers is not None:
                message = "layers says where a vector goes, but vector is None"
                raise ValueError(message)
            with self._call as pointer:
                lib.llama_synchronize(pointer)
                lib.llama_set_adapter_cvec(pointer, ffi.NULL, 0, 0, 0, 0)
                self._computes_otherwise()
            return
        n_layer, n_embd = self.model.n_layer, self.model.n_embd
        rows = _rows(vector, n_layer, n_embd)
        start, end = _layer_range(layers, n_layer)
        since = log.mark()
        with self._call as pointer:
            lib.llama_synchronize(pointer)
            data = ffi.from_buffer("float[]", rows)
            code = lib.llama_set_adapter_cvec(pointer, data, rows.size, n_embd, start, end - 1)
            self._computes_otherwise()
        if code:
            words = "; ".join(log.complaints(since))
            message = f"libllama refused the control vector: {words}"
            raise AdapterError(message)


def _rows(vector: ArrayLike, n_layer: int, n_embd: int) -> NDArray[np.float32]:
    """Return *vector* as C reads it; libllama skips what is short, and reads past what is not."""
    if n_layer < 2:
        message = "a control vector begins at layer 1, and this model has layer 0 only"
        raise UnsupportedError(message)
    array = np.asarray(vector)
    if array.dtype.kind not in "fiu":
        message = f"a control vector is made of numbers, not {array.dtype}"
        raise TypeError(message)
    if array.shape != (n_layer - 1, n_embd):
        message = (
            f"the control vector has the shape {array.shape}, but this model takes "
            f"{(n_layer - 1, n_embd)}: (n_layer - 1, n_embd)"
        )
        raise ValueError(message)
    with np.errstate(over="ignore"):
        rows = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(rows).all():
        layer = int(np.argwhere(~np.isfinite(rows))[0][0]) + 1
        message = f"the control vector of layer {layer} holds a value that is not a finite float32"
        raise ValueError(message)
    return rows


def _layer_range(layers: tuple[int, int] | None, n_layer: int) -> tuple[int, int]:
    if layers is None:
        return 1, n_layer
    if not isinstance(layers, tuple) or len(layers) != 2:
        message = f"layers must be a pair (start, end), not {layers!r:.80}"
        raise TypeError(message)
    start = int(whole(1, n_layer - 1)("layers[0]", layers[0]))
    return start, int(whole(start + 1, n_layer)("layers[1]", layers[1]))
