"""Small real models for every test, made on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import random_model

import pyllama

# An example may take as long as it takes: whether a machine is busy is not what is tested.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a llama of two layers with random weights and an SPM vocabulary of 512 tokens."""
    return random_model.write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def model(tiny_path: Path) -> Iterator[pyllama.Model]:
    """Load the tiny model once for all tests that do not close it."""
    with pyllama.Model(tiny_path) as model:
        yield model


@pytest.fixture
def context(model: pyllama.Model) -> Iterator[pyllama.Context]:
    """Make a small context, with room for four sequences."""
    with model.context(n_ctx=1024, n_seq_max=4, n_threads=1, n_threads_batch=1) as context:
        yield context
