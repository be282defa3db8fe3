"""Twenty-five JSON schemas: nested, arrays, enums, unions, recursion, formats, bounds."""

from __future__ import annotations

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS = {
    "string": {"type": "string"},
    "short string": {"type": "string", "minLength": 3, "maxLength": 9},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3,5}(\.\w+)?$"},
    "pattern anywhere": {"type": "string", "pattern": r"[0-9]|-$"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "integer": {"type": "integer", "minimum": -20, "exclusiveMaximum": 105},
    "number": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 12.25},
    "number above": {"type": "number", "minimum": 0},
    "boolean or null": {"type": ["boolean", "null"]},
    "enum": {"enum": ["red", 'a "green"', 3, None, True, {"a": [1]}]},
    "person": PERSON,
    "optional": {
        "type": "object",
        "properties": {each: {"type": "boolean"} for each in "abcd"},
        "additionalProperties": {"type": "integer"},
    },
    "array": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "minItems": 2,
        "maxItems": 2,
    },
    "people": {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 3},
    "union": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "integer"}, PERSON]},
    "one of": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "size": {"type": "integer", "maximum": 9}},
                "required": ["kind", "size"],
            }
            for kind in ("circle", "square")
        ]
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
            {"type": "object", "properties": {"y": {"type": "boolean"}}, "required": ["y"]},
        ]
    },
    "tree": TREE,
    "anything": {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
    "nested": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
            "at": {
                "type": "object",
                "properties": {
                    "lat": {"type": "number", "minimum": -90, "maximum": 90},
                    "lon": {"type": "number", "minimum": -180, "maximum": 180},
                },
                "required": ["lat", "lon"],
            },
        },
        "required": ["id", "at"],
    },
}
