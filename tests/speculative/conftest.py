"""The models that drafts are made and checked with."""

from __future__ import annotations

import pytest
import random_model
from speculating import ONE

import pyllama


@pytest.fixture(scope="module")
def pair():
    """Load the shipped model and its draft model."""
    with (
        pyllama.Model(pyllama.demo_model()) as model,
        pyllama.Model(pyllama.demo_draft_model()) as draft,
    ):
        yield model, draft


@pytest.fixture
def contexts(model):
    """Make two contexts of the tiny model: one to check against."""
    options = {**ONE, "n_ctx": 256, "exact": True}
    with model.context(**options) as one, model.context(**options) as other:
        yield one, other


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    """Load a model with recurrent layers, attention, and a head that predicts further."""
    path = tmp_path_factory.mktemp("mtp") / "hybrid.gguf"
    random_model.write_mtp(path, n_layer=3, n_recurrent=2)
    with pyllama.Model(path, load_mtp=True) as model:
        yield model
