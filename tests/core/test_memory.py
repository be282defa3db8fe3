"""Cutting, copying and moving what a context holds."""

from __future__ import annotations

import numpy as np
import pytest
import random_model
from fuzz import grow

import pyllama
from pyllama import Batch
from pyllama.errors import UnsupportedError


def row_after(context, tokens, *, pos=0, seq=0):
    """Decode *tokens* and return the last row of logits."""
    context.decode(Batch(tokens, pos=pos, seq_id=seq))
    return context.logits()[-1]


def test_a_tail_can_be_removed_and_decoded_again(context):
    """The same tokens give the same logits."""
    first = row_after(context, [1, 2, 3, 4])
    context.memory.remove(0, 2)
    assert context.memory.pos_max(0) == 1
    again = row_after(context, [3, 4], pos=2)
    assert np.allclose(first, again, atol=1e-4)


def test_ranges_are_half_open(context):
    """remove(seq, 1, 3) takes positions 1 and 2."""
    context.decode(Batch([1, 2, 3, 4]))
    context.memory.remove(0, 1, 3)
    assert (context.memory.pos_min(0), context.memory.pos_max(0)) == (0, 3)
    context.memory.remove(0, 0, 1)
    assert context.memory.pos_min(0) == 3
    context.memory.remove(0, 3, 3)
    assert context.memory.pos_min(0) == 3


def test_positions_of_an_empty_sequence_are_none(context):
    """Not -1."""
    assert context.memory.pos_min(0) is None
    assert context.memory.pos_max(3) is None


def test_a_copied_sequence_goes_on_like_the_original(context):
    """Sharing a prefix costs no decoding."""
    context.decode(Batch([1, 2, 3], seq_id=0))
    context.memory.copy(0, 1)
    original = row_after(context, [4], pos=3, seq=0)
    copied = row_after(context, [4], pos=3, seq=1)
    assert np.allclose(original, copied, atol=1e-4)


def test_keep_removes_all_others(context):
    """Only the named sequence stays."""
    context.decode(Batch([1, 2], seq_id=[0, 1], pos=[0, 0]))
    context.memory.keep(1)
    assert context.memory.pos_max(0) is None
    assert context.memory.pos_max(1) == 0


def test_a_shifted_sequence_stands_where_it_was_moved(context):
    """And the next decode, which rotates the keys, works."""
    context.decode(Batch([1, 2, 3, 4]))
    context.memory.remove(0, 0, 2)
    context.memory.shift(0, delta=-2)
    assert (context.memory.pos_min(0), context.memory.pos_max(0)) == (0, 1)
    assert np.isfinite(row_after(context, [5], pos=2)).all()


def test_divided_positions_round_down(context):
    """0, 1, 2, 3 become 0, 0, 1, 1."""
    context.decode(Batch([1, 2, 3, 4]))
    context.memory.divide(0, divisor=2)
    assert context.memory.pos_max(0) == 1


@pytest.mark.parametrize("type_k", ["bf16", "q8_0"])
def test_a_shift_that_would_kill_the_next_decode_is_refused(tmp_path, type_k):
    """libllama says it can shift, and dies at the next decode."""
    path = random_model.write_llama(tmp_path / "m.gguf", n_embd=128, n_head=4, n_head_kv=4)
    with pyllama.Model(path) as model, model.context(n_ctx=256, type_k=type_k) as context:
        context.decode(Batch([1, 2, 3]))
        assert not context.memory.can_shift
        with pytest.raises(UnsupportedError, match="cannot move"):
            context.memory.shift(0, delta=1)


@pytest.mark.parametrize("arch", ["afmoe", "cohere2", "exaone-moe", "gemma3n"])
def test_a_shift_that_moves_no_keys_is_refused(tmp_path, arch):
    """Two layers of these have one kind of memory only, and libllama asserts on the other."""
    assert grow.grow(tmp_path, arch)
    path = tmp_path / f"{arch}.gguf"
    with pyllama.Model(path) as model, model.context(n_ctx=64, n_threads=1) as context:
        assert not context.memory.can_shift
        context.decode(Batch([1, 2, 3]))
        with pytest.raises(UnsupportedError, match="cannot move"):
            context.memory.shift(0, delta=1)
        with pytest.raises(UnsupportedError, match="cannot move"):
            context.memory.divide(0, divisor=2)
        assert np.isfinite(row_after(context, [4], pos=3)).all()


@pytest.mark.parametrize("n_seq_max", [1, 2])
def test_a_model_with_both_kinds_of_layers_can_be_shifted(tmp_path, n_seq_max):
    """With windows in every second layer there are keys in either memory."""
    path = grow.write_window(tmp_path / "m.gguf")
    options = {"n_seq_max": n_seq_max, "kv_unified": False, "n_threads": 1}
    with pyllama.Model(path) as model, model.context(n_ctx=64, **options) as context:
        assert context.memory.can_shift
        context.decode(Batch([1, 2, 3, 4]))
        context.memory.remove(0, 0, 2)
        context.memory.shift(0, delta=-2)
        assert np.isfinite(row_after(context, [5], pos=2)).all()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda m: m.remove(4), ValueError),
        (lambda m: m.remove(-1), ValueError),
        (lambda m: m.remove(0, 3, 1), ValueError),
        (lambda m: m.remove(0, -1), ValueError),
        (lambda m: m.copy(0, 9), ValueError),
        (lambda m: m.keep(300), ValueError),
        (lambda m: m.shift(0, delta=-5), ValueError),
        (lambda m: m.shift(0, delta=2**31 - 1), ValueError),
        (lambda m: m.divide(0, divisor=0), ValueError),
        (lambda m: m.divide(0, divisor=-2), ValueError),
        (lambda m: m.pos_min(256), ValueError),
        (lambda m: m.pos_max("0"), TypeError),
        (lambda m: m.clear(data=1), TypeError),
        (lambda m: m.copy(0, 1, 0, 1), UnsupportedError),
    ],
)
def test_what_would_end_the_process_is_refused(context, call, error):
    """And the memory stays as it was."""
    context.decode(Batch([1, 2, 3]))
    with pytest.raises(error):
        call(context.memory)
    assert context.memory.pos_max(0) == 2


def test_part_of_a_sequence_can_be_copied_in_one_buffer(model):
    """kv_unified=True makes it possible."""
    with model.context(n_ctx=512, n_seq_max=2, kv_unified=True) as context:
        context.decode(Batch([1, 2, 3]))
        context.memory.copy(0, 1, 0, 2)
        assert context.memory.pos_max(1) == 1


def test_a_recurrent_memory_refuses_what_it_cannot_do(tmp_path):
    """libllama reports success and removes nothing."""
    path = random_model.write_mamba(tmp_path / "mamba.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256) as context:
        assert model.is_recurrent
        context.decode(Batch([1, 2, 3]))
        with pytest.raises(UnsupportedError, match="recurrent"):
            context.memory.remove(0, 1)
        with pytest.raises(UnsupportedError, match="recurrent"):
            context.memory.shift(0, delta=1)
        assert context.memory.pos_max(0) == 2
        context.memory.remove(0)
        assert context.memory.pos_max(0) is None
