"""``pyllama info``: versions, backends, devices, CPU features, and the models that ship."""

from __future__ import annotations

import platform
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pyllama

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

WIDTH = 100
GIB = 2**30
CALLED = {"metal": "mtl", "hip": "rocm", "hexagon": "htp"}  # what backends call themselves


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``info`` to the commands.

    Parameters
    ----------
    commands
        Those of the command line.
    """
    text = "Show what was built and what it finds on this machine."
    parser = commands.add_parser("info", help=text, description=text)
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace) -> None:
    """Print everything.

    Parameters
    ----------
    _options
        What the command line says; there is nothing to choose.
    """
    build, devices = pyllama.build_info(), pyllama.devices()
    print(*_versions(build), *_abilities(build), sep="\n")
    print("\ndevices", *_devices(devices, build.libraries), sep="\n")
    for backend, features in pyllama.system_info().items():
        print(f"\nwhat {backend} uses", *_features(features), sep="\n")
    print("\nmodels that ship", *_models(), sep="\n")


def _versions(build: pyllama.BuildInfo) -> Iterator[str]:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield f"pyllama    {pyllama.__version__} ({python})"
    yield f"llama.cpp  {build.llama_version}, commit {build.llama_commit}"
    yield f"ggml       {build.ggml_version}"


def _abilities(build: pyllama.BuildInfo) -> Iterator[str]:
    loaded = "loaded at run time" if build.loads_backends else "linked"
    yield f"backends   {', '.join(build.backends)} ({loaded})"
    started = " ".join(build.backends).lower()
    libraries = {name: name.partition("-")[0] for name in build.libraries}
    idle = [name for name, kind in libraries.items() if CALLED.get(kind, kind) not in started]
    if idle:
        yield f"           installed, but not started on this machine: {', '.join(idle)}"
    abilities = {
        "mmap": build.supports_mmap,
        "mlock": build.supports_mlock,
        "GPU offload": build.supports_gpu_offload,
        "RPC": build.supports_rpc,
    }
    yield "abilities  " + ", ".join(
        f"{name} {'yes' if able else 'no'}" for name, able in abilities.items()
    )
    yield (
        f"limits     {build.max_devices} devices a model, "
        f"{build.max_parallel_sequences} sequences a context"
    )


def _devices(devices: tuple[pyllama.Device, ...], libraries: tuple[str, ...]) -> Iterator[str]:
    for device in devices:
        memory = f"{device.memory_free / GIB:.1f} of {device.memory_total / GIB:.1f} GiB free"
        if device.backend == "CPU":  # libllama counts all of it as free
            memory = f"{device.memory_total / GIB:.1f} GiB"
        yield f"  {device.index}  {device.name:<9} {device.description}, {memory}"
    if not any(device.is_gpu for device in devices):
        if all(name.startswith("cpu") for name in libraries):
            yield '  no GPU; for one, build with CMAKE_ARGS="-DGGML_CUDA=on" pip install .'
        else:
            yield "  no GPU found: look at its driver"


def _features(features: dict[str, str]) -> list[str]:
    words = (name if value == "1" else f"{name}={value}" for name, value in features.items())
    return textwrap.wrap(
        "  ".join(words), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _models() -> Iterator[str]:
    for path in map(Path, (pyllama.demo_model(), pyllama.demo_draft_model())):
        size = f"{path.stat().st_size / 2**20:.1f} MiB" if path.exists() else "missing"
        yield f"  {path.name:<16} {size:>8}  {path}"
