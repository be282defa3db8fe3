"""The fuzzers: a short run finds nothing, and one without the rules finds what they stop."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import random_model
from fuzz import grow, seeds
from fuzz.bench import Bench
from fuzz.bits import change_bytes
from fuzz.mutate import mutate, parse
from fuzz.targets import TARGETS

from pyllama.core.loading.model_file import check_model

ROOT = Path(__file__).parents[2]


def fuzz(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the fuzzers in a process that has not computed."""
    command = [sys.executable, ROOT / "tools" / "fuzz", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(tmp_path, target):
    """Each input is refused, or works."""
    done = fuzz(target, "--count", 150, "--seed", 7, "--save", tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{target}: 150 inputs" in done.stdout
    assert not (tmp_path / "found").exists()


def test_a_finding_is_saved_and_found_again(tmp_path):
    """Without the rules the fuzzer finds files that crash, and keeps the first of each kind."""
    options = ("model", "--no-rules", "--count", 40, "--seed", 1)
    done = fuzz(*options, "--save", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DIED SIGSEGV" in done.stdout
    path = next(path for path in tmp_path.glob("*.json") if "SIGSEGV" in path.read_text())
    about = json.loads(path.read_text())
    assert about["target"] == "model"
    assert about["notes"]
    assert path.with_suffix(".input").read_bytes()[:4] == b"GGUF"
    again = fuzz("--no-rules", "--replay", path)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "ended with -11" in again.stdout


def test_what_the_fuzzer_saved_is_stopped_by_the_rules(tmp_path):
    """The replay of a finding that was mended finds nothing."""
    path = tmp_path / "model-1-33.json"
    path.write_text(json.dumps({"target": "model", "seed": 1, "index": 33, "first": 33}))
    again = fuzz("--replay", path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing was found" in again.stdout


def test_a_sweep_leaves_nothing_out(tmp_path):
    """Each tensor and key goes once, each number becomes all others, and each key is added."""
    file = parse(random_model.write_llama(tmp_path / "model.gguf"))
    bench, made = Bench(tmp_path), {}
    bench.keep("seeds", lambda: {"seed": file})
    while (change := TARGETS["sweep"].make(bench, random.Random()))[1] not in made:
        made[change[1]] = hash(change[0])
        bench.index += 1
    names = [tensor.name.decode() for tensor in file.tensors]
    assert made.keys() >= {f"seed: no {name}" for name in [*names, "llama.block_count"]}
    assert made.keys() >= {f"seed: {name} as f16" for name in names}
    assert made.keys() >= {f"seed: llama.block_count = {n}" for n in (0, 1, 3, 2**31)}
    assert made.keys() >= {f"seed: new llama.logit_scale = {n} (type 4)" for n in (0, 1, 3, 2**31)}
    assert len({*made.values(), hash(bytes(file.encode()[0]))}) == len(made) + 1


def test_an_unknown_target_is_named():
    """With those that there are."""
    done = fuzz("bogus")
    assert done.returncode == 2
    assert "no such target: bogus" in done.stderr


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


@pytest.mark.parametrize("target", ["grammar", "text", "batch"])
def test_the_seed_decides_the_input(tmp_path, target):
    """Also of what is no file."""
    bench = Bench(tmp_path)
    first, second = (TARGETS[target].make(bench, random.Random("3:4")) for _ in range(2))
    assert first == second


def test_changed_bytes_are_mostly_others():
    """A change that changes nothing is rare."""
    data = bytes(range(256))
    changed = sum(change_bytes(data, random.Random(n))[0] != data for n in range(200))
    assert changed > 180


@pytest.mark.parametrize("name", seeds.WRITERS)
def test_no_seed_is_refused(tmp_path, name):
    """A rule that refuses a file that works would be wrong."""
    path = seeds.WRITERS[name](tmp_path / "model.gguf")
    assert check_model(path)


GROWN = ("qwen2", "qwen3", "gemma3", "phi2", "gpt2", "falcon", "mamba2", "bert", "qwen3moe")


@pytest.mark.parametrize("arch", GROWN)
def test_an_architecture_grows(tmp_path, arch):
    """From what libllama says that it misses, to a model that decodes."""
    assert grow.grow(tmp_path, arch)
    assert parse(tmp_path / f"{arch}.gguf").tensors
    assert check_model(tmp_path / f"{arch}.gguf")
