"""The public names: what ``pyllama.__all__`` promises."""

from __future__ import annotations

import inspect
import types

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


def test_all_is_complete():
    """Whatever the package shows without an underscore is promised, or is a submodule."""
    shown = {
        name
        for name, value in vars(pyllama).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name not in ("annotations", "TYPE_CHECKING")
    }
    assert shown - set(pyllama.__all__) == set()


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
