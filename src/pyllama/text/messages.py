"""The messages of a chat, checked before a template sees them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
_MEDIA = {"image_url", "input_audio", "video_url", "image", "audio", "video"}


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that a model asks for.

    Attributes
    ----------
    id : str
        What the tool's answer refers to as ``tool_call_id``.
    name : str
        Of the tool.
    arguments : str
        A JSON object, as the model wrote it.
    problem : str
        Why nobody should act on it: the arguments are cut off or do not follow the schema of the
        tool, or there is no such tool, or it is a call too many. Empty if all is well; no part of
        the call, where two are compared.
    """

    id: str
    name: str
    arguments: str
    problem: str = field(default="", compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a message holds it.

        Returns
        -------
        dict
        """
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class Message:
    """A reply of a model, taken apart. It can stand among the messages of the next turn.

    Attributes
    ----------
    content : str
        The answer itself.
    reasoning_content : str
        What the model thought before; empty if the template's format has no such thing.
    tool_calls : tuple of ToolCall
        In the order they were written.
    role : str
        "assistant".
    """

    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    role: str = "assistant"

    def as_dict(self) -> dict[str, Any]:
        """Return it as the dict that OpenAI's interface has for it; empty parts are left out.

        Returns
        -------
        dict
        """
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning_content:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return message


@dataclass
class Checked:
    """Messages as the template engine takes them.

    Attributes
    ----------
    messages : list of dict
    media_marker : str
        What stands in the text for each image or sound. Nobody can guess it, so no text of a user
        is taken for one.
    media : list of dict
        The content parts that the markers stand for, in order.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    media_marker: str = field(default_factory=lambda: f"<__media_{secrets.token_hex(8)}__>")
    media: list[dict[str, Any]] = field(default_factory=list)


def check(messages: Sequence[Mapping[str, Any] | Message]) -> Checked:
    """Check the messages of a chat.

    Parameters
    ----------
    messages
        Dicts as in OpenAI's interface, or `Message` objects.

    Returns
    -------
    Checked

    Raises
    ------
    TypeError
        If a thing is not of the kind that it must be.
    ValueError
        If there is no message, a role or a key is unknown, or a part is missing.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        message = f"messages must be a list of messages, not {messages!r:.60}"
        raise TypeError(message)
    if not messages:
        raise ValueError("there are no messages to render")
    checked = Checked()
    for index, each in enumerate(messages):
        checked.messages.append(_message(each, f"messages[{index}]", checked))
    return checked


def _message(given: object, place: str, checked: Checked) -> dict[str, Any]:
    given = given.as_dict() if isinstance(given, Message) else given
    if not isinstance(given, Mapping):
        message = f"{place} must be a dict or a Message, not {given!r:.60}"
        raise TypeError(message)
    present = {key: value for key, value in given.items() if value is not None}
    if unknown := present.keys() - _KEYS:
        message = f"{place} has unknown keys {sorted(map(str, unknown))}; known: {sorted(_KEYS)}"
        raise ValueError(message)
    role = present.get("role")
    if role not in ROLES:
        message = f"{place} has the role {role!r}; it must be one of: {', '.join(ROLES)}"
        raise ValueError(message)
    result: dict[str, Any] = {"role": role}
    for key in ("name", "tool_call_id", "reasoning_content"):
        if key in present:
            result[key] = _text(present[key], f"{place}[{key!r}]")
    if "content" in present:
        result["content"] = _content(present["content"], f"{place}['content']", checked)
    if calls := present.get("tool_calls"):
        if role != "assistant":
            message = f"{place} has tool_calls, and only the assistant calls tools"
            raise ValueError(message)
        result["tool_calls"] = _calls(calls, f"{place}['tool_calls']")
    if "content" not in result:
        if role != "assistant" or not result.keys() & {"tool_calls", "reasoning_content"}:
            message = f"{place} has no content"
            raise ValueError(message)
        result["content"] = ""
    return result


def _content(content: object, place: str, checked: Checked) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        message = f"{place} must be a string or a list of parts, not {content!r:.60}"
        raise TypeError(message)
    return [_part(part, f"{place}[{index}]", checked) for index, part in enumerate(content)]


def _part(part: object, place: str, checked: Checked) -> dict[str, str]:
    if not isinstance(part, Mapping):
        message = f"{place} must be a dict, not {part!r:.60}"
        raise TypeError(message)
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": _text(part.get("text"), f"{place}['text']")}
    if kind in _MEDIA:
        checked.media.append(dict(part))
        return {"type": "media_marker", "text": checked.media_marker}
    message = f"{place} has the type {kind!r}; known: {', '.join(sorted({'text', *_MEDIA}))}"
    raise ValueError(message)


def _calls(calls: object, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
        message = f"{place} must be a list, not {calls!r:.60}"
        raise TypeError(message)
    return [_call(call, f"{place}[{index}]") for index, call in enumerate(calls)]


def _call(call: object, place: str) -> dict[str, Any]:
    call = call.as_dict() if isinstance(call, ToolCall) else call
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        message = f"{place} must be a dict with a dict 'function' in it, not {call!r:.60}"
        raise TypeError(message)
    if call.get("type", "function") != "function":
        message = f"{place} has the type {call['type']!r}; only functions are called"
        raise ValueError(message)
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False)
        except RecursionError:
            message = f"{place} has arguments that are nested too deeply"
            raise ValueError(message) from None
    named = {"name": _text(function.get("name"), f"{place}['function']['name']")}
    result = {"type": "function", "function": {**named, "arguments": arguments}}
    if call.get("id") is not None:
        result["id"] = _text(call["id"], f"{place}['id']")
    return result


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        message = f"{place} must be a string, not {value!r:.60}"
        raise TypeError(message)
    return value
