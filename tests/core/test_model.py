"""Loading, what a model says of itself, and what it refuses."""

from __future__ import annotations

import os
import threading
import warnings

import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Batch
from pyllama.errors import ClosedError, LoadError


def test_sizes_are_those_of_the_file(model):
    """Numbers from libllama, under the names of llama.h."""
    assert (model.n_vocab, model.n_embd, model.n_layer) == (512, 64, 2)
    assert (model.n_head, model.n_head_kv, model.n_ctx_train) == (4, 2, 512)
    assert (model.n_embd_inp, model.n_embd_out, model.n_swa) == (64, 64, 0)
    assert model.n_bytes == model.n_params * 4
    assert model.ftype is pyllama.FType.GUESSED  # the file says nothing
    assert model.rope_type is pyllama.RopeType.NORM
    assert model.rope_freq_scale_train == 1.0
    assert (model.n_cls_out, model.cls_labels, model.n_layer_nextn) == (0, (), 0)


def test_metadata_is_a_mapping(model):
    """Every scalar of the file, as text."""
    assert model.architecture == model.metadata["general.architecture"] == "llama"
    assert model.metadata["llama.block_count"] == "2"
    assert len(model.metadata) == len(list(model.metadata))
    assert "no.such.key" not in model.metadata


def test_long_metadata_is_whole(tmp_path):
    """Values longer than any fixed buffer come complete, in any script."""
    text = "größe ∑ " * 2000
    path = random_model.write_llama(tmp_path / "m.gguf", metadata={"general.description": text})
    with pyllama.Model(path, vocab_only=True) as model:
        assert model.metadata["general.description"] == text


def test_chat_templates_by_name(tmp_path):
    """The default one, a named one, none."""
    path = random_model.write_llama(
        tmp_path / "m.gguf",
        metadata={
            "tokenizer.chat_template": "{{ default }}",
            "tokenizer.chat_template.tool_use": "{{ tools }}",
        },
    )
    with pyllama.Model(path) as model:
        assert model.chat_template() == "{{ default }}"
        assert model.chat_template("tool_use") == "{{ tools }}"
        assert model.chat_template("other") is None


@pytest.mark.parametrize(
    ("write", "traits"),
    [
        (random_model.write_llama, {"has_decoder"}),
        (random_model.write_mamba, {"has_decoder", "is_recurrent"}),
        (random_model.write_jamba, {"has_decoder", "is_hybrid"}),
        (random_model.write_t5, {"has_decoder", "has_encoder"}),
        (
            lambda path: random_model.write_llama(path, arch="llada"),
            {"has_decoder", "is_diffusion"},
        ),
    ],
)
def test_traits_of_architectures(tmp_path, write, traits):
    """Encoder, recurrent, hybrid, diffusion."""
    names = {"has_encoder", "has_decoder", "is_recurrent", "is_hybrid", "is_diffusion"}
    with pyllama.Model(write(tmp_path / "m.gguf")) as model:
        assert {name for name in names if getattr(model, name)} == traits
        assert (model.decoder_start_token is not None) == model.has_encoder


def test_progress_is_told(tiny_path):
    """From 0 to 1, never back."""
    seen = []
    with pyllama.Model(tiny_path, progress=seen.append):
        pass
    assert seen
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_can_cancel(tiny_path):
    """False ends the load with an error that says so."""
    with pytest.raises(LoadError, match="cancelled"):
        pyllama.Model(tiny_path, progress=lambda _: False)


def test_what_a_progress_callback_raises_arrives(tiny_path):
    """The same exception, not a copy."""
    error = KeyboardInterrupt()

    def progress(_):
        raise error

    with pytest.raises(KeyboardInterrupt) as raised:
        pyllama.Model(tiny_path, progress=progress)
    assert raised.value is error


def test_a_vocabulary_alone_tokenizes(tiny_path):
    """Without weights."""
    with pyllama.Model(tiny_path, vocab_only=True) as model:
        assert len(model.vocab.tokenize("hello"))


def test_a_split_model_is_found_by_its_first_part(tmp_path):
    """And answers as the whole one does."""
    whole = random_model.write_llama(tmp_path / "whole.gguf")
    first = random_model.write_llama(tmp_path / "part.gguf", split=5)
    rows = []
    for path in (whole, first):
        with pyllama.Model(path) as model, model.context(n_ctx=256) as context:
            context.decode(Batch([1, 2, 3]))
            rows.append(context.logits())
    assert first != whole
    assert np.array_equal(*rows)


def test_files_that_are_no_model(tmp_path):
    """Each kind has its own error."""
    empty = tmp_path / "empty.gguf"
    empty.touch()
    fifo = tmp_path / "fifo.gguf"
    os.mkfifo(fifo)
    for path, error in (
        (tmp_path / "missing.gguf", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (empty, LoadError),
        (fifo, LoadError),
    ):
        with pytest.raises(error):
            pyllama.Model(path)


def test_libllamas_words_are_in_the_error(tmp_path):
    """A file that is well formed and still no model."""
    path = random_model.write_llama(tmp_path / "m.gguf", arch="nonesuch")
    with pytest.raises(LoadError, match="nonesuch") as raised:
        pyllama.Model(path)
    assert any("nonesuch" in line for line in raised.value.log)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_gpu_layers": -1}, ValueError),
        ({"n_gpu_layers": "all"}, TypeError),
        ({"load_mode": 99}, ValueError),
        ({"split_mode": "diagonal"}, ValueError),
        ({"main_gpu": -1}, ValueError),
        ({"vocab_only": 1}, TypeError),
        ({"use_mmap": True}, TypeError),
    ],
)
def test_options_out_of_range_are_refused(tiny_path, options, error):
    """An unknown name is an error, not ignored."""
    with pytest.raises(error, match=next(iter(options))):
        pyllama.Model(tiny_path, **options)


@pytest.mark.parametrize("load_mode", ["none", "mmap", "direct_io"])
def test_ways_to_load_give_the_same_model(tiny_path, load_mode):
    """Mapped or read."""
    with pyllama.Model(tiny_path, load_mode=load_mode) as model, model.context() as context:
        context.decode(Batch([1]))
        assert np.isfinite(context.logits()).all()


def test_gpu_layers_without_a_gpu_are_warned_of(tiny_path):
    """One sentence that says how to build with one; none where there is a GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pyllama.Model(tiny_path, n_gpu_layers=1).close()
    has_gpu = any(device.is_gpu for device in pyllama.devices())
    assert [("CMAKE_ARGS" in str(each.message)) for each in caught] == [True] * (not has_gpu)


def test_one_model_serves_contexts_in_many_threads(model):
    """Each thread has its own context; the answers are those of one thread."""

    def row() -> np.ndarray:
        with model.context(n_ctx=256, n_threads=1) as context:
            context.decode(Batch([1, 2, 3]))
            return context.logits()

    expected, found = row(), []
    threads = [threading.Thread(target=lambda: found.append(row())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(expected, each) for each in found)


def test_a_closed_model_refuses(tiny_path):
    """And its repr still works."""
    model = pyllama.Model(tiny_path)
    vocab = model.vocab
    model.close()
    for call in (lambda: model.n_params, model.context, lambda: vocab.tokenize("a")):
        with pytest.raises(ClosedError, match="Model is closed"):
            call()
    assert "closed" in repr(model)


def test_a_dropped_model_is_freed_at_once(tiny_path):
    """No cycle keeps it until the garbage collector comes."""
    model = pyllama.Model(tiny_path)
    record = model._record
    assert model.vocab.n_tokens == 512
    del model
    assert record.pointer is None
