"""Projector files that would end the process are refused, by name of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_model
from fuzz.mutate import parse
from random_model import projector as writer

from pyllama import Projector
from pyllama.core.files.gguf import read_header
from pyllama.core.media.projector_rules import check_image_tokens, check_projector
from pyllama.errors import LoadError


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes a projector after its tensors were changed."""

    def write(change: Any = list, kind: str = "janus_pro", **metadata: Any) -> Path:
        def changed(path: Any, arch: str, pairs: Any, tensors: Any, *, seed: int) -> Path:
            return random_model.write(path, arch, pairs, list(change(tensors)), seed=seed)

        monkeypatch.setattr(writer, "write", changed)
        if kind == "ultravox":
            return writer.write_audio_projector(tmp_path / "changed.gguf", metadata=metadata)
        return writer.write_projector(tmp_path / "changed.gguf", type=kind, metadata=metadata)

    return write


def without(name: str) -> Any:
    """Return a change that drops a tensor."""
    return lambda tensors: [tensor for tensor in tensors if tensor.name != name]


def typed(name: str, kind: str) -> Any:
    """Return a change of a tensor's type."""
    return lambda tensors: [
        tensor._replace(kind=kind) if tensor.name == name else tensor for tensor in tensors
    ]


@pytest.mark.parametrize("kind", ["janus_pro", "gemma3", "qwen2vl_merger", "ultravox"])
def test_what_works_is_not_refused(written, kind):
    """Projectors as they should be pass."""
    header = read_header(written(kind=kind))
    check_projector(header)
    assert len(header.tensors) > 20


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({"clip.has_vision_encoder": None}, "neither"),
        ({"clip.has_vision_encoder": 1}, "has_vision_encoder"),
        ({"clip.vision.attention.head_count": 0}, "heads"),
        ({"clip.vision.attention.head_count": 33}, "heads"),
        ({"clip.vision.attention.head_count": "two"}, "head_count"),
        ({"clip.vision.attention.head_count_kv": 3}, "heads"),
        ({"clip.vision.embedding_length": 0}, "heads"),
        ({"clip.vision.block_count": 100_000}, "block_count"),
        ({"clip.vision.patch_size": 0}, "patch_size"),
        ({"clip.vision.patch_size": 256}, "patch_size"),
        ({"clip.vision.image_size": 4096}, "more than 65536 patches"),
        ({"clip.vision.attention.layer_norm_epsilon": float("nan")}, "epsilon"),
        ({"clip.vision.attention.layer_norm_epsilon": -1.0}, "epsilon"),
        ({"clip.vision.image_grid_pinpoints": [2**31 - 1, 2**31 - 1]}, "pinpoints"),
        ({"clip.vision.image_grid_pinpoints": [0, 0]}, "pinpoints"),
        ({"clip.vision.image_grid_pinpoints": [32, 32] * 1025}, "pinpoints"),
        ({"clip.vision.preproc_max_tiles": 2**31 - 1}, "max_tiles"),
        ({"clip.projector_type": "mlp"}, "missing"),
        ({"clip.projector_type": [1, 2]}, "not text"),
    ],
)
def test_values_that_end_the_process_are_refused(written, metadata, what):
    """Divisors, sizes, counts and the types of values."""
    with pytest.raises(LoadError, match=what):
        check_projector(read_header(written(**metadata)))


@pytest.mark.parametrize(
    "name",
    ["v.patch_embd.weight", *(f"v.blk.1.attn_{part}.weight" for part in "qkv")],
)
def test_tensors_that_libmtmd_takes_as_optional_must_be_there(written, name):
    """It would follow a NULL pointer to them."""
    with pytest.raises(LoadError, match=f"{name}' is missing"):
        check_projector(read_header(written(without(name))))


@pytest.mark.parametrize("name", ["v.patch_embd.weight.1", "v.blk.0.attn_k.bias"])
def test_a_qwen_has_biases_and_a_second_kernel(written, name):
    """Its graph adds them without a look whether they are there."""
    with pytest.raises(LoadError, match=f"{name}' is missing"):
        check_projector(read_header(written(without(name), "qwen2vl_merger")))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("block_count", 0, "block_count"), ("attention.head_count", 16, "a multiple of 4")],
)
def test_a_qwen_has_blocks_and_heads_to_turn(written, key, value, what):
    """Its positions are set, and half of each head is turned by them."""
    with pytest.raises(LoadError, match=what):
        check_projector(
            read_header(written(kind="qwen2vl_merger", **{f"clip.vision.{key}": value}))
        )


