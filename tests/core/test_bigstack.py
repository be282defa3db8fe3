"""Calls on a thread with a large stack: results, errors, signals."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from pyllama.core import bigstack


def run(code: str) -> str:
    """Run code in a process of its own, which must not die, and return what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


def test_bigstack_gives_the_result():
    """And has the stack it was asked for."""

    def deep(n: int) -> int:
        return 0 if n == 0 else 1 + deep(n - 1)

    assert bigstack.call(lambda: deep(500), 1 << 26) == 500
    assert bigstack.call(lambda: threading.current_thread() is threading.main_thread(), 1) is False


def test_bigstack_raises_what_the_function_raises():
    """In the caller's thread."""
    with pytest.raises(ZeroDivisionError):
        bigstack.call(lambda: 1 // 0, 1 << 20)


def test_bigstack_restores_the_stack_size():
    """threading.stack_size is one setting for all threads."""
    before = threading.stack_size()
    bigstack.call(lambda: None, 1 << 24)
    assert threading.stack_size() == before


def test_bigstack_says_when_there_is_no_stack():
    """The system refuses a stack larger than the address space."""
    before = threading.stack_size()
    with pytest.raises(MemoryError, match="MiB"):
        bigstack.call(lambda: None, 1 << 50)
    assert threading.stack_size() == before


def test_bigstack_sees_the_call_through_on_ctrl_c():
    """The exception of the signal is raised when the call is over."""
    assert (
        run("""
        import _thread, signal, threading, time
        from pyllama.core import bigstack
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        ended = []
        def work():
            time.sleep(0.2)
            ended.append(True)
        threading.Timer(0.05, _thread.interrupt_main).start()
        try:
            bigstack.call(work, 1 << 20)
        except KeyboardInterrupt:
            print(ended)
    """)
        == "[True]\n"
    )
