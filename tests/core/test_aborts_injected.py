"""Assertions in libllama's own functions, on demand, in an extension built for it.

The build option PYLLAMA_INJECT_ASSERTS lets a call inside the guard assert when the environment
names its function. The usual build knows nothing of it; here its extension is compiled once more
with the option, beside the libraries that it has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repeating import LEAK

from pyllama import _libllama

ROOT = Path(__file__).parents[2]
OBJECT = "CMakeFiles/_libllama.dir/generated/_libllama.cpp.o"
NINJA = Path(shutil.which("ninja") or Path(sys.executable).with_name("ninja"))
CHILD = """
import importlib.util, sys
extension, tests, name, model = sys.argv[1:]
spec = importlib.util.spec_from_file_location("pyllama._libllama", extension)
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
sys.path.insert(0, tests)
from asserting import grown
print(grown(name, model))
"""


@pytest.fixture(scope="module")
def extension(tmp_path_factory) -> Path:
    """Compile and link the extension again, by the commands of the build and the option."""
    build = next(iter(ROOT.glob("build/*/build.ninja")), Path()).parent
    if not (sys.platform.startswith("linux") and (build / OBJECT).exists() and NINJA.exists()):
        pytest.skip("needs Linux, ninja, and the build of an editable install")
    folder = tmp_path_factory.mktemp("injected")
    path = folder / "_libllama.abi3.so"
    ask = [NINJA, "-C", build, "-t", "commands", "_libllama"]
    lines = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()
    compiling = next(line for line in lines if f"-o {OBJECT}" in line)
    linking = lines[-1].replace(f"-o {path.name}", f"-o {path}")
    for command in (f"{compiling} -O0 -DPYLLAMA_INJECT_ASSERTS", linking):
        ours = command.replace(OBJECT, str(folder / "injected.o"))
        subprocess.run(ours, shell=True, cwd=build, check=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode", "tokenize", "sample", "load"])
def test_an_assertion_is_an_exception_and_no_more(extension, tiny_path, name):
    """What it failed in can only be closed, all else goes on, and nothing is left behind."""
    command = [sys.executable, "-c", CHILD, extension, ROOT / "tests", name, tiny_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LEAK


def test_the_usual_build_does_not_know_the_option():
    """Nothing that a user sets makes a call fail."""
    assert b"PYLLAMA_ASSERT_IN" not in Path(_libllama.__file__).read_bytes()
