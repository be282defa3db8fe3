"""Models from a list of files, and from open files."""

from __future__ import annotations

import io
import os
import tempfile

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill

import pyllama
from pyllama.errors import LoadError


def logits(model):
    """Decode a little."""
    with model.context(**SMALL) as context:
        return prefill(context)


@pytest.fixture
def parts(tmp_path):
    """Return the three files of a split model, under names of their own."""
    random_model.write_llama(tmp_path / "model.gguf", n_layer=1, split=5)
    names = "abc"
    return [
        path.rename(tmp_path / name)
        for path, name in zip(sorted(tmp_path.glob("*.gguf")), names, strict=True)
    ]


@pytest.fixture
def embedded(tmp_path, tiny_path):
    """Return a function that puts the tiny model into a larger file, after *n* bytes."""

    def embed(n):
        path = tmp_path / f"archive-{n}"
        path.write_bytes(b"x" * n + tiny_path.read_bytes() + b"end")
        return path

    return embed


def test_parts_are_loaded_in_order_whatever_their_names(parts, tmp_path):
    """And answer as the whole model does."""
    whole = random_model.write_llama(tmp_path / "whole.gguf", n_layer=1)
    with pyllama.Model(parts) as model, pyllama.Model(whole) as other:
        assert np.array_equal(logits(model), logits(other))
        assert model.path == str(parts[0])
        assert model._weights_sample == other._weights_sample


def test_parts_in_another_order_are_refused(parts):
    """Each says which one it is."""
    with pytest.raises(LoadError, match="says it is part 2 of 3, but it is given as 1 of 3"):
        pyllama.Model([parts[1], parts[0], parts[2]])


def test_a_part_alone_is_refused(parts):
    """The others are not looked for: they were to be named."""
    with pytest.raises(LoadError, match="part 1 of 3, but it is given as 1 of 1"):
        pyllama.Model(parts[:1])


def test_a_broken_part_is_named(parts):
    """Each file is checked before C sees it."""
    parts[2].write_bytes(parts[2].read_bytes()[:-100])
    with pytest.raises(LoadError, match="incomplete") as raised:
        pyllama.Model(parts)
    assert str(parts[2]) in str(raised.value)


def test_a_list_of_one_whole_file_is_that_file(tiny_path, model):
    """No split is needed."""
    with pyllama.Model([tiny_path]) as other:
        assert np.array_equal(logits(other), logits(model))


@pytest.mark.parametrize("load_mode", ["auto", "none"])
@pytest.mark.parametrize("start", [0, 64])
def test_an_open_file_is_read_from_where_it_stands(embedded, model, start, load_mode):
    """And stands there still."""
    with embedded(start).open("rb") as file:
        file.read(start)
        with pyllama.Model(file, load_mode=load_mode) as other:
            assert file.tell() == start
            assert file.read(4) == b"GGUF"
            file.close()
            assert np.array_equal(logits(other), logits(model))
            assert other._weights_sample == model._weights_sample


def test_a_file_without_a_name_will_do(tiny_path, model):
    """It was deleted already; what was written to it is there."""
    with tempfile.TemporaryFile() as file:
        file.write(tiny_path.read_bytes())
        file.seek(0)
        with pyllama.Model(file) as other:
            assert np.array_equal(logits(other), logits(model))


def test_tensors_that_cannot_be_mapped_are_refused(embedded, model):
    """The error says how they can be loaded."""
    with embedded(7).open("rb") as file:
        file.seek(7)
        with pytest.raises(ValueError, match=r"no multiple of 32.*load_mode='none'"):
            pyllama.Model(file)
        with pytest.raises(ValueError, match="lazy_mode='off'"):
            pyllama.Model(file, load_mode="none", lazy_mode="on")
        with pyllama.Model(file, load_mode="none") as other:
            assert np.array_equal(logits(other), logits(model))


def test_an_embedded_model_is_checked_where_it_is(embedded):
    """Not at the beginning of the file."""
    path = embedded(64)
    with path.open("rb") as file:
        with pytest.raises(LoadError, match="not a GGUF file"):
            pyllama.Model(file)
        file.seek(64)
        os.truncate(path, 5000)
        with pytest.raises(LoadError, match="incomplete"):
            pyllama.Model(file)


def test_a_part_as_an_open_file_is_refused(parts):
    """Its siblings cannot be found."""
    with parts[0].open("rb") as file, pytest.raises(LoadError, match="part 1 of a split model"):
        pyllama.Model(file)


def test_other_files_are_type_errors(tiny_path):
    """libllama reads bytes through a descriptor."""
    with (
        tiny_path.open() as text,
        pytest.raises(TypeError, match="'rb'"),
    ):
        pyllama.Model(text)
    with pytest.raises(TypeError, match="no file of the system"):
        pyllama.Model(io.BytesIO(tiny_path.read_bytes()))


@pytest.mark.parametrize("source", [5, None, [5], {"a": 1}, [None]])
def test_what_is_no_source_is_a_type_error(source):
    """The message says what there is."""
    with pytest.raises(TypeError, match="a path, a sequence of paths or an open file"):
        pyllama.Model(source)


def test_no_files_are_refused():
    """A model has at least one."""
    with pytest.raises(ValueError, match="at least one file"):
        pyllama.Model([])


def test_a_trial_needs_a_path(tiny_path):
    """The other process has nothing else."""
    with tiny_path.open("rb") as file, pytest.raises(ValueError, match="given by its path"):
        pyllama.Model(file, verify="trial")
