"""Training: a model's own weights, changed by gradient descent on a text.

libllama trains with a context of its own kind: no flash attention, keys and values in f32, the
whole window in one batch. `Training` makes that context itself, so nobody can make it wrongly. C
gets one window at a time; what lies between, the learning rate, the callback and stopping, is
Python, and an exception there leaves whole steps behind it.
"""

from __future__ import annotations

import math
import secrets
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyllama.core.enums import FlashAttnType, GGMLType
from pyllama.core.library import ffi, lib
from pyllama.core.params import whole
from pyllama.core.training.dataset import Dataset
from pyllama.core.training.rules import (
    OPTIMIZERS,
    Filter,
    above_zero,
    choose,
    numbers,
    require_trainable,
    sizes,
    writable,
)
from pyllama.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from typing_extensions import Self

    from pyllama.core.model import Model

_making = threading.Lock()


@dataclass(frozen=True)
class TrainingResult:
    """What came of the windows that were trained on, or evaluated, in an epoch.

    Attributes
    ----------
    n_tokens : int
        Predictions made; 0 if there was no window.
    loss, loss_uncertainty : float
        Mean cross entropy in nats, and its standard error; nan if it cannot be told.
    accuracy, accuracy_uncertainty : float
        The share of tokens whose most probable successor was the right one, and its standard
        error; nan if it cannot be told.
    predictions : ndarray of int32, shape (n_tokens,)
        The most probable successor of each token, window after window.
    """

    n_tokens: int
    loss: float
    loss_uncertainty: float
    accuracy: float
    accuracy_uncertainty: float
    predictions: NDArray[np.int32]


class TrainingStep(NamedTuple):
    """Where an epoch stands, for its callback.

    Attributes
    ----------
    trained : bool
        Whether the model learnt from the last window, or was only evaluated on it.
    n_done, n_windows : int
        Windows behind, and all of them.
    loss : float
        Mean cross entropy of this epoch so far, in nats.
    """

    trained: bool
    n_done: int
    n_windows: int
    loss: float


