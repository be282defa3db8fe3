"""Schemas, types, patterns and choices as grammars: whatever they let through follows them."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, Optional

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text.documents import write
from text.schemas import SCHEMAS

import pyllama
from pyllama.errors import GrammarError
from pyllama.text import numbers
from pyllama.text.hints import value_of
from pyllama.text.schema import grammar_of, json_schema


@pytest.fixture(scope="module")
def vocab() -> Iterator[pyllama.Vocab]:
    """Open the vocabulary of the demo model."""
    with pyllama.Model(pyllama.demo_model(), vocab_only=True) as model:
        yield model.vocab


def check(document: str, schema: dict[str, Any]) -> None:
    """Raise unless a document follows a schema, formats included."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.validate(json.loads(document), schema, format_checker=checker)


@pytest.mark.parametrize("name", SCHEMAS)
def test_documents_follow_the_schema(vocab, name):
    """What the grammar of a schema lets through validates."""
    grammar = grammar_of(SCHEMAS[name])
    for seed in range(3):
        check(write(vocab, grammar, seed), SCHEMAS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_many_documents_follow_the_schema(vocab, name):
    """Twenty documents of each of twenty-five schemas: five hundred."""
    grammar = grammar_of(SCHEMAS[name])
    for seed in range(100, 120):
        check(write(vocab, grammar, seed), SCHEMAS[name])


REFUSED = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "multipleOf": {"type": "integer", "multipleOf": 3},
    "not": {"not": {"type": "string"}},
    "patternProperties": {"type": "object", "patternProperties": {"a": {}}},
    "minProperties": {"type": "object", "minProperties": 1},
    "format 'duration'": {"type": "string", "format": "duration"},
    "maxLength": {"type": "string", "pattern": "a", "maxLength": 3},
    "oneOf may overlap|overlap": {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    "none of object": {"type": "text"},
    "nothing at": {"$ref": "#/$defs/missing"},
    "lookaround": {"type": "string", "pattern": "(?=a)b"},
    "no regular expression": {"type": "string", "pattern": "(a"},
    "above": {"type": "integer", "minimum": 5, "maximum": 4},
    "no number lies": {"type": "number", "minimum": 5, "maximum": 4},
    "must be a number": {"type": "number", "minimum": "5"},
    "no value can follow": {"type": "string", "enum": [1, 2]},
    "a schema is an object": {"type": "array", "items": 3},
    "[$]defs must be an object": {"$defs": "x"},
    "properties must be an object": {"properties": [1]},
    "prefixItems must be a list": {"prefixItems": {"a": {}}},
    "required must name strings": {"type": "object", "required": [[1]]},
    "type must name strings": {"type": [{}]},
    "pattern must be a string": {"type": "string", "pattern": 3},
    "minItems must be a whole number": {"type": "array", "minItems": "3"},
    "exactly 1 items": {"type": "array", "prefixItems": [{}], "minItems": 2},
    "on both|several parts": {"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {}}}]},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_grammar_cannot_follow_is_refused(words):
    """A keyword is never left out without a word."""
    with pytest.raises(GrammarError, match=words):
        grammar_of(REFUSED[words])


def test_keywords_are_left_out_on_request():
    """The caller may know better."""
    assert "root ::=" in grammar_of({"type": "array", "uniqueItems": True}, strict=False)


def test_a_schema_that_is_too_deep_is_refused():
    """The depth is counted before anything recurses."""
    schema: dict[str, Any] = {}
    for _ in range(2000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(GrammarError, match="deep"):
        grammar_of(schema)


def test_a_schema_that_is_too_large_is_refused():
    """So is the size."""
    with pytest.raises(GrammarError, match="262144"):
        grammar_of({"enum": ["x" * 300_000]})


def test_a_schema_that_refers_to_itself_is_refused(vocab):
    """It has no document; libllama would go round for ever."""
    with pytest.raises(GrammarError):
        pyllama.samplers.grammar(vocab, grammar_of({"$ref": "#"}))


PATTERNS = [r"\d{3}-[a-f]+|x.y", r"(?:ab|c)+\"[^\"]?", r"[\w.]+@[^\s@]+", r"\\{2}[\]\-]x*?"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_texts_match_the_pattern(vocab, pattern):
    """A compiled expression is followed by the whole text, without quotes."""
    grammar = grammar_of(re.compile(pattern))
    for seed in range(5):
        assert re.fullmatch(pattern, write(vocab, grammar, seed))


def test_a_pattern_with_flags_is_refused():
    """The grammar would not know of them."""
    with pytest.raises(GrammarError, match="flags"):
        grammar_of(re.compile("a", re.IGNORECASE))


def test_one_of_the_choices_is_written(vocab):
    """Nothing but a choice comes out, quotes and newlines as they are."""
    choices = ["yes", "no", 'say "maybe"\nor so', "\\"]
    grammar = grammar_of(choices)
    assert {write(vocab, grammar, seed) for seed in range(30)} == set(choices)


def test_a_string_is_no_constraint():
    """It could be a grammar, a pattern or a choice."""
    with pytest.raises(TypeError, match=r"re\.compile"):
        grammar_of("[0-9]+")


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Car:
    """A dataclass that refers to itself."""

    name: str
    colour: Colour
    doors: Literal[2, 4] = 4
    trailer: Optional[Car] = None  # noqa: UP045 - the older way must work too


class Engine(pydantic.BaseModel):
    """A pydantic model with bounds."""

    power: float = pydantic.Field(ge=0, lt=1000)
    fuels: list[Colour] = pydantic.Field(min_length=1, max_length=2)


def test_a_dataclass_is_a_schema(vocab):
    """What is written for it can be made into an instance."""
    grammar = grammar_of(Car)
    for seed in range(3):
        car = value_of(Car, json.loads(write(vocab, grammar, seed)))
        assert isinstance(car, Car)
        assert isinstance(car.colour, Colour)


def test_a_pydantic_model_is_a_schema(vocab):
    """So it is for pydantic, which checks it by itself."""
    grammar = grammar_of(Engine)
    for seed in range(3):
        engine = Engine.model_validate_json(write(vocab, grammar, seed))
        assert 0 <= engine.power < 1000


def test_types_are_schemas():
    """Type hints have the schemas that one would write."""
    assert json_schema(dict[str, list[int]]) == {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer"}},
    }


def test_a_type_without_a_schema_is_refused():
    """Functions and sets are not JSON."""
    with pytest.raises(TypeError, match="schema"):
        json_schema(set)


BOUND = st.one_of(st.none(), st.integers(-1000, 1000), st.decimals(-50, 50, places=2).map(float))


@settings(max_examples=60)
@given(BOUND, BOUND, st.booleans(), st.booleans())
def test_the_grammar_of_bounds_is_the_bounds(low, high, above, below):
    """As a regular expression, it matches just the numbers between them."""
    try:
        text = numbers.between(low, high, above_low=above, below_high=below)
    except ValueError:
        return
    pattern = re.compile(text.replace(" ", "").replace('"."', r"\.").replace('"', ""))
    for number in (-1000.5, -50, -7.25, -1, -0.5, 0, 0.01, 0.5, 3, 7.13, 49.99, 50, 999, 1000):
        for bound in (number, low or 0, high or 0):
            allowed = (low is None or bound > low or (bound == low and not above)) and (
                high is None or bound < high or (bound == high and not below)
            )
            shown = repr(bound).removesuffix(".0")
            assert bool(pattern.fullmatch(shown)) == allowed or shown in ("-0", "-0.0")
