"""Embeddings of images and sounds: one by one, and several together."""

from __future__ import annotations

import numpy as np
import pytest
from projecting import KINDS, prompt


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bitmap_has_the_same_embeddings(projectors, kind):
    """Embeddings are finite, depend on what is seen or heard, and on nothing else."""
    each = projectors[kind]
    first, again, other = (each.encode(prompt(each, kind, seed)[1]) for seed in (0, 0, 1))
    assert first.shape == (prompt(each, kind)[1].n_tokens, 64)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_together_is_encoding_one_by_one(projectors, kind):
    """A batch of images gives what each of them gives, in order, one of them twice."""
    each = projectors[kind]
    chunks = [prompt(each, kind, seed)[1] for seed in (0, 1, 2)]
    chunks.append(chunks[0])
    for together, alone in zip(each.encode_all(chunks), map(each.encode, chunks), strict=True):
        assert np.allclose(together, alone, atol=1e-5)


def test_encoding_nothing_gives_nothing(projector):
    """An empty list has no embeddings."""
    assert projector.encode_all([]) == []
