"""libllama as a whole: its start, its backends, NUMA, and what to say when a GPU is missing."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from pyllama import _libllama
from pyllama.core.enums import DeviceType, NumaStrategy, member
from pyllama.core.library import ffi, lib
from pyllama.core.log import drain
from pyllama.errors import LoadError, StateError, UnsupportedError

GPU_BUILD = 'CMAKE_ARGS="-DGGML_CUDA=on" pip install . (or -DGGML_VULKAN=on)'
NO_GPU = ("cpu", "blas", "zendnn", "rpc")  # backend libraries that drive no GPU of this machine


class _State:
    """What happened so far in this process; changed under `lock` only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started = False
        self.in_use = False
        self.computes = False  # contexts were made, whose threads a fork does not have
        self.forked = False
        self.numa: NumaStrategy | None = None


_state = _State()


def _after_fork_in_child() -> None:
    _state.lock = threading.Lock()  # another thread may have held it
    _state.forked = _state.forked or _state.computes


os.register_at_fork(after_in_child=_after_fork_in_child)


def start() -> None:
    """Start libllama and its backends, once, whichever thread comes first.

    Raises
    ------
    LoadError
        If the installation holds no backend.

    Calls: llama_backend_init, ggml_backend_load_all_from_path, ggml_backend_reg_count
    """
    if _state.started:
        return
    with _state.lock:
        if not _state.started:
            _load_backends()
            lib.llama_backend_init()
            _state.started = True
    drain()


def init() -> None:
    """Make libllama ready for a model; from now on `numa` refuses.

    Raises
    ------
    LoadError
        If the installation holds no backend.
    """
    start()
    with _state.lock:
        _state.in_use = True


def begin_computing() -> None:
    """Note that this process computes from now on.

    Raises
    ------
    StateError
        If it is a fork of one that computed: OpenMP would wait for its threads for ever.
    """
    if _state.forked:
        message = (
            "this process was forked from one that computed with libllama, whose threads stayed "
            "there: use multiprocessing's 'spawn', or fork before the first context is made"
        )
        raise StateError(message, expected="a process of its own", actual="a fork")
    _state.computes = True


def _load_backends() -> None:
    """Load the backends that lie beside the extension, where they are not linked into it.

    llama_backend_init() would do that too, but it looks beside the executable and in the working
    directory (ggml/src/ggml-backend-reg.cpp:490), and would take a stranger's library from there.
    """
    if not lib.pyllama_backend_dl():
        return
    directory = _directory()
    lib.ggml_backend_load_all_from_path(os.fsencode(directory))
    if lib.ggml_backend_reg_count() == 0:
        message = f"no backend (libggml-cpu*) loads from {directory}; install pyllama again"
        raise LoadError(message)


def _directory() -> Path:
    return Path(_libllama.__file__).parent


def backend_names() -> tuple[str, ...]:
    """Return the names of the backends that started.

    Returns
    -------
    tuple of str
        ``("CUDA", "CPU")``, as libllama writes them.

    Calls: ggml_backend_reg_count, ggml_backend_reg_get, ggml_backend_reg_name
    """
    start()
    registered = (lib.ggml_backend_reg_get(i) for i in range(lib.ggml_backend_reg_count()))
    return tuple(text(lib.ggml_backend_reg_name(each)) for each in registered)


def library_names() -> tuple[str, ...]:
    """Return the names of the backend libraries in the installation, started or not.

    Returns
    -------
    tuple of str
        ``("cpu", "cuda")``: what stands after ``libggml-`` in the name of each file.
    """
    files = (file.name.partition(".")[0] for file in _directory().glob("libggml-*"))
    return tuple(sorted({name.removeprefix("libggml-") for name in files} - {"base"}))


def text(pointer: Any) -> str:
    """Return the string at a ``char *``.

    Parameters
    ----------
    pointer
        What C returned; it may be NULL.

    Returns
    -------
    str
        Empty for NULL.
    """
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "replace")


