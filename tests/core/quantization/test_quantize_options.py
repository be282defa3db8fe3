"""What `quantize` refuses before it does anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import random_model

from pyllama import FType, ImportanceMatrix, quantize
from pyllama.errors import QuantizeError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a llama whose rows divide into every kind of block."""
    path = tmp_path_factory.mktemp("quantize") / "f32.gguf"
    return random_model.write_llama(path, n_embd=256, n_ff=256, n_layer=2)


def left_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder."""
    return sorted(each.name for each in folder.iterdir())


FEW_BITS = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS Q2_K_S".split()


@pytest.mark.parametrize("name", FEW_BITS)
def test_few_bits_need_an_imatrix(source, tmp_path, name):
    """Before anything is done."""
    with pytest.raises(ValueError, match="imatrix"):
        quantize(source, tmp_path / "out.gguf", ftype=name)
    assert left_in(tmp_path) == []


def other_model() -> ImportanceMatrix:
    """Make an importance matrix of another width."""
    return ImportanceMatrix({"blk.0.attn_q.weight": [[1.0] * 7]}, {"blk.0.attn_q.weight": [1]})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ftype": "q9"}, ValueError),
        ({"ftype": None}, TypeError),
        ({"ftype": FType.GUESSED}, ValueError),
        ({"ftype": "nvfp4"}, ValueError),
        ({"nthread": 0}, ValueError),
        ({"nthread": "2"}, TypeError),
        ({"threads": 2}, TypeError),
        ({"output_tensor_type": 99}, ValueError),
        ({"output_tensor_type": "iq2_xs"}, ValueError),
        ({"token_embedding_type": "i32"}, ValueError),
        ({"token_embedding_type": "q8_K"}, ValueError),
        ({"pure": 1}, TypeError),
        ({"max_buf_size": -1}, ValueError),
        ({"tt_overrides": ["a"]}, TypeError),
        ({"tt_overrides": {1: "q8_0"}}, TypeError),
        ({"tt_overrides": {"": "q8_0"}}, ValueError),
        ({"tt_overrides": {"attn": "i8"}}, ValueError),
        ({"tt_overrides": {"attn": "iq1_m"}}, ValueError),
        ({"tt_overrides": {"attn": "q8_0"}, "ftype": "f16"}, ValueError),
        ({"only_copy": True, "output_tensor_type": "f16"}, ValueError),
        ({"prune_layers": [2]}, ValueError),
        ({"prune_layers": [-1]}, ValueError),
        ({"prune_layers": [0, 1]}, ValueError),
        ({"prune_layers": [0, 0]}, ValueError),
        ({"prune_layers": "0"}, TypeError),
        ({"prune_layers": 0}, TypeError),
        ({"keep_split": True}, ValueError),
        ({"kv_overrides": {"llama.context_length": -5}}, ValueError),
        ({"kv_overrides": {"llama.context_length": "x"}}, TypeError),
        ({"kv_overrides": 5}, TypeError),
        ({"imatrix": 5}, TypeError),
        ({"imatrix": other_model()}, ValueError),
        ({"imatrix": ImportanceMatrix({"x": [[1.0]]}, {"x": [1]})}, ValueError),
        ({"progress": 1}, TypeError),
    ],
    ids=lambda value: json.dumps(value, default=str)[:40] if isinstance(value, dict) else "",
)
def test_arguments_are_checked_before_anything_is_done(source, tmp_path, options, error):
    """No process is started, no file made."""
    with pytest.raises(error):
        quantize(source, tmp_path / "out.gguf", **options)
    assert left_in(tmp_path) == []


def test_a_pattern_that_is_no_pattern_is_told(source, tmp_path):
    """libllama's own words; nothing is left."""
    with pytest.raises(QuantizeError, match="not quantised"):
        quantize(source, tmp_path / "out.gguf", tt_overrides={"(": "q4_0"})
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        ("/nonexistent/folder/out.gguf", FileNotFoundError),
        ("/dev/full", OSError),
        ("/", IsADirectoryError),
        ("a\0b", ValueError),
    ],
)
def test_targets_are_checked(source, target, error):
    """As the file system says."""
    with pytest.raises(error):
        quantize(source, target)


def test_numbers_that_would_change_their_type_are_refused(tmp_path):
    """libllama writes each whole number as u32; this one is i32."""
    path = random_model.write_llama(tmp_path / "model.gguf", metadata={"a.number": 5})
    u32, i32 = (b"a.number" + kind.to_bytes(4, "little") for kind in (4, 5))
    path.write_bytes(path.read_bytes().replace(u32, i32))
    with pytest.raises(ValueError, match="another type"):
        quantize(path, tmp_path / "out.gguf", kv_overrides={"a.number": 7})
