"""Every template that llama.cpp ships renders a chat with tools, or says what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from text.chat_facts import joined

from pyllama import Model, Vocab, demo_model
from pyllama.errors import GrammarError, TemplateError
from pyllama.text.chat import ChatTemplate
from pyllama.text.messages import ToolCall
from pyllama.text.prompt import Prompt

FOLDER = Path(__file__).parents[2] / "vendor" / "llama.cpp" / "models" / "templates"
TEMPLATES = sorted(path.name for path in FOLDER.glob("*.jinja"))

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "SYSTEM_TEXT"},
    {"role": "user", "content": "USER_TEXT"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call12345",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "CITY_TEXT"}},
            }
        ],
    },
    {
        "role": "tool",
        "tool_call_id": "call12345",
        "name": "get_weather",
        "content": "RESULT_TEXT",
    },
]
# Templates that leave a part of this conversation out without a word.
LEFT_OUT = {
    "HuggingFaceTB-SmolLM3-3B.jinja": {"CITY_TEXT", "get_weather"},
    "LFM2-8B-A1B.jinja": {"CITY_TEXT"},
    "LFM2.5-Instruct.jinja": {"CITY_TEXT"},
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja": {"CITY_TEXT", "get_weather"},
    "ibm-granite-granite-3.3-2B-Instruct.jinja": {"CITY_TEXT"},
    "llama-cpp-rwkv-world.jinja": {"CITY_TEXT", "RESULT_TEXT", "get_weather"},
    "microsoft-Phi-3.5-mini-instruct.jinja": {"CITY_TEXT", "RESULT_TEXT", "get_weather"},
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": {"SYSTEM_TEXT"},
}
REFUSED = {"google-gemma-2-2b-it.jinja": "alternate user/assistant"}
PARTS = {"SYSTEM_TEXT", "USER_TEXT", "CITY_TEXT", "RESULT_TEXT", "get_weather"}

# Templates without calls, or with such as llama.cpp does not understand.
NO_CALLS = {
    "HuggingFaceTB-SmolLM3-3B.jinja",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
    "google-gemma-2-2b-it.jinja",
    "ibm-granite-granite-3.3-2B-Instruct.jinja",
    "llama-cpp-rwkv-world.jinja",
    "microsoft-Phi-3.5-mini-instruct.jinja",
}
# Templates whose format, as llama.cpp has it, knows of no schema.
NO_SCHEMA = {
    "GigaChat3-10B-A1.8B.jinja",
    "Kimi-K2-Instruct.jinja",
    "Kimi-K2-Thinking.jinja",
    "Kimi-K3.jinja",
    "inclusionai-ling-3.0-flash.jinja",
    "meetkai-functionary-medium-v3.2.jinja",
    "moonshotai-Kimi-K2.jinja",
}

TAG = re.compile(r"(?:<[^<>]*>|\[[^\[\]]*\])\s*$")


def chat_template(name: str) -> ChatTemplate:
    """Open one of llama.cpp's templates."""
    return ChatTemplate((FOLDER / name).read_text(), eos_token="</s>", timeout=60)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_with_tools_renders(name):
    """All parts of it are in the prompt but those known, or the error is the template's own."""
    template = chat_template(name)
    if name in REFUSED:
        with pytest.raises(TemplateError, match=REFUSED[name]):
            template.render(CONVERSATION, tools=[TOOL])
        return
    text = template.render(CONVERSATION, tools=[TOOL]).text
    assert {part for part in PARTS if part not in text} == LEFT_OUT.get(name, set())


@pytest.fixture(scope="module")
def vocab() -> Iterator[Vocab]:
    """Open a vocabulary that can spell every reply."""
    with Model(demo_model(), vocab_only=True) as model:
        yield model.vocab


def call_in(prompt: Prompt, text: str) -> ToolCall | None:
    """Return the one call of a tool that a reply holds."""
    try:
        calls = prompt.parse(text).tool_calls
    except TemplateError:
        return None
    return calls[0] if len(calls) == 1 else None


def reply_of(template: ChatTemplate) -> tuple[Prompt, str]:
    """Let a template write the assistant's call, and return it as the reply to its prompt."""
    options = {"tools": [TOOL], "enable_thinking": False}
    prompt = template.render(CONVERSATION[1:2], **options)
    whole = template.render(CONVERSATION[1:3], add_generation_prompt=False, **options)
    reply = whole.text.removeprefix(prompt.text)
    while TAG.search(reply) and not call_in(prompt, reply):  # what ends a turn is no part of it
        reply = TAG.sub("", reply)
    return prompt, reply


# What these write of a past call is not what they ask the model to write: they leave calls out, or
# the reasoning that their prompt begins, or write another form than their parser reads.
NOT_ALIKE = {name for name in LEFT_OUT if "CITY_TEXT" in LEFT_OUT[name]} | set(REFUSED)
NOT_ALIKE |= {
    "Apriel-1.6-15b-Thinker-fixed.jinja",
    "Cohere2MoE.jinja",
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "MiniMax-M2.jinja",
    "MiniMax-M3.jinja",
    "Mistral-Small-3.2-24B-Instruct-2506.jinja",
    "NVIDIA-Nemotron-Nano-v2.jinja",
    "Qwen-QwQ-32B.jinja",
    "deepseek-ai-DeepSeek-V3.2.jinja",
    "fireworks-ai-llama-3-firefunction-v2.jinja",
    "llama-cpp-deepseek-r1.jinja",
    "openbmb-MiniCPM5-1B.jinja",
    "upstage-Solar-Open-100B.jinja",
}


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - NOT_ALIKE))
def test_a_call_comes_back_as_it_was_written(name):
    """Parsed whole, and in any pieces, with deltas that make up the whole."""
    prompt, reply = reply_of(chat_template(name))
    call = call_in(prompt, reply)
    assert call is not None
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "CITY_TEXT"}
    for step in (1, 3, 1000):
        stream = prompt.stream()
        deltas = [stream.push(reply[at : at + step]) for at in range(0, len(reply), step)]
        assert joined([*deltas, stream.finish()]) == stream.message()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_required_call_is_not_left_out(vocab, name):
    """No reply ends before it: neither at once nor after a word, and at no string of the template.

    Where llama.cpp knows no form for calls, none can be required.
    """
    template, options = chat_template(name), {"tools": [TOOL], "tool_choice": "required"}
    if name in NO_CALLS:
        with pytest.raises(TemplateError, match="none can be required"):
            template.render(CONVERSATION[1:2], **options)
        return
    prompt = template.render(CONVERSATION[1:2], **options)
    assert prompt.stop == ()
    for begun in ("", "Hello"):
        constraint = prompt.constraint(vocab)
        assert constraint is not None
        try:
            for token in vocab.tokenize(begun, add_special=False).tolist():
                constraint.accept(token)
        except GrammarError:
            continue
        with pytest.raises(GrammarError):
            constraint.accept(vocab.eos)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_schema_is_followed_with_every_template(vocab, name):
    """Also with those whose format has no place for one: then the whole reply is content."""
    schema = {"type": "object", "properties": {"to": {"type": "integer"}}, "required": ["to"]}
    prompt = chat_template(name).render(CONVERSATION[1:2], json_schema=schema)
    constraint = prompt.constraint(vocab)
    assert constraint is not None
    with pytest.raises(GrammarError):
        constraint.accept(vocab.eos)
    assert '\\"to\\"' in prompt.grammar
    if prompt.details["grammar_given"]:
        assert name in NO_SCHEMA
        assert prompt.parse('{"to": 7}').content == '{"to": 7}'
