"""Chats as text: the messages of exchanges, and the same text as the template, cut by weight."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .skills.exchange import Exchange

TEMPLATE = (Path(__file__).parent / "template.jinja").read_text(encoding="utf-8")
START, END, BEGIN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CONTROL = (BEGIN, START, END)
CONTEXT, LEARNT = 0.1, 1.0  # what a prompt's and an answer's token weigh in the loss
Message = dict[str, Any]
Span = tuple[str, float]


def messages_of(exchanges: Sequence[Exchange]) -> list[Message]:
    """Give the messages of a conversation; the system turn is that of its first exchange."""
    messages: list[Message] = []
    if exchanges[0].system:
        messages.append({"role": "system", "content": exchanges[0].system})
    for exchange in exchanges:
        messages.append({"role": "user", "content": exchange.question})
        if exchange.calls:
            calls = [{"type": "function", "function": dict(call)} for call in exchange.calls]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            messages += [{"role": "tool", "content": result} for result in exchange.results]
        messages.append({"role": "assistant", "content": exchange.answer})
    return messages


def call_text(calls: Iterable[Mapping[str, Any]]) -> str:
    """Write tool calls as the assistant does."""
    bodies = (json.dumps({"name": call["name"], "arguments": call["arguments"]}) for call in calls)
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


def system_text(system: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """Write the content of the system turn."""
    if not tools:
        return system
    listed = "\n".join(json.dumps(tool) for tool in tools)
    return (f"{system}\n\n" if system else "") + (
        f"You can call these functions:\n<tools>\n{listed}\n</tools>\nTo call one, write:\n"
        '<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>'
    )


def spans(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Span]:
    """Give the text of a chat with the loss weight of each piece; joined, it is the template's."""
    parts: list[Span] = []
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    if system or tools:
        parts.append((f"{START}system\n{system_text(system, tools)}{END}\n", CONTEXT))
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
        if message.get("tool_calls"):
            content += call_text(call["function"] for call in message["tool_calls"])
        if role == "assistant":
            parts += [(f"{START}assistant\n", CONTEXT), (content + END, LEARNT), ("\n", CONTEXT)]
        else:
            parts.append((f"{START}{role}\n{content}{END}\n", CONTEXT))
    return parts


def prompt(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Give the text that asks the assistant for its next turn."""
    return "".join(text for text, _ in spans(messages, tools)) + f"{START}assistant\n"
