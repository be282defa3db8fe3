"""Every public thing says what it is, in the numpydoc sections that a reader relies on."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import pyllama
from pyllama.core.library import lib

NOTHING = (None, "None", "NoReturn", inspect.Signature.empty)


def modules() -> Iterator[Any]:
    """Yield every module of the package, except those that only run."""
    root = Path(pyllama.__file__).parent
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            yield importlib.import_module(".".join(parts).removesuffix(".__init__"))


def public(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what a module or class defines itself, underscores left out."""
    for name, value in vars(owner).items():
        if name.startswith("_"):
            continue
        if inspect.ismodule(owner) and getattr(value, "__module__", None) != owner.__name__:
            continue
        yield name, value


def members(prefix: str, owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines."""
    for name, value in public(owner):
        if isinstance(value, (staticmethod, classmethod)):
            yield f"{prefix}.{name}", value.__func__
        elif inspect.isfunction(value) or isinstance(value, (property, cached_property)):
            yield f"{prefix}.{name}", value


def everything() -> Iterator[tuple[str, Any]]:
    """Yield dotted name and object of each module, class, function, method and property."""
    for module in modules():
        yield module.__name__, module
        for name, value in public(module):
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                yield from members(f"{module.__name__}.{name}", value)


def reached() -> Iterator[tuple[str, Any]]:
    """Yield what a user reaches by the public names: classes, functions and methods."""
    for name in pyllama.__all__:
        value = getattr(pyllama, name)
        found = public(value) if inspect.ismodule(value) else [(name, value)]
        for inner, each in found:
            yield inner, each
            if inspect.isclass(each):
                for base in inspect.getmro(each):
                    if base.__module__.startswith("pyllama."):
                        yield from members(base.__name__, base)


EVERYTHING = dict(everything())
FUNCTIONS = {name: each for name, each in reached() if inspect.isfunction(each)}
CLASSES = {
    name: each
    for name, each in reached()
    if inspect.isclass(each)
    and not issubclass(each, enum.Enum)
    and not typing.is_typeddict(each)
    and ("__init__" in vars(each) or dataclasses.is_dataclass(each))
}


def section(text: str, title: str) -> list[str]:
    """Return the lines of one numpydoc section."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w[^\n]*\n---|\n\nCalls:|\Z)", text, re.S | re.M)
    return found[1].splitlines() if found else []


def described(text: str, title: str = "Parameters") -> set[str]:
    """Return the names that a section describes: ``a, b : int`` names two."""
    heads = [line for line in section(text, title) if line and not line.startswith(" ")]
    return {
        name.strip().lstrip("*") for head in heads for name in head.partition(" :")[0].split(",")
    }


def parameters(function: Any) -> set[str]:
    """Return the names of a callable's public parameters."""
    names = inspect.signature(function).parameters
    return {name for name in names if name not in ("self", "cls") and not name.startswith("_")}


@pytest.mark.parametrize("name", EVERYTHING)
def test_has_a_docstring(name):
    """It begins with one line that ends in a full stop."""
    text = inspect.getdoc(EVERYTHING[name])
    assert text, f"{name} has no docstring"
    first, _, rest = text.partition("\n")
    assert first[-1] in ".:?", first
    assert not rest or rest.startswith("\n"), f"{name}: the summary takes more than one line"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_describes_its_parameters(name):
    """A Parameters section names each one, and none that is not there.

    Where there are ``**options``, it may name those too.
    """
    function = FUNCTIONS[name]
    found, given = described(inspect.getdoc(function) or ""), parameters(function)
    assert given <= found
    assert given == found or inspect.getfullargspec(function).varkw


@pytest.mark.parametrize("name", CLASSES)
def test_class_describes_its_parameters(name):
    """What the constructor takes stands in the docstring of the class."""
    text = inspect.getdoc(CLASSES[name]) or ""
    assert described(text) | described(text, "Attributes") == parameters(CLASSES[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_describes_what_it_returns(name):
    """A Returns or Yields section is there unless nothing comes back."""
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    returns = inspect.signature(function).return_annotation
    assert returns in NOTHING or section(text, "Returns") or section(text, "Yields")


@pytest.mark.parametrize("name", EVERYTHING)
def test_calls_exist(name):
    """Each C function on a ``Calls:`` line is bound."""
    found = re.search(r"^Calls: (.*)\Z", inspect.getdoc(EVERYTHING[name]) or "", re.S | re.M)
    if found:
        assert set(re.split(r"[,\s]+", found[1].strip())) - set(dir(lib)) == set()
