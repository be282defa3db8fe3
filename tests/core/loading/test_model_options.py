"""Options of a load that are mappings and lists: overrides, devices, shares; and its deadline."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import random_model
from decoding import SMALL, prefill

import pyllama
from pyllama.core.library import ffi
from pyllama.core.loading.placement import MAX_DEVICES
from pyllama.errors import LoadError, UnsupportedError


def logits(model):
    """Decode a little."""
    with model.context(**SMALL) as context:
        return prefill(context)


def without_gpu():
    """Return whether this machine computes on the CPU alone."""
    return not any(device.is_gpu for device in pyllama.devices())


def test_overrides_count_instead_of_the_file(tiny_path):
    """An integer, a number, a string and a boolean; what the file says is not changed."""
    before = tiny_path.read_bytes()
    values = {
        "llama.context_length": 100,
        "llama.attention.layer_norm_rms_epsilon": 0.25,
        "general.name": "another",
        "tokenizer.ggml.add_bos_token": False,
    }
    path = random_model.write_llama(
        tiny_path.with_name("bos.gguf"), metadata={"tokenizer.ggml.add_bos_token": True}
    )
    with pyllama.Model(path, kv_overrides=values) as model, pyllama.Model(path) as plain:
        assert (model.n_ctx_train, plain.n_ctx_train) == (100, 512)
        assert not np.array_equal(logits(model), logits(plain))
        assert (model.metadata["general.name"], plain.metadata["general.name"]) == (
            "another",
            "random llama",
        )
        assert model.metadata["llama.context_length"] == "100"
        assert (model.vocab.add_bos, plain.vocab.add_bos) == (False, True)
    assert tiny_path.read_bytes() == before


def test_a_whole_number_will_do_for_a_real_one(tiny_path):
    """As everywhere in Python."""
    with pyllama.Model(
        tiny_path, kv_overrides={"llama.attention.layer_norm_rms_epsilon": 1}
    ) as model:
        assert model.metadata["llama.attention.layer_norm_rms_epsilon"] == "1.000000"


def test_states_of_an_overridden_model_are_its_own(tiny_path):
    """Keys that were computed with other numbers do not go on."""
    key = "llama.attention.layer_norm_rms_epsilon"
    with (
        pyllama.Model(tiny_path) as plain,
        pyllama.Model(tiny_path, kv_overrides={key: 0.25}) as model,
        plain.context(**SMALL) as old,
        model.context(**SMALL) as new,
    ):
        prefill(old)
        with pytest.raises(pyllama.errors.StateError, match="hyperparameters"):
            new.restore(old.state())


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"llama.block_cuont": 1}, ValueError, "near are llama.block_count"),
        ({"tokenizer.ggml.tokens": "a"}, ValueError, "is an array"),
        ({"llama.block_count": 1.5}, TypeError, "must be a whole number"),
        ({"llama.block_count": True}, TypeError, "must be a whole number"),
        ({"llama.block_count": 2**32}, ValueError, "from 0 to 4294967295"),
        ({"llama.block_count": -1}, ValueError, "from 0 to 4294967295"),
        ({"llama.block_count": 600}, LoadError, "is 600, not from 1 to 512"),
        ({"llama.block_count": 0}, LoadError, "is 0, not from 1 to 512"),
        ({"llama.attention.layer_norm_rms_epsilon": "a"}, TypeError, "must be a number"),
        ({"llama.attention.layer_norm_rms_epsilon": math.nan}, ValueError, "finite"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, LoadError, "not a number from 0 on"),
        ({"general.name": 5}, TypeError, "must be a string"),
        ({"general.name": "x" * 128}, ValueError, "has 128 bytes; llama.h has room for 127"),
        ({"x" * 128: 1}, ValueError, "has 128 bytes; llama.h has room for 127"),
        ({"general.name": "a\0b"}, ValueError, "NUL"),
        ({"general.alignment": 64}, ValueError, "how the file is laid out"),
        ({"split.count": 2}, ValueError, "how the file is laid out"),
        ({"": 2}, ValueError, "how the file is laid out"),
        ({5: 2}, TypeError, "must be a string"),
        ([("general.name", "a")], TypeError, "must map"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(tiny_path, values, error, message):
    """libllama would pass over most of them without a word, and end the process for the others."""
    with pytest.raises(error, match=message):
        pyllama.Model(tiny_path, kv_overrides=values)


def test_the_longest_texts_fit(tiny_path):
    """127 bytes and the NUL."""
    with pyllama.Model(tiny_path, kv_overrides={"general.name": "x" * 127}) as model:
        assert model.metadata["general.name"] == "x" * 127


@pytest.mark.parametrize("kind", ["CPU", "device"])
def test_tensors_go_where_their_name_says(tiny_path, model, kind):
    """On a CPU alone it is the CPU; the answers are the same."""
    cpu = next(each for each in pyllama.devices() if each.name == "CPU")
    chosen = cpu if kind == "device" else kind
    patterns = {r"blk\.(0|1)\.ffn_.*\.weight": chosen, r"^output": "CPU"}
    with pyllama.Model(tiny_path, tensor_buft_overrides=patterns, load_mode="none") as other:
        assert np.allclose(logits(other), logits(model), atol=1e-4)


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        ({"(": "CPU"}, ValueError, "no regular expression"),
        ({"(?P<a>x)": "CPU"}, ValueError, "only Python knows"),
        ({"(?<=a)x": "CPU"}, ValueError, "only Python knows"),
        ({"a++": "CPU"}, ValueError, "only Python knows|no regular expression"),
        ({"é": "CPU"}, ValueError, "only Python knows"),
        ({"": "CPU"}, ValueError, "only Python knows"),
        ({"(a*)*b": "CPU"}, ValueError, "could take for ever"),
        ({"(a|a)+b": "CPU"}, ValueError, "could take for ever"),
        ({"(a){60}b": "CPU"}, ValueError, "could take for ever"),
        ({".*.*.*.*.*x": "CPU"}, ValueError, "could take for ever"),
        ({"a": "GPU7"}, ValueError, "no buffer type 'GPU7'; there are CPU"),
        ({"a": 5}, TypeError, "must name a device"),
        ({5: "CPU"}, TypeError, "must be a string"),
        (["a"], TypeError, "must map patterns"),
        ({f"a{n}": "CPU" for n in range(5000)}, ValueError, "takes up to 4095"),
    ],
)
def test_patterns_that_libllama_cannot_use_are_refused(tiny_path, patterns, error, message):
    """Before it sees them."""
    with pytest.raises(error, match=message):
        pyllama.Model(tiny_path, tensor_buft_overrides=patterns)


def test_as_many_patterns_as_libllama_takes(tiny_path):
    """The list has an end."""
    patterns = {f"nothing{n}": "CPU" for n in range(4095)}
    with pyllama.Model(tiny_path, tensor_buft_overrides=patterns, vocab_only=True) as model:
        assert model.n_vocab == 512


def test_no_devices_is_the_cpu_alone(tiny_path, model):
    """No GPU, even where there is one."""
    with pyllama.Model(tiny_path, devices=()) as other:
        assert np.allclose(logits(other), logits(model), atol=1e-4)


def test_devices_that_cannot_be_chosen_are_refused(tiny_path):
    """The CPU is always there; a pointer from elsewhere would be followed."""
    cpu = next(each for each in pyllama.devices() if each.name == "CPU")
    wild = dataclasses.replace(cpu, _pointer=ffi.cast("ggml_backend_dev_t", 0x1234))
    far = dataclasses.replace(cpu, index=99)
    for devices, error, message in (
        ([cpu], ValueError, "only GPUs are chosen"),
        ([cpu, cpu], ValueError, "more than once"),
        ([wild], ValueError, "none of this process"),
        ([far], ValueError, "none of this process"),
        (["CPU"], TypeError, "must hold devices"),
        ("CPU", TypeError, "sequence of devices"),
        (5, TypeError, "sequence of devices"),
    ):
        with pytest.raises(error, match=message):
            pyllama.Model(tiny_path, devices=devices)


def test_the_main_gpu_is_one_of_the_devices(tiny_path):
    """Counted among those that were given."""
    with pytest.raises(ValueError, match="main_gpu=1, but devices has 0"):
        pyllama.Model(tiny_path, devices=(), main_gpu=1)


def test_layers_for_no_gpu_are_refused(tiny_path):
    """They contradict each other."""
    with pytest.raises(ValueError, match="n_gpu_layers=3 needs a GPU, but devices is empty"):
        pyllama.Model(tiny_path, devices=(), n_gpu_layers=3)
    pyllama.Model(tiny_path, devices=(), n_gpu_layers=0).close()


@pytest.mark.parametrize("shares", [[1], [0.5, 0.5], np.array([3, 1]), (1,) * MAX_DEVICES])
def test_shares_are_taken(tiny_path, shares):
    """However many there are, C gets an array of the length it reads."""
    with pyllama.Model(tiny_path, tensor_split=shares) as model:
        assert np.isfinite(logits(model)).all()


@pytest.mark.parametrize(
    ("shares", "error"),
    [
        ([], ValueError),
        ([0, 0], ValueError),
        ([-1, 2], ValueError),
        ([math.nan], ValueError),
        ([math.inf], ValueError),
        ([1e39], ValueError),
        ([3e38, 3e38], ValueError),
        (["a"], ValueError),
        ([None], ValueError),
        ([1] * (MAX_DEVICES + 1), ValueError),
        (5, TypeError),
        ("11", TypeError),
    ],
)
def test_shares_that_are_none_are_refused(tiny_path, shares, error):
    """libllama accepts NaN, and reads past the end of a short list."""
    with pytest.raises(error, match="tensor_split"):
        pyllama.Model(tiny_path, tensor_split=shares)


@pytest.mark.parametrize("option", ["use_extra_bufts", "no_host", "check_tensors", "load_mtp"])
@pytest.mark.parametrize("value", [True, False])
def test_switches_leave_the_answers_as_they_are(tiny_path, model, option, value):
    """On a file that has nothing to switch."""
    with pyllama.Model(tiny_path, **{option: value}) as other:
        assert np.allclose(logits(other), logits(model), atol=1e-4)


def test_splitting_without_gpus(tiny_path):
    """By tensors it needs devices; the others do nothing."""
    if not without_gpu():
        pytest.skip("this machine has a GPU")
    for mode in ("none", "layer", "row"):
        pyllama.Model(tiny_path, split_mode=mode).close()
    with pytest.raises(LoadError, match="SPLIT_MODE_TENSOR needs >= 1 devices"):
        pyllama.Model(tiny_path, split_mode="tensor")


def test_a_model_without_memory_refuses_to_compute(tiny_path, tmp_path):
    """It says what it is, and no more."""
    with pyllama.Model(tiny_path, no_alloc=True) as model:
        assert model.n_params > 0
        assert len(model.vocab.tokenize("hello"))
        for action in (model.context, lambda: model.save(tmp_path / "m.gguf")):
            with pytest.raises(UnsupportedError, match="no_alloc=True; load it without"):
                action()


def test_a_model_without_memory_is_not_mapped(tiny_path):
    """An assertion in libllama."""
    with pytest.raises(ValueError, match="leave load_mode out"):
        pyllama.Model(tiny_path, no_alloc=True, load_mode="mmap")


def test_a_load_that_takes_too_long_ends(tiny_path):
    """At the next tensor; nothing stays open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TimeoutError, match="0 s have passed"):
        pyllama.Model(tiny_path, timeout=0)
    seen = []

    def slow(fraction):
        seen.append(fraction)
        time.sleep(2.1)

    with pytest.raises(TimeoutError):
        pyllama.Model(tiny_path, progress=slow, timeout=2)
    assert len(seen) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_load_in_time_is_not_disturbed(tiny_path, model):
    """A minute is enough."""
    with pyllama.Model(tiny_path, timeout=60) as other:
        assert np.array_equal(logits(other), logits(model))


@pytest.mark.parametrize("timeout", ["1", True, -1, math.nan, math.inf])
def test_deadlines_that_are_none_are_refused(tiny_path, timeout):
    """Before anything is read."""
    with pytest.raises((TypeError, ValueError), match="timeout"):
        pyllama.Model(tiny_path, timeout=timeout)


def test_nothing_warns_by_default(tiny_path):
    """No option, no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyllama.Model(tiny_path).close()
