"""Python functions as tools: their schemas, and the arguments of their calls."""

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import pydantic
import pytest
from typing_extensions import NotRequired

from pyllama.text.hints import schema_of, value_of
from pyllama.text.tools import Tool
from pyllama.text.validate import validate


class Unit(enum.Enum):
    """A unit."""

    C = "celsius"
    F = "fahrenheit"


@dataclasses.dataclass
class Place:
    """A place."""

    name: str
    height: float = 0.0


def weather(place: Place, unit: Unit = Unit.C, days: Annotated[int, "How many days."] = 1) -> str:
    """Tell the weather of a place: a town or a mountain.

    It is not always right.

    Parameters
    ----------
    place
        Where; a town
        or a mountain.
    unit : Unit
        Of the temperature.

    Returns
    -------
    str
        The weather.
    """
    return f"{place.name} {place.height} {unit.name} {days}"


def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a (int): The first
            of them.
        b: The second: two, if not given.

    Returns
    -------
        int: The sum.
    """
    return a + b


def test_a_function_with_a_numpydoc_docstring():
    """Name, first paragraph, types, descriptions, and what must be given."""
    tool = Tool.of(weather)
    assert tool.name == "weather"
    assert tool.description == "Tell the weather of a place: a town or a mountain."
    properties = tool.parameters["properties"]
    assert properties["place"]["description"] == "Where; a town or a mountain."
    assert properties["unit"] == {
        "enum": ["celsius", "fahrenheit"], "description": "Of the temperature.",
    }  # fmt: skip
    assert properties["days"] == {"type": "integer", "description": "How many days."}
    assert tool.parameters["required"] == ["place"]
    assert tool.parameters["$defs"]["Place"]["required"] == ["name"]


def test_a_function_with_a_google_docstring():
    """The description behind the colon counts."""
    properties = Tool.of(add).parameters["properties"]
    assert properties["a"] == {"type": "integer", "description": "The first of them."}
    assert properties["b"]["description"] == "The second: two, if not given."


def test_a_call_gets_objects_of_the_types():
    """What the model wrote as JSON comes as dataclass and Enum."""
    tool = Tool.of(weather)
    assert tool.call('{"place": {"name": "Rome"}, "unit": "fahrenheit"}') == "Rome 0.0 F 1"
    assert Tool.of(add).call({"a": 3}) == 5


BAD_ARGUMENTS = {
    "not JSON": '{"a": ',
    "must be object": "[1]",
    r"lacks \['a'\]": "{}",
    "must be integer": '{"a": "1"}',
    "no parameters": '{"a": 1, "c": 2}',
}


@pytest.mark.parametrize("words", BAD_ARGUMENTS)
def test_wrong_arguments_are_refused_in_words_for_the_model(words):
    """The error can be sent back as the tool's answer."""
    with pytest.raises(ValueError, match=words):
        Tool.of(add).call(BAD_ARGUMENTS[words])


def test_openais_dict_is_a_tool():
    """With the wrapper and without."""
    inner = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert Tool.of({"type": "function", "function": inner}) == Tool.of(inner)
    assert Tool.of(inner).as_dict() == {"type": "function", "function": inner}


def no_hint(a):
    """Have no types."""


def many(*args: int) -> None:
    """Have no names."""


def odd(a: set[int]) -> None:
    """Take what JSON has not."""


def undefined(a: Missing) -> None:  # noqa: F821
    """Name a type that there is not."""


BAD_TOOLS: dict[str, tuple[type[Exception], Any]] = {
    "type hint": (TypeError, no_hint),
    "cannot be given by name": (TypeError, many),
    "no JSON schema": (TypeError, odd),
    "'Missing' is not defined": (TypeError, undefined),
    "a tool is a function": (TypeError, 3),
    "letters, digits": (ValueError, {"name": "a b", "parameters": {}}),
    "unknown keys": (ValueError, {"name": "a", "colour": 1}),
    "a tool's dict": (ValueError, {"type": "browser"}),
    "must be an object": (ValueError, {"name": "a", "parameters": {"type": "string"}}),
}


