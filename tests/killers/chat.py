"""J: chat templates, replies and schemas, whose C++ recurses and counts as far as they say."""

from __future__ import annotations

import re
from typing import Any

from killers.table import Table
from killers.world import World
from pyllama.errors import GrammarError, TemplateError
from pyllama.text.chat import ChatTemplate
from pyllama.text.schema import grammar_of

TABLE = Table()
row = TABLE.row

USER = [{"role": "user", "content": "hi"}]
TOOL = {"name": "keep", "parameters": {"properties": {"it": {}}}}


def render(text: str, timeout: float = 60) -> object:
    """Render a template for one message."""
    return ChatTemplate(text, timeout=timeout).render(USER)


def in_itself(_: World) -> object:
    """Render an object that holds itself."""
    return render("{% set n = namespace() %}{% set n.a = n %}{{ n | tojson }}")


def open_brackets(_: World) -> object:
    """Parse a reply that opens brackets and never closes them."""
    call = '<tool_call>\n{"name": "keep", "arguments": {"it": ' + "[" * 50_000
    return ChatTemplate("chatml").render(USER, tools=[TOOL]).parse(call, partial=True)


def deep(n: int) -> dict[str, Any]:
    """Return a schema of arrays in arrays."""
    schema: dict[str, Any] = {}
    for _ in range(n):
        schema = {"type": "array", "items": schema}
    return schema


row("J1", "a template that calls itself", TemplateError,
    lambda _: render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"))  # fmt: skip
row("J1", "a template of brackets", TemplateError,
    lambda _: render("{{ " + "(" * 200_000 + "1" + ")" * 200_000 + " }}"))  # fmt: skip
row("J1", "an object that holds itself", TemplateError, in_itself)
row("J2", "a template that counts to 10^9", TimeoutError,
    lambda _: render("{% for i in range(1000000000) %}{% endfor %}", timeout=1))  # fmt: skip
row("J3", "an empty template", ValueError, lambda _: ChatTemplate(""))
row("J3", "a template of half a surrogate pair", UnicodeEncodeError, lambda _: render("\udc80"))
row("J4", "arguments of a call that are an empty string", None,
    lambda _: ChatTemplate("chatml").render([*USER, {"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": ""}}]}]))  # fmt: skip
row("J5", "a reply of open brackets", None, open_brackets)
row("J6", "a schema that is too deep", GrammarError, lambda _: grammar_of(deep(100_000)))
row("J6", "a schema that is just not too deep", None, lambda _: grammar_of(deep(50)))
row("J7", "a pattern of brackets", GrammarError,
    lambda _: grammar_of(re.compile("(" * 90 + "a" + ")" * 90 + "(?=b)")))  # fmt: skip
row("J7", "a pattern of many repetitions", None,
    lambda _: grammar_of(re.compile("(?:a{0,1000}b{0,1000}){0,1000}")))  # fmt: skip
