"""Assertions that fail inside libllama, below real calls: an exception, and no more than that.

libllama calls functions that it was given: at each node of a graph, while it loads, to sample. Here
it is given one of its own that asserts, so that the assertion is a real one, and unwinds through
all that lies between it and our guard. Tokenizing calls nothing back, but asserts on a vocabulary
that is not there.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import random_model
from decoding import PROMPT, SMALL, prefill
from repeating import LEAK, repeat

import pyllama
from pyllama import _libllama
from pyllama._libllama import ffi, lib
from pyllama.core.params import MODEL_CHECKS
from pyllama.core.sampler import Sampler
from pyllama.errors import LibraryAbortError, LoadError, StateError


def address(name: str):
    """Return where a function of libllama lies, not that of the guarded call to it."""
    function = getattr(ctypes.CDLL(_libllama.__file__), name)
    return ffi.cast("void *", ctypes.cast(function, ctypes.c_void_p).value)


def broken_context(model):
    """Make a context whose abort callback is ggml_backend_dev_name(NULL), which asserts."""
    context = model.context(**SMALL)
    callback = ffi.cast("ggml_abort_callback", address("ggml_backend_dev_name"))
    lib.llama_set_abort_callback(context.pointer, callback, ffi.NULL)
    return context


def test_decode_raises_and_the_context_can_only_be_closed(model):
    """The model lives on: a new context computes what it should."""
    with model.context(**SMALL) as context:
        wanted = prefill(context)
    context = broken_context(model)
    with pytest.raises(LibraryAbortError, match=r"GGML_ASSERT\(device\) failed"):
        context.decode(pyllama.Batch(PROMPT))
    with pytest.raises(StateError, match="can only be closed") as poisoned:
        context.memory.pos_max(0)
    assert isinstance(poisoned.value.__cause__, LibraryAbortError)
    with pytest.raises(StateError):
        context.decode(pyllama.Batch(PROMPT))
    context.close()
    with model.context(**SMALL) as context:
        assert np.array_equal(prefill(context), wanted)


def test_decode_leaves_nothing_behind(model):
    """However often it fails."""

    def fail():
        with broken_context(model) as context, pytest.raises(LibraryAbortError):
            context.decode(pyllama.Batch(PROMPT))

    assert repeat(fail) < LEAK


def test_load_raises_what_libllama_said(tiny_path, monkeypatch):
    """libllama itself catches it, and frees what it had loaded: there is no object to poison."""
    callback = ffi.cast("llama_progress_callback", address("ggml_backend_dev_name"))
    monkeypatch.setitem(MODEL_CHECKS, "progress_callback", lambda _name, value: value)

    def fail():
        with pytest.raises(LoadError, match=r"GGML_ASSERT\(device\) failed"):
            pyllama.Model(tiny_path, progress_callback=callback)

    assert repeat(fail) < LEAK
    with pyllama.Model(tiny_path) as model, model.context(**SMALL) as context:
        assert np.isfinite(prefill(context)).all()


def broken_chain():
    """Make a chain with a sampler whose `apply` is llama_perf_sampler_reset, which asserts."""
    interface = ffi.new("struct llama_sampler_i *")
    interface.apply = ffi.cast("void *", address("llama_perf_sampler_reset"))
    pointer = lib.llama_sampler_init(interface, ffi.NULL)
    broken = Sampler(pointer, "broken", {"keeps": interface})
    return pyllama.SamplerChain([broken, pyllama.samplers.dist(1)])


def test_sample_raises_and_the_chain_can_only_be_closed():
    """A new chain samples."""
    row = np.linspace(-1, 1, 512, dtype=np.float32)
    chain = broken_chain()
    with pytest.raises(LibraryAbortError, match="invalid sampler passed"):
        chain.sample(row)
    with pytest.raises(StateError, match="can only be closed"):
        chain.sample(row)
    chain.close()
    with pyllama.SamplerChain([pyllama.samplers.dist(1)]) as chain:
        assert 0 <= chain.sample(row) < 512


def test_sample_leaves_nothing_behind():
    """However often it fails."""
    row = np.linspace(-1, 1, 512, dtype=np.float32)

    def fail():
        with broken_chain() as chain, pytest.raises(LibraryAbortError):
            chain.sample(row)

    assert repeat(fail) < LEAK


def test_tokenize_raises_and_the_model_can_only_be_closed(tmp_path):
    """Behind the check that keeps it from happening; a model that has a vocabulary is not hurt."""
    path = random_model.write_llama(tmp_path / "none.gguf", vocab="none")

    def fail():
        with pyllama.Model(path) as model:
            vocab = model.vocab
            with pytest.raises(LibraryAbortError, match=r"GGML_ASSERT|fatal error"):
                vocab._call(b"text", False, False)
            with pytest.raises(StateError, match="can only be closed"):
                model.context(**SMALL)

    assert repeat(fail) < LEAK
    with pyllama.Model(pyllama.demo_model()) as model:
        assert len(model.vocab.tokenize("text"))
