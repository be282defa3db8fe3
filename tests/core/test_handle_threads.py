"""Handles that several threads close, drop or collect at once."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading

import pytest

from pyllama.core import handle as handles
from pyllama.core.handle import Handle
from pyllama.errors import BusyError


def test_of_two_threads_that_close_one_frees():
    """However they meet."""
    freed: list[str] = []
    for n in range(200):
        handle = Handle(str(n), freed.append)
        start = threading.Barrier(2)

        def close(handle=handle, start=start) -> None:
            start.wait()
            with contextlib.suppress(BusyError):
                handle.close()

        threads = [threading.Thread(target=close) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert handle.closed
    assert freed == [str(n) for n in range(200)]


def test_a_parent_waits_for_a_child_that_another_thread_frees():
    """C reads the parent until the child is gone."""
    freed: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def free(name: str) -> None:
        begun.set()
        may_end.wait(10)
        freed.append(name)

    parent = Handle("parent", freed.append)
    children = [Handle("child", free, parent)]
    dropping = threading.Thread(target=children.clear)
    closing = threading.Thread(target=parent.close)
    dropping.start()
    assert begun.wait(10)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    may_end.set()
    dropping.join()
    closing.join()
    assert freed == ["child", "parent"]


@pytest.mark.parametrize("nth", range(20))
def test_a_child_may_go_at_any_moment_of_its_parents_end(nth):
    """Another thread drops it between any two lines."""
    freed: list[str] = []
    parent = Handle("parent", freed.append)
    children = [Handle("child", freed.append, parent)]
    release = handles.Record.release.__code__
    lines = itertools.count()

    def trace(frame, event, _argument):
        if frame.f_code is release and event == "line" and next(lines) == nth:
            children.clear()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parent.close()
    finally:
        sys.settrace(before)
    assert freed == ["child", "parent"]


def test_a_parent_in_a_garbage_cycle_waits_for_a_child_that_another_thread_frees():
    """The collector may finalize the parent first, in the thread it comes by in."""
    freed: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def free(name: str) -> None:
        begun.set()
        may_end.wait(10)
        freed.append(name)

    root = Handle("root", freed.append)
    parent = Handle("parent", freed.append, root)
    parent.child = Handle("child", free, parent)
    closing = threading.Thread(target=root.close)
    collecting = threading.Thread(target=gc.collect)
    closing.start()
    assert begun.wait(10)
    del parent
    collecting.start()
    collecting.join(0.05)
    assert collecting.is_alive()
    may_end.set()
    closing.join()
    collecting.join()
    assert freed == ["child", "parent", "root"]
