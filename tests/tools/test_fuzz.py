"""The fuzzers: a short run finds nothing, and one without the rules finds what they stop."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import random_model
from fuzz.mutate import mutate, parse

ROOT = Path(__file__).parents[2]


def fuzz(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer of model files in a process that has not computed."""
    command = [sys.executable, ROOT / "tools" / "fuzz" / "gguf.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_no_mutant_ends_the_process():
    """Two hundred broken model files are each refused, or run."""
    done = fuzz("--count", 200, "--seed", 7)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 mutants" in done.stdout


def test_a_finding_is_saved(tmp_path):
    """Without the rules the fuzzer finds files that crash, and keeps the first of each kind."""
    done = fuzz("--count", 40, "--seed", 1, "--no-rules", "--save", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SIGSEGV" in done.stdout
    assert list(tmp_path.glob("1-*.gguf"))


@pytest.mark.parametrize("write", [random_model.write_llama, random_model.write_t5])
def test_a_file_comes_back_from_its_parts(tmp_path, write):
    """What was taken apart unchanged is put together the same."""
    path = write(tmp_path / "model.gguf")
    assert parse(path).encode()[0] == path.read_bytes()


def test_the_seed_decides_the_mutant(tmp_path):
    """A finding can be made again, and the seed file stays as it is."""
    file = parse(random_model.write_llama(tmp_path / "model.gguf"))
    before = file.encode()[0]
    first, second = (mutate(file, random.Random("1:2")) for _ in range(2))
    assert first == second
    assert file.encode()[0] == before != first[0]
