"""Control vectors: what they add to the layers, and their files."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import random_model
from reference import Llama

import pyllama
from pyllama import Batch
from pyllama.core.control_vector import ControlVector
from pyllama.errors import AdapterError, LoadError, StateError, UnsupportedError
from pyllama.generate import Report, tokens

TOKENS = [1, 40, 300, 7, 99, 12]
N_LAYER, N_EMBD = 4, 64


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Write a model of four layers."""
    folder = tmp_path_factory.mktemp("deep")
    return random_model.write_llama(folder / "deep.gguf", n_layer=N_LAYER)


@pytest.fixture(scope="module")
def deep(path):
    """Load it."""
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture
def exact(deep):
    """Make a context whose logits are those of the weights."""
    with deep.context(n_ctx=256, exact=True, n_threads=1, n_threads_batch=1) as context:
        yield context


@pytest.fixture
def vector():
    """Draw a direction for each layer but the first."""
    return np.random.default_rng(0).normal(0, 0.5, (N_LAYER - 1, N_EMBD)).astype(np.float32)


def logits_of(context):
    """Decode `TOKENS` into an empty memory, and return all logits."""
    context.memory.clear()
    context.decode(Batch(TOKENS, output="all"))
    return context.logits()


@pytest.mark.parametrize("layers", [None, (1, 4), (1, 2), (2, 3), (3, 4), (2, 4)])
def test_it_is_added_to_what_the_layers_put_out(exact, path, vector, layers):
    """Rows count from layer 1, ranges are half-open."""
    exact.set_control_vector(vector, layers=layers)
    offsets = np.zeros((N_LAYER, N_EMBD))
    start, end = layers or (1, N_LAYER)
    offsets[start:end] = vector[start - 1 : end - 1]
    expected = Llama(path).logits(TOKENS, offsets)
    assert np.abs(logits_of(exact) - expected).max() < 1e-4
    assert np.abs(expected - Llama(path).logits(TOKENS)).max() > 0.01


def test_none_takes_it_off(exact, vector):
    """The same bits as before."""
    plain = logits_of(exact)
    exact.set_control_vector(vector)
    assert not np.array_equal(logits_of(exact), plain)
    exact.set_control_vector(None)
    assert np.array_equal(logits_of(exact), plain)


def test_a_second_one_takes_the_place_of_the_first(exact, vector):
    """They do not add up; and the array may change afterwards."""
    exact.set_control_vector(vector)
    expected = logits_of(exact)
    exact.set_control_vector(-3 * vector, layers=(1, 2))
    exact.set_control_vector(vector)
    vector[:] = 0
    assert np.array_equal(logits_of(exact), expected)


def test_setting_one_withdraws_logits_and_trust(exact, vector):
    """The logits are gone, and generate decodes the prompt again."""
    report = Report()
    list(tokens(exact, [5, 6, 7, 8], max_tokens=4, ignore_eog=True))
    exact.set_control_vector(vector)
    with pytest.raises(StateError, match="no logits"):
        exact.logits()
    list(tokens(exact, [5, 6, 7, 8], max_tokens=4, ignore_eog=True, report=report))
    assert report.n_reused == 0


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros((N_LAYER, N_EMBD)),
        np.zeros((N_LAYER - 2, N_EMBD)),
        np.zeros((N_LAYER - 1, N_EMBD + 1)),
        np.zeros((N_LAYER - 1) * N_EMBD),
        np.zeros((0, N_EMBD)),
        np.float32(1),
        np.full((N_LAYER - 1, N_EMBD), np.nan),
        np.full((N_LAYER - 1, N_EMBD), -np.inf),
        np.full((N_LAYER - 1, N_EMBD), 1e39),
        [],
    ],
)
def test_vectors_of_other_shapes_are_refused(exact, vector):
    """So are numbers that float32 cannot hold."""
    with pytest.raises(ValueError, match="control vector"):
        exact.set_control_vector(vector)


@pytest.mark.parametrize("vector", ["up", [["a"]], object(), np.zeros((3, 64), complex), True])
def test_what_is_no_number_is_refused(exact, vector):
    """With a TypeError."""
    with pytest.raises(TypeError, match="numbers"):
        exact.set_control_vector(vector)


@pytest.mark.parametrize("layers", [(0, 4), (1, 5), (2, 2), (3, 2), (-1, 4), (4, 4), (1, 2**31)])
def test_layer_ranges_are_checked(exact, vector, layers):
    """Nothing is clamped."""
    with pytest.raises(ValueError, match="layers"):
        exact.set_control_vector(vector, layers=layers)


@pytest.mark.parametrize("layers", [3, (1,), (1, 2, 3), [1, 2], "12", (1.0, 2), (None, 2)])
def test_a_range_is_a_pair_of_integers(exact, vector, layers):
    """Nothing else."""
    with pytest.raises(TypeError, match="layers"):
        exact.set_control_vector(vector, layers=layers)


