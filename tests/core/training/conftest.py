"""A model that can learn, and the windows that it learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from learning import N_CTX, TEXT

import pyllama
from pyllama import Dataset


@pytest.fixture
def own(tiny_path: Path) -> Iterator[pyllama.Model]:
    """Load the tiny model into memory that can be written, for this test alone."""
    with pyllama.Model(tiny_path, load_mode="none") as model:
        yield model


@pytest.fixture
def text() -> Dataset:
    """Cut a text that repeats 24 tokens into four windows that overlap."""
    return Dataset(TEXT[: N_CTX + 1 + 3 * 60], N_CTX, stride=60)
