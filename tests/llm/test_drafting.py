"""`LLM` with tokens guessed ahead: the same text, whatever drafts."""

from __future__ import annotations

import pytest
import random_model

import pyllama
from pyllama.errors import LoadError, UnsupportedError
from pyllama.llm import LLM
from pyllama.speculative import PromptLookup

OPTIONS = {"n_ctx": 512, "n_threads": 1}
PROMPT = "Count from 1 to 9: 1, 2, 3,"


@pytest.fixture(scope="module", params=["file", "lookup", "drafter"])
def llm(request):
    """Load the shipped model with a drafter."""
    draft = {
        "file": pyllama.demo_draft_model(),
        "lookup": "lookup",
        "drafter": PromptLookup(1, 3),
    }[request.param]
    with LLM(pyllama.demo_model(), draft=draft, n_draft=4, **OPTIONS) as llm:
        yield llm


def test_the_text_is_the_same_and_the_guesses_are_counted(llm):
    """With draft=False the call is a plain one."""
    plain = llm.complete(PROMPT, max_tokens=40, temperature=0, ignore_eog=True, draft=False)
    ahead = llm.complete(PROMPT, max_tokens=40, temperature=0, ignore_eog=True)
    assert ahead.tokens == plain.tokens
    assert plain.timings.n_drafted == 0
    assert 0 < ahead.timings.n_accepted <= ahead.timings.n_drafted
    assert ahead.usage.completion_tokens == 40


def test_stop_strings_end_the_text(llm):
    """In the middle of guesses that were right; the next call reuses what is left."""
    options = {"max_tokens": 40, "temperature": 0, "ignore_eog": True, "stop": ["7"]}
    plain = llm.complete(PROMPT, **options, draft=False)
    ahead = llm.complete(PROMPT, **options)
    assert (ahead.text, ahead.stopped_by) == (plain.text, "7")
    again = llm.complete(PROMPT, **options)
    assert again.text == plain.text
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_options_go_with_it(llm):
    """Choices, a seed and log-probabilities."""
    made = llm.complete("The sky is", schema=[" blue", " green"], logprobs=1, seed=3)
    assert made.text in (" blue", " green")
    assert len(made.logprobs) == len(made.tokens)


def test_cancel_and_close_leave_it_usable(llm):
    """A callback that says no, and a stream that is left."""
    done = llm.complete(PROMPT, max_tokens=40, ignore_eog=True, callback=lambda _part: False)
    assert (done.finish_reason, len(done.tokens)) == ("cancelled", 1)
    parts = llm.complete(PROMPT, max_tokens=40, ignore_eog=True, stream=True)
    next(parts)
    next(parts)
    llm.cancel()
    assert list(parts)[-1].finish_reason == "cancelled"
    assert llm.complete(PROMPT, max_tokens=4, temperature=0).text


def test_a_head_drafts_where_the_model_has_one(tmp_path):
    """The context gets the snapshots that its states need."""
    path = random_model.write_mtp(tmp_path / "hybrid.gguf", n_layer=3, n_recurrent=2)
    options = {"max_tokens": 20, "temperature": 0, "ignore_eog": True}
    with LLM(path, draft="mtp", n_draft=3, **OPTIONS) as llm:
        ahead = llm.complete([5, 6, 7], **options)
        plain = llm.complete([5, 6, 7], **options, draft=False)
        assert llm.context.n_rs_seq == 3
    assert ahead.tokens == plain.tokens
    assert ahead.timings.n_drafted >= 15


def test_it_can_be_unloaded_and_loaded_again():
    """The draft model goes and comes with it."""
    llm = LLM(pyllama.demo_model(), draft=pyllama.demo_draft_model(), **OPTIONS)
    small = llm._drafter.context.model
    llm.unload()
    assert small.closed
    llm.load()
    assert llm.complete(PROMPT, max_tokens=9).timings.n_drafted > 0
    llm.unload()


@pytest.mark.parametrize(
    ("draft", "error", "match"),
    [
        (7, TypeError, "Drafter"),
        ("missing.gguf", FileNotFoundError, "missing"),
        ("mtp", UnsupportedError, "mtp"),
        (__file__, LoadError, "GGUF"),
    ],
)
def test_a_drafter_that_cannot_be_made_is_an_error(draft, error, match):
    """When the model is loaded, not at the first call."""
    with pytest.raises(error, match=match):
        LLM(pyllama.demo_model(), draft=draft, **OPTIONS)


def test_a_memory_that_cannot_go_back_is_an_error(tmp_path):
    """A recurrent model of an architecture without snapshots."""
    path = random_model.write_mamba(tmp_path / "mamba.gguf")
    with pytest.raises(UnsupportedError, match="n_rs_seq"):
        LLM(path, draft="lookup", **OPTIONS)