class Training:
    """Train a model: its weights change in place, in small steps against the loss on a text.

    Parameters
    ----------
    model
        All of its tensors in f32, and loaded with ``load_mode="none"``: weights that are mapped
        from the file cannot be written.
    n_ctx
        Tokens of a window, a multiple of 256.
    n_ubatch
        Tokens computed at a time; None is *n_ctx*. Less takes less memory, but then the matrices
        of keys and values learn nothing: gradients do not pass through the memory.
    optimizer
        "adamw" or "sgd".
    param_filter
        Called with the name of each tensor; those it returns True for learn. None: all of them.
        The token embeddings never learn: libllama leaves them out.
    learning_rate
        Above 0; or a function of the number of steps taken before, that returns it. Left out:
        0.001. One window is one step.
    weight_decay
        0 to 1.
    beta1, beta2
        Of "adamw": how long the moments of a gradient last, 0 to 1 (not included).
    eps
        Of "adamw": above 0.
    n_threads
        As for `Context`.

    Raises
    ------
    TypeError, ValueError
        If an argument is none, or out of range.
    UnsupportedError
        If the model is of an architecture that was not seen to learn, is not all f32, or lies in
        memory that cannot be written.
    StateError
        If the model is in training already.
    MemoryError
        If the optimizer would take more memory than there is.

    Notes
    -----
    Every context of the model computes with the new weights at once; what their memories hold was
    computed with the old ones: clear them. `Model.n_ctx_train` is *n_ctx* from now on; libllama
    sets it.

    Calls: llama_opt_init, ggml_opt_dataset_init, ggml_opt_get_default_optimizer_params
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_ubatch: int | None = None,
        optimizer: str = "adamw",
        param_filter: Callable[[str], object] | None = None,
        learning_rate: float | Callable[[int], float] | None = None,
        weight_decay: float | None = None,
        beta1: float | None = None,
        beta2: float | None = None,
        eps: float | None = None,
        n_threads: int | None = None,
    ) -> None:
        self._n_ctx, n_ubatch = sizes(n_ctx, n_ubatch)
        if optimizer not in OPTIMIZERS:
            message = f"optimizer={optimizer!r:.80} is not one of: {', '.join(OPTIMIZERS)}"
            raise ValueError(message)
        own = {"weight_decay": weight_decay, "beta1": beta1, "beta2": beta2, "eps": eps}
        self._numbers = numbers(optimizer, own)
        self._rate = learning_rate
        self._n_steps = 0
        self._set_rate()  # as soon as now, an error loses nothing
        require_trainable(model, self._n_ctx, n_adamw=2 if optimizer == "adamw" else 0)
        names = choose(writable(model), param_filter)
        with _making:
            if any(child.kind == "Training" for child in model._record.children.copy()):
                message = "this model is in training already: close the other Training first"
                raise StateError(message, expected="no Training", actual="one that is open")
            self._context = model.context(
                n_ctx=self._n_ctx,
                n_batch=self._n_ctx,
                n_ubatch=n_ubatch,
                type_k=GGMLType.F32,
                type_v=GGMLType.F32,
                flash_attn_type=FlashAttnType.DISABLED,
                n_threads=n_threads,
                n_threads_batch=n_threads,
            )
            self._context._record.kind = "Training"  # what its errors call it
        self.model = model
        self._names = names
        self._window = _new_window(self._n_ctx)
        try:
            self._begin(OPTIMIZERS[optimizer])
        except BaseException:
            self.close()
            raise

    def _begin(self, optimizer: int) -> None:
        wanted = ffi.new_handle(Filter(self._names))
        params = ffi.new("struct llama_opt_params *")
        params.param_filter = lib.pyllama_trains
        params.param_filter_ud = wanted
        params.get_opt_pars = ffi.addressof(lib, "ggml_opt_get_constant_optimizer_params")
        params.get_opt_pars_ud = self._numbers
        params.optimizer_type = optimizer
        with self.model._call as model, self._context._call as pointer:
            lib.llama_opt_init(pointer, model, params[0])

    def epoch(
        self,
        dataset: Dataset,
        *,
        split: int | None = None,
        on_step: Callable[[TrainingStep], object] | None = None,
    ) -> tuple[TrainingResult, TrainingResult]:
        """Go once through a text: learn from its first windows, evaluate the rest.

        Parameters
        ----------
        dataset
            With the `n_ctx` of this training.
        split
            How many windows to learn from; None is all, 0 only evaluates.
        on_step
            Called after each window. If it returns False the epoch ends there; what it raises is
            raised here. It may use the model and its contexts.

        Returns
        -------
        tuple of TrainingResult
            Of the windows trained on, and of those evaluated.

        Raises
        ------
        TypeError, ValueError
            If an argument is none, a token is not in the vocabulary, the window is another, or
            the learning rate is not above 0.
        ClosedError
            If the training was closed, or its model.
        BusyError
            If another context of the model is in a call; what was learnt until then stays.
        StateError
            If a context with YaRN was made meanwhile: it changes the window in the model.
        FloatingPointError
            If the loss is no number any more: the weights are spoilt, the learning rate was too
            high.

        Notes
        -----
        The weights change with each window. Whatever ends an epoch early, ``KeyboardInterrupt``
        too, leaves the steps before it; libllama cannot stop inside of a window.

        Calls: llama_opt_epoch, ggml_opt_result_init, ggml_opt_result_free
        """
        split = self._check(dataset, split)
        results = [ffi.gc(lib.ggml_opt_result_init(), lib.ggml_opt_result_free) for _ in range(2)]
        for index, (tokens, labels) in enumerate(dataset):
            trains = index < split
            if trains:
                self._set_rate()
            self._compute(tokens, labels, results, trains=trains)
            loss = _pair(lib.ggml_opt_result_loss, results[not trains])[0]
            if not math.isfinite(loss):
                message = (
                    f"the loss is {loss} in window {index}: the weights are spoilt; load the model "
                    "again, and train with a lower learning_rate"
                )
                raise FloatingPointError(message)
            if on_step is not None:
                step = TrainingStep(trains, index + 1, len(dataset), loss)
                if on_step(step) is False:
                    break
        return _read(results[0]), _read(results[1])

    def _check(self, dataset: Dataset, split: int | None) -> int:
        """Return the number of windows to learn from, if libllama can take them all."""
        if not isinstance(dataset, Dataset):
            message = f"a Dataset is needed, not {dataset!r:.80}: pyllama.Dataset(tokens, n_ctx)"
            raise TypeError(message)
        if dataset.n_ctx != self._n_ctx:
            message = f"the dataset has n_ctx={dataset.n_ctx}, but this training {self._n_ctx}"
            raise ValueError(message)
        low, high = int(dataset._tokens.min()), int(dataset._tokens.max())
        n_vocab = self.model.n_vocab
        if low < 0 or high >= n_vocab:
            message = (
                f"the tokens go from {low} to {high}, but the vocabulary from 0 to {n_vocab} "
                "(not included)"
            )
            raise ValueError(message)
        return len(dataset) if split is None else whole(0, len(dataset))("split", split)

    def _set_rate(self) -> None:
        """Ask for the learning rate of the next step, and put it where C reads it."""
        if self._rate is not None:
            rate = self._rate(self._n_steps) if callable(self._rate) else self._rate
            rate = above_zero("learning_rate", rate)
            self._numbers.adamw.alpha = self._numbers.sgd.alpha = rate

    def _compute(
        self,
        tokens: NDArray[np.int32],
        labels: NDArray[np.int32],
        results: list[Any],
        *,
        trains: bool,
    ) -> None:
        """Let libllama take one window, while no other context computes with the weights."""
        with ExitStack() as stack:
            model = stack.enter_context(self.model._call)
            pointer = stack.enter_context(self._context._call)
            for record in self.model._record.children.copy():
                if record.kind == "Context":
                    record.enter(shared=False)
                    stack.callback(record.leave)
            n_ctx = lib.llama_model_n_ctx_train(model)
            if n_ctx != self._n_ctx:  # opt_epoch_iter takes it for the length of our window
                message = (
                    f"the model's n_ctx_train is {n_ctx} now, not {self._n_ctx}: a context made "
                    "with YaRN changed it; make the Training again"
                )
                raise StateError(message, expected=str(self._n_ctx), actual=str(n_ctx))
            if trains:  # states saved before fit no longer; nor do those of half-learnt weights
                self.model._weights_sample = secrets.token_hex(32)
                self._n_steps += 1
            _store(lib.ggml_opt_dataset_data(self._window), tokens)
            _store(lib.ggml_opt_dataset_labels(self._window), labels)
            lib.llama_opt_epoch(pointer, self._window, *results, int(trains), ffi.NULL, ffi.NULL)

    @property
    def n_ctx(self) -> int:
        """Tokens of a window."""
        return self._n_ctx

    @property
    def n_steps(self) -> int:
        """Steps taken: windows learnt from."""
        return self._n_steps

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors that learn."""
        return self._names

    @property
    def closed(self) -> bool:
        """Whether the C objects are gone."""
        return self._context.closed

    def close(self) -> None:
        """Free what the optimizer remembers; the model keeps what it learnt. Twice is allowed.

        Raises
        ------
        BusyError
            If another thread is inside of `epoch`.
        """
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._names)} tensors, {self.n_steps} steps"
        return f"<Training of {self.model!r}: {state}>"


