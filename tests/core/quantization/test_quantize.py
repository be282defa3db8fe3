"""Quantising small files: what comes out, and that nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import random_model
from decoding import SMALL
from reference import Llama, mean_kl, nmse

import pyllama
from pyllama import FType, GGMLType, ImportanceMatrix, quantize
from pyllama.errors import LoadError, QuantizeError

TOKENS = tuple(range(3, 104))
QUICK = ("MOSTLY_Q6_K", "MOSTLY_TQ2_0")
MADE = sorted({each.name for each in FType} - {"GUESSED", "MOSTLY_NVFP4"})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a llama whose rows divide into every kind of block."""
    path = tmp_path_factory.mktemp("quantize") / "f32.gguf"
    return random_model.write_llama(path, n_embd=256, n_ff=256, n_layer=2)


@pytest.fixture(scope="module")
def imatrix(source: Path) -> ImportanceMatrix:
    """Collect one."""
    with pyllama.Model(source) as model, model.context(**SMALL) as context:
        return pyllama.imatrix(context, TOKENS)


def logits_of(path: Path):
    """Return the logits of a file for the tokens."""
    with pyllama.Model(path) as model, model.context(exact=True, **SMALL) as context:
        context.decode(pyllama.Batch(TOKENS, output="all"))
        return context.logits()


