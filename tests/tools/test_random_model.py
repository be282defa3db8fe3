"""Random models: well-formed files of the asked-for size, the same for the same seed."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import random_model
from random_model.blocks import random_tensor
from random_model.write import TYPES

from pyllama.core.loading.model_file import check_model

WRITERS = {
    "llama": random_model.write_llama,
    "bert": random_model.write_bert,
    "t5": random_model.write_t5,
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
}


@pytest.mark.parametrize("arch", WRITERS)
def test_each_architecture_is_well_formed(tmp_path, arch):
    """The header passes the same check as any model that is loaded."""
    (header,) = check_model(WRITERS[arch](tmp_path / "model.gguf"))
    assert header.metadata["general.architecture"] == arch


@pytest.mark.parametrize("kind", TYPES)
def test_random_blocks_have_the_wanted_moments(kind):
    """Dequantised by gguf-py, the mean is near 0 and the deviation near the one asked for."""
    drawn = random_tensor(kind, (64, 1024), 0.25, np.random.default_rng(0))
    values = gguf.dequantize(drawn, TYPES[kind])
    assert values.shape == (64, 1024)
    assert abs(values.mean()) < 0.01
    assert 0.225 < values.std() < 0.275


def test_rows_that_do_not_divide_into_blocks_are_refused():
    """K types want rows that are multiples of 256."""
    with pytest.raises(ValueError, match="rows of 64 do not divide into q4_K blocks of 256"):
        random_tensor("q4_K", (8, 64), 1.0, np.random.default_rng(0))


def test_the_seed_decides_the_file(tmp_path):
    """The same seed writes the same bytes, another one others."""
    contents = [
        random_model.write_llama(tmp_path / f"{n}.gguf", seed=seed).read_bytes()
        for n, seed in enumerate((1, 1, 2))
    ]
    assert contents[0] == contents[1] != contents[2]


SIZES = [("spm", 600), ("bpe", 700), ("wpm", 300), ("ugm", 400)]


@pytest.mark.parametrize(("kind", "n_vocab"), SIZES)
def test_a_vocabulary_has_as_many_different_tokens_as_asked_for(kind, n_vocab):
    """Two equal tokens would end the process that loads them."""
    metadata = random_model.vocabulary(kind, n_vocab)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens)) == n_vocab == len(metadata["tokenizer.ggml.token_type"])


def test_each_merge_makes_a_token():
    """Every merged token of a byte-level vocabulary is reached, also when merges are counted."""
    metadata = random_model.vocabulary("bpe", 3000, n_merges=4000)
    tokens, merges = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "merges"))
    assert len(merges) == len(set(merges)) == 4000
    assert {merge.replace(" ", "") for merge in merges} == set(tokens[256:-1])


def test_special_tokens_come_last(tmp_path):
    """More control tokens can be asked for, as chat templates need them."""
    options = {"special": ["<|user|>", "<|end|>"], "add_bos": False}
    path = random_model.write_llama(tmp_path / "model.gguf", vocab_options=options)
    metadata = check_model(path)[0].metadata
    assert metadata["tokenizer.ggml.tokens"][-2:] == ["<|user|>", "<|end|>"]
    assert list(metadata["tokenizer.ggml.token_type"][-2:]) == [3, 3]
    assert metadata["tokenizer.ggml.add_bos_token"] is False
