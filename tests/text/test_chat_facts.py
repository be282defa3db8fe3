"""Prompts and parsed replies agree with llama.cpp's own, byte by byte and call by call."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from text.chat_facts import (
    CALLED,
    PLAIN,
    SIX,
    TOOLS,
    USER,
    embedded_templates,
    joined,
    lines,
    template_text,
)

from pyllama import Model, Vocab, demo_model
from pyllama.errors import TemplateError
from pyllama.text.chat import ChatTemplate
from pyllama.text.messages import Message, ToolCall
from pyllama.text.prompt import Prompt

PROMPTS = [fact for fact in lines("chat_prompts.jsonl") if "template" in fact]
EMBEDDED = [fact for fact in lines("chat_prompts.jsonl") if "case" in fact]
REPLIES = lines("chat_replies.jsonl")
NAMES = [fact["template"] for fact in REPLIES]
DAY = dt.datetime(2024, 7, 26, 12)
PIECES = (1, 2, 5, 1000)  # characters

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "no_thinking": (PLAIN, {"enable_thinking": False}),
    "tools": (CALLED, {"tools": [TOOLS["count"]], "parallel_tool_calls": False}),
}


@cache
def chat_template(name: str, bos_token: str = "", eos_token: str = "") -> ChatTemplate:
    """Open one of llama.cpp's templates."""
    return ChatTemplate(template_text(name), bos_token=bos_token, eos_token=eos_token, timeout=60)


def shape(text: str, expected: object) -> object:
    """Return a prompt as the fact tells it."""
    if isinstance(expected, str):
        return text
    return {
        "length": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "end": text[-60:],
    }


@pytest.mark.parametrize("fact", PROMPTS, ids=lambda fact: fact["template"])
def test_a_prompt_is_the_one_that_llama_cpp_renders(fact):
    """Of a plain conversation, one without thinking, and one with a call and its result."""
    template = chat_template(fact["template"], "<s>", "</s>")
    for kind, (messages, options) in CONVERSATIONS.items():
        expected = fact.get(kind, fact["plain"])
        if expected is None:
            with pytest.raises(TemplateError):
                template.render(messages, now=DAY, **options)
        else:
            text = template.render(messages, now=DAY, **options).text
            assert shape(text, expected) == expected


def test_at_least_forty_templates_have_facts():
    """Prompts of all that llama.cpp ships, replies of most."""
    assert len({fact["template"] for fact in PROMPTS}) == 70
    assert len({fact["template"] for fact in REPLIES}) == 58


@pytest.mark.parametrize("fact", EMBEDDED, ids=lambda fact: fact["name"])
def test_a_template_of_llama_cpps_tests_renders_as_they_say(fact):
    """Older templates, which have no file of their own."""
    template = ChatTemplate(
        embedded_templates()[fact["case"]],
        bos_token=fact.get("bos_token", ""),
        eos_token=fact.get("eos_token", ""),
    )
    assert template.render(SIX).text == fact["prompt"]


@cache
def prompt_of(number: int) -> Prompt:
    """Render the prompt that a reply answers."""
    fact = REPLIES[number]
    continued = [{"role": "assistant", **fact["continued"]}] if "continued" in fact else []
    return chat_template(fact["template"]).render(
        [*USER, *continued],
        tools=[TOOLS[name] for name in fact.get("tools", ())] or None,
        tool_choice=fact.get("tool_choice", "auto"),
        parallel_tool_calls=fact.get("parallel_tool_calls", False),
        reasoning_format=fact.get("reasoning_format", "none"),
        enable_thinking=fact.get("enable_thinking", True),
        continue_final_message=fact.get("how", False),
        json_schema=fact.get("schema"),
    )


def parts_of(message: Message) -> tuple[str, str, list[tuple[str, Any]]]:
    """Return what llama.cpp compares: texts without the spaces around them, calls as JSON."""
    calls = [(call.name, arguments_of(call)) for call in message.tool_calls]
    return message.content.strip(), message.reasoning_content.strip(), calls


def arguments_of(call: ToolCall) -> Any:
    """Return the arguments of a call; None if they have only begun."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return None


def whole(prompt: Prompt, message: Message) -> Message:
    """Return a reply with what the prompt holds of it: llama.cpp does not take that away."""
    begun = prompt.stream()._base
    return Message(
        begun.content + message.content,
        begun.reasoning_content + message.reasoning_content,
        message.tool_calls,
    )


@pytest.mark.parametrize("number", range(len(REPLIES)), ids=NAMES)
def test_a_reply_is_taken_apart_as_llama_cpp_expects(number):
    """Content, reasoning and calls, whole or begun, also where it continues a message."""
    fact, prompt = REPLIES[number], prompt_of(number)
    assert prompt.generation_prompt == fact["end"]
    assert prompt.text.endswith(fact["end"])
    message = prompt.parse(fact["reply"], partial=fact.get("partial", False))
    calls = fact.get("calls", [])
    assert parts_of(whole(prompt, message)) == (
        fact.get("content", ""),
        fact.get("reasoning", ""),
        [(name, arguments) for name, arguments, *_ in calls],
    )
    for call, (_, _, *written) in zip(message.tool_calls, calls, strict=True):
        assert written in ([], [call.id])


@pytest.mark.parametrize("number", range(len(REPLIES)), ids=NAMES)
def test_the_deltas_of_a_reply_make_up_the_whole(number):
    """Whatever the pieces that it comes in."""
    fact, prompt = REPLIES[number], prompt_of(number)
    reply, partial = fact["reply"], fact.get("partial", False)
    for size in PIECES:
        stream = prompt.stream()
        deltas = [stream.push(reply[at : at + size]) for at in range(0, len(reply), size)]
        if not partial:
            deltas.append(stream.finish())
        assert joined(deltas) == stream.message(partial=partial)


@pytest.fixture(scope="module")
def vocab() -> Iterator[Vocab]:
    """Open a vocabulary that can spell every reply."""
    with Model(demo_model(), vocab_only=True) as model:
        yield model.vocab


@pytest.mark.parametrize("number", range(len(REPLIES)), ids=NAMES)
def test_the_grammar_of_a_prompt_lets_the_reply_through(vocab, number):
    """To its end, where it calls a tool; also if the thoughts before speak of such a call."""
    fact = REPLIES[number]
    constraint = prompt_of(number).constraint(vocab)
    tokens = vocab.tokenize(fact["reply"], add_special=False).tolist()
    if fact.get("calls") and not fact.get("partial"):
        tokens.append(vocab.eos)
        assert constraint is not None
    for token in tokens:
        assert constraint is None or constraint.accept(token) is None
