"""What a decode leaves to read: logits, views of them, embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import random_model
from fuzz import grow

import pyllama
from pyllama import Batch
from pyllama.errors import (
    StateError,
    UnsupportedError,
)


def test_logits_have_a_row_for_each_output(context):
    """Rows come in the order of the tokens that asked for them."""
    context.decode(Batch([1, 2, 3, 4], output=[True, False, True, False]))
    some = context.logits()
    context.memory.clear()
    context.decode(Batch([1, 2, 3, 4], output="all"))
    everything = context.logits()
    assert some.shape == (2, 512)
    assert np.array_equal(some, everything[[0, 2]])


def test_logits_before_a_decode_are_an_error(context):
    """There is nothing to read yet."""
    with pytest.raises(StateError, match="no decode"):
        context.logits()
    context.decode(Batch([1], output="none"))
    with pytest.raises(StateError, match="no output"):
        context.logits()


def test_a_view_blocks_decode_and_close_until_it_is_dropped(context):
    """A live slice counts as a view; a copy does not."""
    context.decode(Batch([1]))
    part = context.logits_view()[0][:5]
    with pytest.raises(BufferError, match="1 view of this Context"):
        context.decode(Batch([2], pos=1))
    with pytest.raises(BufferError, match="cannot close"):
        context.close()
    with pytest.raises(BufferError, match="cannot close"):
        context.model.close()
    kept = part.copy()
    del part
    context.decode(Batch([2], pos=1))
    assert np.isfinite(kept).all()


def test_a_view_is_read_only_and_has_the_row(context):
    """It is libllama's own memory."""
    context.decode(Batch([1, 2], output="all"))
    row = context.logits_view(-1)
    assert np.array_equal(row, context.logits()[1])
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 0
    with pytest.raises(IndexError, match="row 2"):
        context.logits_view(2)


def test_a_view_outlives_the_last_name_of_its_context(model):
    """The array keeps the context alive."""
    context = model.context(n_ctx=256)
    context.decode(Batch([1]))
    view, expected = context.logits_view(), context.logits()
    del context
    assert np.array_equal(view, expected)


def test_embeddings_per_token_and_logits_together(model):
    """Without pooling every token has a row, as wide as the model."""
    with model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([1, 2, 3]))
        assert context.embeddings().shape == (3, 64)
        assert context.logits().shape == (3, 512)
        with pytest.raises(StateError, match=r"embeddings\(\)"):
            context.embedding()


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_pooled_embeddings_are_those_of_the_tokens(model, pooling):
    """Mean, last and first token, computed in the graph."""
    with model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([1, 2, 3]))
        rows = context.embeddings()
    expected = {"mean": rows.mean(0), "last": rows[2], "cls": rows[0]}[pooling]
    with model.context(n_ctx=256, embeddings=True, pooling_type=pooling) as context:
        context.decode(Batch([1, 2, 3]))
        assert np.abs(context.embedding() - expected).max() < 1e-5
        with pytest.raises(IndexError, match="sequence 1"):
            context.embedding(1)
        with pytest.raises(StateError, match=r"embedding\(seq\)"):
            context.embeddings()


def test_embeddings_that_were_not_asked_for_are_an_error(context):
    """The switch turns them on."""
    context.decode(Batch([1]))
    with pytest.raises(StateError, match="embeddings=True"):
        context.embeddings()
    context.set_embeddings(True)
    context.memory.clear()
    context.decode(Batch([1]))
    assert context.embeddings().shape == (1, 64)


def test_an_encoder_alone_gives_embeddings_and_no_logits(tmp_path):
    """Decoding is encoding there, in one micro-batch; there is no memory."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([5, 6, 7]))
        pooled = context.pooling_type != pyllama.PoolingType.NONE
        rows = context.embedding() if pooled else context.embeddings()
        assert np.isfinite(rows).all()
        with pytest.raises(UnsupportedError, match="not logits"):
            context.logits()
        with pytest.raises(UnsupportedError, match="no memory"):
            context.memory.clear()


@pytest.mark.parametrize("arch", ["deepseek4", "qwen4exp"])
def test_embeddings_of_a_model_whose_head_is_wider_are_refused(tmp_path, arch):
    """libllama would read past them; everything else of the model works."""
    assert grow.grow(tmp_path, arch)
    with pyllama.Model(tmp_path / f"{arch}.gguf") as model:
        with pytest.raises(UnsupportedError, match="cannot read the embeddings"):
            model.context(n_ctx=64, n_threads=1, embeddings=True)
        with model.context(n_ctx=64, n_threads=1) as context:
            with pytest.raises(UnsupportedError, match="cannot read the embeddings"):
                context.set_embeddings(True)
            context.set_embeddings(False)
            context.decode(Batch([1, 2, 3]))
            assert np.isfinite(context.logits()).all()
