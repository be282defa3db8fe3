"""What libllama assumes of a training, looked at before it gets one: it asserts, or writes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.backend import text
from pyllama.core.enums import GGMLType
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.limits import available_bytes
from pyllama.core.params import MAX_CONTEXT, real, whole
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.model import Model

# Seen to learn. Of the others many use an operation that ggml cannot differentiate: experts,
# GELU, SSM scans (ggml.c, ggml_compute_backward); without a memory libllama follows a NULL.
ARCHITECTURES = frozenset(
    "llama qwen2 qwen3 mistral3 smollm3 internlm2 exaone baichuan ernie4_5 deci".split()
)
OPTIMIZERS = {
    "adamw": lib.GGML_OPT_OPTIMIZER_TYPE_ADAMW,
    "sgd": lib.GGML_OPT_OPTIMIZER_TYPE_SGD,
}
# libllama never trains these, whatever the filter says (llama-context.cpp:3521, llama_set_param).
FROZEN = frozenset(["token_embd.weight", "rope_freqs.weight"])

_share = real(0, 1)


class Filter:
    """What to answer when libllama asks whether a tensor learns.

    Parameters
    ----------
    names
        The tensors that do; None only looks which there are.
    """

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self.names = names
        self.seen: dict[str, str] = {}  # which tensors there are, and in what buffer each lies

    def __call__(self, tensor: Any) -> bool:
        """Answer for a ``ggml_tensor *``."""
        name = text(tensor.name)
        self.seen[name] = text(lib.ggml_backend_buffer_name(tensor.buffer))
        if self.names is None:
            return False
        tensor.flags &= ~lib.GGML_TENSOR_FLAG_PARAM  # left by an earlier training of this model
        return name in self.names


@ffi.def_extern()
def pyllama_trains(tensor: Any, user_data: Any) -> bool:
    """See ``llama_opt_param_filter``: whether a tensor learns."""
    return bool(ffi.from_handle(user_data)(tensor))


def sizes(n_ctx: int, n_ubatch: int | None) -> tuple[int, int]:
    """Return the window and the micro-batch, checked."""
    n_ctx = whole(256, MAX_CONTEXT)("n_ctx", n_ctx)
    if n_ctx % 256:  # llama_context rounds up to it
        message = f"n_ctx={n_ctx} is no multiple of 256"
        raise ValueError(message)
    n_ubatch = n_ctx if n_ubatch is None else whole(1, n_ctx)("n_ubatch", n_ubatch)
    if n_ctx % n_ubatch:  # llama-context.cpp:3536 asserts it
        message = f"n_ubatch={n_ubatch} does not divide n_ctx={n_ctx}"
        raise ValueError(message)
    return n_ctx, n_ubatch


def above_zero(name: str, value: Any) -> float:
    """Return a number that is above 0 and finite, also in float32."""
    number: float = real(0)(name, value)
    if not np.float32(number) > 0:
        message = f"{name}={value} is out of range: it must be above 0, in float32"
        raise ValueError(message)
    return number


def _moment(name: str, value: Any) -> float:
    """Return a number from 0 to below 1: the optimizer divides by what is missing to 1."""
    number: float = _share(name, value)
    if np.float32(number) == 1:
        message = f"{name}={value} is out of range: it must be below 1, in float32"
        raise ValueError(message)
    return number


def numbers(optimizer: str, given: dict[str, float | None]) -> Any:
    """Return a ``ggml_opt_optimizer_params *``, filled (ggml-opt.cpp, ggml_opt_eval asserts)."""
    params = ffi.new(
        "struct ggml_opt_optimizer_params *", lib.ggml_opt_get_default_optimizer_params(ffi.NULL)
    )
    checks = {"weight_decay": _share, "beta1": _moment, "beta2": _moment, "eps": above_zero}
    for name, value in given.items():
        if value is None:
            continue
        number = checks[name](name, value)
        if name == "weight_decay":
            params.adamw.wd = params.sgd.wd = number
        elif optimizer == "sgd":
            message = f"{name} belongs to optimizer='adamw'; 'sgd' has no moments"
            raise ValueError(message)
        else:
            setattr(params.adamw, name, number)
    return params


def require_trainable(model: Model, n_ctx: int, *, n_adamw: int) -> None:
    """Refuse what libllama has no backward pass for, or no memory."""
    if not isinstance(model, Handle) or not hasattr(model, "_require_weights"):
        message = f"a Training is made of a Model, not of {model!r:.80}"
        raise TypeError(message)
    model._require_weights()
    if model.architecture not in ARCHITECTURES or any("_exps." in each for each in model._tensors):
        message = (
            f"this is a {model.description}; libllama differentiates no experts, and pyllama "
            f"trains these architectures: {', '.join(sorted(ARCHITECTURES))}"
        )
        raise UnsupportedError(message)
    other = [name for name, each in model._tensors.items() if each.type != GGMLType.F32]
    if other:  # they would stay as they are without a word
        message = (
            f"only tensors in f32 learn, and {len(other)} are of other types, such as {other[0]}: "
            "convert the model to f32 first"
        )
        raise UnsupportedError(message)
    # The gradients, the moments, and at each end some copies of the logits.
    logits = 6 * n_ctx * model.n_vocab * 4
    needed, available = model.n_bytes * (2 + n_adamw) + logits, available_bytes()
    if available is not None and needed > available:  # ggml_opt_build looks at no allocation
        message = (
            f"training this model takes about {needed / 2**30:.1f} GiB, and "
            f"{available / 2**30:.1f} GiB are free"
        )
        raise MemoryError(message)


def writable(model: Model) -> list[str]:
    """Return the names of the tensors that can learn; raise if their memory is read-only.

    Only ``llama_opt_init`` shows them. It is asked in a context that is not kept, and with the
    trained window that the model has, because it writes that into the model.
    """
    probe = Filter()
    user_data = ffi.new_handle(probe)
    params = ffi.new("struct llama_opt_params *")
    params.n_ctx_train = model.n_ctx_train
    params.param_filter = lib.pyllama_trains
    params.param_filter_ud = user_data
    n_batch = math.gcd(256, model.n_ctx_train or 256)  # else an assertion in llama_opt_init
    with (
        model.context(n_ctx=256, n_batch=n_batch, n_ubatch=n_batch) as context,
        model._call as pointer,
        context._call as context_pointer,
    ):
        lib.llama_opt_init(context_pointer, pointer, params[0])
    if any(buffer.endswith("_Mapped") for buffer in probe.seen.values()):
        message = (
            "the weights are mapped from the file and cannot be written: load the model with "
            "load_mode='none'"
        )
        raise UnsupportedError(message)
    return [name for name in probe.seen if name not in FROZEN]


def choose(names: list[str], param_filter: Callable[[str], object] | None) -> tuple[str, ...]:
    """Return those of the tensors that *param_filter* wants."""
    if param_filter is None:
        return tuple(names)
    chosen = tuple(name for name in names if param_filter(name))
    if not chosen:  # ggml.c asserts it when the first window comes
        message = f"param_filter chose none of the {len(names)} tensors, such as {names[0]!r}"
        raise ValueError(message)
    return chosen
