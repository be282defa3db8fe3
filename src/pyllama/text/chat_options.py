"""The options of rendering a chat, checked and brought into the form that the engine takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pyllama.core.params import flag
from pyllama.text.tools import Tool

REASONING_FORMATS = ("none", "auto", "deepseek", "deepseek-legacy")
CONTINUATIONS = (False, True, "content", "reasoning_content")

_DATE = re.compile(r"strftime_now\(\s*(?:\"([^\"]*)\"|'([^']*)')\s*\)")


def choose(tools: Sequence[Any] | None, choice: str | Mapping[str, Any]) -> tuple[list[Tool], str]:
    """Return the tools that the model sees, and "auto", "required" or "none".

    Parameters
    ----------
    tools, choice
        As `ChatTemplate.render` takes them.

    Returns
    -------
    tools : list of Tool
    choice : str

    Raises
    ------
    TypeError, ValueError
        If there is no such tool, or two have one name.
    """
    known = [Tool.of(tool) for tool in tools or ()]
    names = [tool.name for tool in known]
    if len(set(names)) < len(names):
        message = f"two tools have the same name, in {names}"
        raise ValueError(message)
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = function.get("name", "") if isinstance(function, Mapping) else ""
    if choice in ("auto", "none"):
        return known, choice
    if not known:
        message = f"tool_choice={choice!r} needs tools, and there are none"
        raise ValueError(message)
    if choice == "required":
        return known, choice
    if choice not in names:
        message = f"tool_choice={choice!r} must be auto, required, none, or a tool: {names}"
        raise ValueError(message)
    return [known[names.index(choice)]], "required"


def check(
    messages: Sequence[Mapping[str, Any]],
    *,
    uses_tools: bool,
    reasoning_format: str,
    enable_thinking: bool,
    add_generation_prompt: bool | None,
    continue_final_message: bool | str,
    chat_template_kwargs: Mapping[str, Any],
    json_schema: Any,
    grammar: str | None,
) -> None:
    """Raise if the options of `ChatTemplate.render` do not go together.

    Parameters
    ----------
    messages
        As they were checked.
    uses_tools
        Whether the reply may call tools.
    reasoning_format, enable_thinking, add_generation_prompt, continue_final_message
        As `ChatTemplate.render` takes them.
    chat_template_kwargs, json_schema, grammar
        As `ChatTemplate.render` takes them.

    Raises
    ------
    TypeError, ValueError
        If they do not.
    """
    flag("enable_thinking", enable_thinking)
    if add_generation_prompt is not None:
        flag("add_generation_prompt", add_generation_prompt)
    if reasoning_format not in REASONING_FORMATS:
        message = f"reasoning_format={reasoning_format!r} must be one of {REASONING_FORMATS}"
        raise ValueError(message)
    if grammar is not None and not isinstance(grammar, str):
        message = f"grammar must be GBNF, a string, not {grammar!r:.60}"
        raise TypeError(message)
    if grammar and uses_tools:
        raise ValueError("grammar cannot be used together with tools: the tools have their own")
    if json_schema is not None and uses_tools:
        # Some templates would let no tool be called, others would not follow the schema.
        message = "a schema cannot be used together with tools: ask with tool_choice='none' for it"
        raise ValueError(message)
    if grammar and json_schema is not None:
        raise ValueError("a reply follows a grammar or a json_schema, not both")
    if "enable_thinking" in chat_template_kwargs:
        raise ValueError("enable_thinking is an argument of its own, not a template variable")
    if continue_final_message not in CONTINUATIONS:
        message = f"continue_final_message={continue_final_message!r} must be in {CONTINUATIONS}"
        raise ValueError(message)
    if not continue_final_message:
        return
    if add_generation_prompt:
        raise ValueError("a prompt either continues a message or begins one, not both")
    if messages[-1]["role"] != "assistant" or "tool_calls" in messages[-1]:
        raise ValueError("only an assistant's message without tool calls can be continued")


def set_date(request: dict[str, Any], now: datetime) -> None:
    """Let the template see the date *now* wherever it can ask for one.

    The engine's own ``strftime_now`` reads the clock, so the template gets a macro of that name,
    which knows the formats that the template asks for.

    Parameters
    ----------
    request
        What is sent to the engine; it is changed.
    now
        The date.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(now, datetime):
        message = f"now must be a datetime, not {now!r:.80}"
        raise TypeError(message)
    request["now"] = int(now.timestamp())
    local = now.astimezone()
    request["chat_template_kwargs"] = {
        "datetime": local.strftime("%b %d %Y"),
        "date_string": local.strftime("%d %b %Y"),
        **request["chat_template_kwargs"],
    }
    text = request["template"]
    formats = {double or single for double, single in _DATE.findall(text)}
    if formats:
        known = json.dumps({each: local.strftime(each) for each in sorted(formats)})
        macro = "{%- macro strftime_now(format) -%}{{ (" + known + ")[format] }}{%- endmacro -%}"
        request["template"] = macro + text
