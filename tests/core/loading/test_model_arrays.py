"""Models built from numpy arrays."""

from __future__ import annotations

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill
from gguf_arrays import arrays_of

import pyllama
from pyllama.errors import LoadError


@pytest.fixture
def arrays(tiny_path):
    """Return metadata and tensors of the tiny model."""
    return arrays_of(tiny_path)


def logits(model):
    """Decode a little."""
    with model.context(**SMALL) as context:
        return prefill(context)


WRITERS = {
    "llama": random_model.write_llama,
    "bpe": lambda path: random_model.write_llama(path, vocab="bpe"),
    "no vocabulary": lambda path: random_model.write_llama(path, vocab="none"),
    "q8_0": lambda path: random_model.write_llama(path, type="q8_0"),
    "f16": lambda path: random_model.write_llama(path, type="f16"),
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_of_arrays_is_the_model_of_the_file(tmp_path, kind):
    """To the last bit, and to the token."""
    path = WRITERS[kind](tmp_path / "model.gguf")
    with (
        pyllama.Model(path, use_extra_bufts=False) as model,
        pyllama.Model.from_arrays(*arrays_of(path)) as other,
    ):
        assert np.array_equal(logits(model), logits(other))
        assert dict(model.metadata) == dict(other.metadata)
        assert model._weights_sample == other._weights_sample
        if kind != "no vocabulary":
            text = "hello world"
            assert list(model.vocab.tokenize(text)) == list(other.vocab.tokenize(text))


def test_the_demo_model_is_made_of_arrays():
    """Quantised, with real words."""
    path = pyllama.demo_model()
    with (
        pyllama.Model(path, use_extra_bufts=False) as model,
        pyllama.Model.from_arrays(*arrays_of(path)) as other,
    ):
        assert np.array_equal(logits(model), logits(other))


def test_an_encoder_is_made_of_arrays(tmp_path):
    """BERT has all its biases."""
    path = random_model.write_bert(tmp_path / "model.gguf")
    rows = []
    for model in (pyllama.Model(path), pyllama.Model.from_arrays(*arrays_of(path))):
        with model, model.context(embeddings=True, **SMALL) as context:
            context.encode(pyllama.Batch([1, 2, 3]))
            rows.append(context.embedding(0))
    assert np.array_equal(*rows)


def test_embeddings_serve_as_the_output(arrays):
    """Where there is no matrix for it, as in a file."""
    metadata, tensors = arrays
    tied = {name: each for name, each in tensors.items() if name != "output.weight"}
    both = {**tensors, "output.weight": tensors["token_embd.weight"]}
    with (
        pyllama.Model.from_arrays(metadata, tied) as model,
        pyllama.Model.from_arrays(metadata, both) as other,
    ):
        assert np.array_equal(logits(model), logits(other))


def test_missing_tensors_are_named(arrays):
    """With the shape they should have."""
    metadata, tensors = arrays
    del tensors["blk.1.ffn_up.weight"]
    with pytest.raises(LoadError, match=r"1 tensors missing: blk\.1\.ffn_up\.weight \(\d+, 64\)"):
        pyllama.Model.from_arrays(metadata, tensors)


def test_tensors_too_many_are_named(arrays):
    """libllama would never ask for them."""
    metadata, tensors = arrays
    tensors["blk.0.attn_x.weight"] = np.zeros((3, 3), np.float32)
    with pytest.raises(LoadError, match=r"does not have: blk\.0\.attn_x\.weight"):
        pyllama.Model.from_arrays(metadata, tensors)


def test_tensors_of_another_shape_are_named(arrays):
    """A transposed one is the usual mistake."""
    metadata, tensors = arrays
    tensors["blk.0.attn_k.weight"] = tensors["blk.0.attn_k.weight"].T
    with pytest.raises(LoadError, match=r"attn_k\.weight has the shape \(64, 32\), not \(32, 64\)"):
        pyllama.Model.from_arrays(metadata, tensors)


def test_the_rules_hold_for_metadata_in_memory(arrays):
    """What would end the process in a file is refused here too."""
    metadata, tensors = arrays
    metadata["llama.block_count"] = 600
    with pytest.raises(LoadError, match=r"llama\.block_count is 600"):
        pyllama.Model.from_arrays(metadata, tensors)


def test_progress_is_told(arrays):
    """From above 0 to 1."""
    seen = []
    pyllama.Model.from_arrays(*arrays, progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_can_cancel_and_raise(arrays):
    """The rest is not copied then."""
    with pytest.raises(LoadError, match="cancelled"):
        pyllama.Model.from_arrays(*arrays, progress=lambda _: False)
    with pytest.raises(ZeroDivisionError):
        pyllama.Model.from_arrays(*arrays, progress=lambda _: 1 / 0)


def test_a_vocabulary_needs_no_tensors(arrays):
    """Nothing is missing."""
    with pyllama.Model.from_arrays(arrays[0], {}, vocab_only=True) as model:
        assert model.vocab.n_tokens == 512


def test_a_dry_run_needs_no_numbers_either(arrays):
    """Only their sizes."""
    with pyllama.Model.from_arrays(*arrays, no_alloc=True) as model:
        assert model.n_layer == 2


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        (b"bytes", TypeError),
        ({"a": 1}, TypeError),
        ([1, "a"], TypeError),
        ([[1]], TypeError),
        (1j, TypeError),
        (2**64, (TypeError, ValueError)),
        (np.array([1j]), TypeError),
    ],
)
def test_metadata_that_gguf_cannot_hold_are_refused(arrays, value, error):
    """The key is in the message."""
    metadata, tensors = arrays
    with pytest.raises(error, match=r"some\.key"):
        pyllama.Model.from_arrays({**metadata, "some.key": value}, tensors)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        ([1.0], TypeError),
        (np.zeros(4, np.complex64), TypeError),
        (np.zeros((1, 1, 1, 1, 1), np.float32), ValueError),
        (("q8_0", np.zeros((2, 33), np.uint8)), ValueError),
        (("q8_0", np.zeros((2, 34), np.float32)), ValueError),
        (("bogus", np.zeros((2, 34), np.uint8)), ValueError),
    ],
)
def test_arrays_that_ggml_cannot_hold_are_refused(arrays, value, error):
    """The name of the tensor is in the message."""
    metadata, tensors = arrays
    with pytest.raises(error, match=r"some\.tensor"):
        pyllama.Model.from_arrays(metadata, {**tensors, "some.tensor": value})


@pytest.mark.parametrize(
    "options", [{"load_mode": "mmap"}, {"lazy_mode": "on"}, {"check_tensors": True}]
)
def test_options_about_files_are_refused(arrays, options):
    """libllama would not heed them."""
    with pytest.raises(ValueError, match=next(iter(options))):
        pyllama.Model.from_arrays(*arrays, **options)


def test_numbers_keep_their_numpy_type(arrays):
    """And others become what libllama expects."""
    metadata, tensors = arrays
    more = {"a.u8": np.uint8(7), "a.f64": np.float64(0.5), "a.yes": True, "a.minus": -3}
    with pyllama.Model.from_arrays({**metadata, **more}, tensors) as model:
        texts = [model.metadata[key] for key in more]
    assert texts == ["7", "0.500000", "true", "-3"]
