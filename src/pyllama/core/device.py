"""The devices that libllama computes on: the CPU, GPUs, accelerators, and their memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pyllama.core import backend
from pyllama.core.enums import DeviceType
from pyllama.core.library import ffi, lib
from pyllama.core.log import drain


@dataclass(frozen=True)
class Device:
    """One device that libllama can compute on, as it was when `devices` was called.

    Parameters
    ----------
    index
        Its number in libllama's registry.
    name
        What libllama calls it: CPU, CUDA0, Vulkan0, ...
    description
        What the maker calls it.
    type
        CPU, GPU, IGPU (shares the main memory) or ACCEL (used beside the CPU).
    memory_free
        Bytes; on the CPU libllama counts all of the machine's memory as free.
    memory_total
        Bytes.
    backend
        The backend that drives it: CPU, CUDA, Vulkan, Metal, RPC, ...
    id
        The PCI address (``0000:c1:00.0``), if it has one.
    """

    index: int
    name: str
    description: str
    type: DeviceType
    memory_free: int
    memory_total: int
    backend: str
    id: str | None
    _pointer: Any = field(repr=False, compare=False)  # lives as long as the process

    @property
    def is_gpu(self) -> bool:
        """Whether layers of a model can be kept on it (``n_gpu_layers``)."""
        return self.type in (DeviceType.GPU, DeviceType.IGPU)


def devices() -> tuple[Device, ...]:
    """Return the devices that libllama can compute on, with the memory they have now.

    Returns
    -------
    tuple of Device
        In libllama's order; one of them is the CPU.

    Raises
    ------
    LoadError
        If the installation holds no backend.

    Calls: ggml_backend_dev_count, ggml_backend_dev_get, ggml_backend_dev_get_props,
    ggml_backend_dev_backend_reg, ggml_backend_reg_name
    """
    backend.start()
    found = tuple(_device(index) for index in range(lib.ggml_backend_dev_count()))
    drain()
    return found


def _device(index: int) -> Device:
    pointer = lib.ggml_backend_dev_get(index)
    props = ffi.new("struct ggml_backend_dev_props *")
    lib.ggml_backend_dev_get_props(pointer, props)
    return Device(
        index=index,
        name=backend.text(props.name),
        description=backend.text(props.description),
        type=DeviceType(props.type),
        memory_free=props.memory_free,
        memory_total=props.memory_total,
        backend=backend.text(lib.ggml_backend_reg_name(lib.ggml_backend_dev_backend_reg(pointer))),
        id=backend.text(props.device_id) or None,
        _pointer=pointer,
    )
