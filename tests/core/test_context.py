"""Decoding, outputs, views, switches and options of a context."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Batch
from pyllama.errors import (
    AbortedError,
    BusyError,
    ClosedError,
    InvalidBatchError,
    LoadError,
    NoSlotError,
    StateError,
    UnsupportedError,
)


def test_logits_have_a_row_for_each_output(context):
    """Rows come in the order of the tokens that asked for them."""
    context.decode(Batch([1, 2, 3, 4], output=[True, False, True, False]))
    some = context.logits()
    context.memory.clear()
    context.decode(Batch([1, 2, 3, 4], output="all"))
    everything = context.logits()
    assert some.shape == (2, 512)
    assert np.array_equal(some, everything[[0, 2]])


def test_logits_before_a_decode_are_an_error(context):
    """There is nothing to read yet."""
    with pytest.raises(StateError, match="no decode"):
        context.logits()
    context.decode(Batch([1], output="none"))
    with pytest.raises(StateError, match="no output"):
        context.logits()


def test_a_view_blocks_decode_and_close_until_it_is_dropped(context):
    """A live slice counts as a view; a copy does not."""
    context.decode(Batch([1]))
    part = context.logits_view()[0][:5]
    with pytest.raises(BufferError, match="1 view of this Context"):
        context.decode(Batch([2], pos=1))
    with pytest.raises(BufferError, match="cannot close"):
        context.close()
    with pytest.raises(BufferError, match="cannot close"):
        context.model.close()
    kept = part.copy()
    del part
    context.decode(Batch([2], pos=1))
    assert np.isfinite(kept).all()


def test_a_view_is_read_only_and_has_the_row(context):
    """It is libllama's own memory."""
    context.decode(Batch([1, 2], output="all"))
    row = context.logits_view(-1)
    assert np.array_equal(row, context.logits()[1])
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 0
    with pytest.raises(IndexError, match="row 2"):
        context.logits_view(2)


def test_a_view_outlives_the_last_name_of_its_context(model):
    """The array keeps the context alive."""
    context = model.context(n_ctx=256)
    context.decode(Batch([1]))
    view, expected = context.logits_view(), context.logits()
    del context
    assert np.array_equal(view, expected)


def test_a_full_memory_raises_and_loses_nothing(model):
    """NoSlotError leaves what was there."""
    with model.context(n_ctx=256) as context:
        context.decode(Batch([1] * 256))
        with pytest.raises(NoSlotError) as raised:
            context.decode(Batch([1], pos=256))
        assert raised.value.code == 1
        assert context.memory.pos_max(0) == 255


def test_abort_from_another_thread_stops_a_decode_and_takes_it_back(tmp_path):
    """The memory is as it was, and the context goes on working."""
    path = random_model.write_llama(tmp_path / "slow.gguf", n_embd=256, n_layer=8, n_ff=1024)
    with pyllama.Model(path) as model, model.context(n_ctx=4096, n_batch=4096) as context:
        context.decode(Batch([1, 2, 3]))
        timer = threading.Timer(0.05, context.abort)
        timer.start()
        with pytest.raises(AbortedError) as raised:
            context.decode(Batch([1] * 4000, pos=3))
        timer.join()
        assert raised.value.code == 2
        assert context.memory.pos_max(0) == 2
        context.decode(Batch([4], pos=3))
        assert context.memory.pos_max(0) == 3


def test_a_second_thread_is_refused_while_one_decodes(tmp_path):
    """BusyError instead of a corrupted heap; so is closing."""
    path = random_model.write_llama(tmp_path / "slow.gguf", n_embd=256, n_layer=8, n_ff=1024)
    with pyllama.Model(path) as model, model.context(n_ctx=4096, n_batch=4096) as context:
        failure = []

        def work() -> None:
            try:
                context.decode(Batch([1] * 4000))
            except AbortedError as error:
                failure.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not context._record.users:
            time.sleep(0.001)
        with pytest.raises(BusyError):
            context.decode(Batch([1]))
        with pytest.raises(BusyError):
            context.close()
        with pytest.raises(BusyError):
            model.close()
        context.abort()
        thread.join()
        assert len(failure) == 1


