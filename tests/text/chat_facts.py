"""What llama.cpp itself renders and parses with its templates: facts for tests, and their words.

The facts are lines of JSON. They were made with llama.cpp's own functions, called from C++:

- ``chat_prompts.jsonl``: the prompt that each template makes of `PLAIN` (also without thinking,
  where that makes a difference) and of `CALLED`; a long one is told by its length, its SHA-256 and
  its end, null means that the template refuses. The lines with "case" are of the templates that
  stand in llama.cpp's tests/test-chat-template.cpp, for `SIX`.
- ``chat_replies.jsonl``: replies in the forms that llama.cpp's tests/test-chat.cpp has for each
  template, in other words: what is parsed out of them, and the end of the prompt before them.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from pyllama.text.messages import Message, ToolCall
from pyllama.text.reply import Delta

HERE = Path(__file__).parent
LLAMA = HERE.parents[1] / "vendor" / "llama.cpp"
FOLDER = LLAMA / "models" / "templates"


def _tool(name: str, description: str, required: int = 1, **types: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in types.items()},
    }
    if types:
        parameters["required"] = list(types)[:required]
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = {
    "count": _tool("count", "Count.", to="integer"),
    "count_by": _tool("count_by", "Count in steps.", to="integer", by="integer"),
    "clock": _tool("clock", "Tell the time.", place="string"),
    "rain": _tool("rain", "Tell whether it rains.", place="string"),
    "ping": _tool("ping", "Answer."),
}


def _said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


PLAIN = _said(
    ("system", "Be brief."),
    ("user", "Is seven odd?"),
    ("assistant", "Yes."),
    ("user", "And eight?\n"),
)
SIX = _said(
    ("system", "Be brief."),
    ("user", "Is seven odd?"),
    ("assistant", "Yes."),
    ("user", "And eight?"),
    ("assistant", "   No, not eight.   "),
    ("user", "And nine?"),
)
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Count to seven."},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call12345",
                "type": "function",
                "function": {"name": "count", "arguments": '{"to": 7}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call12345", "name": "count", "content": "1 2 3 4 5 6 7"},
]
USER = _said(("user", "Hi."))


def lines(name: str) -> list[dict[str, Any]]:
    """Read the facts of a file."""
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


def template_text(name: str) -> str:
    """Read one of llama.cpp's templates."""
    return (FOLDER / f"{name}.jinja").read_text("utf-8")


def embedded_templates() -> list[str]:
    """Read the templates that stand in a C++ test of llama.cpp, in order."""
    source = (LLAMA / "tests" / "test-chat-template.cpp").read_text("utf-8")
    literal = r'"(?:[^"\\]|\\.)*"'
    found = re.findall(rf"\.template_str=? \*/ *(?:U8C\()?((?:{literal}\s*)+)", source)
    return ["".join(map(ast.literal_eval, re.findall(literal, each))) for each in found]


def joined(deltas: list[Delta]) -> Message:
    """Put deltas together."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for each in delta.tool_calls:
            parts = calls.setdefault(each.index, ["", "", ""])
            for index, text in enumerate((each.id, each.name, each.arguments)):
                parts[index] += text
    return Message(
        "".join(delta.content for delta in deltas),
        "".join(delta.reasoning_content for delta in deltas),
        tuple(ToolCall(*calls[index]) for index in sorted(calls)),
    )