def _new_window(n_ctx: int) -> Any:
    """Return a ``ggml_opt_dataset_t`` with room for one window: each call gets one."""
    kind = lib.GGML_TYPE_I32
    window = lib.ggml_opt_dataset_init(kind, kind, n_ctx, n_ctx, 1, 1)
    return ffi.gc(window, lib.ggml_opt_dataset_free)


def _store(tensor: Any, values: NDArray[np.int32]) -> None:
    ffi.memmove(lib.ggml_get_data(tensor), np.ascontiguousarray(values), values.nbytes)


def _pair(function: Callable[[Any, Any, Any], None], result: Any) -> tuple[float, float]:
    """Return a value and its uncertainty."""
    numbers = ffi.new("double[2]")
    function(result, numbers, numbers + 1)
    return numbers[0], numbers[1]


def _read(result: Any) -> TrainingResult:
    """Copy a ``ggml_opt_result``."""
    n_tokens = ffi.new("int64_t *")
    lib.ggml_opt_result_ndata(result, n_tokens)
    if n_tokens[0] == 0:  # C says 0 for the loss
        nothing = np.zeros(0, np.int32)
        return TrainingResult(0, math.nan, math.nan, math.nan, math.nan, nothing)
    predictions = np.zeros(n_tokens[0], np.int32)
    lib.ggml_opt_result_pred(result, ffi.from_buffer("int32_t[]", predictions))
    loss = _pair(lib.ggml_opt_result_loss, result)
    accuracy = _pair(lib.ggml_opt_result_accuracy, result)
    return TrainingResult(n_tokens[0], *loss, *accuracy, predictions)
