"""Chats, tools and schemas: what their callables are usually given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyllama

if TYPE_CHECKING:
    from matrix.world import World

Maker = Callable[["World"], Any]

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
MESSAGES = [{"role": "user", "content": "some text"}]


def tool() -> pyllama.Tool:
    """Make a tool that can be called."""

    def add(a: int) -> int:
        return a + 1

    return pyllama.Tool("add", "Add one", SCHEMA, add)


def template() -> pyllama.ChatTemplate:
    """Make a template that knows its special tokens."""
    return pyllama.ChatTemplate(TEMPLATE, special_tokens=["<s>", "</s>"])


OBJECTS: dict[str, Maker] = {
    "ChatTemplate": lambda w: template(),
    "Message": lambda w: pyllama.Message("some text"),
    "Prompt": lambda w: template().render(MESSAGES),
    "Tool": lambda w: tool(),
    "ToolCall": lambda w: pyllama.ToolCall("1", "add", '{"a": 1}'),
}

SPECIAL: dict[str, dict[str, Maker]] = {
    "ChatTemplate": {"text": lambda w: TEMPLATE},
    "ChatTemplate.of": {"text": lambda w: TEMPLATE},
    "ChatTemplate.render": {"messages": lambda w: MESSAGES},
    "Tool": {"name": lambda w: "add"},
    "Tool.arguments": {"text": lambda w: '{"a": 1}'},
    "Tool.call": {"text": lambda w: '{"a": 1}'},
    "Tool.check": {"text": lambda w: '{"a": 1}'},
    "Tool.of": {"tool": lambda w: tool()},
    "ToolCall": {
        "id": lambda w: "1",
        "name": lambda w: "add",
        "arguments": lambda w: '{"a": 1}',
    },
    "grammar_of": {"what": lambda w: SCHEMA},
    "json_schema": {"what": lambda w: SCHEMA},
}

VALUES = ("ChatTemplate", "Message", "Prompt", "Tool", "ToolCall")
