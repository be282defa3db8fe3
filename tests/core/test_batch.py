"""A batch is arrays that C reads in place, checked before C does."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGUFReader

from pyllama import Batch
from pyllama.errors import InvalidBatchError


def test_defaults_are_one_sequence_from_the_start_with_the_last_output():
    """Tokens alone stand at 0, 1, 2 of sequence 0, and the last one answers."""
    batch = Batch([5, 6, 7])
    assert batch.pos.tolist() == [0, 1, 2]
    assert batch.seq_id.tolist() == [[0], [0], [0]]
    assert batch.output.tolist() == [False, False, True]


def test_a_start_position_counts_on():
    """A number as pos is the position of the first token."""
    assert Batch([5, 6], pos=10).pos.tolist() == [10, 11]


def test_tokens_may_share_sequences():
    """Lists of several lengths give each token its own sequences."""
    batch = Batch([5, 6, 7], seq_id=[[0, 1, 2], [0], [1]])
    assert batch.n_seq_id.tolist() == [3, 1, 1]
    assert batch.seq_id[0].tolist() == [0, 1, 2]


def test_writing_to_the_arrays_changes_what_c_reads(context):
    """One batch serves a whole loop: C reads the numbers that stand there at the decode."""
    batch = Batch([5])
    context.decode(batch)
    first = context.logits()
    context.memory.clear()
    batch.token[0] = 9
    context.decode(batch)
    other = context.logits()
    context.memory.clear()
    context.decode(Batch([9]))
    assert not np.array_equal(first, other)
    assert np.array_equal(other, context.logits())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "tokens or embd"),
        ({"tokens": [1, 2], "embd": [[1.0]]}, ValueError, "2 tokens, but 1 rows"),
        ({"tokens": [1.5]}, TypeError, "whole numbers"),
        ({"tokens": ["a"]}, TypeError, "whole numbers"),
        ({"tokens": [[1, 2]]}, ValueError, "shape"),
        ({"tokens": [2**31]}, ValueError, "32 bits"),
        ({"tokens": [1], "pos": 2**31 - 1}, ValueError, "no room"),
        ({"tokens": [1, 2], "pos": [0]}, ValueError, "2 tokens"),
        ({"tokens": [1, 2], "seq_id": [0]}, ValueError, "2 tokens"),
        ({"tokens": [1, 2], "output": [True]}, ValueError, "2 tokens"),
        ({"tokens": [1], "output": "some"}, ValueError, "some"),
        ({"tokens": [1], "output": [1]}, TypeError, "booleans"),
        ({"embd": [[1.0, np.nan]]}, ValueError, "not finite"),
        ({"embd": [1.0]}, ValueError, "n_embd_inp"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, message):
    """Each wrong argument is named before anything is built."""
    with pytest.raises(error, match=message):
        Batch(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": []}, "no tokens"),
        ({"tokens": [512]}, r"token\[0\] is 512"),
        ({"tokens": [1, -1]}, r"token\[1\] is -1"),
        ({"tokens": [1, 2], "pos": [0, 2]}, r"pos\[1\] is 2.*makes it 1"),
        ({"tokens": [1, 2], "pos": [0, 0]}, r"pos\[1\] is 0"),
        ({"tokens": [1, 2], "pos": [1, 0]}, r"pos\[1\] is 0"),
        ({"tokens": [1], "pos": [-1]}, r"pos\[0\] is -1"),
        ({"tokens": [1], "seq_id": 4}, "sequence 4"),
        ({"tokens": [1], "seq_id": -1}, "sequence -1"),
        ({"tokens": [1], "seq_id": [[]]}, "no sequence"),
        ({"tokens": [1] * 2000}, "2000 tokens"),
        ({"embd": np.zeros((1, 3))}, "3 columns"),
    ],
)
def test_a_batch_that_does_not_fit_the_context_is_refused_and_nothing_happens(
    context, arguments, message
):
    """libllama would end the process, corrupt the memory, or say only -1."""
    with pytest.raises(InvalidBatchError, match=message):
        context.decode(Batch(**arguments))
    assert context.memory.pos_max(0) is None


def test_positions_follow_what_the_memory_holds(context):
    """A gap after the memory names where to go on."""
    context.decode(Batch([1, 2, 3]))
    with pytest.raises(InvalidBatchError, match="up to position 3"):
        context.decode(Batch([4], pos=7))
    context.decode(Batch([4], pos=3))
    assert context.memory.pos_max(0) == 3


def test_the_count_of_sequences_cannot_be_written():
    """C would read past the row of a token whose count was raised."""
    with pytest.raises(ValueError, match="read-only"):
        Batch([1]).n_seq_id[0] = 9


def test_embeddings_of_tokens_answer_like_the_tokens(model):
    """A batch of rows of the embedding matrix is the batch of their tokens."""
    reader = GGUFReader(model.path)
    table = next(t.data for t in reader.tensors if t.name == "token_embd.weight")
    with model.context(n_ctx=256, exact=True) as context:
        context.decode(Batch([3, 4, 5]))
        by_token = context.logits()
        context.memory.clear()
        context.decode(Batch(embd=table[[3, 4, 5]]))
        assert np.abs(context.logits() - by_token).max() < 1e-5


def test_a_batch_says_what_it_holds():
    """The repr counts tokens and outputs."""
    assert repr(Batch([1, 2])) == "<Batch of 2 tokens, 1 with output>"
    assert len(Batch([1, 2])) == 2


def test_sharing_tokens_between_sequences_needs_one_buffer(context, model):
    """Else libllama only says that there is no room."""
    with pytest.raises(InvalidBatchError, match="kv_unified=True"):
        context.decode(Batch([1], seq_id=[[0, 1]]))
    with model.context(n_ctx=256, n_seq_max=2, kv_unified=True) as unified:
        unified.decode(Batch([1, 2], seq_id=[[0, 1], [0, 1]]))
        assert unified.memory.pos_max(1) == 1
