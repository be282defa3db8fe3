"""Chunks decoded into a context: logits, positions, and what is taken back."""

from __future__ import annotations

import numpy as np
import pytest
from decoding import SMALL
from projecting import KINDS, logits, medium, prompt

from pyllama import Batch
from pyllama.core.library import ffi, lib
from pyllama.errors import (
    BusyError,
    InvalidBatchError,
    NoSlotError,
)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_depend_on_what_is_seen(projectors, kind):
    """The same prompt gives the same logits; another image gives others."""
    each = projectors[kind]
    first, again, other = (logits(each, prompt(each, kind, seed)) for seed in (0, 0, 1))
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_batch", [8, 64])
def test_libllamas_own_loop_comes_to_the_same(projectors, kind, n_batch):
    """The loop in C gives the same logits and the same end, in batches of any size."""
    each = projectors[kind]
    chunks, options = prompt(each, kind), {"n_batch": n_batch, "n_ubatch": n_batch}
    ours = logits(each, chunks, **options)
    with each.model.context(**SMALL, **options) as context:
        end = ffi.new("llama_pos *")
        code = lib.mtmd_helper_eval_chunks(
            each.pointer, context.pointer, chunks.pointer, 0, 0, n_batch, True, end
        )
        memory = ffi.buffer(lib.llama_get_logits(context.pointer), ours.nbytes)
        assert (code, end[0]) == (0, chunks.n_pos)
        assert np.array_equal(np.frombuffer(memory, np.float32), ours)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_goes_on_after_an_image(projectors, kind):
    """What decode returns is where the next token stands."""
    each = projectors[kind]
    with each.model.context(**SMALL) as context:
        end = each.decode(context, prompt(each, kind), output="none")
        assert context.n_outputs == 0
        context.decode(Batch([5, 6], pos=end))
        assert np.isfinite(context.logits()).all()
        assert context.causal_attn


def test_a_failure_takes_back_what_was_stored(projectors):
    """When the memory is full, it holds what it held before, and can be used."""
    each = projectors["janus_pro"]
    chunks = each.tokenize(["a", *[medium("janus_pro")] * 20])
    assert chunks.n_tokens > 256
    with each.model.context(**SMALL) as context:
        context.decode(Batch([1, 2, 3]))
        with pytest.raises(NoSlotError):
            each.decode(context, chunks, pos=3)
        assert context.memory.pos_max(0) == 2
        assert each.decode(context, prompt(each, "janus_pro"), pos=3) > 3


def test_a_wrong_position_changes_nothing(projector):
    """A position behind the end of the memory is refused before anything is stored."""
    with projector.model.context(**SMALL) as context:
        context.decode(Batch([1, 2, 3]))
        for pos in (1, 7):
            with pytest.raises(InvalidBatchError):
                projector.decode(context, prompt(projector, "janus_pro"), pos=pos)
        assert context.memory.pos_max(0) == 2


def test_an_image_that_is_read_at_once_must_fit(projectors):
    """Without a causal mask an image is one micro-batch: too small a context is refused first."""
    chunks = prompt(projectors["gemma3"], "gemma3")
    with projectors["gemma3"].model.context(**SMALL, n_batch=4, n_ubatch=2) as context:
        with pytest.raises(InvalidBatchError, match="n_ubatch"):
            projectors["gemma3"].decode(context, chunks)
        assert context.memory.pos_max(0) is None


def test_whoever_remembers_tokens_is_told(projector):
    """A sequence with an image in it is not what a list of tokens says."""
    with projector.model.context(**SMALL, n_seq_max=2) as context:
        before = list(context._edits)
        projector.decode(context, prompt(projector, "janus_pro"), seq=1)
        assert context._edits[0] == before[0]
        assert context._edits[1] > before[1]


def test_what_belongs_elsewhere_is_refused(projectors, mrope):
    """A context of another model, chunks of another projector, and text to encode."""
    chunks = prompt(projectors["janus_pro"], "janus_pro")
    with mrope.context(**SMALL) as context, pytest.raises(ValueError, match="another model"):
        projectors["janus_pro"].decode(context, chunks)
    with pytest.raises(ValueError, match="another projector"):
        projectors["gemma3"].encode(chunks[1])
    with pytest.raises(ValueError, match="text"):
        projectors["janus_pro"].encode(chunks[0])
    with pytest.raises(TypeError):
        projectors["janus_pro"].encode(5)


@pytest.mark.parametrize("options", [{"output": "all"}, {"seq": 1}, {"seq": -1}, {"pos": -1}])
def test_bad_arguments_of_decode_are_refused(projector, options):
    """Each is checked before anything is encoded."""
    with (
        projector.model.context(**SMALL) as context,
        pytest.raises(ValueError, match=r"output|seq|pos"),
    ):
        projector.decode(context, prompt(projector, "janus_pro"), **options)


def test_a_context_in_a_call_is_busy(projector):
    """Decoding chunks takes its turn as any decode does; nothing is stored."""
    chunks = prompt(projector, "janus_pro")
    with projector.model.context(**SMALL) as context:
        context._record.enter(shared=False)
        try:
            with pytest.raises(BusyError):
                projector.decode(context, chunks)
        finally:
            context._record.leave()
        assert context.memory.pos_max(0) is None
