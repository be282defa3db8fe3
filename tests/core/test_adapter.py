"""LoRA adapters: what they do to the logits, and whom they belong to."""

from __future__ import annotations

import gc
from pathlib import Path

import gguf
import numpy as np
import pytest
import random_model
from reference import Llama

import pyllama
from pyllama import Batch
from pyllama.core.adapter import Adapter
from pyllama.errors import (
    AdapterError,
    BusyError,
    ClosedError,
    LoadError,
    StateError,
    UnsupportedError,
)
from pyllama.generate import Report, tokens

TOKENS = [1, 40, 300, 7, 99, 12]
WEIGHTS = {
    "token_embd.weight": (512, 64),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.attn_v.weight": (32, 64),
    "blk.1.ffn_down.weight": (64, 128),
    "output.weight": (512, 64),
}


@pytest.fixture(scope="module")
def lora_path(tmp_path_factory) -> Path:
    """Write an adapter for five weights of the tiny model."""
    folder = tmp_path_factory.mktemp("lora")
    return random_model.write_lora(folder / "lora.gguf", WEIGHTS, invocation=[5, 6, 7])


@pytest.fixture(scope="module")
def other_path(tmp_path_factory) -> Path:
    """Write another one, without alpha."""
    folder = tmp_path_factory.mktemp("lora")
    return random_model.write_lora(folder / "other.gguf", WEIGHTS, alpha=None, std=0.1, seed=1)


@pytest.fixture
def exact(model):
    """Make a context whose logits are those of the weights."""
    with model.context(n_ctx=256, exact=True, n_threads=1, n_threads_batch=1) as context:
        yield context


@pytest.fixture
def adapter(model, lora_path):
    """Load the first adapter."""
    with Adapter(model, lora_path) as adapter:
        yield adapter


def logits_of(context):
    """Decode `TOKENS` into an empty memory, and return all logits."""
    context.memory.clear()
    context.decode(Batch(TOKENS, output="all"))
    return context.logits()


def merged(model_path, *loras) -> Llama:
    """Return the reference with adapters, given as (path, scale), merged into its weights."""
    reference = Llama(model_path)
    for path, scale in loras:
        reader = gguf.GGUFReader(path)
        alpha = reader.get_field("adapter.lora.alpha")
        factors = {each.name: each.data.astype(np.float64) for each in reader.tensors}
        for name in WEIGHTS:
            a, b = factors[f"{name}.lora_a"], factors[f"{name}.lora_b"]
            product = a @ b.T if name == "token_embd.weight" else b @ a
            share = 1.0 if alpha is None else float(alpha.contents()) / b.shape[1]
            reference.weights[name] += scale * share * product
    return reference


@pytest.mark.parametrize("scale", [1.0, 0.5, -0.25])
def test_an_adapter_equals_its_weights_merged(exact, adapter, tiny_path, lora_path, scale):
    """Scale times alpha / rank times B x A, added to the weight."""
    plain = logits_of(exact)
    exact.set_adapters({adapter: scale})
    found = logits_of(exact)
    expected = merged(tiny_path, (lora_path, scale)).logits(TOKENS)
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - plain).max() > 0.01


def test_two_adapters_add_up(exact, adapter, tiny_path, lora_path, other_path):
    """Each has its own scale; the one without alpha is not scaled by its rank."""
    with Adapter(exact.model, other_path) as other:
        exact.set_adapters({adapter: 0.5, other: 2.0})
        found = logits_of(exact)
    expected = merged(tiny_path, (lora_path, 0.5), (other_path, 2.0)).logits(TOKENS)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("zero", [False, True])
def test_taking_adapters_off_restores_the_model(exact, adapter, zero):
    """No adapter and one of scale 0 compute the same bits as the model alone."""
    plain = logits_of(exact)
    exact.set_adapters({adapter: 1.0})
    logits_of(exact)
    exact.set_adapters({adapter: 0.0} if zero else {})
    assert np.array_equal(logits_of(exact), plain)


def test_the_mapping_is_a_copy(exact, adapter):
    """Changing it changes nothing in the context."""
    assert exact.adapters == {}
    exact.set_adapters({adapter: 0.5})
    exact.adapters.clear()
    assert exact.adapters == {adapter: 0.5}


def test_contexts_have_adapters_of_their_own(model, exact, adapter):
    """One adapter serves two contexts at different scales."""
    with model.context(n_ctx=256, exact=True, n_threads=1, n_threads_batch=1) as second:
        plain = logits_of(second)
        exact.set_adapters({adapter: 1.0})
        assert np.array_equal(logits_of(second), plain)
        second.set_adapters({adapter: 0.5})
        assert not np.array_equal(logits_of(second), logits_of(exact))


def test_setting_adapters_withdraws_the_logits(exact, adapter):
    """They were computed without."""
    exact.decode(Batch([1]))
    exact.set_adapters({adapter: 1.0})
    with pytest.raises(StateError, match="no logits"):
        exact.logits()


def test_generate_does_not_reuse_a_prompt_of_other_adapters(exact, adapter):
    """The keys and values of the prompt were computed without the adapter."""
    prompt, report = [5, 6, 7, 8] * 5, Report()
    list(tokens(exact, prompt, max_tokens=4, ignore_eog=True))
    exact.set_adapters({adapter: 1.0})
    warm = list(tokens(exact, prompt, max_tokens=4, ignore_eog=True, report=report))
    assert report.n_reused == 0
    exact.memory.clear()
    assert list(tokens(exact, prompt, max_tokens=4, ignore_eog=True)) == warm


