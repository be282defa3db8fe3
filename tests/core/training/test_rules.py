"""What can be trained, and how: all that libllama would end the process for is refused."""

from __future__ import annotations

import math

import pytest
import random_model
from learning import N_CTX, refusal, train

import pyllama
from pyllama import Training
from pyllama.core.training.rules import ARCHITECTURES
from pyllama.errors import UnsupportedError


def test_mapped_weights_are_refused(tiny_path):
    """Writing to them would end the process."""
    for load_mode in ("auto", "mmap", "mmap_mlock"):
        with pyllama.Model(tiny_path, load_mode=load_mode) as model:
            assert "load_mode='none'" in refusal(UnsupportedError, model)


def test_direct_io_can_be_trained(tiny_path, text):
    """It reads into memory of its own, as none does."""
    with pyllama.Model(tiny_path, load_mode="direct_io") as model, train(model) as training:
        assert training.epoch(text)[0].n_tokens == 4 * N_CTX


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_other_tensor_types_are_refused(tmp_path, kind):
    """They would stay as they are without a word."""
    path = random_model.write_llama(tmp_path / "model.gguf", type=kind)
    with pyllama.Model(path, load_mode="none") as model:
        assert "only tensors in f32 learn" in refusal(UnsupportedError, model)


def test_what_has_no_backward_pass_is_refused(tmp_path):
    """Experts, encoders, states and diffusion."""
    writers = {
        "experts": lambda path: random_model.write_llama(path, n_expert=4, n_expert_used=2),
        "diffusion": lambda path: random_model.write_llama(path, arch="llada"),
        "bert": random_model.write_bert,
        "t5": random_model.write_t5,
        "mamba": random_model.write_mamba,
        "jamba": random_model.write_jamba,
    }
    for name, writer in writers.items():
        with pyllama.Model(writer(tmp_path / f"{name}.gguf"), load_mode="none") as model:
            assert "architectures: baichuan" in refusal(UnsupportedError, model)


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES - {"llama"}))
def test_other_architectures_learn(tmp_path, text, arch):
    """Each that is offered was tried."""
    path = random_model.write_llama(tmp_path / "model.gguf", arch=arch, qk_norm=arch == "qwen3")
    with pyllama.Model(path, load_mode="none") as model, train(model) as training:
        first = training.epoch(text)[0].loss
        assert training.epoch(text)[0].loss < first - 2


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "n_ctx=255", {"n_ctx": 255}),
        (ValueError, "no multiple of 256", {"n_ctx": 300}),
        (TypeError, "n_ctx", {"n_ctx": None}),
        (ValueError, "n_ubatch=0", {"n_ubatch": 0}),
        (ValueError, "n_ubatch=512", {"n_ubatch": 512}),
        (ValueError, "does not divide", {"n_ubatch": 100}),
        (ValueError, "not one of: adamw, sgd", {"optimizer": "adam"}),
        (ValueError, "not one of: adamw, sgd", {"optimizer": None}),
        (ValueError, "learning_rate=0", {"learning_rate": 0}),
        (ValueError, "learning_rate=1e-50", {"learning_rate": 1e-50}),
        (ValueError, "learning_rate=nan", {"learning_rate": math.nan}),
        (ValueError, "learning_rate=inf", {"learning_rate": math.inf}),
        (TypeError, "learning_rate", {"learning_rate": "fast"}),
        (TypeError, "learning_rate", {"learning_rate": lambda _: None}),
        (ValueError, "learning_rate=-1", {"learning_rate": lambda _: -1}),
        (ValueError, "weight_decay=1.5", {"weight_decay": 1.5}),
        (ValueError, "beta1=1", {"beta1": 1}),
        (ValueError, "beta2=0.99999999999", {"beta2": 0.99999999999}),
        (ValueError, "eps=0", {"eps": 0}),
        (ValueError, "beta1 belongs to", {"beta1": 0.5, "optimizer": "sgd"}),
        (ValueError, "chose none of the 20", {"param_filter": lambda _: False}),
        (ZeroDivisionError, "zero", {"param_filter": lambda _: 1 / 0}),
        (ValueError, "n_threads=0", {"n_threads": 0}),
    ],
)
def test_a_bad_argument_is_refused(own, error, match, options):
    """Before libllama sees it."""
    assert match in refusal(error, own, **options)


def test_a_model_is_needed():
    """Nothing else has weights."""
    with pytest.raises(TypeError, match="made of a Model"):
        Training("model.gguf", n_ctx=256)


def test_a_vocabulary_has_no_weights(tiny_path):
    """libllama would end the process."""
    model = pyllama.Model(tiny_path, vocab_only=True)
    with model, pytest.raises(UnsupportedError, match="vocab_only"):
        train(model)


def test_more_memory_than_there_is_is_refused(own, monkeypatch):
    """The optimizer keeps two numbers for each weight; libllama does not look."""
    monkeypatch.setattr("pyllama.core.training.rules.available_bytes", lambda: 10_000)
    assert "GiB are free" in refusal(MemoryError, own)