@pytest.mark.parametrize("name", ["mm.a.norm_pre.weight", "mm.a.norm_mid.weight"])
def test_the_norms_of_a_whisper_are_f32(written, name):
    """They are multiplied with."""
    path = written(kind="ultravox")
    file = parse(path)
    (tensor,) = (tensor for tensor in file.tensors if tensor.name.decode() == name)
    tensor.type = 1
    tensor.fit()
    path.write_bytes(file.encode()[0])
    with pytest.raises(LoadError, match=f"{name}' has the type f16"):
        check_projector(read_header(path))


def test_the_sounds_of_a_whisper_have_positions_and_blocks(written):
    """Both are read without a look whether they are there."""
    with pytest.raises(LoadError, match="position_embd"):
        check_projector(read_header(written(without("a.position_embd.weight"), "ultravox")))
    with pytest.raises(LoadError, match="block_count"):
        check_projector(read_header(written(kind="ultravox", **{"clip.audio.block_count": 0})))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v.blk.0.attn_q.bias", "f16"),
        ("mm.0.bias", "q8_0"),
        ("v.position_embd.weight", "f16"),
    ],
)
def test_norms_and_biases_are_f32(written, name, kind):
    """Others abort in a thread of libllama's, where nothing can catch it."""
    with pytest.raises(LoadError, match=r"only as f32"):
        check_projector(read_header(written(typed(name, kind))))


@pytest.mark.parametrize("name", ["v.blk.0.attn_q.bias", "v.patch_embd.bias", "mm.0.bias"])
@pytest.mark.parametrize("shape", [(1,), (2, 64), (63,)])
def test_a_bias_is_as_long_as_its_weight_has_rows(written, name, shape):
    """Otherwise an assertion fails on one thread while the others wait for it."""

    def change(tensors: Any) -> Any:
        return [t._replace(shape=shape) if t.name == name else t for t in tensors]

    with pytest.raises(LoadError, match="but its weight has"):
        check_projector(read_header(written(change)))


@pytest.mark.parametrize("name", ["mm.a.mlp.1.weight", "a.blk.0.ffn_up.weight"])
def test_a_tensor_has_values(written, name):
    """A side of 0 is divided by, which ends the process with SIGFPE."""

    def change(tensors: Any) -> Any:
        return [t._replace(shape=(0, *t.shape)) if t.name == name else t for t in tensors]

    with pytest.raises(LoadError, match=f"{name}' has the shape .*: no values"):
        check_projector(read_header(written(change, "ultravox")))


def test_no_integers_are_multiplied_with(written):
    """A matrix of integers makes libllama call a NULL pointer."""
    path = written()
    data = bytearray(path.read_bytes())
    at = data.index(b"v.blk.0.ffn_up.weight") + len(b"v.blk.0.ffn_up.weight") + 4 + 16
    assert data[at : at + 4] == np.array(0, "<u4").tobytes()
    data[at] = 26  # GGML_TYPE_I32
    path.write_bytes(data)
    with pytest.raises(LoadError, match="i32"):
        check_projector(read_header(path))


def test_tokens_of_an_image_must_fit_as_pixels(written):
    """C counts pixels in 32 bits."""
    header = read_header(written(**{"clip.vision.patch_size": 64}))
    check_image_tokens(header, -1, -1)
    check_image_tokens(header, 8, 4096)
    with pytest.raises(ValueError, match="are the most"):
        check_image_tokens(header, -1, 1 << 20)
    with pytest.raises(ValueError, match="more than"):
        check_image_tokens(header, 9, 8)


def test_a_refused_file_leaves_the_model_usable(written, model):
    """The next projector loads."""
    with pytest.raises(LoadError):
        Projector(model, written(without("v.patch_embd.weight")))
    with Projector(model, written(), warmup=False) as projector:
        assert projector.supports_vision
