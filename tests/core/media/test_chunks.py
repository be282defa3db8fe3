"""Prompts cut into chunks: what each says of itself, and where its tokens stand."""

from __future__ import annotations

import media
import numpy as np
import pytest
from projecting import medium, prompt

from pyllama import Bitmap


def test_an_image_becomes_a_chunk(projectors):
    """Text, image, text: tokens here, embeddings there."""
    chunks = prompt(projectors["janus_pro"], "janus_pro")
    assert [chunk.kind for chunk in chunks] == ["text", "image", "text"]
    assert [chunk.n_tokens for chunk in chunks][1] == 16
    assert chunks.n_tokens == sum(chunk.n_tokens for chunk in chunks) == chunks.n_pos
    assert chunks[1].tokens is None
    assert chunks[1].id == medium("janus_pro").id
    assert chunks[-1].id is None


def test_chunks_are_a_sequence(projector):
    """Slices, negative indices, and errors as of a list."""
    chunks = prompt(projector, "janus_pro")
    assert [chunk.kind for chunk in chunks[1:]] == ["image", "text"]
    with pytest.raises(IndexError):
        chunks[3]
    with pytest.raises(TypeError):
        chunks["0"]


def test_an_image_of_an_m_rope_model_takes_few_positions(projectors):
    """Rows and columns are positions of their own; what follows is on by the longer side."""
    chunk = prompt(projectors["qwen2vl_merger"], "qwen2vl_merger")[1]
    time, rows, columns, _ = chunk.positions(7)
    assert (chunk.n_tokens, chunk.n_pos) == (12, 4)
    assert (time == 7).all()
    assert rows.tolist() == [7] * 4 + [8] * 4 + [9] * 4
    assert columns.tolist() == [7, 8, 9, 10] * 3


def test_positions_of_other_models_count_up(projector):
    """One position a token, up to the end of what 32 bits hold."""
    chunk = prompt(projector, "janus_pro")[1]
    assert chunk.positions(3).tolist() == list(range(3, 19))
    with pytest.raises(ValueError, match="pos"):
        chunk.positions(2**31 - 10)


def test_frames_of_a_video_are_merged(projectors):
    """Two mergeable bitmaps in a row make one chunk in a model that knows videos."""
    frames = [Bitmap(media.noise(seed=seed), mergeable=True) for seed in (0, 1)]
    chunks = projectors["qwen2vl_merger"].tokenize(frames)
    images = [chunk for chunk in chunks if chunk.kind == "image"]
    assert [chunk.n_tokens for chunk in images] == [12]
    assert np.isfinite(projectors["qwen2vl_merger"].encode(images[0])).all()


def test_placeholders_count_tokens_only(projector):
    """The number of tokens is that of the image; encoding is refused, the projector is well."""
    chunks = projector.tokenize(["a", Bitmap.placeholder(60, 40)])
    assert chunks[1].n_tokens == 16
    with pytest.raises(ValueError, match="placeholder"):
        projector.encode(chunks[1])
    assert np.isfinite(projector.encode(prompt(projector, "janus_pro")[1])).all()
