"""verify="trial": a model is loaded in a process that may die of it, and the verdict is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill
from fuzz.mutate import parse

import pyllama
from pyllama.core import child
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.loading import trial
from pyllama.errors import LoadError

# What the process runs where the rules are not to refuse first, as they do all that is known here.
UNCHECKED = child._CODE.replace(
    "getattr(",
    "from pyllama.core.loading import model_source\nmodel_source.check_rules = len\ngetattr(",
)

KEY = "0" * 64

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def path(tmp_path):
    """Write a model that no other test has loaded."""
    return random_model.write_llama(tmp_path / "model.gguf")


def forget():
    """Be a new process, as far as verdicts go."""
    trial._verdicts.clear()


def test_a_good_model_loads_and_is_tried_once(path, trials):
    """Not again by this process, nor by the next."""
    for _ in range(2):
        with pyllama.Model(path, verify="trial") as model, model.context(**SMALL) as context:
            assert np.isfinite(prefill(context)).all()
        pyllama.Model(path, verify="trial").close()
        forget()
    assert len(trials) == 1


def test_without_it_nothing_is_started(path, trials, cache):
    """The default is the check alone."""
    pyllama.Model(path).close()
    pyllama.Model(path, verify="check").close()
    assert not trials
    assert not cache.exists()


@pytest.mark.parametrize("write", ["bert", "t5", "mamba"])
def test_every_kind_of_model_can_be_tried(tmp_path, write):
    """Those that only encode, those that encode first, and recurrent ones."""
    path = getattr(random_model, f"write_{write}")(tmp_path / "model.gguf")
    with pyllama.Model(path, verify="trial") as model:
        assert model.architecture == write


def test_a_split_model_is_tried_whole(tmp_path, trials):
    """A change of any part is a new model."""
    path = random_model.write_llama(tmp_path / "model.gguf", split=8)
    parts = sorted(tmp_path.glob("model-*.gguf"))
    assert len(parts) > 1
    for _ in range(2):
        pyllama.Model(path, verify="trial").close()
    assert len(trials) == 1
    os.utime(parts[-1], ns=(1, 1))
    pyllama.Model(path, verify="trial").close()
    assert len(trials) == 2


def test_parts_of_any_name_are_tried_together(tmp_path, trials):
    """The other process gets the whole list."""
    random_model.write_llama(tmp_path / "model.gguf", split=8)
    found = sorted(tmp_path.glob("model-*.gguf"))
    parts = [path.rename(tmp_path / f"part {n}") for n, path in enumerate(found)]
    with pyllama.Model(parts, verify="trial") as model, model.context(**SMALL) as context:
        assert np.isfinite(prefill(context)).all()
    assert [job.files for job in trials] == [[str(path) for path in parts]]


def test_a_vocabulary_alone_can_be_tried(path, trials):
    """That verdict is not the one of the whole model."""
    pyllama.Model(path, verify="trial", vocab_only=True).close()
    pyllama.Model(path, verify="trial").close()
    assert len(trials) == 2


def test_a_changed_file_is_tried_again(path, trials):
    """The same name says nothing."""
    pyllama.Model(path, verify="trial").close()
    random_model.write_llama(path, seed=1)
    pyllama.Model(path, verify="trial").close()
    assert len(trials) == 2


def killer(path: Path) -> Path:
    """Give a matrix a type that no matrix can have: libllama calls a function that is not there."""
    numbers = {stored.name: number for number, stored in TENSOR_TYPES.items()}
    file = parse(path)
    tensor = next(each for each in file.tensors if each.name == b"blk.0.attn_q.weight")
    tensor.type = numbers["i32"]
    tensor.fit()
    path.write_bytes(file.encode()[0])
    return path


def test_a_death_is_a_load_error_that_names_the_signal(path, monkeypatch, trials):
    """The process that asked lives, and the verdict is kept as any other."""
    monkeypatch.setattr(child, "_CODE", UNCHECKED)
    killer(path)
    for _ in range(2):
        with pytest.raises(LoadError, match=r"model\.gguf: a process .* signal \d+ \("):
            trial.require("trial", [str(path)])
        forget()
    assert len(trials) == 1


def test_an_assertion_is_told_in_libllamas_words(tmp_path, monkeypatch):
    """As is all that libllama refuses there."""
    monkeypatch.setattr(child, "_CODE", UNCHECKED)
    path = random_model.write_llama(tmp_path / "model.gguf", metadata={"llama.block_count": 0})
    with pytest.raises(LoadError) as raised:
        trial.require("trial", [str(path)])
    assert "GGML_ASSERT" in str(raised.value) or "signal" in str(raised.value)


def test_a_trial_that_hangs_is_ended_and_tried_again(path, monkeypatch, trials):
    """Time says nothing of the file: no verdict is kept."""
    monkeypatch.setattr(child, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(trial, "SECONDS", 0.2)
    for _ in range(2):
        with pytest.raises(LoadError, match="did not end within"):
            pyllama.Model(path, verify="trial")
    assert len(trials) == 2


@pytest.fixture
def kept(cache):
    """Keep a verdict, and return the file that holds it."""
    trial._write(KEY, trial.Verdict("broken", ("words",)))
    (file,) = cache.iterdir()
    assert trial._read(KEY) == trial.Verdict("broken", ("words",))
    return file


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"message": 3}', b"{}"],
)
def test_a_damaged_verdict_is_no_verdict(kept, damage):
    """Whatever is in the file."""
    kept.write_bytes(damage)
    assert trial._read(KEY) is None


@pytest.mark.parametrize(
    "wrong", [{"message": 3}, {"log": [3]}, {"log": 3}, {"key": "another"}, {"key": None}]
)
def test_a_verdict_that_says_something_else_is_none(kept, wrong):
    """Values of other types, and those of another model."""
    kept.write_text(json.dumps(json.loads(kept.read_text()) | wrong))
    assert trial._read(KEY) is None


def test_verdicts_are_kept_for_their_owner_alone(kept):
    """A folder that others may write to is not believed."""
    folder = kept.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert trial._read(KEY) is None
    folder.chmod(0o700)
    assert trial._read(KEY) is not None


def test_nowhere_to_write_is_no_error(path, monkeypatch, tmp_path, trials):
    """It is only a cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pyllama.Model(path, verify="trial").close()
    assert len(trials) == 1


def test_verify_takes_one_of_two_words(path):
    """Nothing else is guessed."""
    with pytest.raises(ValueError, match="'check' or 'trial'"):
        pyllama.Model(path, verify="none")