def test_closed_contexts_refuse(model):
    """Every method says so; closing again does nothing."""
    context = model.context(n_ctx=256)
    memory = context.memory
    context.close()
    context.close()
    assert context.closed
    for call in (context.logits, memory.clear, lambda: context.decode(Batch([1]))):
        with pytest.raises(ClosedError, match="Context is closed"):
            call()
    with pytest.raises(ClosedError):
        _ = context.n_ctx


def test_what_is_no_batch_is_refused(context):
    """A list of tokens is not a batch yet."""
    with pytest.raises(TypeError, match=r"pyllama\.Batch"):
        context.decode([1, 2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_ctx": -1}, ValueError, "n_ctx"),
        ({"n_ctx": 2**31}, ValueError, "n_ctx"),
        ({"n_ctx": 1.5}, TypeError, "n_ctx"),
        ({"n_ctx": True}, TypeError, "n_ctx"),
        ({"n_batch": 0}, ValueError, "n_batch"),
        ({"n_ubatch": 0}, ValueError, "n_ubatch"),
        ({"n_seq_max": 0}, ValueError, "n_seq_max"),
        ({"n_seq_max": 257}, ValueError, "n_seq_max"),
        ({"n_seq_max": 8, "n_batch": 4}, ValueError, "n_seq_max=8"),
        ({"n_seq_max": 8, "n_outputs_max": 4}, ValueError, "n_seq_max=8"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"n_threads": 100_000}, ValueError, "n_threads"),
        ({"type_k": "q4_k"}, ValueError, "q8_0"),
        ({"type_k": 999}, ValueError, "type_k=999"),
        ({"type_v": "q8_0", "flash_attn_type": "disabled"}, ValueError, "flash attention"),
        ({"type_k": "q8_0"}, ValueError, "head size of 16"),
        ({"flash_attn_type": 7}, ValueError, "flash_attn_type=7"),
        ({"pooling_type": "best"}, ValueError, "rank"),
        ({"pooling_type": "rank"}, UnsupportedError, "classifier"),
        ({"ctx_type": "mtp"}, UnsupportedError, "multi-token"),
        ({"rope_freq_base": float("nan")}, ValueError, "rope_freq_base"),
        ({"rope_freq_scale": -1.0}, ValueError, "rope_freq_scale"),
        ({"embeddings": 1}, TypeError, "embeddings"),
        ({"exact": True, "type_k": "f16"}, ValueError, "type_k"),
        ({"n_context": 5}, TypeError, "n_context"),
        ({"n_ctx": 2**31 - 256}, MemoryError, "GiB"),
    ],
)
def test_options_out_of_range_are_refused(model, options, error, message):
    """Each would end the process, be changed in silence, or give NaN."""
    with pytest.raises(error, match=message):
        model.context(**options)


def test_options_left_out_are_libllamas(model):
    """And the real values can be read back."""
    with model.context() as context:
        assert (context.n_ctx, context.n_batch, context.n_ubatch) == (512, 512, 512)
        assert (context.type_k.name, context.type_v.name) == ("F16", "F16")


def test_libllama_rounds_the_context_up_and_it_can_be_read(model):
    """256 tokens are the least, for each sequence."""
    with model.context(n_ctx=100, n_seq_max=2) as context:
        assert (context.n_ctx, context.n_ctx_seq) == (512, 256)


def test_a_vocabulary_alone_makes_no_context(tiny_path):
    """Decoding without weights would end the process."""
    with (
        pyllama.Model(tiny_path, vocab_only=True) as model,
        pytest.raises(UnsupportedError, match="vocab_only"),
    ):
        model.context()