def left_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder."""
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize(
    ("ftype", "most_nmse", "most_kl"), [("q8_0", 2e-3, 6e-3), ("q4_k_s", 4e-3, 1.2e-2)]
)
def test_a_quantised_file_computes_what_its_weights_say(
    source, tmp_path, ftype, most_nmse, most_kl
):
    """Compared with numpy on the weights as they are now; libllama rounds activations too."""
    target = tmp_path / "out.gguf"
    quantize(source, target, ftype=ftype)
    measured, expected = logits_of(target), Llama(target).logits(TOKENS)
    assert nmse(measured, expected) < most_nmse
    assert mean_kl(measured, expected) < most_kl


def test_the_result_says_what_became_of_each_tensor(source, tmp_path):
    """Sizes are those of the file."""
    done = quantize(source, tmp_path / "out.gguf", ftype="q4_k_m")
    with pyllama.Model(tmp_path / "out.gguf") as model, pyllama.Model(source) as before:
        assert (done.n_bytes_before, done.n_bytes) == (before.n_bytes, model.n_bytes)
        assert (done.n_weights, model.ftype) == (model.n_params, FType.MOSTLY_Q4_K_M)
    assert done.paths == (tmp_path / "out.gguf",)
    assert done.types["blk.0.attn_q.weight"] == "q4_K"
    assert done.types["output.weight"] == "q6_K"
    assert done.bits_per_weight == pytest.approx(8 * done.n_bytes / done.n_weights)


def test_a_dry_run_says_the_same_and_writes_nothing(source, tmp_path):
    """Also without a target."""
    real = quantize(source, tmp_path / "out.gguf", ftype="q4_k_m")
    dry = quantize(source, ftype="q4_k_m", dry_run=True)
    assert (dry.types, dry.n_bytes, dry.paths) == (real.types, real.n_bytes, ())


def test_a_dry_run_needs_no_imatrix(source):
    """It computes nothing."""
    done = quantize(source, ftype="iq2_xxs", dry_run=True)
    assert done.types["blk.0.attn_q.weight"] == "iq2_xxs"


@pytest.mark.parametrize(
    "name",
    [
        # libllama makes its tables for few bits anew, which takes it up to half a minute
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in MADE
    ],
)
def test_every_mix_can_be_made_and_computed(source, imatrix, tmp_path, name):
    """With an importance matrix all of them can."""
    done = quantize(source, tmp_path / "out.gguf", ftype=name, imatrix=imatrix)
    assert done.ftype is FType[name]
    assert np.isfinite(logits_of(tmp_path / "out.gguf")).all()


def test_an_imatrix_changes_what_is_written(source, imatrix, tmp_path):
    """The types are the same, the bits are not."""
    plain, weighed, by_file = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    imatrix.save(tmp_path / "imatrix.gguf")
    quantize(source, plain, ftype="q4_k_s", pure=True)
    quantize(source, weighed, ftype="q4_k_s", pure=True, imatrix=imatrix)
    quantize(source, by_file, ftype="q4_k_s", pure=True, imatrix=tmp_path / "imatrix.gguf")
    assert plain.read_bytes() != weighed.read_bytes()
    assert by_file.read_bytes() == weighed.read_bytes()


def test_an_imatrix_of_experts_is_used(tmp_path):
    """One row for each expert."""
    path = random_model.write_llama(
        tmp_path / "experts.gguf", n_embd=256, n_ff=256, n_expert=4, n_expert_used=2, n_layer=1
    )
    with pyllama.Model(path) as model, model.context(**SMALL) as context:
        imatrix = pyllama.imatrix(context, TOKENS)
    done = quantize(path, tmp_path / "out.gguf", ftype="q3_k_s", imatrix=imatrix)
    assert done.types["blk.0.ffn_up_exps.weight"] == "q3_K"
    assert np.isfinite(logits_of(tmp_path / "out.gguf")).all()


def test_types_can_be_given_for_patterns(source, tmp_path):
    """The first one that is found counts; other tensors keep the mix."""
    done = quantize(
        source,
        tmp_path / "out.gguf",
        ftype="q8_0",
        tt_overrides={r"blk\.0\.attn_q": "q4_0", "attn_q": GGMLType.Q5_0},
        token_embedding_type="f16",
        output_tensor_type=GGMLType.Q6_K,
    )
    found = [
        done.types[name]
        for name in ("blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.0.attn_k.weight")
    ]
    assert found == ["q4_0", "q5_0", "q8_0"]
    assert (done.types["token_embd.weight"], done.types["output.weight"]) == ("f16", "q6_K")


@pytest.mark.parametrize(("wanted", "kind"), [(True, "q8_0"), (False, "f32")])
def test_the_output_matrix_may_stay_as_it_is(tiny_path, tmp_path, wanted, kind):
    """It counts most, and is small in a small vocabulary."""
    done = quantize(tiny_path, tmp_path / "out.gguf", quantize_output_tensor=wanted)
    assert done.types["output.weight"] == kind


def test_rows_that_do_not_divide_get_another_type(tiny_path, tmp_path):
    """Rows of 64 have no blocks of 256."""
    done = quantize(tiny_path, tmp_path / "out.gguf", ftype="q4_k_s")
    assert done.types["blk.0.attn_q.weight"] == "q5_0"


def test_layers_can_be_left_out(source, tmp_path):
    """Those after them move up."""
    quantize(source, tmp_path / "out.gguf", ftype="f32", prune_layers=[0])
    with pyllama.Model(tmp_path / "out.gguf") as model:
        assert model.n_layer == 1
    whole, pruned = Llama(source), Llama(tmp_path / "out.gguf")
    np.testing.assert_array_equal(
        pruned.weights["blk.0.attn_q.weight"], whole.weights["blk.1.attn_q.weight"]
    )


def test_metadata_can_be_written_anew(source, tmp_path):
    """The rest is as it was."""
    quantize(source, tmp_path / "out.gguf", kv_overrides={"llama.context_length": 77})
    with pyllama.Model(tmp_path / "out.gguf") as model:
        assert model.n_ctx_train == 77


def test_what_is_quantised_is_not_quantised_again(source, tmp_path):
    """Unless it is asked for."""
    quantize(source, tmp_path / "once.gguf", ftype="q8_0")
    with pytest.raises(QuantizeError, match="requantizing") as caught:
        quantize(tmp_path / "once.gguf", tmp_path / "twice.gguf", ftype="q4_0")
    assert caught.value.log
    assert left_in(tmp_path) == ["once.gguf"]
    quantize(tmp_path / "once.gguf", tmp_path / "twice.gguf", ftype="q4_0", allow_requantize=True)
    assert left_in(tmp_path) == ["once.gguf", "twice.gguf"]


def test_a_split_model_can_be_joined_or_stay_split(tmp_path):
    """With only_copy the tensors are the same, bit for bit."""
    parts = random_model.write_llama(tmp_path / "parts.gguf", split=8)
    joined = quantize(parts, tmp_path / "one.gguf", only_copy=True)
    kept = quantize(parts, tmp_path / "q-00001-of-00003.gguf", keep_split=True)
    assert [each.name for each in kept.paths] == [f"q-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert left_in(tmp_path) == sorted(
        [
            "one.gguf",
            *(f"{name}-0000{i}-of-00003.gguf" for i in (1, 2, 3) for name in ("parts", "q")),
        ]
    )
    with pyllama.Model(parts) as model, pyllama.Model(kept.paths[0]) as small:
        assert joined.n_bytes == model.n_bytes
        assert kept.n_bytes == small.n_bytes < model.n_bytes
    np.testing.assert_array_equal(logits_of(tmp_path / "one.gguf"), logits_of(parts))


def link(source: Path, target: Path) -> Path:
    """Make a hard link."""
    os.link(source, target)
    return target


def symlink(source: Path, target: Path) -> Path:
    """Make a symbolic link."""
    target.symlink_to(source)
    return target


@pytest.mark.parametrize(
    "other_name",
    [lambda path, _: path, link, symlink, lambda path, _: path.parent / "." / path.name],
    ids=["itself", "hard link", "symbolic link", "other spelling"],
)
def test_a_file_is_never_quantised_onto_itself(tiny_path, tmp_path, other_name):
    """libllama would destroy it, and die of it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())
    target = other_name(path, tmp_path / "other.gguf")
    with pytest.raises(ValueError, match="same file"):
        quantize(path, target)
    assert path.read_bytes() == tiny_path.read_bytes()