@pytest.mark.parametrize("words", BAD_TOOLS)
def test_what_is_no_tool_is_refused(words):
    """With what is wrong about it."""
    kind, tool = BAD_TOOLS[words]
    with pytest.raises(kind, match=words):
        Tool.of(tool)


def test_a_tool_without_a_function_cannot_be_called():
    """Somebody else runs it."""
    with pytest.raises(TypeError, match="no function"):
        Tool("f").call("{}")


class Movie(TypedDict, total=False):
    """A typed dict."""

    title: str


class Film(TypedDict):
    """A typed dict with a key that may be left out."""

    title: str
    year: NotRequired[int]


class Book(pydantic.BaseModel):
    """A pydantic model."""

    pages: int = pydantic.Field(ge=1)


HINTS: dict[Any, tuple[Any, Any]] = {
    str: ("a", "a"),
    float: (1, 1.0),
    bool: (True, True),
    None: (None, None),
    Any: ([1], [1]),
    list[int]: ([1, 2], [1, 2]),
    tuple[int, str]: ([1, "a"], (1, "a")),
    tuple[int, ...]: ([1, 2], (1, 2)),
    dict[str, float]: ({"a": 1}, {"a": 1.0}),
    Literal["a", 1]: (1, 1),
    Optional[int]: (None, None),  # noqa: UP045
    Union[int, str]: ("a", "a"),  # noqa: UP007
    Unit: ("celsius", Unit.C),
    Place: ({"name": "a", "height": 1}, Place("a", 1.0)),
    Movie: ({"title": "a"}, {"title": "a"}),
    Film: ({"title": "a"}, {"title": "a"}),
    typing.List: ([1, "a"], [1, "a"]),  # noqa: UP006
    typing.Dict: ({"a": 1}, {"a": 1}),  # noqa: UP006
    typing.Tuple: ([1, "a"], (1, "a")),  # noqa: UP006
    Book: ({"pages": 3}, Book(pages=3)),
}


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_a_type_has_a_schema_and_makes_objects(hint):
    """The JSON value follows the schema, and becomes the object."""
    given, expected = HINTS[hint]
    validate(given, schema_of(hint))
    assert value_of(hint, given) == expected
    assert type(value_of(hint, given)) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(int, True), (int, "1"), (str, 1), (list[int], ["a"]), (tuple[int, str], [1]),
     (Literal[1], True), (Unit, "kelvin"), (Place, {"name": "a", "x": 1}), (Place, {}),
     (Film, {"year": 1}), (Film, {"title": "a", "year": "b"}), (typing.List, {}),  # noqa: UP006
     (Book, {"pages": 0}), (int | None, "a"), (dict[str, int], [1])],
)  # fmt: skip
def test_another_value_is_refused(hint, value):
    """Nothing is turned into something similar."""
    with pytest.raises(ValueError, match=r"must|lacks|unknown|greater"):
        value_of(hint, value)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": 2, "exclusiveMaximum": 4}, [2, 3.0], [1, 4, 2.5, True]),
        ({"type": "string", "minLength": 2, "pattern": "a"}, ["ba"], ["a", "bb", 1]),
        ({"multipleOf": 0.1}, [0.3, "x"], [0.35]),
        ({"const": 1}, [1], [True, 2]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [1, 5.5], [7]),
        ({"items": {"type": "null"}, "uniqueItems": True, "maxItems": 2}, [[None]], [[None, None]]),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"]], [["a", 1], [1]]),
        ({"additionalProperties": False, "properties": {"a": {}}}, [{"a": 1}], [{"b": 1}]),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["a"]}}}, ["a"], ["b"]),
        ({"allOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1, "b": 2}], [{"a": 1}]),
    ],
)
def test_values_are_checked_against_a_schema(schema, good, bad):
    """As a JSON Schema validator would."""
    for value in good:
        validate(value, schema)
    for value in bad:
        with pytest.raises(ValueError, match="value"):
            validate(value, schema)
