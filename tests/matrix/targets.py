"""What is public and can be called, and what it takes."""

from __future__ import annotations

import enum
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyllama

# Of the special methods, those that users reach by an operator and that take an argument.
OPERATORS = {"__call__", "__contains__", "__delitem__", "__getitem__", "__setitem__"}

# Whose options the bare ``**options`` of a function are.
PASSED_ON = {
    "Model.from_arrays": "Model",
    "generate.stream": "generate.tokens",
    "generate.generate": "generate.stream",
}


@dataclass(frozen=True)
class Target:
    """Something to call.

    Attributes
    ----------
    name : str
        ``Model``, ``Context.decode``, ``generate.tokens``; ``Class.property=`` for a setter.
    function : callable
        Takes the object first, if `owner` is set.
    owner : type or None
        The class that it is a method of.
    required, optional : tuple of str
        Its arguments, without the object; a name that begins with a star takes one positional.
    """

    name: str
    function: Callable[..., Any]
    owner: type | None
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def is_enum(self) -> bool:
        """Whether calling it gives a member that is there already."""
        return isinstance(self.function, enum.EnumMeta)

    @property
    def arguments(self) -> tuple[str, ...]:
        """All of them; for methods the object itself, which may be closed, comes first."""
        return (*(("self",) if self.owner else ()), *self.required, *self.optional)


@cache
def targets() -> dict[str, Target]:
    """Find all of them, each once, under the first name it has."""
    found: dict[str, Target] = {}
    seen: set[int] = set()
    for name, item in _names():
        if id(item) in seen or not callable(item):
            continue
        seen.add(id(item))
        for target in _of(name, item):
            found[target.name] = target
    for name, source in PASSED_ON.items():
        given = found[name]
        more = [each for each in found[source].optional if each not in given.optional]
        optional = (*given.optional, *more)
        found[name] = Target(name, given.function, given.owner, given.required, optional)
    return found


def _names() -> Iterator[tuple[str, Any]]:
    for name in pyllama.__all__:
        item = getattr(pyllama, name)
        if not isinstance(item, types.ModuleType):
            yield name, item
            continue
        own = [key for key, value in vars(item).items() if _is_of(item, key, value)]
        for inner in getattr(item, "__all__", own):
            yield f"{name}.{inner}", getattr(item, inner)


def _is_of(module: types.ModuleType, key: str, value: Any) -> bool:
    return not key.startswith("_") and getattr(value, "__module__", None) == module.__name__


def _of(name: str, item: Any) -> Iterator[Target]:
    """Yield a function itself; of a class the constructor, and the methods that are ours."""
    if inspect.isclass(item) and issubclass(item, enum.Enum):
        yield Target(name, item, None, ("value",), ())
        return
    yield _target(name, item, None)
    if not inspect.isclass(item) or issubclass(item, BaseException):
        return
    for attribute in dir(item):
        home = next((each for each in item.__mro__ if attribute in vars(each)), object)
        if home.__module__.partition(".")[0] != "pyllama":
            continue
        static, full = vars(home)[attribute], f"{name}.{attribute}"
        if isinstance(static, property):
            if static.fset is not None:
                yield _target(f"{full}=", static.fset, item)
        elif attribute.startswith("_") and attribute not in OPERATORS:
            continue
        elif isinstance(static, (classmethod, staticmethod)):
            yield _target(full, getattr(item, attribute), None)
        elif inspect.isfunction(static):
            yield _target(full, static, item)


def _target(name: str, function: Any, owner: type | None) -> Target:
    required: list[str] = []
    optional: list[str] = []
    for index, parameter in enumerate(_parameters(function)):
        if parameter.name.startswith("_") or (owner and index == 0):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            optional += _options(str(parameter.annotation))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            optional.append(f"*{parameter.name}")
        elif parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            optional.append(parameter.name)
    return Target(name, function, owner, tuple(required), tuple(optional))


def _parameters(function: Any) -> list[inspect.Parameter]:
    is_error = inspect.isclass(function) and issubclass(function, BaseException)
    if is_error and not inspect.isfunction(function.__init__):
        return [inspect.Parameter("message", inspect.Parameter.VAR_POSITIONAL)]
    return list(inspect.signature(function).parameters.values())


def _options(annotation: str) -> list[str]:
    """Name the options of an ``Unpack[SomeTypedDict]``."""
    found = re.search(r"Unpack\[(?:\w+\.)*(\w+)\]", annotation)
    if found is None:
        return []
    for name, module in tuple(sys.modules.items()):
        kind = vars(module).get(found[1]) if name.startswith("pyllama.") else None
        if kind is not None:
            return list(kind.__annotations__)
    message = f"no {annotation} is loaded"
    raise LookupError(message)
