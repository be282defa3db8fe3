"""verify="trial" of a projector: it encodes once in a process that may die of it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import random_model
from fuzz.mutate import parse
from projecting import KINDS, logits, prompt

import pyllama
from pyllama import Projector
from pyllama.core import child
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.loading import trial
from pyllama.core.media import projector as projectors_of_pyllama
from pyllama.errors import LoadError

# What the process runs where the rules are not to refuse first, as they do all that is known here.
UNCHECKED = child._CODE.replace(
    "getattr(",
    "from pyllama.core.media import projector\nprojector.check_projector = id\ngetattr(",
)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_projector_is_tried_once(kind, model, mrope, paths, trials):
    """With an image or a sound; not again by this process, nor by the next."""
    beside = mrope if kind == "qwen2vl_merger" else model
    for _ in range(2):
        with Projector(beside, paths[kind], verify="trial", n_threads=1) as projector:
            assert np.isfinite(logits(projector, prompt(projector, kind))).all()
        Projector(beside, paths[kind], verify="trial").close()
        trial._verdicts.clear()
    assert len(trials) == 1


def test_without_it_nothing_is_started(model, paths, trials):
    """The default is the check alone."""
    Projector(model, paths["janus_pro"]).close()
    Projector(model, paths["janus_pro"], verify="check").close()
    assert not trials


def test_a_change_of_either_file_is_a_new_trial(tmp_path, trials):
    """The verdict is about both; and it is not the model's own."""
    path = random_model.write_llama(tmp_path / "model.gguf")
    mmproj = random_model.write_projector(tmp_path / "mmproj.gguf")
    with pyllama.Model(path, verify="trial") as model:
        for changed in (mmproj, mmproj, path):
            os.utime(changed, ns=(1, 1))
            Projector(model, mmproj, verify="trial").close()
    assert [job.projector for job in trials] == ["", str(mmproj), str(mmproj)]


@pytest.fixture(
    params=[
        ("janus_pro", "v.blk.0.ffn_up.weight", "i32"),  # calls a function that is not there
        ("janus_pro", "v.blk.0.attn_q.bias", "f16"),  # asserts in a worker thread
        ("ultravox", "mm.a.norm_pre.weight", "f16"),
    ],
    ids=lambda param: param[1],
)
def killer(request, paths, tmp_path, monkeypatch):
    """Write a projector that libllama dies of, and put away the rules that would refuse it."""
    monkeypatch.setattr(child, "_CODE", UNCHECKED)
    monkeypatch.setattr(projectors_of_pyllama, "check_projector", id)
    kind, tensor, wrong = request.param
    file = parse(paths[kind])
    (stored,) = (each for each in file.tensors if each.name == tensor.encode())
    (stored.type,) = (n for n, each in TENSOR_TYPES.items() if each.name == wrong)
    stored.fit()
    path = tmp_path / "killer.gguf"
    path.write_bytes(file.encode()[0])
    return path


def test_a_death_is_a_load_error_that_names_the_signal(killer, model, paths, trials):
    """The process that asked lives, and the verdict is kept as any other."""
    for _ in range(2):
        with pytest.raises(LoadError, match=r"killer\.gguf: a process .* signal \d+ \("):
            Projector(model, killer, verify="trial")
        trial._verdicts.clear()
    assert len(trials) == 1
    with Projector(model, paths["janus_pro"], n_threads=1) as projector:
        assert np.isfinite(logits(projector, prompt(projector, "janus_pro"))).all()


def test_a_trial_needs_the_path_of_the_model(tiny_path, paths):
    """The other process loads it from there."""
    with (
        tiny_path.open("rb") as file,
        pyllama.Model(file) as model,
        pytest.raises(ValueError, match="given by its path"),
    ):
        Projector(model, paths["janus_pro"], verify="trial")


def test_verify_takes_one_of_two_words(model, paths):
    """Nothing else is guessed."""
    with pytest.raises(ValueError, match="'check' or 'trial'"):
        Projector(model, paths["janus_pro"], verify="none")