def test_parts_are_not_written_over_parts_that_are_read(tmp_path):
    """Nor the joined model over one of them."""
    parts = random_model.write_llama(tmp_path / "parts.gguf", split=8)
    with pytest.raises(ValueError, match="same file"):
        quantize(parts, parts, keep_split=True)
    with pytest.raises(ValueError, match="same file"):
        quantize(parts, tmp_path / "parts-00002-of-00003.gguf")


def test_an_imatrix_file_is_not_written_over(source, imatrix, tmp_path):
    """It is read too."""
    imatrix.save(tmp_path / "imatrix.gguf")
    with pytest.raises(ValueError, match="same file"):
        quantize(source, tmp_path / "imatrix.gguf", imatrix=tmp_path / "imatrix.gguf")


def test_progress_rises_to_one(source, tmp_path):
    """From another process, several times a second."""
    told: list[float] = []
    quantize(source, tmp_path / "out.gguf", progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("old", [None, b"the older file"])
def test_a_cancelled_run_leaves_nothing(source, tmp_path, old):
    """And an older file as it was."""
    target = tmp_path / "out.gguf"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(QuantizeError, match="cancelled"):
        quantize(source, target, progress=lambda fraction: False)
    assert left_in(tmp_path) == ([] if old is None else ["out.gguf"])
    assert old is None or target.read_bytes() == old


def test_what_progress_raises_comes_out(source, tmp_path):
    """The process is ended, and nothing left."""
    with pytest.raises(ZeroDivisionError):
        quantize(source, tmp_path / "out.gguf", progress=lambda fraction: 1 / 0)
    assert left_in(tmp_path) == []


def test_ctrl_c_ends_it(source, tmp_path):
    """Also where no progress is asked for."""
    code = f"""
import pyllama, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
matrix = pyllama.ImportanceMatrix.load({str(tmp_path / "imatrix")!r})
pyllama.quantize({str(source)!r}, {str(tmp_path / "out.gguf")!r}, ftype="iq1_s", imatrix=matrix)
"""
    with pyllama.Model(source) as model, model.context(**SMALL) as context:
        pyllama.imatrix(context, TOKENS).save(tmp_path / "imatrix")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while process.poll() is None and not any(
        each.stat().st_size for each in tmp_path.glob(".pyllama-*")
    ):
        time.sleep(0.02)  # until the new file grows
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert b"KeyboardInterrupt" in errors
    assert left_in(tmp_path) == ["imatrix"]


def test_a_full_disk_leaves_nothing(source, tmp_path):
    """The limit on the size of a file stands in for it; the process that writes inherits it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = tmp_path / "out.gguf"
    target.write_bytes(b"the older file")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(QuantizeError):
            quantize(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(tmp_path) == ["out.gguf"]
    assert target.read_bytes() == b"the older file"


def test_a_process_that_dies_is_told_with_its_last_words(source, tmp_path, monkeypatch):
    """libllama dies in a thread if a type needs an importance matrix and has none."""
    monkeypatch.setattr("pyllama.core.quantization.options.require_imatrix", lambda *_: None)
    with pytest.raises(QuantizeError, match=r"GGML_ASSERT|terminate"):  # whichever thread was first
        quantize(source, tmp_path / "out.gguf", nthread=2, output_tensor_type="iq2_xxs")
    assert left_in(tmp_path) == []


def test_a_broken_source_is_refused_first(tiny_path, tmp_path):
    """A tensor beyond the end of the file would be read from other memory."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:-1000])
    with pytest.raises(LoadError, match="incomplete"):
        quantize(path, tmp_path / "out.gguf")
    assert left_in(tmp_path) == ["cut.gguf"]
