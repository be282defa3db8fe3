"""What speculative decoding leaves in memories of every kind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import random_model
from decoding import go_on
from speculating import ONE, PROMPT, drafted, oracle, whole

import pyllama
from pyllama import Batch, samplers, speculative
from pyllama.errors import InvalidBatchError, NoSlotError, StateError, UnsupportedError
from pyllama.generate import Report, tokens
from pyllama.speculative import PromptLookup


@pytest.mark.parametrize("n_taken", [1, 2, 3, 5, 9, 20])
def test_leaving_half_way_leaves_what_was_yielded(contexts, n_taken):
    """The next decode gives the logits of a plain run, and the next run reuses everything."""
    one, other = contexts
    expected = whole(one)
    run = speculative.tokens(other, PROMPT, draft=oracle(expected, 6), ignore_eog=True)
    made = list(itertools.islice(run, n_taken))
    run.close()
    n_held = other.memory.pos_max(0) + 1
    assert n_held == len(PROMPT) + n_taken - 1
    one.memory.clear()
    one.decode(Batch([*PROMPT, *made][:n_held]))
    np.testing.assert_allclose(go_on(other), go_on(one), atol=1e-4)
    other.memory.remove(0, n_held)
    report = Report()
    run = speculative.tokens(other, PROMPT, draft=oracle(expected, 6), ignore_eog=True)
    made = list(itertools.islice(run, n_taken))
    run.close()
    assert whole(other, [*PROMPT, *made, 9], 1, report=report)
    assert report.n_reused == n_held


def test_a_finished_run_leaves_the_memory_of_a_plain_one(contexts):
    """Also after wrong guesses."""
    one, other = contexts
    expected = whole(one)
    drafted(other, oracle(expected, 4))
    assert other.memory.pos_max(0) == one.memory.pos_max(0)
    np.testing.assert_allclose(go_on(other), go_on(one), atol=1e-4)


def test_sequences_may_be_interleaved(context):
    """Rows that were decoded ahead are kept while the other sequence decodes."""
    alone = [whole(context, [i, *PROMPT], 12) for i in (3, 4)]
    context.memory.clear()
    runs = [
        speculative.tokens(
            context,
            [3 + i, *PROMPT],
            draft=oracle(alone[i], 5),
            max_tokens=12,
            ignore_eog=True,
            seq=i,
        )
        for i in range(2)
    ]
    both = zip(*zip(*runs, strict=True), strict=True)
    assert [list(each) for each in both] == [text[5:] for text in alone]


def test_a_run_that_lost_its_sequence_says_so_and_touches_nothing(contexts):
    """The other run's memory stays."""
    one, other = contexts
    expected = whole(one)
    first = speculative.tokens(other, PROMPT, draft=oracle(expected), ignore_eog=True)
    assert [next(first), next(first)] == expected[4:6]
    second = tokens(other, [9, 9], max_tokens=8, ignore_eog=True)
    begun = [next(second), next(second)]
    with pytest.raises(StateError, match="sequence 0"):
        next(first)
    assert [*begun, *second] == whole(one, [9, 9], 8)[2:]


def test_what_was_computed_ahead_is_dropped_when_adapters_change(contexts):
    """The tokens after a change are those of the plain loop after it."""
    one, other = contexts
    expected = whole(one)
    vector = np.random.default_rng(0).normal(0, 2, (1, 64))
    texts = []
    for context, draft in ((one, None), (other, oracle(expected))):
        context.memory.clear()
        options = {"max_tokens": 20, "ignore_eog": True}
        run = (
            tokens(context, PROMPT, **options)
            if draft is None
            else speculative.tokens(context, PROMPT, draft=draft, **options)
        )
        made = list(itertools.islice(run, 3))
        context.set_control_vector(vector)
        texts.append([*made, *run])
        context.set_control_vector(None)
    assert texts[0] != expected[4:24]
    assert texts[0] == texts[1]


