"""Decoding and encoding, aborts, and the options of a context."""

from __future__ import annotations

import logging
import threading
import time

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


def test_an_abort_is_no_error_in_the_log(model, caplog):
    """It is what the caller asked for."""
    with model.context(n_ctx=256) as context, caplog.at_level(logging.INFO, "pyllama"):
        context.abort()
        with pytest.raises(AbortedError):
            context.decode(Batch([1, 2]))
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


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


def test_libllamas_reason_is_in_the_error(monkeypatch, model):
    """A refusal that only C knows brings its words along."""
    monkeypatch.setattr("pyllama.core.context.check_together", lambda *_: None)
    with pytest.raises(LoadError, match="block size") as raised:
        model.context(type_k="q8_0", flash_attn_type="enabled")
    assert raised.value.log