def test_threads_can_be_set_and_pools_shared(context):
    """A pool stays open while attached, and must be as large as the context wants."""
    pool = pyllama.ThreadPool(2)
    context.set_n_threads(2, 1)
    assert (context.n_threads, context.n_threads_batch) == (2, 1)
    context.attach_threadpool(pool)
    context.decode(Batch([1, 2, 3]))
    with pytest.raises(BusyError, match="detach"):
        pool.close()
    with pytest.raises(ValueError, match="3 threads"):
        context.set_n_threads(3)
    context.detach_threadpool()
    pool.close()
    context.decode(Batch([1], pos=3))
    assert context.memory.pos_max(0) == 3


def test_attaching_a_pool_that_is_too_small_is_refused(context):
    """With OpenMP ggml would read past the pool."""
    context.set_n_threads(2)
    with pyllama.ThreadPool(1) as pool, pytest.raises(ValueError, match="2 threads"):
        context.attach_threadpool(pool)


def test_threads_do_not_change_the_numbers(model):
    """One thread, two threads and a pool give the same bits."""
    rows = []
    with pyllama.ThreadPool(2, poll=0) as pool:
        for n_threads, use in ((1, None), (2, None), (2, pool)):
            with model.context(n_ctx=256, n_threads=n_threads, n_threads_batch=n_threads) as ctx:
                if use is not None:
                    ctx.attach_threadpool(use)
                ctx.decode(Batch([1, 2, 3, 4]))
                rows.append(ctx.logits())
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_warmup_leaves_an_empty_memory(context):
    """And refuses to clear one that is not."""
    context.warmup()
    assert context.memory.pos_max(0) is None
    with pytest.raises(StateError):
        context.logits()
    context.decode(Batch([1]))
    with pytest.raises(StateError, match="clear the memory"):
        context.warmup()


@pytest.mark.parametrize("write", [random_model.write_bert, random_model.write_t5])
def test_encoders_warm_up_too(tmp_path, write):
    """With a memory or without."""
    with pyllama.Model(write(tmp_path / "m.gguf")) as model, model.context(n_ctx=256) as context:
        context.warmup()
        with pytest.raises((StateError, UnsupportedError)):
            context.logits()


def test_libllamas_reason_for_a_refused_batch_is_told(model):
    """What only libllama checks comes with its words."""
    with model.context(n_ctx=512, n_seq_max=2, kv_unified=True) as context:
        context.decode(Batch([1, 2], seq_id=[0, 0]))
        with pytest.raises(InvalidBatchError, match="divereged"):  # as libllama spells it
            context.decode(Batch([3], pos=2, seq_id=[[0, 1]]))


def test_perf_counts_when_asked(model):
    """Counters are off by default in libllama."""
    with model.context(n_ctx=256, no_perf=False) as context:
        context.decode(Batch([1, 2, 3]))
        context.synchronize()
        context.decode(Batch([4], pos=3))
        context.synchronize()
        perf = context.perf
        assert (perf.n_p_eval, perf.n_eval) == (3, 1)
        assert perf.t_p_eval_ms > 0
        context.perf_reset()
        assert context.perf.n_eval <= 1


def test_embeddings_per_token_and_logits_together(model):
    """Without pooling every token has a row, as wide as the model."""
    with model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([1, 2, 3]))
        assert context.embeddings().shape == (3, 64)
        assert context.logits().shape == (3, 512)
        with pytest.raises(StateError, match=r"embeddings\(\)"):
            context.embedding()


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_pooled_embeddings_are_those_of_the_tokens(model, pooling):
    """Mean, last and first token, computed in the graph."""
    with model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([1, 2, 3]))
        rows = context.embeddings()
    expected = {"mean": rows.mean(0), "last": rows[2], "cls": rows[0]}[pooling]
    with model.context(n_ctx=256, embeddings=True, pooling_type=pooling) as context:
        context.decode(Batch([1, 2, 3]))
        assert np.abs(context.embedding() - expected).max() < 1e-5
        with pytest.raises(IndexError, match="sequence 1"):
            context.embedding(1)
        with pytest.raises(StateError, match=r"embedding\(seq\)"):
            context.embeddings()


def test_batches_use_as_many_threads_as_single_tokens(model):
    """Unless the caller says otherwise."""
    with model.context(n_ctx=256, n_threads=1) as context:
        assert (context.n_threads, context.n_threads_batch) == (1, 1)
    with model.context(n_ctx=256, n_threads=1, n_threads_batch=2) as context:
        assert (context.n_threads, context.n_threads_batch) == (1, 2)


