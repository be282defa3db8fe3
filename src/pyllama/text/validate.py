"""Checking a JSON value against the part of JSON Schema that a grammar can hold a model to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, Any] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def validate(value: Any, schema: Any, place: str = "value", root: Any = None) -> None:
    """Raise unless a value follows a schema.

    Parameters
    ----------
    value
        As ``json.loads`` gives it.
    schema
        A JSON schema. Keywords that are not known (format, title, ...) allow everything.
    place
        What to call the value in an error.
    root
        Where references lead to; left out, the schema itself.

    Raises
    ------
    ValueError
        With the place that is wrong, and what was wanted.
    """
    root = schema if root is None else root
    if schema is False:
        message = f"{place} must not be there"
        raise ValueError(message)
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        validate(value, resolve(schema["$ref"], root), place, root)
    _check_kind(value, schema, place)
    _check_alternatives(value, schema, place, root)
    if isinstance(value, str):
        _check_string(value, schema, place)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, place)
    elif isinstance(value, list):
        _check_array(value, schema, place, root)
    elif isinstance(value, dict):
        _check_object(value, schema, place, root)


def resolve(reference: Any, root: Any) -> Any:
    """Return the schema that a reference names.

    Parameters
    ----------
    reference
        ``#/$defs/name`` or the like.
    root
        The whole schema.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If there is none.
    """
    node = root
    path = reference[1:].strip("/") if isinstance(reference, str) else ""
    try:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise KeyError(reference)
        for step in filter(None, path.split("/")):
            key = step.replace("~1", "/").replace("~0", "~")
            node = node[int(key)] if isinstance(node, list) else node[key]
    except (KeyError, IndexError, TypeError, ValueError):
        message = f"the schema has nothing at {reference!r}"
        raise ValueError(message) from None
    return node


def is_of(value: Any, kind: str) -> bool:
    """Return whether a value is of a JSON type.

    Parameters
    ----------
    value
        As ``json.loads`` gives it.
    kind
        "string", "integer", and so on.

    Returns
    -------
    bool
    """
    if isinstance(value, bool) and kind != "boolean":
        return False
    if not isinstance(value, _TYPES.get(kind, ())):
        return False
    return kind != "integer" or bool(value % 1 == 0)


def _check_kind(value: Any, schema: Mapping[str, Any], place: str) -> None:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_of(value, kind) for kind in kinds):
        raise _wrong(value, " or ".join(kinds), place)
    if "const" in schema and not _same(value, schema["const"]):
        raise _wrong(value, repr(schema["const"]), place)
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        raise _wrong(value, f"one of {schema['enum']}", place)


def _check_alternatives(value: Any, schema: Mapping[str, Any], place: str, root: Any) -> None:
    for each in schema.get("allOf", ()):
        validate(value, each, place, root)
    for key in ("anyOf", "oneOf"):
        reasons = []
        for each in schema.get(key, ()):
            try:
                validate(value, each, place, root)
            except ValueError as error:  # noqa: PERF203 - the reasons are wanted
                reasons.append(str(error))
        fits = len(schema.get(key, ())) - len(reasons)
        if key in schema and not fits:
            raise ValueError("; or ".join(dict.fromkeys(reasons)))
        if key == "oneOf" and fits > 1:
            message = f"{place} fits {fits} alternatives, and must fit one"
            raise ValueError(message)


def _check_string(value: str, schema: Mapping[str, Any], place: str) -> None:
    n = len(value)
    if n < schema.get("minLength", 0) or n > schema.get("maxLength", math.inf):
        raise _wrong(value, _range("characters", schema, "minLength", "maxLength"), place)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise _wrong(value, f"text with {schema['pattern']!r}", place)


def _check_number(value: float, schema: Mapping[str, Any], place: str) -> None:
    checks: dict[str, Callable[[float], bool]] = {
        "minimum": lambda bound: value >= bound,
        "maximum": lambda bound: value <= bound,
        "exclusiveMinimum": lambda bound: value > bound,
        "exclusiveMaximum": lambda bound: value < bound,
        "multipleOf": lambda step: math.isclose(value / step, round(value / step), abs_tol=1e-9),
    }
    for key, check in checks.items():
        if key in schema and not check(schema[key]):
            raise _wrong(value, f"a number with {key} {schema[key]}", place)


def _check_array(value: list[Any], schema: Mapping[str, Any], place: str, root: Any) -> None:
    n = len(value)
    if n < schema.get("minItems", 0) or n > schema.get("maxItems", math.inf):
        raise _wrong(value, _range("items", schema, "minItems", "maxItems"), place)
    first = schema.get("prefixItems", [])
    for index, each in enumerate(value):
        rule = first[index] if index < len(first) else schema.get("items", True)
        validate(each, rule, f"{place}[{index}]", root)
    if schema.get("uniqueItems") and any(
        _same(a, b) for i, a in enumerate(value) for b in value[:i]
    ):
        raise _wrong(value, "items that all differ", place)


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], place: str, root: Any) -> None:
    if missing := [key for key in schema.get("required", ()) if key not in value]:
        message = f"{place} lacks {missing}"
        raise ValueError(message)
    known = schema.get("properties", {})
    for key, each in value.items():
        if key in known:
            validate(each, known[key], f"{place}[{key!r}]", root)
        elif schema.get("additionalProperties", True) is False:
            message = f"{place} has an unknown key {key!r}; known: {sorted(known)}"
            raise ValueError(message)
        else:
            validate(each, schema.get("additionalProperties", True), f"{place}[{key!r}]", root)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _range(what: str, schema: Mapping[str, Any], low: str, high: str) -> str:
    return f"{schema.get(low, 0)} to {schema.get(high, 'any number of')} {what}"


def _wrong(value: Any, wanted: str, place: str) -> ValueError:
    return ValueError(f"{place} must be {wanted}, not {value!r:.60}")
