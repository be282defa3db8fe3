"""The rules of ownership, tried on objects that are Python functions in the place of C's."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import weakref

import pytest

from pyllama.core import handle as handles
from pyllama.core.handle import Handle
from pyllama.errors import BusyError, ClosedError, LibraryAbortError, LibraryError, StateError


@pytest.fixture
def freed() -> list[str]:
    """Return a list of what was freed, in order."""
    return []


@pytest.fixture
def make(freed):
    """Return a function that makes a handle on an object that is a string."""

    def make(name: str, parent: Handle | None = None, *, shared: bool = False) -> Handle:
        return Handle(name, freed.append, parent, shared=shared)

    return make


def test_closing_frees_once(make, freed):
    """A second close does nothing."""
    handle = make("a")
    assert not handle.closed
    handle.close()
    handle.close()
    del handle
    assert freed == ["a"]


def test_the_end_of_a_with_block_closes(make, freed):
    """Also when it ends by an exception."""
    with make("a"):
        pass
    with pytest.raises(ZeroDivisionError), make("b"):
        raise ZeroDivisionError
    assert freed == ["a", "b"]


def test_dropping_the_last_name_frees(make, freed):
    """Closing is better, and not needed."""
    handle = make("a")
    del handle
    assert freed == ["a"]


def test_children_are_freed_before_their_parents(make, freed):
    """Down to the last, and the parent of all comes last."""
    a = make("a")
    b = make("b", a)
    c = make("c", b)
    a.close()
    assert freed == ["c", "b", "a"]
    assert b.closed
    assert c.closed


@pytest.mark.parametrize("order", list(itertools.permutations("abcd")))
def test_every_order_of_closing_frees_each_once_and_children_first(make, freed, order):
    """Two contexts and a sampler of one, say."""
    a = make("a")
    handles = {"a": a, "b": make("b", a), "c": make("c", a)}
    handles["d"] = make("d", handles["c"])
    for name in order:
        handles[name].close()
    assert sorted(freed) == ["a", "b", "c", "d"]
    assert freed[-1] == "a" or order.index("a") > 0
    assert freed.index("a") > freed.index("b")
    assert freed.index("a") > freed.index("c") > freed.index("d")


def test_a_child_keeps_its_parent_alive(make, freed):
    """The parent's last name may go first."""
    parent = make("parent")
    child = make("child", parent)
    del parent
    assert freed == []
    del child
    assert freed == ["child", "parent"]


def test_a_parent_does_not_keep_its_children(make, freed):
    """A context that is dropped gives its memory back at once."""
    parent = make("parent")
    make("child", parent)
    assert freed == ["child"]
    assert parent._record.children == set()


def test_a_garbage_cycle_frees_children_first(make, freed):
    """Whichever finalizer the collector runs first."""
    for n in range(20):
        parent = make(f"parent {n}")
        child = make(f"child {n}", parent)
        grandchild = make(f"grandchild {n}", child)
        cycle = [parent, child, grandchild]
        parent.cycle = child.cycle = grandchild.cycle = cycle if n % 2 else cycle[::-1]
    del parent, child, grandchild, cycle
    gc.collect()
    assert len(freed) == 60
    for n in range(20):
        order = [freed.index(f"{kind} {n}") for kind in ("grandchild", "child", "parent")]
        assert order == sorted(order)


def test_a_constructor_that_failed_leaves_nothing_to_free(make, freed):
    """Before the C object was made there is no record, after it it is freed."""

    class Failing(Handle):
        def __init__(self, *, late: bool) -> None:
            if late:
                super().__init__("late", freed.append)
            raise ZeroDivisionError

    for late in (False, True):
        with pytest.raises(ZeroDivisionError):
            Failing(late=late)
    gc.collect()
    assert freed == ["late"]


def test_a_second_init_frees_what_it_was_given(make, freed):
    """And the handle stays what it was."""
    handle = make("a")
    with pytest.raises(StateError, match="already"):
        handle.__init__("b", freed.append)
    assert freed == ["b"]
    assert handle.pointer == "a"


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_has_no_second(make, freed, way):
    """Two would free the same object."""
    handle = make("a")
    with pytest.raises(TypeError, match="Handle cannot be copied or pickled"):
        way(handle)
    assert freed == []


