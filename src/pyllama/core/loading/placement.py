"""Where the parts of a model go: the options of `Model` that are arrays and pointers in C."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyllama.core import backend
from pyllama.core.device import Device, devices
from pyllama.core.enums import LoadMode
from pyllama.core.library import ffi, lib
from pyllama.core.params import FLOAT32_MAX, MODEL_CHECKS, fill

if TYPE_CHECKING:
    from pyllama.core.params import Check, ModelOptions

MAX_DEVICES = int(lib.llama_max_devices())
MAX_OVERRIDES = int(lib.llama_max_tensor_buft_overrides()) - 1  # the last one ends the list
# std::regex backtracks: names have up to 63 bytes, and a pattern below these limits ends.
MAX_REPEATS = 4
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
_REPEAT = re.compile(r"(?<![\\(])[*+?{]")
_NOT_ECMASCRIPT = re.compile(
    r"\(\?(?![:=!])|\\[AZzGK1-9pPNQE]|[*+?}]\+|(?<!\\)\{(?!\d+(?:,\d*)?\})"
)


def device_list(name: str, value: object) -> Any:
    """Return devices as C wants them: an array that ends with NULL.

    Parameters
    ----------
    name
        Of the option.
    value
        A sequence of `Device`.

    Returns
    -------
    cdata
        A ``ggml_backend_dev_t[]``.

    Raises
    ------
    TypeError
        If it is no sequence of devices.
    ValueError
        If a device is in it twice, keeps no layers, or is not of this process.

    Calls: ggml_backend_dev_count, ggml_backend_dev_get
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        message = f"{name} must be a sequence of devices, see pyllama.devices(), not {value!r:.80}"
        raise TypeError(message)
    if len(value) > MAX_DEVICES:
        message = f"{name} has {len(value)} devices; libllama uses up to {MAX_DEVICES}"
        raise ValueError(message)
    pointers = [_pointer(name, device) for device in value]
    for device, pointer in zip(value, pointers, strict=True):
        if pointers.count(pointer) > 1:
            message = f"{name} has {device.name} more than once"
            raise ValueError(message)
        if not device.is_gpu:
            message = f"{name} has {device.name}, which is always there: only GPUs are chosen"
            raise ValueError(message)
    return ffi.new("ggml_backend_dev_t[]", [*pointers, ffi.NULL])


def _pointer(name: str, device: object) -> Any:
    """Return what C calls *device*, if it is one: anyone can make an object with a wild pointer."""
    if not isinstance(device, Device):
        message = f"{name} must hold devices, see pyllama.devices(), not {device!r:.80}"
        raise TypeError(message)
    backend.start()
    known = range(lib.ggml_backend_dev_count())
    if device.index not in known or lib.ggml_backend_dev_get(device.index) != device._pointer:
        message = f"{name}: {device.name} is none of this process; take it from pyllama.devices()"
        raise ValueError(message)
    return device._pointer


def split_list(name: str, value: object) -> Any:
    """Return proportions as C wants them: always an array of MAX_DEVICES.

    Parameters
    ----------
    name
        Of the option.
    value
        A sequence of numbers, one for each GPU.

    Returns
    -------
    cdata
        A ``float[]``.

    Raises
    ------
    TypeError
        If it is no sequence of numbers.
    ValueError
        If there are too many, one is negative or not finite, or all are 0.

    Calls: llama_max_devices
    """
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        message = f"{name} must be a sequence of numbers, not {value!r:.80}"
        raise TypeError(message)
    shares = list(value)  # type: ignore[call-overload]
    for share in shares:
        try:
            number = math.nan if isinstance(share, (str, bool)) else float(share)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= FLOAT32_MAX:
            message = f"{name} must hold finite numbers from 0 on, not {share!r:.80}"
            raise ValueError(message)
    if len(shares) > MAX_DEVICES or not 0 < sum(map(float, shares)) <= FLOAT32_MAX:
        message = f"{name} must hold up to {MAX_DEVICES} numbers that are not all 0, not {shares}"
        raise ValueError(message)
    return ffi.new("float[]", [*map(float, shares), *[0.0] * (MAX_DEVICES - len(shares))])