def test_closing_an_adapter_takes_it_off_every_context(model, exact, lora_path, other_path):
    """Decoding goes on without it, and with those that remain."""
    with Adapter(model, other_path) as other:
        exact.set_adapters({other: 1.0})
        expected = logits_of(exact)
        adapter = Adapter(model, lora_path)
        exact.set_adapters({adapter: 1.0, other: 1.0})
        adapter.close()
        adapter.close()
        assert exact.adapters == {other: 1.0}
        assert np.array_equal(logits_of(exact), expected)
    assert exact.adapters == {}


def test_a_closed_adapter_is_refused(exact, model, lora_path):
    """Also by its own properties."""
    adapter = Adapter(model, lora_path)
    adapter.close()
    with pytest.raises(ClosedError, match="Adapter is closed"):
        exact.set_adapters({adapter: 1.0})
    with pytest.raises(ClosedError, match="Adapter is closed"):
        _ = adapter.alora_invocation_tokens
    assert exact.adapters == {}
    assert "closed" in repr(adapter)


def test_a_dropped_adapter_stays_while_a_context_uses_it(exact, model, lora_path):
    """The context holds it."""
    exact.set_adapters({Adapter(model, lora_path): 1.0})
    before = logits_of(exact)
    gc.collect()
    assert np.array_equal(logits_of(exact), before)
    exact.set_adapters({})
    gc.collect()
    assert not np.array_equal(logits_of(exact), before)


def test_closing_the_model_closes_its_adapters(tiny_path, lora_path):
    """Whichever order the children go in, nothing is freed twice."""
    model = pyllama.Model(tiny_path)
    context = model.context(n_ctx=256, n_threads=1)
    adapter = Adapter(model, lora_path)
    context.set_adapters({adapter: 1.0})
    context.decode(Batch([1]))
    model.close()
    assert adapter.closed
    assert context.closed
    adapter.close()


def test_an_adapter_is_neither_loaded_nor_closed_during_a_call(model, exact, lora_path):
    """libllama's list of adapters must not change while a context reads it."""
    adapter = Adapter(model, lora_path)
    with exact._call:
        with pytest.raises(BusyError, match="Context is in use"):
            Adapter(model, lora_path)
        with pytest.raises(BusyError, match="Context is in use"):
            adapter.close()
    assert not adapter.closed
    adapter.close()


def test_metadata_and_invocation_tokens_are_read(adapter, model, other_path):
    """Scalars come as text; an ordinary LoRA has no invocation tokens."""
    assert adapter.metadata["general.type"] == "adapter"
    assert float(adapter.metadata["adapter.lora.alpha"]) == 8.0
    assert adapter.alora_invocation_tokens == (5, 6, 7)
    with Adapter(model, other_path) as other:
        assert other.alora_invocation_tokens == ()
        assert "adapter.lora.alpha" not in other.metadata


def test_an_adapter_of_another_model_object_is_refused(tiny_path, lora_path, exact):
    """Even of the same file: the weights it points to are others."""
    with (
        pyllama.Model(tiny_path) as twin,
        Adapter(twin, lora_path) as adapter,
        pytest.raises(AdapterError, match="another Model"),
    ):
        exact.set_adapters({adapter: 1.0})
    assert exact.adapters == {}


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (-float("inf"), ValueError),
        (1e39, ValueError),
        (-1e39, ValueError),
        (10**400, ValueError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_scales_are_finite_numbers(exact, adapter, scale, error):
    """NaN would make every logit NaN."""
    with pytest.raises(error, match="scale"):
        exact.set_adapters({adapter: scale})
    assert exact.adapters == {}


@pytest.mark.parametrize("adapters", [None, [], "lora", {None: 1.0}, {"lora": 1.0}, {0: 1.0}])
def test_what_is_no_mapping_of_adapters_is_refused(exact, adapters):
    """With a TypeError that says what is needed."""
    with pytest.raises(TypeError, match=r"[Aa]dapter"):
        exact.set_adapters(adapters)


@pytest.mark.parametrize("model_like", [None, "tiny.gguf", 3, object()])
def test_an_adapter_needs_a_model(lora_path, model_like):
    """Not its path."""
    with pytest.raises(TypeError, match="for a Model"):
        Adapter(model_like, lora_path)


def test_a_context_is_no_model(exact, lora_path):
    """Though it is a handle."""
    with pytest.raises(TypeError, match="for a Model"):
        Adapter(exact, lora_path)


def test_a_vocabulary_alone_takes_no_adapter(tiny_path, lora_path):
    """There are no weights to change."""
    with (
        pyllama.Model(tiny_path, vocab_only=True) as model,
        pytest.raises(UnsupportedError, match="vocab_only"),
    ):
        Adapter(model, lora_path)


def test_files_that_are_not_there_or_no_adapters(model, tmp_path, tiny_path):
    """The system's own errors, and LoadError for what is no LoRA."""
    with pytest.raises(FileNotFoundError):
        Adapter(model, tmp_path / "nothing.gguf")
    with pytest.raises(IsADirectoryError):
        Adapter(model, tmp_path)
    with pytest.raises(LoadError, match="no LoRA adapter"):
        Adapter(model, tiny_path)
    with pytest.raises(TypeError):
        Adapter(model, None)
