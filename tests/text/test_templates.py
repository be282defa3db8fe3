"""Every template that llama.cpp ships renders a chat with tools, or says what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from text.chat_facts import joined
from text.replies import CONTENT, REPLIES, THOUGHTS

from pyllama.errors import TemplateError
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


COUNT = {
    "name": "count",
    "parameters": {
        "type": "object",
        "properties": {"to": {"type": "integer"}},
        "required": ["to"],
    },
}


@pytest.mark.parametrize(
    ("name", "reasoning_format", "thinks", "parts", "reply"),
    REPLIES,
    ids=[f"{row[0]}-{row[3]}" for row in REPLIES],
)
def test_a_reply_is_parsed_as_llama_cpp_expects(name, reasoning_format, thinks, parts, reply):
    """Content, reasoning and call, in one piece and in many."""
    prompt = chat_template(f"{name}.jinja").render(
        [{"role": "user", "content": "Hi there."}],
        tools=[COUNT] if "call" in parts else None,
        reasoning_format=reasoning_format,
        enable_thinking=thinks,
    )
    message = prompt.parse(reply)
    assert message.content == (CONTENT if "content" in parts else "")
    assert message.reasoning_content == (THOUGHTS if "thoughts" in parts else "")
    calls = [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
    assert calls == ([("count", {"to": 7})] if "call" in parts else [])
    stream = prompt.stream()
    deltas = [stream.push(letter) for letter in reply]
    assert joined([*deltas, stream.finish()]) == stream.message()