def time_us() -> int:
    """Return the clock that libllama's time stamps are of.

    Returns
    -------
    int
        Microseconds since an arbitrary moment; never goes back.

    Calls: llama_time_us
    """
    start()
    return int(lib.llama_time_us())


def numa(strategy: NumaStrategy | str) -> None:
    """Choose how threads and memory are placed on a machine with several NUMA nodes.

    Parameters
    ----------
    strategy
        ``distribute`` (over all nodes), ``isolate`` (on the node the process runs on),
        ``numactl`` (as the command of that name says) or ``disabled``.

    Raises
    ------
    TypeError, ValueError
        If *strategy* is no strategy.
    StateError
        If a strategy was chosen already, or a model was loaded before.
    UnsupportedError
        If ggml has nothing behind it here: it would do nothing, and say nothing.

    Notes
    -----
    It holds for the whole process and cannot be taken back.

    Calls: llama_numa_init
    """
    chosen = member(NumaStrategy, strategy, "strategy")
    _require_numa(chosen)
    start()
    with _state.lock:
        if _state.in_use:
            message = f"numa({chosen.name.lower()!r}) must come before the first model is loaded"
            raise StateError(message, expected="no model yet", actual="a model was loaded")
        if _state.numa is not None:
            before = _state.numa.name.lower()
            message = f"numa() was called before, with {before!r}; it can be called once"
            raise StateError(message, expected="not chosen", actual=before)
        if lib.ggml_backend_dev_by_type(DeviceType.CPU) == ffi.NULL:  # src/llama.cpp:140
            names = ", ".join(backend_names())
            message = f"numa() places the CPU backend's threads, and only {names} started here"
            raise UnsupportedError(message)
        lib.llama_numa_init(chosen)
        _state.numa = chosen
    drain()


def _require_numa(strategy: NumaStrategy) -> None:
    if strategy is NumaStrategy.MIRROR:  # ggml/src/ggml-cpu/ggml-cpu.c:2186 has no case for it
        message = "numa('mirror') does nothing in ggml; choose 'distribute', 'isolate' or 'numactl'"
        raise UnsupportedError(message)
    if strategy is not NumaStrategy.DISABLED and not sys.platform.startswith("linux"):
        message = f"ggml knows NUMA nodes on Linux only, and this is {sys.platform}"
        raise UnsupportedError(message)


def require_gpu(n_gpu_layers: int | None, main_gpu: int = 0) -> None:
    """Look whether a GPU that was asked for is there; libllama goes on without a word.

    Parameters
    ----------
    n_gpu_layers
        Layers to keep on a GPU; None if the caller left it to libllama.
    main_gpu
        The GPU to use, counted among the GPUs.

    Raises
    ------
    ValueError
        If *main_gpu* is beyond the last GPU; 0 is allowed without any.

    Warns
    -----
    RuntimeWarning
        If layers were asked for and no GPU is there.

    Calls: ggml_backend_dev_count, ggml_backend_dev_get, ggml_backend_dev_type
    """
    start()
    types = [
        lib.ggml_backend_dev_type(lib.ggml_backend_dev_get(index))
        for index in range(lib.ggml_backend_dev_count())
    ]
    # Integrated GPUs are used only where there is no other (src/llama.cpp:273).
    n_gpus = types.count(DeviceType.GPU) or types.count(DeviceType.IGPU)
    if main_gpu >= max(n_gpus, 1):
        message = f"main_gpu={main_gpu}, but libllama finds {n_gpus} GPUs; see pyllama.devices()"
        raise ValueError(message)
    if n_gpu_layers and not n_gpus:
        message = f"n_gpu_layers={n_gpu_layers} has no effect: {_why_no_gpu()}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _why_no_gpu() -> str:
    """Say in one sentence why no layer goes to a GPU, and what to do."""
    others = [name for name in library_names() if name.partition("-")[0] not in NO_GPU]
    if others:
        return (
            f"this build has the backend {', '.join(others)}, but it finds no GPU; look at the "
            "driver, and at CUDA_VISIBLE_DEVICES or GGML_VK_VISIBLE_DEVICES"
        )
    return f"this build has no GPU backend; to get one, {GPU_BUILD}"
