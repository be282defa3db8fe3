"""libllama's log: whole lines reach ``logging``; exceptions find their own thread's complaints."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
import random_model

from pyllama.core import log
from pyllama.core.library import ffi, lib


def say(level: int, text: str) -> None:
    """Write to libllama's log the way libllama does."""
    callback, data = ffi.new("ggml_log_callback *"), ffi.new("void **")
    lib.llama_log_get(callback, data)
    callback[0](level, text.encode(), data[0])


def in_thread(function, *arguments) -> None:
    """Run *function* on another thread to its end."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


@pytest.fixture
def lines(caplog):
    """Return what ``logging`` got since the test began, as (level, text)."""
    log.drain()
    caplog.set_level(logging.DEBUG, logger="pyllama")
    caplog.clear()

    def taken() -> list[tuple[int, str]]:
        log.drain()
        return [(each.levelno, each.getMessage()) for each in caplog.records]

    return taken


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (lib.GGML_LOG_LEVEL_INFO, logging.INFO),
        (lib.GGML_LOG_LEVEL_WARN, logging.WARNING),
        (lib.GGML_LOG_LEVEL_ERROR, logging.ERROR),
        (lib.GGML_LOG_LEVEL_NONE, logging.INFO),
    ],
)
def test_levels_are_those_of_logging(lines, level, expected):
    """A warning of libllama is a warning of ``logging``."""
    say(level, "something happened\n")
    assert lines() == [(expected, "something happened")]


def test_continued_lines_are_joined(lines):
    """What libllama says in pieces arrives as one line, at the level of its beginning."""
    say(lib.GGML_LOG_LEVEL_WARN, "one, ")
    say(lib.GGML_LOG_LEVEL_CONT, "two, ")
    say(lib.GGML_LOG_LEVEL_CONT, "three\n")
    assert lines() == [(logging.WARNING, "one, two, three")]


def test_unfinished_line_waits(lines):
    """Half a line is not shown; a new line that begins ends the one before."""
    say(lib.GGML_LOG_LEVEL_INFO, "loading ")
    assert lines() == []
    say(lib.GGML_LOG_LEVEL_ERROR, "failed\n")
    assert lines() == [(logging.INFO, "loading"), (logging.ERROR, "failed")]


def test_several_lines_in_one_call_are_cut(lines):
    """Each line is a record of its own; empty ones are none."""
    say(lib.GGML_LOG_LEVEL_INFO, "first\n\nsecond\n")
    assert lines() == [(logging.INFO, "first"), (logging.INFO, "second")]


def test_debug_is_dropped(lines):
    """There are thousands of such lines for each context."""
    say(lib.GGML_LOG_LEVEL_DEBUG, "detail\n")
    assert lines() == []


def test_threads_do_not_mix_their_pieces(lines):
    """A line that one thread began is not ended by another."""
    say(lib.GGML_LOG_LEVEL_INFO, "mine ")
    in_thread(say, lib.GGML_LOG_LEVEL_INFO, "theirs\n")
    say(lib.GGML_LOG_LEVEL_CONT, "too\n")
    assert lines() == [(logging.INFO, "theirs"), (logging.INFO, "mine too")]


def test_text_that_is_no_utf8_arrives(lines):
    """File names are bytes; a log line never raises."""
    callback, data = ffi.new("ggml_log_callback *"), ffi.new("void **")
    lib.llama_log_get(callback, data)
    callback[0](lib.GGML_LOG_LEVEL_INFO, b"file \xff\n", data[0])
    assert lines() == [(logging.INFO, "file \ufffd")]


def test_percent_signs_are_text(lines):
    """A line is not a format."""
    say(lib.GGML_LOG_LEVEL_INFO, "100 %s %d\n")
    assert lines() == [(logging.INFO, "100 %s %d")]


def test_long_line_is_cut(lines):
    """A line of any length takes a bounded place."""
    say(lib.GGML_LOG_LEVEL_INFO, "x" * 5000 + "\n")
    assert lines() == [(logging.INFO, "x" * 999)]


def test_oldest_lines_go_when_nobody_reads(lines):
    """The log cannot fill the memory."""
    for number in range(5000):
        say(lib.GGML_LOG_LEVEL_INFO, f"{number}\n")
    taken = lines()
    assert len(taken) == 4096
    assert taken[-1] == (logging.INFO, "4999")


def test_complaints_come_after_the_mark():
    """An exception quotes what was said during its own call: warnings and errors, in order."""
    say(lib.GGML_LOG_LEVEL_ERROR, "before\n")
    since = log.mark()
    say(lib.GGML_LOG_LEVEL_INFO, "in passing\n")
    say(lib.GGML_LOG_LEVEL_WARN, "odd\n")
    say(lib.GGML_LOG_LEVEL_ERROR, "broken\n")
    assert log.complaints(since) == ["odd", "broken"]


def test_complaints_are_those_of_this_thread():
    """Two threads that load at once do not quote each other."""
    since = log.mark()
    in_thread(say, lib.GGML_LOG_LEVEL_ERROR, "theirs\n")
    say(lib.GGML_LOG_LEVEL_ERROR, "mine\n")
    assert log.complaints(since) == ["mine"]


def test_nothing_is_printed(lines, capfd):
    """The library is silent; whoever wants the log asks ``logging`` for it."""
    say(lib.GGML_LOG_LEVEL_INFO, "quiet\n")
    lines()
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_where_logging_is_not_set_up(tmp_path):
    """A library does not write to stderr by itself, not even warnings."""
    path = random_model.write_llama(tmp_path / "m.gguf", n_ctx_train=64)
    code = f"import pyllama\nwith pyllama.Model({str(path)!r}) as m, m.context(n_ctx=512): pass"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
