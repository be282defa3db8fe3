"""Tools that a model may call: Python functions, or schemas of what somebody else runs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pyllama.text.hints import schema_of, value_of
from pyllama.text.validate import validate

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOTHING = {"type": "object", "properties": {}}
# "Parameters" underlined (numpydoc), or "Args:" (Google).
_HEAD = re.compile(r"^[ ]*(?:Parameters\n[ ]*-{3,}|Args:|Arguments:)[ ]*\n", re.MULTILINE)
_END = re.compile(r"^\w[^\n]*(?:\n-{3,}|:[ ]*$)", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<indent>[ ]*)\*{0,2}(?P<name>\w+)[ ]*(?:\([^)]*\))?[ ]*:?(?P<rest>.*)$")


@dataclass(frozen=True)
class Tool:
    """Something a model may call.

    Attributes
    ----------
    name : str
        1 to 64 letters, digits, ``_``, ``-`` and dots.
    description : str
        What it does, for the model.
    parameters : dict
        A JSON schema of its arguments, an object.
    function : callable or None
        What `call` runs.

    Raises
    ------
    TypeError, ValueError
        If a part is not what it must be.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(_NOTHING))
    function: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            message = f"a tool's name has 1 to 64 letters, digits, '_', '-', '.': {self.name!r:.80}"
            raise ValueError(message)
        if not isinstance(self.description, str):
            message = f"the description of {self.name} must be a string, not {self.description!r}"
            raise TypeError(message)
        if not isinstance(self.parameters, Mapping):
            message = f"the parameters of {self.name} must be a JSON schema, a dict"
            raise TypeError(message)
        if self.parameters.get("type", "object") != "object":
            message = f"the parameters of {self.name} must be an object, not {self.parameters}"
            raise ValueError(message)

    @classmethod
    def of(cls, tool: Tool | Callable[..., Any] | Mapping[str, Any]) -> Tool:
        """Make a tool of a Python function, or of OpenAI's dict.

        Parameters
        ----------
        tool
            A function with type hints: the first paragraph of its docstring describes it, and the
            numpydoc or Google section of its parameters describes them. Or a dict. A `Tool` is
            returned as it is.

        Returns
        -------
        Tool

        Raises
        ------
        TypeError
            If a parameter has no type hint, or one without a JSON form; or *tool* is no tool.
        ValueError
            If a name or a key is not what it must be.
        """
        if isinstance(tool, Tool):
            return tool
        if isinstance(tool, Mapping):
            return cls._of_dict(tool)
        if callable(tool):
            return cls._of_function(tool)
        message = f"a tool is a function, a Tool, or a dict, not {tool!r:.60}"
        raise TypeError(message)

    @classmethod
    def _of_dict(cls, tool: Mapping[str, Any]) -> Tool:
        kind = tool.get("type", "function")
        inner = tool.get("function", tool if "name" in tool else None)
        if kind != "function" or not isinstance(inner, Mapping):
            message = (
                f"a tool's dict is {{'type': 'function', 'function': {{...}}}}, not {tool!r:.80}"
            )
            raise ValueError(message)
        known = {"name", "description", "parameters", "strict", "type"}
        if unknown := inner.keys() - known:
            message = f"the tool {inner.get('name')!r} has unknown keys: {sorted(unknown)}"
            raise ValueError(message)
        return cls(
            inner.get("name", ""),
            inner.get("description") or "",
            inner.get("parameters") or dict(_NOTHING),
        )

    @classmethod
    def _of_function(cls, function: Callable[..., Any]) -> Tool:
        name = getattr(function, "__name__", type(function).__name__)
        text = inspect.getdoc(function) or ""
        described = _described(text)
        properties: dict[str, Any] = {}
        required = []
        for parameter, hint in _parameters(function).items():
            schema = schema_of(hint)
            if parameter.name in described and "description" not in schema:
                schema = {**schema, "description": described[parameter.name]}
            properties[parameter.name] = schema
            if parameter.default is parameter.empty:
                required.append(parameter.name)
        parameters: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            parameters["required"] = required
        if definitions := _hoisted(properties):
            parameters["$defs"] = definitions
        summary = " ".join(text.partition("\n\n")[0].split())
        return cls(name, summary, parameters, function)

    def as_dict(self) -> dict[str, Any]:
        """Return it as OpenAI's interface has it.

        Returns
        -------
        dict
        """
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }

    def check(self, text: str | Mapping[str, Any]) -> dict[str, Any]:
        """Raise unless the arguments of a call follow the schema.

        Parameters
        ----------
        text
            A JSON object as the model wrote it, or the dict.

        Returns
        -------
        dict
            By name, as JSON has them.

        Raises
        ------
        ValueError
            If the text is no JSON object, or does not follow the schema; the words are fit to be
            shown to the model.
        """
        try:
            given = json.loads(text) if isinstance(text, str) else dict(text)
        except ValueError as error:
            message = f"the arguments of {self.name} are not JSON: {error}"
            raise ValueError(message) from None
        validate(given, {"type": "object", **self.parameters}, f"the arguments of {self.name}")
        return dict(given)

    def arguments(self, text: str | Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments of a call, and make of them what the function takes.

        Parameters
        ----------
        text
            A JSON object as the model wrote it, or the dict.

        Returns
        -------
        dict
            By name. For a tool made of a function, of the types of its hints.

        Raises
        ------
        ValueError
            As `check`, or if the function has no such parameter.
        """
        given = self.check(text)
        if self.function is None:
            return given
        hints = {each.name: hint for each, hint in _parameters(self.function).items()}
        if unknown := given.keys() - hints.keys():
            message = f"{self.name} has no parameters {sorted(unknown)}; it has {sorted(hints)}"
            raise ValueError(message)
        return {name: value_of(hints[name], value, name) for name, value in given.items()}

    def call(self, text: str | Mapping[str, Any]) -> Any:
        """Check the arguments of a call, and run the function.

        Parameters
        ----------
        text
            A JSON object as the model wrote it, or the dict.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        ValueError
            If the arguments do not fit.
        TypeError
            If the tool has no function.
        """
        if self.function is None:
            message = f"the tool {self.name} has no function to run"
            raise TypeError(message)
        return self.function(**self.arguments(text))


def _parameters(function: Callable[..., Any]) -> dict[inspect.Parameter, Any]:
    """Return the parameters of a function, each with its type."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = get_type_hints(target, include_extras=True)
    except NameError as error:
        message = f"{function!r}: a type hint names what is not defined: {error}"
        raise TypeError(message) from error
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            message = f"{function!r}: {parameter} cannot be given by name, and models give names"
            raise TypeError(message)
        if parameter.kind == parameter.VAR_KEYWORD:
            message = f"{function!r}: {parameter} has no names that a model could be told"
            raise TypeError(message)
        if parameter.name not in hints:
            message = f"{function!r}: the parameter {parameter.name!r} needs a type hint"
            raise TypeError(message)
        found[parameter] = hints[parameter.name]
    return found


def _hoisted(properties: dict[str, Any]) -> dict[str, Any]:
    """Move the definitions of each property to one place, where its references find them."""
    definitions: dict[str, Any] = {}
    for schema in properties.values():
        definitions.update(schema.pop("$defs", {}))
    return definitions


def _described(text: str) -> dict[str, str]:
    """Return what a docstring says of each parameter."""
    head = _HEAD.search(text)
    if head is None:
        return {}
    body = text[head.end() :]
    end = _END.search(body)
    lines = body[: end.start() if end else len(body)].splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    numpydoc = "---" in head[0]
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        entry = _ENTRY.match(line)
        if line.strip() and entry and len(entry["indent"]) == indent:
            current = found.setdefault(entry["name"], [])
            if not numpydoc:  # behind the colon stands the type, or the description
                current.append(entry["rest"].strip())
        else:
            current.append(line.strip())
    return {name: " ".join(filter(None, words)) for name, words in found.items()}
