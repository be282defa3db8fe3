"""`LLM.complete`: whole and in parts, its options, its errors, and what it leaves behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import pyllama
from pyllama.errors import (
    BusyError,
    ContextLengthError,
    GrammarError,
    LoadError,
    StateError,
    UnsupportedError,
)
from pyllama.llm import LLM

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def llm():
    """Load the shipped model once."""
    with LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
        yield llm


def test_a_text_is_continued(llm):
    """The shipped model knows its capitals, and says how many tokens it took."""
    done = llm.complete(PROMPT, max_tokens=8, temperature=0)
    assert done.text.startswith(" Paris")
    assert done.usage.prompt_tokens == len(llm.tokenize(PROMPT))
    assert done.usage.completion_tokens == len(done.tokens) <= 8
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.timings.generation_per_second > 0


def test_the_parts_are_the_whole(llm):
    """Streamed or not, the same text with the same seed; the last part holds the whole."""
    whole = llm.complete(PROMPT, max_tokens=12, seed=3)
    parts = list(llm.complete(PROMPT, max_tokens=12, seed=3, stream=True))
    assert "".join(part.text for part in parts) == whole.text
    assert tuple(part.token for part in parts[:-1]) == whole.tokens
    assert parts[-1].completion.text == whole.text
    assert [part.finish_reason for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].finish_reason == whole.finish_reason


def test_a_seed_reproduces(llm):
    """The seed that was drawn is told, and gives the same text again."""
    first = llm.complete("Once upon a time", max_tokens=20, temperature=1.5)
    again = llm.complete("Once upon a time", max_tokens=20, temperature=1.5, seed=first.seed)
    others = {
        llm.complete("Once upon a time", max_tokens=20, temperature=1.5, seed=seed).text
        for seed in range(5)
    }
    assert again.text == first.text
    assert len(others) > 1


def test_a_stop_string_ends_the_text(llm):
    """It is not part of it, and is named."""
    free = llm.complete(PROMPT, max_tokens=8, temperature=0).text
    stop = free[2:4]
    done = llm.complete(PROMPT, max_tokens=8, temperature=0, stop=[stop, "never comes"])
    assert (done.text, done.finish_reason, done.stopped_by) == (free[:2], "stop", stop)


def test_max_tokens_ends_the_text(llm):
    """With the reason that there was no more room."""
    done = llm.complete(PROMPT, max_tokens=1, temperature=0, ignore_eog=True)
    assert (len(done.tokens), done.finish_reason) == (1, "length")


def test_token_ids_are_a_prompt(llm):
    """The same as their text."""
    by_text = llm.complete(PROMPT, max_tokens=6, temperature=0)
    by_ids = llm.complete(llm.tokenize(PROMPT), max_tokens=6, temperature=0)
    assert by_ids.tokens == by_text.tokens


def test_special_tokens_in_the_text_are_text(llm):
    """What a user wrote steers nothing."""
    special = llm.model.vocab.detokenize([llm.model.vocab.eos], unparse_special=True)
    ids = llm.tokenize(f"a {special} b")
    assert llm.model.vocab.eos not in ids.tolist()
    assert llm.detokenize(ids).strip() == f"a {special} b"


def test_logprobs_are_those_of_the_model(llm):
    """They agree with the logits of a context of our own."""
    done = llm.complete(PROMPT, max_tokens=3, temperature=0, logprobs=4)
    with llm.model.context(n_ctx=128, n_threads=1) as context:
        ids = [*llm.tokenize(PROMPT).tolist(), *done.tokens]
        context.decode(pyllama.Batch(ids, output="all"))
        rows = context.logits().astype(np.float64)
    first = len(llm.tokenize(PROMPT)) - 1
    for step, each in enumerate(done.logprobs):
        row = rows[first + step]
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert each.token == done.tokens[step]
        assert each.logprob == pytest.approx(expected[each.token], abs=5e-2)
        assert [top.token for top in each.top] == np.argsort(-expected)[:4].tolist()
        assert each.top[0].bytes == llm.model.vocab.piece(each.top[0].token, special=True)


def test_bias_and_processor_both_count(llm):
    """The one rules a token out, the other prefers one."""
    free = llm.complete(PROMPT, max_tokens=1, temperature=0).tokens[0]
    liked = (free + 7) % llm.model.n_vocab

    def prefer(_ids, scores):
        scores[[free, liked]] += 50
        return scores

    options = {"logit_bias": {free: float("-inf")}, "logits_processor": [prefer]}
    assert llm.complete(PROMPT, max_tokens=1, temperature=0, **options).tokens == (liked,)


def test_the_prompt_counts_as_text_that_is_repeated(llm):
    """For both penalties, also where it comes from the cache, and not beyond their reach."""
    prompt = "The capital of France is Paris. The capital of France is"
    options = {"max_tokens": 1, "temperature": 0, "ignore_eog": True}
    [free] = llm.complete(prompt, **options).tokens
    for penalty in ({"penalty_repeat": 5.0}, {"dry_multiplier": 9.0}):
        cold = LLM(pyllama.demo_model(), n_ctx=512, n_threads=1)
        with cold:
            expected = cold.complete(prompt, **options, **penalty).tokens
        warm = llm.complete(prompt, **options, **penalty)
        assert warm.usage.cached_tokens > 0
        assert warm.tokens == expected != (free,)
    near = {"penalty_repeat": 5.0, "penalty_last_n": 2, "dry_multiplier": 0}
    assert llm.complete(prompt, **options, **near).tokens == (free,)


def test_a_processor_sees_all_tokens(llm):
    """The prompt, also where it comes from the cache, and what was generated."""
    seen = []

    def spy(ids, scores):
        seen.append(ids.tolist())
        return scores

    for _ in range(2):
        seen.clear()
        done = llm.complete(PROMPT, max_tokens=3, ignore_eog=True, logits_processor=[spy])
        ids = llm.tokenize(PROMPT).tolist()
        assert seen == [[*ids, *done.tokens[:n]] for n in range(3)]
    assert done.usage.cached_tokens > 0


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_that_is_no_token_is_refused(llm, token):
    """At the call, with its place."""
    with pytest.raises(IndexError, match=r"tokens\[1\]"):
        llm.complete([5, token], stream=True)
    assert llm.complete(PROMPT, max_tokens=1).tokens


def test_a_callback_stops_by_returning_false(llm):
    """It sees each part; what it has seen is the text."""
    seen = []

    def callback(part):
        seen.append(part)
        return len(seen) < 3

    done = llm.complete("Once upon a time", callback=callback, temperature=0)
    assert done.finish_reason == "cancelled"
    assert len(done.tokens) == 3
    assert "".join(part.text for part in seen) == done.text


def test_an_exception_of_a_callback_arrives(llm):
    """The run ends, and the next call works."""

    def callback(_part):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        llm.complete(PROMPT, callback=callback)
    assert llm.complete(PROMPT, max_tokens=1).tokens


def test_a_stream_left_open_is_closed_with_the_model():
    """The exception that left it is the one that arrives."""
    seen = []

    def leave_open():
        with LLM(pyllama.demo_model(), n_ctx=256, n_threads=1) as llm:
            parts = llm.complete("Once upon a time", stream=True)
            seen.extend([llm, parts, next(parts)])
            raise LookupError

    with pytest.raises(LookupError):
        leave_open()
    assert not seen[0].is_loaded
    assert list(seen[1]) == []


def test_a_stream_that_was_refused_has_ended(llm):
    """Another call makes a new one."""
    first, second = (llm.complete(PROMPT, max_tokens=2, stream=True) for _ in range(2))
    next(first)
    with pytest.raises(BusyError):
        next(second)
    first.close()
    assert list(second) == []
    assert llm.complete(PROMPT, max_tokens=2).tokens


def test_closing_the_stream_ends_the_run(llm):
    """Until then another call is refused, and afterwards it works."""
    parts = llm.complete("Once upon a time", stream=True)
    next(parts)
    with pytest.raises(BusyError, match="close its stream"):
        llm.complete(PROMPT)
    with pytest.raises(BusyError):
        llm.unload()
    parts.close()
    assert llm.complete(PROMPT, max_tokens=1).finish_reason == "length"


def test_cancel_from_another_thread(llm):
    """The text so far is there, with the reason."""
    parts = llm.complete("Once upon a time", stream=True, ignore_eog=True, n_keep=4)
    next(parts)
    threading.Timer(0.05, llm.cancel).start()
    *_, last = parts
    assert last.finish_reason == "cancelled"
    assert len(last.completion.tokens) > 0
    assert llm.complete(PROMPT, max_tokens=3, temperature=0).text.startswith(" Paris")


def test_cancel_within_a_long_prompt(tmp_path):
    """It does not wait for the prompt, and the next call is right."""
    with LLM(pyllama.demo_model(), n_ctx=4096, n_threads=1) as llm:
        expected = llm.complete(PROMPT, max_tokens=4, temperature=0).text
        long = np.resize(llm.tokenize("once upon a time there was a dog. "), 4000)
        begin = time.perf_counter()
        llm.complete(long, max_tokens=1)
        full = time.perf_counter() - begin
        timer = threading.Timer(full / 5, llm.cancel)
        timer.start()
        done = llm.complete(long[::-1].copy(), max_tokens=1)
        assert (done.finish_reason, done.text) == ("cancelled", "")
        assert llm.complete(PROMPT, max_tokens=4, temperature=0).text == expected


def test_cancel_without_a_run_does_nothing(llm):
    """The next call is not the one cancelled."""
    llm.cancel()
    assert llm.complete(PROMPT, max_tokens=1, temperature=0).finish_reason == "length"


def test_a_timeout_ends_a_run(llm):
    """With an exception, and the next call works."""
    with pytest.raises(TimeoutError):
        llm.complete("Once upon a time", ignore_eog=True, n_keep=4, timeout=0.05)
    assert llm.complete(PROMPT, max_tokens=2).tokens


def test_a_prompt_too_long_is_refused(llm):
    """With how much there is room for; nothing is lost."""
    with pytest.raises(ContextLengthError, match="512"):
        llm.complete(np.full(600, 5), max_tokens=1)
    assert llm.complete(PROMPT, max_tokens=2).tokens


def test_a_grammar_holds(llm):
    """Whatever the model would rather say."""
    done = llm.complete(PROMPT, grammar='root ::= " " [0-9] [0-9]', seed=1)
    assert done.text[1:].isdigit()
    assert (len(done.text), done.finish_reason) == (3, "stop")


def test_a_grammar_that_does_not_parse_is_an_error(llm):
    """Before any token."""
    with pytest.raises(GrammarError):
        llm.complete(PROMPT, grammar='root ::= "a')


@pytest.mark.parametrize(
    "options",
    [
        {"max_token": 3},
        {"model": "other"},
        {"sampling": pyllama.SamplingParams(), "response_format": {}},
        {"temperature": "warm"},
        {"max_tokens": -1},
        {"stop": "word"},
        {"stop": None},
        {"callback": 5},
        {"logits_processor": max},
        {"logits_processor": [5]},
        {"ignore_eog": 1},
        {"logprobs": -1},
        {"stream": 1},
        {"timeout": -1},
        {"sampling": 3},
        {"grammar": 'root ::= "a"', "schema": {}},
    ],
    ids=str,
)
def test_wrong_options_are_refused(llm, options):
    """At the call, also of a stream, and nothing is lost."""
    with pytest.raises((TypeError, ValueError)):
        llm.complete(PROMPT, **{"stream": True, **options})
    assert llm.complete(PROMPT, max_tokens=1).tokens


def test_a_model_closed_by_itself_is_loaded_anew():
    """It counts as not loaded, and load() brings it back."""
    with LLM(pyllama.demo_model(), n_ctx=256) as llm:
        llm.model.close()
        assert not llm.is_loaded
        llm.load()
        assert llm.complete(PROMPT, max_tokens=1).tokens


@pytest.mark.parametrize("option", [{"name": 3}, {"load": "no"}])
def test_what_is_no_name_and_no_flag_is_refused(option):
    """Before anything is loaded."""
    with pytest.raises(TypeError, match=next(iter(option))):
        LLM(pyllama.demo_model(), **option)


def test_without_a_model():
    """Whatever needs one says so; load() brings it, and unload() takes it away."""
    llm = LLM(pyllama.demo_model(), n_ctx=256, load=False)
    assert not llm.is_loaded
    calls = (lambda: llm.complete("a"), lambda: llm.tokenize("a"), lambda: llm.capabilities)
    for call in calls:
        with pytest.raises(StateError, match="no model is loaded"):
            call()
    llm.load()
    assert llm.is_loaded
    assert {"complete", "chat", "embed"} <= llm.capabilities
    assert llm.complete(PROMPT, max_tokens=1).tokens
    llm.unload()
    llm.unload()
    with pytest.raises(StateError):
        llm.complete("a")


def test_the_name(llm, tmp_path):
    """The caller's, the file's, or the file's name."""
    assert llm.name == "pyllama demo"
    assert LLM(pyllama.demo_model(), name="mine", load=False).name == "mine"
    assert LLM(tmp_path / "some-model.gguf", load=False).name == "some-model"


def test_a_missing_file(tmp_path):
    """Is the usual error, and an unknown option another."""
    with pytest.raises(FileNotFoundError):
        LLM(tmp_path / "none.gguf")
    with pytest.raises(TypeError, match="n_context"):
        LLM(pyllama.demo_model(), n_context=3)


def test_a_file_that_is_no_model(tmp_path):
    """Is a LoadError."""
    path = tmp_path / "text.gguf"
    path.write_text("this is not a model")
    with pytest.raises(LoadError):
        LLM(path)


def test_infill_needs_its_tokens(llm):
    """The shipped model has none."""
    with pytest.raises(UnsupportedError, match="prefix and suffix"):
        llm.infill("def f(", "):")
