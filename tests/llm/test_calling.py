"""Calls of tools that are cut off, do not fit, or are required, and what `LLM.run` does then."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from text.chat_facts import template_text

import pyllama
from pyllama.errors import TemplateError
from pyllama.llm import LLM

WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
ARGUMENTS = "the arguments of get_weather"
LLAMA_3 = template_text("meta-llama-Llama-3.1-8B-Instruct")


def get_weather(city: str, days: int = 1) -> str:
    """Return the weather of a city."""
    return f"sunny in {city} for {days}"


@pytest.fixture(scope="module")
def llm():
    """Load the shipped model once."""
    with LLM(pyllama.demo_model(), n_ctx=1024, n_threads=1) as llm:
        yield llm


def saying(llm, *texts):
    """Return a processor that lets the model say one text in each reply, and end."""
    vocab = llm.model.vocab
    left = [[*vocab.tokenize(text, add_special=False).tolist(), vocab.eos] for text in texts]
    n_before = None

    def force(ids, scores):
        nonlocal n_before
        if n_before is not None and len(ids) != n_before + 1:
            left.pop(0)
        n_before = len(ids)
        forced = np.full_like(scores, -np.inf)
        forced[left[0].pop(0)] = 0
        return forced

    return [force]


def test_a_call_that_is_cut_off_says_so(llm):
    """Wherever it is cut, and the deltas still make up the message."""
    n_whole = 0
    for n in range(26):
        options = {"tools": [get_weather], "temperature": 0, "max_tokens": n}
        parts = list(llm.chat(WEATHER, stream=True, **options))
        reply = parts[-1].completion
        assert "".join(part.text for part in parts) == reply.text == ""
        deltas = [delta for part in parts for delta in part.tool_calls]
        assert "".join(each.arguments for each in deltas) == "".join(
            call.arguments for call in reply.tool_calls
        )
        assert [each.name for each in deltas if each.name] == [
            call.name for call in reply.tool_calls
        ]
        for call in reply.tool_calls:
            if call.problem:
                assert reply.finish_reason == "length"
                assert "are not JSON" in call.problem
            else:
                assert json.loads(call.arguments) == {"city": "Paris"}
                n_whole += 1
    assert n_whole > 1  # the last of them with its end
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}', ""),
        (
            '{"name": "get_weather", "parameters": {"city": 7}}',
            f"{ARGUMENTS}['city'] must be string, not 7",
        ),
        ('{"name": "get_weather", "parameters": {"days": 2}}', f"{ARGUMENTS} lacks ['city']"),
    ],
)
def test_a_call_that_does_not_fit_says_so(llm, written, problem):
    """Where the template's format has no grammar that holds it to the schema."""
    options = {"tools": [get_weather], "chat_template": LLAMA_3}
    reply = llm.chat(WEATHER, logits_processor=saying(llm, written), **options)
    [call] = reply.tool_calls
    assert (reply.finish_reason, call.name) == ("tool_calls", "get_weather")
    assert call.problem == problem


def test_a_reply_that_the_parser_refuses_is_text(llm, caplog):
    """All of it, with a warning, in parts as well."""
    text = 'Look: {"a": 1} is JSON.'
    options = {"tools": [get_weather], "chat_template": LLAMA_3}
    with caplog.at_level(logging.WARNING, "pyllama"):
        parts = list(llm.chat(WEATHER, stream=True, logits_processor=saying(llm, text), **options))
    reply = parts[-1].completion
    assert "has not the form" in caplog.text
    assert "".join(part.text for part in parts) == reply.text == text
    assert reply.finish_reason == "stop"


def test_a_tool_cannot_be_required_where_no_form_is_known(llm):
    """The reply could end without a call."""
    template = template_text("google-gemma-2-2b-it")
    with pytest.raises(TemplateError, match="none can be required"):
        llm.chat(WEATHER, tools=[get_weather], tool_choice="required", chat_template=template)


def test_a_schema_and_tools_do_not_go_together(llm):
    """Templates would forget the one or the other; without calls a schema is fine."""
    options = {"tools": [get_weather], "schema": {"type": "integer"}}
    with pytest.raises(ValueError, match="together with tools"):
        llm.chat(WEATHER, **options)
    reply = llm.chat(WEATHER, tool_choice="none", max_tokens=40, seed=1, **options)
    assert isinstance(json.loads(reply.text), int)


def test_run_does_not_run_what_was_cut_off(llm):
    """The conversation ends there, and says why."""
    done = llm.run(WEATHER, [get_weather], temperature=0, max_tokens=22)
    assert done.reply.finish_reason == "length"
    assert [message["role"] for message in done.messages] == ["user", "assistant"]


def test_run_tells_the_model_what_is_wrong_with_a_call(llm):
    """It may do better."""
    bad = '{"name": "get_weather", "parameters": {"city": 7}}'
    done = llm.run(
        WEATHER,
        [get_weather],
        chat_template=LLAMA_3,
        logits_processor=saying(llm, bad, bad.replace("7", '"Rome"'), "It is sunny."),
    )
    told = [message["content"] for message in done.messages if message["role"] == "tool"]
    assert "must be string, not 7" in told[0]
    assert told[1] == "sunny in Rome for 1"
    assert done.text == "It is sunny."


def test_run_requires_a_tool_once(llm):
    """The reply to its result is free."""
    done = llm.run(WEATHER, [get_weather], tool_choice="required", temperature=0)
    assert done.messages[1]["tool_calls"]
    assert done.reply.finish_reason == "stop"


async def later(city: str) -> str:
    """Return nothing yet."""
    return city


@pytest.mark.parametrize(
    ("tools", "options"),
    [
        ([later], {}),
        ([get_weather, get_weather], {}),
        ([get_weather], {"stream": True}),
        ([get_weather], {"max_steps": 0}),
    ],
    ids=["async", "twice", "stream", "no steps"],
)
def test_what_run_cannot_do_is_refused(llm, tools, options):
    """Before anything is generated."""
    with pytest.raises((TypeError, ValueError)):
        llm.run(WEATHER, tools, **options)


def test_a_call_too_many_says_so(llm):
    """Where the grammar of the format does not forbid it; the first one counts."""
    one = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    options = {"chat_template": template_text("Qwen-Qwen3-0.6B"), "tools": [get_weather]}
    for parallel in (None, True, False):
        reply = llm.chat(
            WEATHER,
            parallel_tool_calls=parallel,
            logits_processor=saying(llm, f"{one}\n{one}"),
            **options,
        )
        first, second = reply.tool_calls
        assert first.problem == ""
        assert bool(second.problem) == (parallel is False)
