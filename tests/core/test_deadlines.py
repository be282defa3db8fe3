"""Deadlines: calls that return when their time is over, and leave everything usable."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import random_model
from decoding import PROMPT, SMALL, go_on, prefill

import pyllama
from pyllama.errors import AbortedError, BusyError

SLOW = "中"  # SPM is quadratic in a row of characters without a token: 300,000 take 12 s


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Load a model that takes some 100 ms for 512 tokens on one thread."""
    path = tmp_path_factory.mktemp("slow") / "slow.gguf"
    random_model.write_llama(path, n_embd=512, n_layer=4, n_ff=2048)
    with pyllama.Model(path) as model:
        yield model


def make(model, **options):
    """Make a context on one thread, with micro-batches of 64 tokens."""
    options = {"n_ctx": 1024, "n_batch": 512, "n_ubatch": 64, **options}
    return model.context(n_threads=1, n_threads_batch=1, **options)


def test_decode_returns_within_a_micro_batch_of_its_deadline(slow):
    """And the memory is as before, so that the same can be decoded."""
    with make(slow) as context:
        before = prefill(context)
        eight = pyllama.Batch([7] * 506, pos=len(PROMPT))
        begin = time.perf_counter()
        context.decode(eight)
        whole = time.perf_counter() - begin
        context.memory.remove(0, len(PROMPT))
        begin = time.perf_counter()
        with pytest.raises(TimeoutError, match="decode fewer tokens"):
            context.decode(eight, timeout=whole / 32)
        assert time.perf_counter() - begin < whole / 2
        assert context.memory.pos_max(0) == len(PROMPT) - 1
        after = go_on(context)
        context.memory.clear()
        assert np.array_equal(before, prefill(context))
        assert np.array_equal(after, go_on(context))


def test_a_deadline_far_away_changes_nothing(context):
    """The same logits, and none is left for the next call."""
    context.decode(pyllama.Batch(PROMPT), timeout=60)
    timed = context.logits()
    context.memory.clear()
    context.decode(pyllama.Batch(PROMPT))
    assert np.array_equal(timed, context.logits())
    assert context._stop.deadline == 0


def test_no_time_at_all_decodes_nothing(context):
    """What has no chance is not begun, and the outputs of the last call stay."""
    context.decode(pyllama.Batch(PROMPT))
    before = context.logits()
    with pytest.raises(TimeoutError, match="not begun"):
        context.decode(pyllama.Batch([1], pos=len(PROMPT)), timeout=0)
    assert np.array_equal(before, context.logits())


def test_abort_is_not_a_timeout(context):
    """Who stopped it decides the error."""
    context.abort()
    with pytest.raises(AbortedError):
        context.decode(pyllama.Batch(PROMPT), timeout=60)


def test_encode_has_a_deadline(tmp_path):
    """As decode has."""
    with (
        pyllama.Model(random_model.write_t5(tmp_path / "t5.gguf")) as model,
        model.context(**SMALL) as context,
    ):
        with pytest.raises(TimeoutError):
            context.encode(pyllama.Batch([1, 2]), timeout=0)
        context.encode(pyllama.Batch([1, 2]), timeout=60)
        context.decode(pyllama.Batch([1]))
        assert np.isfinite(context.logits()).all()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e30])
def test_a_timeout_is_a_number_of_seconds(context, timeout):
    """Not negative, not infinite: None is what sets no limit."""
    with pytest.raises(ValueError, match="timeout"):
        context.decode(pyllama.Batch(PROMPT), timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        context.model.vocab.tokenize("a", timeout=timeout)


def test_a_run_has_one_deadline(slow):
    """It comes between tokens too; those yielded are there, and the next run works."""
    with make(slow) as context:
        report = pyllama.generate.Report()
        run = pyllama.generate.tokens(
            context, PROMPT, ignore_eog=True, max_tokens=900, timeout=0.3, report=report
        )
        made = []
        with pytest.raises(TimeoutError):
            made.extend(run)
        assert len(made) == report.n_generated < 900
        assert report.finish_reason == "error"
        again = list(pyllama.generate.tokens(context, PROMPT, ignore_eog=True, max_tokens=3))
        assert len(again) == 3


def test_a_run_that_ends_in_its_prompt_says_so(slow):
    """As it does after its first token."""
    with make(slow) as context:
        report = pyllama.generate.Report()
        with pytest.raises(TimeoutError):
            list(pyllama.generate.tokens(context, PROMPT, timeout=0, report=report))
        assert (report.finish_reason, report.n_generated) == ("error", 0)


def test_a_text_is_given_up_at_the_deadline(slow):
    """stream and generate pass it on."""
    with make(slow) as context:
        with pytest.raises(TimeoutError):
            pyllama.generate.generate(context, PROMPT, ignore_eog=True, timeout=0.1)
        text = pyllama.generate.generate(context, PROMPT, max_tokens=2, timeout=60)
        assert text.timings.n_generated <= 2


def test_tokenize_returns_at_its_deadline(tiny_path):
    """libllama goes on; the model can be used meanwhile, and closed when it has finished."""
    with pyllama.Model(tiny_path) as model:
        text = SLOW * 60_000  # 0.5 s
        with pytest.raises(TimeoutError, match="did not return"):
            model.vocab.tokenize(text, timeout=0.05)
        with pytest.raises(BusyError):  # so it did not wait
            model.close()
        assert len(model.vocab.tokenize("abc", timeout=60))
        until = time.monotonic() + 60
        while model._record.users and time.monotonic() < until:
            time.sleep(0.02)
        assert model._record.users == 0


def test_tokenize_batch_returns_at_its_deadline(tiny_path):
    """One for all texts."""
    with pyllama.Model(tiny_path) as model:
        texts = [SLOW * 40_000, *["a"] * 100]
        with pytest.raises(TimeoutError):
            model.vocab.tokenize_batch(texts, n_threads=2, timeout=0.05)
        tokens = model.vocab.tokenize_batch(["a", "b"], timeout=60)
        assert len(tokens) == 2
        while model._record.users:
            time.sleep(0.02)


def test_a_process_ends_while_libllama_still_tokenizes(tiny_path):
    """Whoever gave up need not wait, not even to leave: this would take many minutes."""
    code = f"""
        import pyllama
        model = pyllama.Model({str(tiny_path)!r})
        try:
            model.vocab.tokenize({SLOW!r} * 3_000_000, timeout=0.1)
        except TimeoutError:
            print("gave up")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gave up\n", "")
