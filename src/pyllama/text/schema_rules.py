"""What of JSON Schema the converter follows, and the rest said or refused before it is left out.

llama.cpp's converter passes over keywords that it does not know, or does not expect beside others.
A document that it lets through would then not follow the schema, so `prepare` rewrites the schema
where that helps, and refuses it where it does not.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

from pyllama.errors import GrammarError
from pyllama.text import numbers
from pyllama.text.formats import FORMATS
from pyllama.text.regex import portable
from pyllama.text.validate import is_of, resolve, validate

_SHAPES: tuple[tuple[frozenset[str], Any, str], ...] = (
    (frozenset({"properties", "$defs", "definitions"}), Mapping, "an object"),
    (frozenset({"required", "prefixItems", "enum"}), list, "a list"),
    (frozenset({"$ref", "pattern", "format"}), str, "a string"),
    (frozenset({"minItems", "maxItems", "minLength", "maxLength"}), int, "a whole number"),
)
MAX_DEPTH = 64
MAX_NODES = 20_000

_NOTES = frozenset(
    "title description default examples example $schema $id $comment deprecated readOnly writeOnly "
    "discriminator $defs definitions contentMediaType contentEncoding".split()
)
_OBJECT = ("properties", "required", "additionalProperties")
_ARRAY = ("items", "prefixItems", "minItems", "maxItems")
_STRING = ("pattern", "format", "minLength", "maxLength")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_BY_TYPE: dict[str, tuple[str, ...]] = {
    "object": _OBJECT,
    "array": _ARRAY,
    "string": _STRING,
    "integer": _NUMBER,
    "number": _NUMBER,
    "boolean": (),
    "null": (),
}


def prepare(schema: Any, *, strict: bool = True) -> tuple[Any, dict[str, str]]:
    """Rewrite a schema so that the converter follows all of it.

    Parameters
    ----------
    schema
        A JSON schema.
    strict
        Whether a keyword that a grammar cannot follow is refused; otherwise it is left out.

    Returns
    -------
    schema : object
        For the converter.
    spliced : dict of str to str
        Constants in it that stand for an expression of GBNF.

    Raises
    ------
    GrammarError
        If the schema is too large or too deep, or asks for what a grammar cannot follow.
    """
    rules = _Rules(schema, strict=strict)
    return rules.node(schema, "#", 0), rules.spliced


def _require_shapes(schema: Mapping[str, Any], place: str) -> None:
    """Raise if the value of a keyword is of a kind that says nothing."""
    for keys, kind, what in _SHAPES:
        for key in keys & schema.keys():
            if not isinstance(schema[key], kind):
                raise GrammarError(f"{place}: {key} must be {what}, not {schema[key]!r:.60}")
    for key in ("required", "type"):
        names = schema.get(key, "")
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str):
                raise GrammarError(f"{place}: {key} must name strings, not {name!r:.60}")


class _Rules:
    """One schema on its way through."""

    def __init__(self, root: Any, *, strict: bool) -> None:
        self.root = root
        self.strict = strict
        self.spliced: dict[str, str] = {}
        self.n_nodes = 0

    def node(self, schema: Any, place: str, depth: int) -> dict[str, Any]:
        """Rewrite one schema and those in it."""
        self.n_nodes += 1
        if depth > MAX_DEPTH or self.n_nodes > MAX_NODES:
            message = f"the schema is deeper than {MAX_DEPTH} or has more than {MAX_NODES} parts"
            raise GrammarError(message)
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            message = f"{place}: a schema is an object, not {schema!r:.60}"
            raise GrammarError(message)
        _require_shapes(schema, place)
        given = {key: value for key, value in schema.items() if key not in _NOTES}
        made = self.kind(given, place, depth)
        for key in ("$defs", "definitions"):
            if key in schema:
                made[key] = {
                    name: self.node(each, f"{place}/{key}/{name}", depth + 1)
                    for name, each in schema[key].items()
                }
        return made

    def kind(  # noqa: PLR0911 - one for each kind
        self, given: dict[str, Any], place: str, depth: int
    ) -> dict[str, Any]:
        """Rewrite a schema by what it is: a reference, alternatives, constants, or a type."""
        given = {key: value for key, value in given.items() if not key.startswith("x-")}
        if "$ref" in given:
            self.only(given, ("$ref",), place)
            try:
                resolve(given["$ref"], self.root)
            except ValueError as error:
                raise GrammarError(f"{place}: {error}") from None
            return {"$ref": given["$ref"]}
        for key in ("anyOf", "oneOf", "allOf"):
            if key in given:
                return self.alternatives(given, key, place, depth)
        if "const" in given or "enum" in given:
            return self.constants(given, place)
        kinds = given.get("type", self.guessed(given))
        if isinstance(kinds, list):
            parts = [
                {
                    key: value
                    for key, value in given.items()
                    if key in ("type", *_BY_TYPE.get(kind, ()))
                }
                for kind in kinds
            ]
            self.only(given, ("type", *(key for part in parts for key in part)), place)
            return {
                "anyOf": [
                    self.node({**part, "type": kind}, place, depth + 1)
                    for part, kind in zip(parts, kinds, strict=True)
                ]
            }
        if kinds is None:
            self.only(given, (), place)
            return {}
        if kinds not in _BY_TYPE:
            message = f"{place}: the type {kinds!r} is none of {', '.join(_BY_TYPE)}"
            raise GrammarError(message)
        self.only(given, ("type", *_BY_TYPE[kinds]), place)
        known = {key: given[key] for key in _BY_TYPE[kinds] if key in given}
        rewrite = {
            "object": self.object,
            "array": self.array,
            "string": self.string,
            "integer": self.integer,
            "number": self.number,
        }
        if kinds not in rewrite:
            return {"type": kinds}
        return rewrite[kinds](known, place, depth)

    def only(self, given: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        """Refuse keywords that would be left out."""
        unknown = sorted(key for key in given.keys() - set(known) if given[key] is not False)
        if unknown and self.strict:
            message = (
                f"{place}: a grammar cannot follow {', '.join(unknown)} here; take it out, or give "
                "strict=False to leave it out"
            )
            raise GrammarError(message)

    def guessed(self, given: Mapping[str, Any]) -> str | None:
        """Return the type that the keywords of a schema without one are about."""
        about = {"object": _OBJECT, "array": _ARRAY, "string": _STRING, "number": _NUMBER}
        return next((kind for kind, keys in about.items() if given.keys() & set(keys)), None)

    def alternatives(
        self, given: dict[str, Any], key: str, place: str, depth: int
    ) -> dict[str, Any]:
        self.only(given, (key,), place)
        parts = given[key]
        if not isinstance(parts, list) or not parts:
            raise GrammarError(f"{place}: {key} must be a list with something in it")
        if key == "oneOf" and self.strict and not self.disjoint(parts):
            message = f"{place}: the alternatives of oneOf may overlap; write anyOf if they may"
            raise GrammarError(message)
        made = [self.node(each, f"{place}/{key}/{i}", depth + 1) for i, each in enumerate(parts)]
        if len(made) == 1:
            return made[0]
        if key == "allOf":
            return self.merged(parts, place, depth)
        return {"anyOf": made}

    def merged(self, parts: list[Any], place: str, depth: int) -> dict[str, Any]:
        """Join objects that must all be followed into one."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        for part in parts:
            target = self.followed(part)
            if set(target) - _NOTES - {"type", "properties", "required"}:
                message = f"{place}: a grammar follows allOf only for objects with properties"
                raise GrammarError(message)
            if both := properties.keys() & target.get("properties", {}).keys():
                message = f"{place}: several parts of allOf describe {sorted(both)}"
                raise GrammarError(message)
            properties.update(target.get("properties", {}))
            required += target.get("required", [])
        return self.object({"properties": properties, "required": required}, place, depth)

    def followed(self, part: Any) -> Mapping[str, Any]:
        """Return what a part is, behind its reference."""
        for _ in range(MAX_DEPTH):
            if not isinstance(part, Mapping) or "$ref" not in part:
                break
            part = resolve(part["$ref"], self.root)
        return part if isinstance(part, Mapping) else {}

    def disjoint(self, parts: list[Any]) -> bool:
        """Return whether no value can follow two of *parts*, as far as it is easily seen."""
        seen = [self.followed(part) for part in parts]
        kinds = [part.get("type") for part in seen]
        plain = [kind for kind in kinds if isinstance(kind, str)]
        numeric = {"integer", "number"} <= set(plain)
        if len(set(plain)) == len(parts) and not numeric:
            return True
        if all("const" in part or "enum" in part for part in seen):
            values = [repr(v) for part in seen for v in part.get("enum", [part.get("const")])]
            return len(set(values)) == len(values)
        shared = set.intersection(*(set(part.get("required", ())) for part in seen))
        for name in shared:
            tags = [self.followed(part.get("properties", {}).get(name, {})) for part in seen]
            if all("const" in tag or "enum" in tag for tag in tags):
                values = [repr(v) for tag in tags for v in tag.get("enum", [tag.get("const")])]
                if len(set(values)) == len(values):
                    return True
        return False

    def constants(self, given: dict[str, Any], place: str) -> dict[str, Any]:
        """Keep the values that follow the other keywords too."""
        values = given.get("enum", [given.get("const")])
        if not isinstance(values, list):
            raise GrammarError(f"{place}: enum must be a list")
        fitting = []
        for value in values:
            try:
                validate(value, given, root=self.root)
            except ValueError:
                continue
            fitting.append(value)
        if not fitting:
            raise GrammarError(f"{place}: no value can follow this schema")
        return {"enum": fitting}

    def object(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "object"}
        properties = dict(given.get("properties", {}))
        for name in given.get("required", ()):
            properties.setdefault(name, given.get("additionalProperties", True))
        more = given.get("additionalProperties", None if properties else True)
        if more is not None and more is not False:
            made["additionalProperties"] = self.node(
                more, f"{place}/additionalProperties", depth + 1
            )
            if not made["additionalProperties"]:
                made["additionalProperties"] = True
        if properties or more is False:
            made["properties"] = {
                name: self.node(each, f"{place}/properties/{name}", depth + 1)
                for name, each in properties.items()
            }
        if "required" in given:
            made["required"] = list(given["required"])
        return made

    def array(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        items = given.get("items", True)
        first = given.get("prefixItems", items if isinstance(items, list) else None)
        if first is not None:
            n = len(first)
            if not given.get("minItems", 0) <= n <= given.get("maxItems", math.inf):
                message = f"{place}: a grammar makes a tuple of exactly {n} items"
                raise GrammarError(message)
            made = [self.node(each, f"{place}/{i}", depth + 1) for i, each in enumerate(first)]
            return {"type": "array", "prefixItems": made}
        counts: dict[str, Any] = {
            key: given[key] for key in ("minItems", "maxItems") if key in given
        }
        self.ordered(counts, "minItems", "maxItems", place)
        if items is False:
            return {"type": "array", "items": {}, "minItems": 0, "maxItems": 0}
        return {"type": "array", "items": self.node(items, f"{place}/items", depth + 1), **counts}

    def string(self, given: dict[str, Any], place: str, _depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "string"}
        form = given.get("format")
        if form is not None and form not in FORMATS:
            self.only({f"format {form!r}": form}, (), place)
        pattern = given.get("pattern", FORMATS.get(form) if form else None)
        if pattern is None:
            counts: dict[str, Any] = {
                key: given[key] for key in ("minLength", "maxLength") if key in given
            }
            self.ordered(counts, "minLength", "maxLength", place)
            return {**made, **counts}
        beside = {"format", "minLength", "maxLength"} if "pattern" in given else _STRING[2:]
        self.only({key: given[key] for key in beside if key in given}, (), place)
        return {**made, "pattern": portable(pattern, in_json=True)}

    def integer(self, given: dict[str, Any], place: str, _depth: int) -> dict[str, Any]:
        low, high = self.bounds(given, place)
        made: dict[str, Any] = {"type": "integer"}
        if low[0] is not None:
            made["minimum"] = math.floor(low[0]) + 1 if low[1] else math.ceil(low[0])
        if high[0] is not None:
            made["maximum"] = math.ceil(high[0]) - 1 if high[1] else math.floor(high[0])
        self.ordered(made, "minimum", "maximum", place)
        return made

    def number(self, given: dict[str, Any], place: str, _depth: int) -> dict[str, Any]:
        low, high = self.bounds(given, place)
        if low[0] is None and high[0] is None:
            return {"type": "number"}
        try:
            text = numbers.between(low[0], high[0], above_low=low[1], below_high=high[1])
        except ValueError as error:
            raise GrammarError(f"{place}: {error}") from None
        name = f"pyllama-{secrets.token_hex(8)}"
        self.spliced[name] = text
        return {"const": name}

    def bounds(
        self, given: dict[str, Any], place: str
    ) -> tuple[tuple[float | None, bool], tuple[float | None, bool]]:
        """Return the closest bound on each side, and whether it is left out itself."""
        for key, value in given.items():
            if not is_of(value, "number"):
                raise GrammarError(f"{place}: {key} must be a number, not {value!r:.60}")
        low = [
            (given[key], key != "minimum")
            for key in ("minimum", "exclusiveMinimum")
            if key in given
        ]
        high = [
            (given[key], key == "maximum")
            for key in ("maximum", "exclusiveMaximum")
            if key in given
        ]
        lowest = max(low, default=(None, False))
        highest, inclusive = min(high, default=(None, True))
        return lowest, (highest, not inclusive)

    def counts(self, given: dict[str, Any], low: str, high: str, place: str) -> dict[str, Any]:
        """Return two of the keywords of a schema, which must be in order."""
        found = {key: given[key] for key in (low, high) if key in given}
        self.ordered(found, low, high, place)
        return found

    def ordered(self, given: Mapping[str, Any], low: str, high: str, place: str) -> None:
        for key in (low, high):
            if key in given and not is_of(given[key], "integer"):
                raise GrammarError(f"{place}: {key} must be a whole number, not {given[key]!r:.60}")
        if low in given and high in given and given[low] > given[high]:
            raise GrammarError(f"{place}: {low} {given[low]} is above {high} {given[high]}")
