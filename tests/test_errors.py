"""The exceptions: the tree in the docstring is that of the classes, and each can be pickled."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from pyllama import errors
from pyllama.errors import DecodeError, LlamaError, NoSlotError, StateError

CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if inspect.isclass(each) and issubclass(each, LlamaError)
}


def test_the_tree_shows_every_class_under_its_parent():
    """By how far it is indented."""
    parents: list[tuple[int, str]] = []
    shown = {}
    for indent, name in re.findall(r"^( +)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        while parents and parents[-1][0] >= len(indent):
            parents.pop()
        shown[name] = parents[-1][1] if parents else "Exception"
        parents.append((len(indent), name))
    assert shown == {name: each.__base__.__name__ for name, each in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_goes_to_another_process(name):
    """With its message and what it holds: a pool of workers sends errors so."""
    kind = CLASSES[name]
    error = kind(-3, "what happened") if issubclass(kind, DecodeError) else kind("what happened")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what happened"
    assert vars(again) == vars(error)


def test_what_an_error_holds_is_kept():
    """The code of a decode, the two states, and the lines of the log."""
    slot = errors.decode_error(1, ["a line"])
    assert type(slot) is NoSlotError
    assert slot.code == 1
    assert str(slot).endswith("(llama_decode returned 1)\n  a line")
    assert (StateError("", expected="new", actual="made").expected) == "new"
    assert str(errors.LoadError("not loaded", ["why"])) == "not loaded\n  why"
