"""Projectors with random weights, one of each kind, and models that they fit."""

from __future__ import annotations

import pytest
import random_model
from projecting import KINDS

import pyllama
from pyllama import Projector


@pytest.fixture(scope="package")
def mrope(tmp_path_factory):
    """Load a tiny model with M-RoPE positions."""
    path = tmp_path_factory.mktemp("mrope") / "mrope.gguf"
    sections = {"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
    random_model.write_llama(path, arch="qwen2vl", metadata=sections)
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture(scope="package")
def paths(tmp_path_factory):
    """Write a projector of each kind."""
    directory = tmp_path_factory.mktemp("projectors")
    for kind in KINDS[:3]:
        random_model.write_projector(directory / kind, type=kind)
    random_model.write_audio_projector(directory / "ultravox")
    return {kind: directory / kind for kind in KINDS}


@pytest.fixture(scope="package")
def projectors(paths, model, mrope):
    """Load each of them for a model that it fits."""
    models = {"qwen2vl_merger": mrope}
    loaded = {
        kind: Projector(models.get(kind, model), path, n_threads=1) for kind, path in paths.items()
    }
    yield loaded
    for each in loaded.values():
        each.close()


@pytest.fixture
def projector(projectors):
    """Return the simplest of them."""
    return projectors["janus_pro"]
