"""Memory that a model and a context would take."""

from __future__ import annotations

import pytest
import random_model

import pyllama
from pyllama import MemoryNeeds, estimate_memory
from pyllama.errors import LoadError, UnsupportedError

WRITERS = {
    "llama": random_model.write_llama,
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
    "t5": random_model.write_t5,
    "bert": random_model.write_bert,
}


def taken(path, **options):
    """Load a model and a context, and return what they take; a mapping would count for itself."""
    with pyllama.Model(path, load_mode="none") as model, model.context(**options) as context:
        return context.memory_needs


def sum_up(needs):
    """Return what all devices hold together."""
    return MemoryNeeds(*map(sum, zip(*needs.values(), strict=True)))


@pytest.mark.parametrize("kind", WRITERS)
def test_an_estimate_is_what_a_load_takes(tmp_path, kind):
    """To the byte."""
    path = WRITERS[kind](tmp_path / "model.gguf")
    options = {"n_ctx": 512, "n_batch": 64, "n_threads": 1, "n_threads_batch": 1}
    assert estimate_memory(path, **options) == taken(path, **options)


def test_the_demo_model_takes_what_it_takes():
    """With other types of keys and values, and several sequences."""
    options = {"n_ctx": 1024, "type_k": "q8_0", "type_v": "f32", "n_seq_max": 2}
    estimates = estimate_memory(pyllama.demo_model(), **options)
    assert estimates == taken(pyllama.demo_model(), **options)
    estimate = sum_up(estimates)
    assert estimate.total == estimate.model + estimate.context + estimate.compute


def test_the_keys_and_values_are_counted(tiny_path):
    """Two layers, two heads of 16, f16, for each token."""
    n_ctx = 1 << 16
    estimate = sum_up(estimate_memory(tiny_path, n_ctx=n_ctx))
    outputs = 4 * 512 + 4096  # a row of logits, and what libllama rounds up
    assert 0 <= estimate.context - n_ctx * 2 * 2 * 2 * 16 * 2 <= outputs


def test_the_weights_are_counted(tiny_path):
    """Each tensor once, but for what aligning them takes."""
    with pyllama.Model(tiny_path) as model:
        n_bytes = model.n_bytes
    estimate = sum_up(estimate_memory(tiny_path, n_ctx=256))
    assert n_bytes <= estimate.model < 1.05 * n_bytes + 4096


def test_more_memory_than_there_is_can_be_asked_for(tmp_path):
    """That is what an estimate is for."""
    path = random_model.write_llama(tmp_path / "m.gguf", n_embd=512, n_head=4, n_head_kv=4)
    options = {"n_ctx": 1 << 24, "n_threads": 1, "n_threads_batch": 1}
    assert sum_up(estimate_memory(path, **options)).context > 2**35
    if pyllama.core.limits.available_bytes() < 2**35:
        with pyllama.Model(path) as model, pytest.raises(MemoryError):
            model.context(**options)


def test_options_are_checked_as_for_a_context(tiny_path):
    """And as for a model."""
    with pytest.raises(ValueError, match="n_seq_max"):
        estimate_memory(tiny_path, n_batch=4, n_seq_max=8)
    with pytest.raises(TypeError, match="n_context"):
        estimate_memory(tiny_path, n_context=4)
    with pytest.raises(TypeError, match="n_layers"):
        estimate_memory(tiny_path, model_options={"n_layers": 4})
    with pytest.raises(UnsupportedError, match="classifier"):
        estimate_memory(tiny_path, pooling_type="rank")
    with pytest.raises(FileNotFoundError):
        estimate_memory("none.gguf")
    with pytest.raises(LoadError):
        estimate_memory(__file__)