def test_a_range_without_a_vector_is_refused(exact):
    """It would say nothing."""
    with pytest.raises(ValueError, match="layers"):
        exact.set_control_vector(None, layers=(1, 2))


def test_a_model_of_one_layer_takes_none(tmp_path):
    """There is no layer 1."""
    path = random_model.write_llama(tmp_path / "flat.gguf", n_layer=1)
    with (
        pyllama.Model(path) as model,
        model.context(n_ctx=256, n_threads=1) as context,
        pytest.raises(UnsupportedError, match="layer 0 only"),
    ):
        context.set_control_vector(np.zeros((0, 64)))


def test_a_file_comes_back_as_it_was(tmp_path, vector):
    """Also by gguf-py, whose writer repeng uses."""
    path = tmp_path / "vector.gguf"
    saved = ControlVector({3: vector[2], 1: vector[0]}, model_hint="llama")
    saved.save(path)
    loaded = ControlVector.load(path)
    assert (list(loaded.directions), loaded.model_hint, loaded.n_embd) == ([1, 3], "llama", 64)
    assert np.array_equal(loaded.matrix(N_LAYER), [vector[0], np.zeros(64), vector[2]])
    reader = gguf.GGUFReader(path)
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert {each.name: each.data.tolist() for each in reader.tensors} == {
        "direction.1": vector[0].tolist(),
        "direction.3": vector[2].tolist(),
    }


def test_a_file_of_repeng_is_read(tmp_path):
    """Written by gguf-py with the keys that repeng writes; 5 numbers need padding."""
    path = tmp_path / "vector.gguf"
    write_repeng(path, {"direction.2": np.arange(5, dtype=np.float32)})
    loaded = ControlVector.load(path)
    assert loaded.directions[2].tolist() == [0, 1, 2, 3, 4]
    loaded.save(path)
    assert ControlVector.load(path).directions[2].tolist() == [0, 1, 2, 3, 4]


def write_repeng(path, tensors, arch="controlvector"):
    """Write a file as repeng does."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ROW = np.ones(8, np.float32)
BROKEN = {
    "no tensors": {},
    "layer 0": {"direction.0": ROW},
    "no number": {"direction.x": ROW},
    "no layer": {"direction.": ROW},
    "a leading zero": {"direction.01": ROW},
    "another name": {"1": ROW},
    "a huge layer": {"direction.99999999999": ROW},
    "f16": {"direction.1": ROW.astype(np.float16)},
    "two rows": {"direction.1": np.ones((2, 8), np.float32)},
    "two lengths": {"direction.1": ROW, "direction.2": np.ones(9, np.float32)},
    "NaN": {"direction.1": ROW * np.nan},
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path, name):
    """With a LoadError that names the file."""
    path = tmp_path / "broken.gguf"
    write_repeng(path, BROKEN[name])
    with pytest.raises(LoadError, match="broken"):
        ControlVector.load(path)


def test_other_files_are_refused(tmp_path, path):
    """A model is no control vector."""
    with pytest.raises(LoadError, match="no control vector but 'llama'"):
        ControlVector.load(path)
    with pytest.raises(FileNotFoundError):
        ControlVector.load(tmp_path / "nothing")


def test_a_vector_of_a_deeper_model_is_refused(vector):
    """Its last layers would be left out silently."""
    with pytest.raises(AdapterError, match="layer 4"):
        ControlVector({4: vector[0]}).matrix(4)
    with pytest.raises(ValueError, match="n_layer"):
        ControlVector({1: vector[0]}).matrix(1)


@pytest.mark.parametrize(
    ("directions", "error"),
    [
        (None, TypeError),
        ([ROW], TypeError),
        ({}, ValueError),
        ({0: ROW}, ValueError),
        ({-1: ROW}, ValueError),
        ({"1": ROW}, TypeError),
        ({1: "x"}, TypeError),
        ({1: []}, ValueError),
        ({1: [[1.0]]}, ValueError),
        ({1: [float("inf")]}, ValueError),
        ({1: ROW, 2: [1.0]}, ValueError),
    ],
)
def test_directions_are_checked(directions, error):
    """Layers from 1, rows of finite numbers of one length."""
    with pytest.raises(error):
        ControlVector(directions)


def test_directions_cannot_be_changed(vector):
    """Neither the mapping nor its arrays."""
    held = ControlVector({1: vector[0]})
    with pytest.raises(TypeError):
        held.directions[2] = vector[1]
    with pytest.raises(ValueError, match="read-only"):
        held.directions[1][0] = 5
    with pytest.raises(TypeError, match="model_hint"):
        ControlVector({1: vector[0]}, model_hint=None)
