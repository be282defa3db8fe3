"""The public names: what ``pyllama.__all__`` promises."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import pyllama
from pyllama import errors


def test_all_is_sorted():
    """One order, so that two changes do not meet in the same line; no name twice."""
    assert list(pyllama.__all__) == sorted(set(pyllama.__all__))


@pytest.mark.parametrize("name", pyllama.__all__)
def test_name_is_there(name):
    """Each promised name can be imported."""
    assert hasattr(pyllama, name)


def test_type_checkers_see_the_same_names():
    """The imports under TYPE_CHECKING name what `__getattr__` finds, at the same place."""
    tree = ast.parse(Path(pyllama.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {name: f"pyllama.{home}" for name, home in pyllama._MODULES.items()}
    names = {name: f"pyllama.{home}.{name}" for name, home in pyllama._HOMES.items()}
    assert seen == modules | names


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails as on any module."""
    with pytest.raises(AttributeError, match="Modle"):
        _ = pyllama.Modle


def test_exceptions_have_one_root():
    """``except pyllama.LlamaError`` catches whatever pyllama itself raises."""
    defined = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, BaseException)
    ]
    assert len(defined) > 10
    assert [each for each in defined if not issubclass(each, pyllama.LlamaError)] == []


def test_star_import_gives_the_public_names():
    """``from pyllama import *`` works."""
    names: dict[str, object] = {}
    exec("from pyllama import *", names)
    assert set(pyllama.__all__) <= set(names)
