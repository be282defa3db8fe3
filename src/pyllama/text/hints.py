"""Python types as JSON schemas, and JSON values as objects of those types."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
    list: {"type": "array"},
    tuple: {"type": "array"},
    Sequence: {"type": "array"},
    dict: {"type": "object"},
    Mapping: {"type": "object"},
}
_UNIONS = (Union, types.UnionType)
_MARKS = {"Required": True, "NotRequired": False}
# As they are without brackets: what stands in them may be anything.
_OLD_NAMES = (typing.List, typing.Tuple, typing.Dict, typing.Sequence, typing.Mapping)  # noqa: UP006


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type.

    Parameters
    ----------
    hint
        str, int, float, bool, None, Any, list, tuple, dict, Literal, Enum, unions, dataclasses,
        TypedDict, pydantic models, and Annotated with a description.

    Returns
    -------
    dict

    Raises
    ------
    TypeError
        If the type has no JSON form.
    """
    definitions: dict[str, Any] = {}
    schema = _schema(hint, definitions)
    return {**schema, "$defs": definitions} if definitions else schema


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911
    """Return a schema, which refers to *definitions* for the classes in it."""
    hint = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        notes = [note for note in args[1:] if isinstance(note, str)]
        notes += [note.description for note in args[1:] if getattr(note, "description", None)]
        described = {"description": notes[0]} if notes else {}
        return {**_schema(args[0], definitions), **described}
    if isinstance(hint, Hashable) and hint in _PLAIN:
        return dict(_PLAIN[hint])
    if origin is Literal:
        return {"enum": list(args)}
    if origin in _UNIONS:
        return {"anyOf": [_schema(arg, definitions) for arg in args]}
    if origin in (list, Sequence):
        return {"type": "array", "items": _schema(args[0], definitions)}
    if origin is tuple:
        return _tuple(args, definitions)
    if origin in (dict, Mapping):
        if args[0] is not str:
            message = f"{hint} has keys that are not str, and JSON has no others"
            raise TypeError(message)
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    if isinstance(hint, type):
        return _class(hint, definitions)
    message = f"{hint!r} has no JSON schema; write the schema by hand"
    raise TypeError(message)


def _bare(hint: Any) -> Any:
    """Return a type without what says of a key whether it must be there; ``List`` as list."""
    if hint in _OLD_NAMES:
        return get_origin(hint)
    return _bare(get_args(hint)[0]) if _mark(hint) in _MARKS else hint


def _mark(hint: Any) -> str:
    return getattr(get_origin(hint), "_name", None) or ""


def _tuple(args: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if len(args) == 2 and args[1] is ...:
        return {"type": "array", "items": _schema(args[0], definitions)}
    items = [_schema(arg, definitions) for arg in args]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _class(hint: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if hasattr(hint, "model_json_schema"):
        schema = dict(hint.model_json_schema(ref_template="#/$defs/{model}"))
        definitions.update(schema.pop("$defs", {}))
        definitions[hint.__name__] = schema
        return {"$ref": f"#/$defs/{hint.__name__}"}
    fields = _fields(hint)
    if hint.__name__ not in definitions:
        definitions[hint.__name__] = {}  # it may refer to itself
        definitions[hint.__name__] = {
            "type": "object",
            "properties": {name: _schema(each, definitions) for name, (each, _) in fields.items()},
            "required": [name for name, (_, required) in fields.items() if required],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _fields(hint: type) -> dict[str, tuple[Any, bool]]:
    """Return the types of a class's fields, each with whether it must be given."""
    if dataclasses.is_dataclass(hint):
        known = get_type_hints(hint, include_extras=True)
        nothing = dataclasses.MISSING
        return {
            each.name: (
                known[each.name],
                each.default is nothing and each.default_factory is nothing,
            )
            for each in dataclasses.fields(hint)
            if each.init
        }
    if typing.is_typeddict(hint):
        return {
            # What is written as a string the class itself has not looked at.
            name: (each, _MARKS.get(_mark(each), name in hint.__required_keys__))  # type: ignore[attr-defined]
            for name, each in get_type_hints(hint, include_extras=True).items()
        }
    message = f"{hint.__name__} has no JSON schema: give a dataclass, TypedDict or pydantic model"
    raise TypeError(message)


def value_of(hint: Any, value: Any, place: str = "value") -> Any:  # noqa: PLR0911
    """Turn a JSON value into an object of a type.

    Parameters
    ----------
    hint
        A type that `schema_of` takes.
    value
        As ``json.loads`` gives it.
    place
        What to call it in an error.

    Returns
    -------
    object
        For example an Enum member for its value, or an instance of a dataclass.

    Raises
    ------
    ValueError
        If the value is not of that type.
    """
    hint = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return value_of(args[0], value, place)
    if origin in _UNIONS:
        return _one_of(args, value, place)
    if origin is Literal:
        if any(value == each and type(value) is type(each) for each in args):
            return value
        raise _wrong(value, f"one of {list(args)}", place)
    if hint in _PLAIN:
        return _plain(hint, value, place)
    if origin in (list, Sequence):
        return [value_of(args[0], each, f"{place}[{i}]") for i, each in _listed(value, place)]
    if origin is tuple:
        return _as_tuple(args, value, place)
    if origin in (dict, Mapping):
        pairs = _plain(dict, value, place).items()
        return {key: value_of(args[1], each, f"{place}[{key!r}]") for key, each in pairs}
    return _instance(hint, value, place)


def _plain(hint: Any, value: Any, place: str) -> Any:
    if hint in (Any, object):
        return value
    if hint is float and type(value) is int:
        return float(value)
    wanted = {None: type(None), Sequence: list, tuple: list, Mapping: dict}.get(hint, hint)
    if type(value) is not wanted:
        raise _wrong(value, getattr(hint, "__name__", str(hint)), place)
    return tuple(value) if hint is tuple else value


def _listed(value: Any, place: str) -> list[tuple[int, Any]]:
    return list(enumerate(_plain(list, value, place)))


def _as_tuple(args: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    values = _listed(value, place)
    if len(args) == 2 and args[1] is ...:
        args = (args[0],) * len(values)
    if len(values) != len(args):
        raise _wrong(value, f"{len(args)} values", place)
    return tuple(value_of(args[i], each, f"{place}[{i}]") for i, each in values)


def _one_of(args: tuple[Any, ...], value: Any, place: str) -> Any:
    reasons = []
    for arg in args:
        try:
            return value_of(arg, value, place)
        except ValueError as error:  # noqa: PERF203 - few types, and the reasons are wanted
            reasons.append(str(error))
    raise ValueError("; ".join(dict.fromkeys(reasons)))


def _instance(hint: Any, value: Any, place: str) -> Any:
    if issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            raise _wrong(value, f"one of {[each.value for each in hint]}", place) from None
    if hasattr(hint, "model_validate"):
        return hint.model_validate(value)  # pydantic's ValidationError is a ValueError
    fields = _fields(hint)
    given = _plain(dict, value, place)
    if unknown := given.keys() - fields.keys():
        message = f"{place} has unknown keys: {sorted(unknown)}"
        raise ValueError(message)
    missing = [name for name, (_, required) in fields.items() if required and name not in given]
    if missing:
        message = f"{place} lacks {missing}"
        raise ValueError(message)
    values = {
        name: value_of(fields[name][0], each, f"{place}.{name}") for name, each in given.items()
    }
    return hint(**values)


def _wrong(value: Any, wanted: str, place: str) -> ValueError:
    return ValueError(f"{place} must be {wanted}, not {value!r:.60}")