def test_a_closed_handle_refuses_by_its_name(make):
    """The class is in the message; ClosedError is a ValueError, as for files."""

    class Model(Handle):
        pass

    model = Model("a", lambda pointer: None)
    model.close()
    with pytest.raises(ClosedError, match="this Model is closed"):
        _ = model.pointer
    with pytest.raises(ValueError, match="closed"), model._call:
        pass


def test_a_call_has_the_object_to_itself(make):
    """A second one, and closing, are refused; afterwards both work."""
    handle = make("a")
    with handle._call as pointer:
        assert pointer == "a"
        with pytest.raises(BusyError, match="in use"), handle._call:
            pass
        with pytest.raises(BusyError, match="in a call"):
            handle.close()
    with handle._call:
        pass
    handle.close()


def test_a_shared_object_takes_many_calls_and_is_not_closed_meanwhile(make):
    """Tokenizing in threads, for example."""
    handle = make("a", shared=True)
    with handle._call, handle._call, pytest.raises(BusyError):
        handle.close()
    handle.close()


def test_a_call_that_raises_is_over(make):
    """Nothing stays locked."""
    handle = make("a")
    with pytest.raises(LibraryError), handle._call:
        raise LibraryError
    with handle._call:
        pass


def test_a_busy_child_keeps_its_parent_open_and_usable(make, freed):
    """What was looked at before the busy one is not left locked."""
    parent = make("parent")
    children = [make(str(n), parent) for n in range(5)]
    with children[3]._call:
        with pytest.raises(BusyError):
            parent.close()
        with parent._call:
            pass
        for child in (*children[:3], children[4]):
            with child._call:
                pass
    assert freed == []
    parent.close()
    assert len(freed) == 6


def test_no_child_comes_to_an_object_that_closes(make, freed):
    """Making one is a call on the parent, and calls are over before anything is freed."""
    found = []
    parent = make("parent", shared=True)

    def free(pointer: str) -> None:
        freed.append(pointer)
        with pytest.raises(BusyError):
            parent._call.__enter__()
        found.append(pointer)

    child = Handle("child", free, parent)
    parent.close()
    assert found == ["child"]
    assert child.closed
    with pytest.raises(ClosedError), parent._call:
        pass


def test_lent_memory_keeps_an_object_and_its_parents_open(make, freed):
    """The message counts the views."""
    parent = make("parent")
    child = make("child", parent)
    child._record.views = 2
    for handle in (child, parent):
        with pytest.raises(BufferError, match="2 views of this Handle"):
            handle.close()
    child._record.views = 0
    parent.close()
    assert freed == ["child", "parent"]


def test_an_assertion_in_c_leaves_only_close(make, freed):
    """The first failure is the cause of every refusal after it."""
    handle = make("a")
    with pytest.raises(LibraryAbortError), handle._call:
        raise LibraryAbortError("GGML_ASSERT(fine) failed")
    with pytest.raises(StateError, match="GGML_ASSERT") as raised, handle._call:
        pass
    assert isinstance(raised.value.__cause__, LibraryAbortError)
    handle.close()
    assert freed == ["a"]


def test_a_free_that_raises_leaves_the_object_closed(make, freed):
    """And a second close goes on with the rest."""
    parent = make("parent")

    def free(pointer: str) -> None:
        raise LibraryError(pointer)

    child = Handle("child", free, parent)
    with pytest.raises(LibraryError):
        parent.close()
    assert child.closed
    parent.close()
    assert freed == ["parent"]


def test_what_outlives_a_fork_refuses_and_frees_nothing(make, freed, monkeypatch):
    """Even in the middle of another thread's call, whose lock nobody will open."""
    monkeypatch.setattr(handles, "_current", [handles._Process()])
    parent = make("parent", shared=True)
    child = make("child", parent)
    child._record.users = -1
    child._record._lock.acquire()
    handles._after_fork_in_child()
    for handle in (parent, child):
        with pytest.raises(StateError, match="before fork"), handle._call:
            pass
        with pytest.raises(StateError, match="spawn"):
            _ = handle.pointer
    parent.close()
    assert freed == []
    with pytest.raises(ClosedError), child._call:
        pass
    after = make("after")
    after.close()
    assert freed == ["after"]


def test_the_mark_of_a_fork_is_set_in_the_child_alone(make):
    """The parent goes on."""
    handle = make("a")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if handle._record.process.forked else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not handle._record.process.forked
    with handle._call:
        pass


def test_handles_can_be_weakly_referenced(make):
    """The loop remembers contexts that way."""
    handle = make("a")
    reference = weakref.ref(handle)
    del handle
    assert reference() is None
