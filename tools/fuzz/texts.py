"""The targets that are texts with a language of their own: JSON schemas and chat templates."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from fuzz import seeds
from fuzz.bench import RAN, REFUSED, Bench
from fuzz.bits import change_text
from pyllama import samplers
from pyllama.text.chat import ChatTemplate
from pyllama.text.schema import grammar_of

SECONDS = 2.0  # that one schema or template may take; what needs more is refused

NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}},
}
SCHEMAS: tuple[Any, ...] = (
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 9},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d{3,5}(x|y)?$"},
    {"type": "integer", "minimum": -20, "exclusiveMaximum": 105},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {"anyOf": [{"const": 1}, {"enum": ["a", None, {"b": [2.5]}]}, {"type": ["string", "null"]}]},
    {"allOf": [{"properties": {"x": {}}}, {"required": ["x"]}], "additionalProperties": False},
    {"prefixItems": [{"type": "string", "format": "date-time"}, {"type": "boolean"}]},
    {"type": "string", "minLength": 3, "maxLength": 50, "format": "uuid"},
)
WORDS = ("type", "properties", "items", "required", "enum", "const", "anyOf", "oneOf", "allOf",
         "not", "$ref", "$defs", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
         "minLength", "maxLength", "minItems", "maxItems", "prefixItems", "additionalProperties",
         "uniqueItems", "multipleOf", "if", "then", "else", "default", "title")  # fmt: skip
ODD = (None, True, False, -1, 0, 1, 3, 2**31, 2**63, 2**70, 1e300, -0.5, "", "x", "\0", "\"\\", "[",
       "(a*)*b", "^(?=a)$", "(" * 200, "[z-a]", "a{5,3}", "a{0,99999}", "\u4e2d", "\\p{L}",
       "string", "object", "array", "integer", "number", "null", "date", "#", "#/$defs/node",
       "#/$defs/x", "https://example.com/schema", [], {}, [[]], [{}], ["a"], {"type": "string"},
       )  # fmt: skip


def make_schema(_bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change a schema at some places, or put several into each other."""
    schema = deepcopy(rng.choice(SCHEMAS))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        schema = _changed(schema, rng)
    text = json.dumps(schema)
    return text.encode(), text[:300]


def _changed(value: Any, rng: random.Random) -> Any:
    """Return *value* with one change somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice([*value])
        how = rng.randrange(6)
        if how == 0:
            del value[key]
        elif how == 1:
            value[rng.choice(WORDS)] = deepcopy(rng.choice((*ODD, *SCHEMAS)))
        else:
            value[key] = _changed(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        value[at] = _changed(value[at], rng)
        return value * rng.choice((1, 1, 1, 2, 40)) if rng.random() < 0.2 else value
    for _ in range(rng.choice((0, 0, 0, 1, 3, 70))):  # deeper
        value = rng.choice(({"items": value}, {"properties": {"p": value}}, {"anyOf": [value]}))
    return value if rng.random() < 0.2 else deepcopy(rng.choice((*ODD, *SCHEMAS)))


def use_schema(bench: Bench, data: bytes) -> str:
    """Make a grammar of it, which libllama must take."""
    with suppress(TimeoutError):
        text = grammar_of(json.loads(data), timeout=SECONDS)
        model = bench.model("seed-spm", seeds.write_spm)
        samplers.grammar(model.vocab, text).close()
        return RAN
    return REFUSED


TEMPLATES = Path(__file__).resolve().parents[2] / "vendor" / "llama.cpp" / "models" / "templates"
HOSTILE = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for a in range(10**9) %}{{ a }}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ ('%s' * 99999) % messages }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set ns = namespace(x=[]) %}{% for a in [1] * 9999 %}{% set ns.x = [ns.x] %}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception('no') }}",
    "{{ messages[0].content[10:-1:0] }}",
    "{% include '/etc/passwd' %}",
    "{{ 1 // 0 }}{{ 1 % 0 }}{{ 2 ** 99999 }}",
    "{{ (" * 20_000 + "1" + ") }}" * 20_000,
)
PIECES = ("{{", "}}", "{%", "%}", "{% for a in b %}", "{% endfor %}", "{% if x %}", "{% endif %}",
          "{%- set x = [x] -%}", "{{ x }}", "{{ messages }}", "| tojson", "| length", "[0]", "[-1]",
          "[::-1]", ".items()", "loop.index", "namespace(", "range(99999999)", " ~ ", " ** 99999",
          "not ", "is defined", "'", '"', "\\", "(", ")", "#}", "{#", "\0", "\u4e2d", "-", "//0",
          "raise_exception('x')", "strftime_now('%'*999)", "* 99999999", "None", "{% break %}",
          "{% macro a() %}", "{% endmacro %}", "a()", "{% generation %}", "<|im_end|>")  # fmt: skip
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello <|im_end|> {{ 1 + 1 }}"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


def make_template(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Take a hostile template, or change one of those that models have."""
    if rng.random() < 0.1:
        text = rng.choice(HOSTILE)
        if rng.random() < 0.5:
            text = change_text(text, rng, PIECES)
    else:
        paths = bench.keep("templates", lambda: sorted(TEMPLATES.glob("*.jinja")))
        path = rng.choice(paths)
        text = change_text(path.read_text(encoding="utf-8"), rng, PIECES)
    return text.encode("utf-8", "surrogatepass"), repr(text[:200])


def use_template(_bench: Bench, data: bytes) -> str:
    """Render it with and without a tool, in the process that is there for that."""
    template = ChatTemplate(data.decode("utf-8", "surrogatepass"), timeout=SECONDS)
    with suppress(TimeoutError):
        for tools in (None, [TOOL]):
            template.render(MESSAGES, tools=tools)
        return RAN
    return REFUSED
