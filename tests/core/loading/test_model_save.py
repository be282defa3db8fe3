"""Models written to files."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill
from gguf_arrays import arrays_of

import pyllama
from pyllama.errors import ClosedError, UnsupportedError

WRITERS = {
    "llama": random_model.write_llama,
    "bpe": lambda path: random_model.write_llama(path, vocab="bpe"),
    "no vocabulary": lambda path: random_model.write_llama(path, vocab="none"),
    "experts": lambda path: random_model.write_llama(path, n_expert=4, n_expert_used=2),
    "qwen3": lambda path: random_model.write_llama(path, arch="qwen3", qk_norm=True),
    "qwen2vl": lambda path: random_model.write_llama(
        path, arch="qwen2vl", metadata={"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
    ),
    "llada": lambda path: random_model.write_llama(path, arch="llada"),
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
    "split": lambda path: random_model.write_llama(path, split=5),
    "q8_0": lambda path: random_model.write_llama(path, type="q8_0"),
}


def names(folder):
    """Return what is in a folder."""
    return [path.name for path in folder.iterdir()]


def logits(model):
    """Decode a little."""
    with model.context(**SMALL) as context:
        return prefill(context)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_saved_model_answers_as_before(tmp_path, kind):
    """To the last bit, and reads text as before."""
    path = WRITERS[kind](tmp_path / "model.gguf")
    with pyllama.Model(path, use_extra_bufts=False) as model:
        model.save(tmp_path / "saved.gguf")
        with pyllama.Model(tmp_path / "saved.gguf", use_extra_bufts=False) as other:
            assert np.array_equal(logits(model), logits(other))
            if kind != "no vocabulary":
                texts = [m.vocab.tokenize("hello world").tolist() for m in (model, other)]
                assert texts[0] == texts[1]


def test_a_file_that_would_lack_tensors_is_not_written(tmp_path):
    """libllama forgets the embeddings of models without logits."""
    with (
        pyllama.Model(random_model.write_bert(tmp_path / "bert.gguf")) as model,
        pytest.raises(UnsupportedError, match=r"left out 1 tensors .* token_embd\.weight"),
    ):
        model.save(tmp_path / "saved.gguf")
    assert names(tmp_path) == ["bert.gguf"]


def test_a_model_of_arrays_is_saved(tmp_path, model):
    """It has no file of its own, and gets one."""
    with pyllama.Model.from_arrays(*arrays_of(model.path)) as built:
        built.save(tmp_path / "saved.gguf")
    with pyllama.Model(tmp_path / "saved.gguf") as other:
        assert np.array_equal(logits(model), logits(other))


def test_an_architecture_that_libllama_cannot_write_is_refused(tmp_path):
    """Instead of an assertion."""
    with (
        pyllama.Model(random_model.write_t5(tmp_path / "t5.gguf")) as model,
        pytest.raises(UnsupportedError, match="cannot write models of the architecture t5"),
    ):
        model.save(tmp_path / "saved.gguf")
    assert names(tmp_path) == ["t5.gguf"]


def test_repacked_weights_are_not_read_back(tmp_path):
    """The error says how the model can be loaded to be saved."""
    path = random_model.write_llama(tmp_path / "model.gguf", type="q8_0")
    with pyllama.Model(path) as model, pytest.raises(UnsupportedError, match="use_extra_bufts"):
        model.save(tmp_path / "saved.gguf")


def test_a_model_is_not_saved_onto_its_own_file(tmp_path):
    """By whatever name; the file is mapped."""
    path = random_model.write_llama(tmp_path / "model.gguf", split=5)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pyllama.Model(path) as model:
        for each in (path, link, *tmp_path.glob("model-*")):
            with pytest.raises(ValueError, match="loaded from"):
                model.save(each)
        assert np.isfinite(logits(model)).all()


def test_an_older_file_is_replaced(model, tmp_path):
    """As a whole."""
    target = tmp_path / "saved.gguf"
    target.write_text("old")
    model.save(target)
    assert names(tmp_path) == ["saved.gguf"]
    assert target.read_bytes().startswith(b"GGUF")


def test_folders_and_devices_are_not_written_to(model, tmp_path):
    """The system's own errors."""
    with pytest.raises(IsADirectoryError):
        model.save(tmp_path)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "none" / "m.gguf")
    with pytest.raises(OSError, match="not a regular file"):
        model.save("/dev/full")
    with pytest.raises(TypeError):
        model.save(None)


def test_a_full_disk_keeps_the_old_file(tiny_path, tmp_path):
    """libllama says nothing of it."""
    target = tmp_path / "saved.gguf"
    target.write_text("old")
    code = (
        "import resource, signal, sys\n"
        "import pyllama\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "model = pyllama.Model(sys.argv[1])\n"
        "for limit in (0, 100, 5000, 100_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        model.save(sys.argv[2])\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
    )
    command = [sys.executable, "-c", code, tiny_path, target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)] * 4
    assert target.read_text() == "old"
    assert names(tmp_path) == ["saved.gguf"]


def test_a_closed_model_is_not_saved(tiny_path, tmp_path):
    """Nor is one without weights."""
    model = pyllama.Model(tiny_path)
    model.close()
    with pytest.raises(ClosedError):
        model.save(tmp_path / "m.gguf")
    with (
        pyllama.Model(tiny_path, vocab_only=True) as model,
        pytest.raises(UnsupportedError, match="vocab_only"),
    ):
        model.save(tmp_path / "m.gguf")
    assert names(tmp_path) == []
