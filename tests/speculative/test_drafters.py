"""What drafts: a smaller model, the text itself, a head that predicts further."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import random_model
from speculating import ONE, PROMPT, drafted, whole

import pyllama
from pyllama import Batch
from pyllama.core.sampler.candidates import likeliest
from pyllama.errors import AbortedError, UnsupportedError
from pyllama.generate import Report
from pyllama.speculative import DraftModel, MTPDraft, PromptLookup


def test_a_draft_model_is_stopped_too(pair):
    """By the timeout of the run, and by abort()."""
    model, small = pair
    prompt = [5] * 400
    with model.context(**ONE, n_ctx=512) as context, small.context(**ONE, n_ctx=512) as other:
        draft = DraftModel(other)
        expected = drafted(context, draft, prompt, 4)
        timer = threading.Timer(0, draft.abort)
        timer.start()
        timer.join()
        other.memory.clear()
        with pytest.raises(AbortedError):
            draft.draft(prompt, 4)
        assert drafted(context, draft, prompt, 4) == expected


def test_a_draft_context_that_is_full_drafts_nothing(pair):
    """The text goes on without it."""
    model, small = pair
    prompt = model.vocab.tokenize("Count from 1 to 9: 1,").tolist()
    with (
        model.context(**ONE, n_ctx=512) as one,
        model.context(**ONE, n_ctx=512) as context,
        small.context(**ONE, n_ctx=256) as other,
    ):
        expected = whole(one, prompt, 300)
        assert drafted(context, DraftModel(other), prompt, 300) == expected


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_vocab": 400}, "400"),
        ({"vocab_options": {"seed": 0}, "metadata": {"tokenizer.ggml.eos_token_id": 7}}, "eos"),
        ({"seed": 3}, "token"),
    ],
)
def test_vocabularies_that_differ_are_refused(contexts, tmp_path, options, match):
    """The message names the first difference; nothing was decoded."""
    options.pop("vocab_options", None)
    path = random_model.write_llama(tmp_path / "other.gguf", **options)
    with (
        pyllama.Model(path) as model,
        model.context(**ONE, n_ctx=256) as small,
        pytest.raises(ValueError, match=match),
    ):
        drafted(contexts[0], DraftModel(small))
    assert contexts[0].memory.pos_max(0) is None


def test_arguments_are_checked(contexts, hybrid):
    """Before anything is decoded."""
    one, other = contexts
    with pytest.raises(ValueError, match="of its own"):
        drafted(one, DraftModel(one))
    with pytest.raises(TypeError, match="Drafter"):
        drafted(one, "lookup")
    with pytest.raises(ValueError, match="n_draft"):
        drafted(one, PromptLookup(), n_draft=0)
    with pytest.raises(ValueError, match="p_min"):
        DraftModel(one, p_min=1.5)
    with pytest.raises(ValueError, match="seq"):
        DraftModel(one, seq=1)
    with pytest.raises(ValueError, match="n_min"):
        PromptLookup(3, 2)
    with pytest.raises(TypeError, match="mtp"):
        MTPDraft(other)
    with hybrid.context(**ONE, n_ctx=256) as context:
        with pytest.raises(UnsupportedError, match="recurrent"):
            DraftModel(context)
        with pytest.raises(UnsupportedError, match="n_rs_seq"):
            drafted(context, PromptLookup())
        assert context.memory.pos_max(0) is None
    assert one.memory.pos_max(0) is None


def test_lookup_finds_what_followed(contexts):
    """The longest match, the last one of several; a short period repeats."""
    draft = PromptLookup(1, 2)
    draft.begin([])
    assert draft.draft([1, 2, 3, 9, 2, 4, 1, 2], 2) == [3, 9]
    assert draft.draft([1, 2, 3, 9, 2, 4, 1, 2, 2], 1) == [2]
    draft.begin([])
    assert draft.draft([7, 8, 7, 8], 5) == [7, 8, 7, 8, 7]
    assert draft.draft([7, 8, 9], 5) == []
    assert contexts[0].memory.pos_max(0) is None


def test_a_head_gives_the_text_of_the_plain_loop(hybrid):
    """Multi-token prediction: runs that share a prefix, and prompts in pieces."""
    options = {**ONE, "n_ctx": 256, "exact": True}
    with (
        hybrid.context(**options) as one,
        hybrid.context(**options, n_rs_seq=4, n_batch=16) as other,
        hybrid.context(**options, ctx_type="mtp", n_batch=16) as head,
    ):
        draft, report = MTPDraft(head), Report()
        for prompt in (PROMPT, [*range(5, 45)], [*range(5, 40), 9, 9], PROMPT):
            expected = whole(one, prompt, 20)
            assert drafted(other, draft, prompt, 20, report=report) == expected
        assert report.n_drafted >= 15  # of the last run


def test_a_head_is_fed_as_it_should_be(hybrid):
    """Its guesses are what all tokens and all states before them give, computed at once."""
    options = {**ONE, "n_ctx": 256, "exact": True}
    with (
        hybrid.context(**options, n_rs_seq=4) as context,
        hybrid.context(**options, ctx_type="mtp") as head,
        hybrid.context(**options, ctx_type="mtp") as fresh,
    ):
        draft, seen_by_draft = MTPDraft(head), []
        guess = draft.draft

        def note(ids, n):
            seen_by_draft.append((list(ids), guess(ids, 3)))
            return seen_by_draft[-1][1][:n]

        draft.draft = note
        drafted(context, draft, n=12)
        assert len(seen_by_draft) > 5
        for ids, guesses in seen_by_draft:
            context.memory.clear()
            with context.observe("h_nextn") as seen:
                context.decode(Batch(ids))
            states = np.concatenate([array for _, array in seen])
            fresh.memory.clear()
            batch = Batch(ids, embd=np.concatenate([0 * states[:1], states[:-1]]))
            for guess_made in guesses:
                with fresh.observe("h_nextn") as seen:
                    fresh.decode(batch)
                assert guess_made == likeliest(fresh.logits()[-1])
                pos = fresh.memory.pos_max(0) + 1
                batch = Batch([guess_made], embd=seen[-1][1][-1:], pos=pos)


def test_a_head_of_another_model_is_refused(hybrid, contexts):
    """And contexts that do not let anybody look."""
    with hybrid.context(**ONE, n_ctx=256, ctx_type="mtp") as head:
        with pytest.raises(ValueError, match="architecture"):
            drafted(contexts[0], MTPDraft(head))
        with (
            hybrid.context(**ONE, n_ctx=256, n_rs_seq=4, hooks=False) as context,
            pytest.raises(UnsupportedError, match="hooks"),
        ):
            drafted(context, MTPDraft(head))