def buffer_type_list(name: str, value: object) -> Any:
    """Return patterns of tensor names and buffer types as C wants them: an array with an end.

    Parameters
    ----------
    name
        Of the option.
    value
        A mapping of patterns to devices or names.

    Returns
    -------
    cdata
        A ``struct llama_model_tensor_buft_override[]``.

    Raises
    ------
    TypeError
        If it is no such mapping.
    ValueError
        If a pattern is no regular expression that libllama and Python read alike, or nothing is
        called so.

    Calls: llama_max_tensor_buft_overrides, ggml_backend_dev_buffer_type,
    ggml_backend_dev_host_buffer_type, ggml_backend_buft_name
    """
    if not isinstance(value, Mapping):
        message = f"{name} must map patterns to devices or buffer types, not be {value!r:.80}"
        raise TypeError(message)
    if len(value) > MAX_OVERRIDES:
        message = f"{name} has {len(value)} patterns; libllama takes up to {MAX_OVERRIDES}"
        raise ValueError(message)
    types = _buffer_types()
    entries = [
        (ffi.new("char[]", _pattern(name, pattern)), _buffer_type(name, kind, types))
        for pattern, kind in value.items()
    ]
    array = ffi.new("struct llama_model_tensor_buft_override[]", [*entries, (ffi.NULL, ffi.NULL)])
    _patterns[array] = [pattern for pattern, _ in entries]
    return array


# The texts that an array points to live as long as the array.
_patterns: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


def _pattern(name: str, pattern: object) -> bytes:
    """Return a pattern for std::regex, if it means the same there and ends in time."""
    if not isinstance(pattern, str):
        message = f"a pattern of {name} must be a string, not {pattern!r:.80}"
        raise TypeError(message)
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"{name}: {pattern!r:.80} is no regular expression: {error}"
        raise ValueError(message) from error
    if not pattern or "\0" in pattern or not pattern.isascii() or _NOT_ECMASCRIPT.search(pattern):
        what = "holds something that only Python knows: libllama reads ECMAScript's expressions"
    elif _REPEATED_GROUP.search(pattern) or len(_REPEAT.findall(pattern)) > MAX_REPEATS:
        what = (
            f"could take for ever: a group must not be repeated, and {MAX_REPEATS} of * + ? {{}} "
            "are enough"
        )
    else:
        return pattern.encode()
    message = f"{name}: {pattern!r:.80} {what}"
    raise ValueError(message)


def _buffer_types() -> dict[str, Any]:
    """Return the buffer types of all devices by name."""
    found = {}
    for device in devices():
        for kind in (
            lib.ggml_backend_dev_buffer_type(device._pointer),
            lib.ggml_backend_dev_host_buffer_type(device._pointer),
        ):
            if kind != ffi.NULL:
                found[backend.text(lib.ggml_backend_buft_name(kind))] = kind
    return found


def _buffer_type(name: str, value: object, types: Mapping[str, Any]) -> Any:
    if isinstance(value, Device):
        return lib.ggml_backend_dev_buffer_type(_pointer(name, value))
    if not isinstance(value, str):
        message = f"{name} must name a device or a buffer type, not {value!r:.80}"
        raise TypeError(message)
    if value not in types:
        message = f"{name}: there is no buffer type {value!r:.80}; there are {', '.join(types)}"
        raise ValueError(message)
    return types[value]


PLACEMENT_CHECKS: dict[str, Check] = {
    "devices": device_list,
    "tensor_split": split_list,
    "tensor_buft_overrides": buffer_type_list,
}


def model_params(options: ModelOptions) -> Any:
    """Return options as C wants them.

    Parameters
    ----------
    options
        As `Model` got them.

    Returns
    -------
    cdata
        A ``struct llama_model_params``, which keeps alive what it points to.

    Raises
    ------
    TypeError, ValueError
        If an option is unknown or out of range, or does not fit another one.

    Calls: llama_model_default_params
    """
    params = lib.llama_model_default_params()
    fill(params, options, {**MODEL_CHECKS, **PLACEMENT_CHECKS})
    _require_fit(params, options.get("devices"), options.get("n_gpu_layers"))
    if params.no_alloc and params.load_mode not in (LoadMode.AUTO, LoadMode.NONE):
        message = "no_alloc=True loads no weights: leave load_mode out"
        raise ValueError(message)
    if params.no_alloc:  # nothing may be mapped then: llama-model.cpp:1855
        params.load_mode = LoadMode.NONE
    return params


def _require_fit(params: Any, chosen: Sequence[Device] | None, n_gpu_layers: int | None) -> None:
    """Raise where options that are right one by one do not fit the devices."""
    if chosen is not None and not chosen and n_gpu_layers:
        message = f"n_gpu_layers={n_gpu_layers} needs a GPU, but devices is empty"
        raise ValueError(message)
    if chosen is not None and params.main_gpu >= max(len(chosen), 1):
        message = f"main_gpu={params.main_gpu}, but devices has {len(chosen)}; it counts from 0"
        raise ValueError(message)
    if params.tensor_split == ffi.NULL:
        return
    used = len(chosen) if chosen is not None else sum(each.is_gpu for each in devices())
    if used and not sum(params.tensor_split[0:used]):
        message = f"tensor_split gives nothing to the {used} GPUs: its first {used} numbers are 0"
        raise ValueError(message)
