"""What was built: commits, versions, backends, abilities, limits, instruction sets."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pyllama.core import backend
from pyllama.core.library import lib

_lock = threading.Lock()


@dataclass(frozen=True)
class BuildInfo:
    """What was built; see also `system_info`.

    Parameters
    ----------
    llama_commit
        The commit of llama.cpp.
    llama_version, ggml_version
        What the libraries call themselves.
    backends
        Names of the backends that started: CPU, CUDA, Vulkan, ...
    libraries
        The backend libraries that are installed (``cpu``, ``vulkan``). One that is here and
        missing in `backends` could not start on this machine.
    loads_backends
        Whether backends are loaded at run time (``GGML_BACKEND_DL``) instead of linked.
    supports_mmap, supports_mlock
        Whether files can be mapped, and kept from being swapped out.
    supports_gpu_offload
        Whether there is a device to keep layers on.
    supports_rpc
        Whether models can be spread over machines.
    max_devices, max_parallel_sequences
        Most devices of one model, most sequences of one context.
    """

    llama_commit: str
    llama_version: str
    ggml_version: str
    backends: tuple[str, ...]
    libraries: tuple[str, ...]
    loads_backends: bool
    supports_mmap: bool
    supports_mlock: bool
    supports_gpu_offload: bool
    supports_rpc: bool
    max_devices: int
    max_parallel_sequences: int


def build_info() -> BuildInfo:
    """Return what was built: commits, versions, backends, abilities, limits.

    Returns
    -------
    BuildInfo

    Raises
    ------
    LoadError
        If the installation holds no backend.

    Calls: llama_version, ggml_version, ggml_backend_reg_count, ggml_backend_reg_get,
    ggml_backend_reg_name, llama_supports_mmap, llama_supports_mlock, llama_supports_gpu_offload,
    llama_supports_rpc, llama_max_devices, llama_max_parallel_sequences
    """
    backend.start()
    return BuildInfo(
        llama_commit=backend.text(lib.pyllama_llama_commit()),
        llama_version=backend.text(lib.llama_version()),
        ggml_version=backend.text(lib.ggml_version()),
        backends=backend.backend_names(),
        libraries=backend.library_names(),
        loads_backends=lib.pyllama_backend_dl(),
        supports_mmap=lib.llama_supports_mmap(),
        supports_mlock=lib.llama_supports_mlock(),
        supports_gpu_offload=lib.llama_supports_gpu_offload(),
        supports_rpc=lib.llama_supports_rpc(),
        max_devices=lib.llama_max_devices(),
        max_parallel_sequences=lib.llama_max_parallel_sequences(),
    )


def system_info() -> dict[str, dict[str, str]]:
    """Return what each backend uses: instruction sets of the CPU, options it was compiled with.

    Returns
    -------
    dict of str to dict
        ``{"CPU": {"AVX2": "1", "OPENMP": "1", ...}, ...}``; what is absent is not used.

    Raises
    ------
    LoadError
        If the installation holds no backend.

    Calls: llama_print_system_info
    """
    backend.start()
    with _lock:  # C returns a static std::string (src/llama.cpp:600)
        text = backend.text(lib.llama_print_system_info())
    return _parse_system_info(text)


def _parse_system_info(text: str) -> dict[str, dict[str, str]]:
    """Read ``CPU : AVX = 1 | FMA = 1 | CUDA : ARCHS = 900 | ``."""
    found: dict[str, dict[str, str]] = {}
    features: dict[str, str] = {}
    for part in text.split(" | "):
        owner, colon, feature = part.rpartition(" : ")
        if colon:
            features = found.setdefault(owner.strip(), {})
        name, equals, value = feature.partition(" = ")
        if equals:
            features[name.strip()] = value.strip()
    return found
