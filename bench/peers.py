"""What the benchmarks share: llama.cpp's own programs, and model files of known shapes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LLAMA = ROOT / "vendor" / "llama.cpp"
SCRATCH = Path(tempfile.gettempdir()) / "pyllama-bench"
SOURCES = {
    "llama-bench": ("tools/llama-bench/main.cpp", "tools/llama-bench/llama-bench.cpp"),
    "llama-embedding": ("examples/embedding/embedding.cpp",),
}


def program(name: str) -> Path:
    """Compile a program of llama.cpp against the libraries of the editable build, once."""
    directory = libraries()
    SCRATCH.mkdir(exist_ok=True)
    made = SCRATCH / name
    if made.exists() and made.stat().st_mtime > (directory / "libllama.so").stat().st_mtime:
        return made
    print(f"compiling {name} ...", flush=True)
    command = [
        os.environ.get("CXX", "c++"),
        "-O3",
        "-DNDEBUG",
        "-std=c++17",
        *(str(LLAMA / each) for each in SOURCES[name]),
        *(f"-I{LLAMA / each}" for each in ("common", "include", "ggml/include", "vendor")),
        f"-L{directory}",
        f"-Wl,-rpath,{directory}",
        *("-lllama-common", "-lllama", "-lggml", "-lggml-base", "-lpthread"),
        *("-o", str(made)),
    ]
    subprocess.run(command, check=True)
    return made


def libraries() -> Path:
    """Return where the libraries of the editable build are, with that of llama.cpp's programs."""
    builds = sorted(ROOT.glob("build/cp*/CMakeCache.txt"))
    if not builds:
        sys.exit("there is no build to compare with: type make setup first")
    build = builds[-1].parent
    if not (build / "bin" / "libllama-common.so").exists():  # pyllama itself does not need it
        print("building llama-common ...", flush=True)
        cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if cmake is None:
            sys.exit("cmake is needed: type make setup first")
        subprocess.run([cmake, "--build", build, "--target", "llama-common"], check=True)
    return build / "bin"


def model_file(name: str, write: str, **options: int) -> Path:
    """Write the random model *name* with a function of tools/random_model, once."""
    sys.path.insert(0, str(ROOT / "tools"))
    import random_model  # noqa: PLC0415 - it needs gguf-py, which a child process does not

    SCRATCH.mkdir(exist_ok=True)
    path = SCRATCH / f"{name}.gguf"
    if not path.exists():
        getattr(random_model, write)(path, **options)
    return path


def output(command: list[str]) -> str:
    """Return what *command* prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