def test_an_abort_is_no_error_in_the_log(model, caplog):
    """It is what the caller asked for."""
    with model.context(n_ctx=256) as context, caplog.at_level(logging.INFO, "pyllama"):
        context.abort()
        with pytest.raises(AbortedError):
            context.decode(Batch([1, 2]))
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


def test_embeddings_that_were_not_asked_for_are_an_error(context):
    """The switch turns them on."""
    context.decode(Batch([1]))
    with pytest.raises(StateError, match="embeddings=True"):
        context.embeddings()
    context.set_embeddings(True)
    context.memory.clear()
    context.decode(Batch([1]))
    assert context.embeddings().shape == (1, 64)


def test_without_causal_attention_a_batch_is_a_micro_batch(model):
    """More would end the process; and later tokens change earlier rows."""
    with model.context(n_ctx=512, n_ubatch=64) as context:
        context.set_causal_attn(False)
        assert not context.causal_attn
        with pytest.raises(InvalidBatchError, match="at most 64"):
            context.decode(Batch([1] * 65))
        context.decode(Batch([1, 2, 3], output="all"))
        free = context.logits()[0]
        context.set_causal_attn(True)
        context.memory.clear()
        context.decode(Batch([1, 2, 3], output="all"))
        assert not np.allclose(free, context.logits()[0])


def test_an_output_limit_is_kept(model):
    """More outputs than n_outputs_max would end the process."""
    with model.context(n_ctx=256, n_outputs_max=2) as context:
        with pytest.raises(InvalidBatchError, match="asks for 3 outputs"):
            context.decode(Batch([1, 2, 3], output="all"))
        context.decode(Batch([1, 2, 3], output=[False, True, True]))
        assert context.n_outputs == 2


def test_a_decoder_does_not_encode(context):
    """libllama would read through NULL."""
    with pytest.raises(UnsupportedError, match="no encoder"):
        context.encode(Batch([1]))


def test_an_encoder_decoder_must_encode_first(tmp_path):
    """Decoding before it ends the process."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256) as context:
        start = model.decoder_start_token
        with pytest.raises(StateError, match="encode"):
            context.decode(Batch([start]))
        context.encode(Batch([5, 6, 7]))
        context.decode(Batch([start]))
        assert context.logits().shape == (1, model.n_vocab)


def test_an_encoder_alone_gives_embeddings_and_no_logits(tmp_path):
    """Decoding is encoding there, in one micro-batch; there is no memory."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256, embeddings=True) as context:
        context.decode(Batch([5, 6, 7]))
        pooled = context.pooling_type != pyllama.PoolingType.NONE
        rows = context.embedding() if pooled else context.embeddings()
        assert np.isfinite(rows).all()
        with pytest.raises(UnsupportedError, match="not logits"):
            context.logits()
        with pytest.raises(UnsupportedError, match="no memory"):
            context.memory.clear()


def test_libllamas_reason_is_in_the_error(monkeypatch, model):
    """A refusal that only C knows brings its words along."""
    monkeypatch.setattr("pyllama.core.context.check_together", lambda *_: None)
    with pytest.raises(LoadError, match="block size") as raised:
        model.context(type_k="q8_0", flash_attn_type="enabled")
    assert raised.value.log


def test_a_pool_lives_until_the_context_has_let_it_go(model):
    """A closed pool is freed once the context computes without it, not before."""
    freed = []
    pool = pyllama.ThreadPool(2)
    [threads] = pool._threads
    free, threads._free = threads._free, lambda pointer: (freed.append(pointer), free(pointer))
    del threads
    with model.context(n_ctx=256, n_threads=2) as context:
        context.attach_threadpool(pool)
        context.decode(Batch([1]))
        context.detach_threadpool()
        pool.close()
        assert freed == []  # the next decode lets it pause
        context.decode(Batch([1], pos=1))
        assert len(freed) == 1