def test_a_memory_that_others_fill_takes_one_token_at_a_time(model):
    """Guesses that find no room are left out; the last cell is used."""
    with model.context(**ONE, n_ctx=256, exact=True) as one:
        expected = whole(one, n=53)
    options = {"n_ctx": 256, "n_seq_max": 2, "kv_unified": True, "exact": True}
    with model.context(**ONE, **options) as context:
        context.decode(Batch([9] * 200, seq_id=1))
        run = speculative.tokens(context, PROMPT, draft=oracle(expected * 2), ignore_eog=True)
        assert [*PROMPT, *itertools.islice(run, 53)] == expected
        with pytest.raises(NoSlotError):
            next(run)


def test_a_chain_in_the_graph_is_an_error_that_leaves_no_guesses(contexts):
    """It keeps the logits to itself, and takes one row of a sequence at a time."""
    one, other = contexts
    expected = whole(one)
    run = speculative.tokens(other, PROMPT, draft=oracle(expected), ignore_eog=True)
    assert next(run) == expected[4]
    other.attach_sampler(pyllama.SamplerChain([samplers.greedy()]))
    with pytest.raises(InvalidBatchError, match="backend sampling"):
        next(run)
    other.detach_sampler()
    assert other.memory.pos_max(0) == len(PROMPT) - 1
    assert drafted(other, oracle(expected, 3)) == expected


def test_shifting_goes_on_beyond_the_context(contexts):
    """As the plain loop does, with the guesses that follow the shift."""
    one, other = contexts
    expected = whole(one, n=400, n_keep=4)
    report = Report()
    made = drafted(other, PromptLookup(1), n=400, n_keep=4, report=report)
    assert report.n_accepted > 0
    assert made == expected


def test_states_go_back_by_their_snapshots(hybrid):
    """A hybrid model gives the text of the plain loop."""
    with (
        hybrid.context(**ONE, n_ctx=256, exact=True) as one,
        hybrid.context(**ONE, n_ctx=256, exact=True, n_rs_seq=4) as other,
    ):
        expected = whole(one)
        for wrong_every in (0, 1, 2, 3, 5):
            draft = oracle(expected, wrong_every)
            assert drafted(other, draft, n_draft=8) == expected
            assert max(n for _, n in draft.asked) == 4


def test_a_state_goes_back_within_its_last_batch_only(hybrid):
    """libllama says yes to more, and goes on from an older state."""
    with hybrid.context(**ONE, n_ctx=256, n_rs_seq=4) as context:
        context.decode(Batch(PROMPT))
        context.decode(Batch([9], pos=4))
        with pytest.raises(UnsupportedError, match="recurrent"):
            context.memory.remove(0, 4)
        assert context.memory.pos_max(0) == 4
        first = whole(context, PROMPT, 8)
        report = Report()
        again = whole(context, [*first[:9], 77], 8, report=report)
        context.memory.clear()
        assert again == whole(context, [*first[:9], 77], 8)


def test_a_sliding_window_is_not_harmed(tmp_path):
    """The text is the same beyond what the window's memory holds."""
    path = random_model.write_llama(
        tmp_path / "window.gguf",
        arch="mellum",
        n_layer=4,
        n_expert=4,
        n_expert_used=2,
        qk_norm=True,
        metadata={"mellum.attention.sliding_window": 16, "mellum.expert_feed_forward_length": 128},
    )
    options = {**ONE, "n_ctx": 512, "n_ubatch": 8, "n_batch": 8, "swa_full": False}
    with (
        pyllama.Model(path) as model,
        model.context(**options) as one,
        model.context(**options) as other,
    ):
        expected = whole(one, n=400)
        assert one.memory.pos_min(0) > 0
        draft = oracle(expected, 5)
        assert drafted(other, draft, n=400, n_draft=20) == expected
        assert max(n for _, n in draft.asked) == 7
