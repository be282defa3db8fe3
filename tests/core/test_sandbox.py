"""The worker process that templates are rendered in: it ends, and this process does not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pyllama.core import sandbox
from pyllama.errors import TemplateError
from pyllama.text.chat import ChatTemplate

USER = [{"role": "user", "content": "hi"}]

HOSTILE = {
    "loop": "{% for i in range(1000000000) %}x{% endfor %}",
    "empty loop": "{% for i in range(1000000000) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}"
    "{% endfor %}",
    "a gigabyte": "{{ 'x' * 1000000000 }}",
    "doubling": "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(40) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "brackets": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "a list in itself": "{% set n = namespace() %}{% set n.a = n %}{{ n | tojson }}",
    "replacing": "{% set s = 'a' * 100000 %}{{ s.replace('a', s) | length }}",
    "indent": "{{ 'a\\nb' | indent(9000000000) }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_an_error(name):
    """Not a process that hangs, fills the memory, or ends; and the next template renders."""
    with pytest.raises((TemplateError, TimeoutError)):
        ChatTemplate(HOSTILE[name], timeout=0.3).render(USER)
    assert ChatTemplate("fine").render(USER).text == "fine"


def test_a_worker_that_is_gone_is_replaced():
    """Somebody may end it from outside."""
    assert ChatTemplate("one").render(USER).text == "one"
    process = sandbox._worker._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ChatTemplate("two").render(USER).text == "two"


def test_a_forked_child_has_a_worker_of_its_own():
    """It does not read the parent's answers."""
    assert ChatTemplate("one").render(USER).text == "one"
    before = sandbox._worker._process
    if (child := os.fork()) == 0:
        ok = ChatTemplate("two").render(USER).text == "two"
        ok = ok and sandbox._worker._process.pid != before.pid
        sandbox._worker.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ChatTemplate("three").render(USER).text == "three"


def test_threads_get_their_own_answers():
    """One request is answered at a time."""
    template = ChatTemplate("{{ messages[0].content }}")
    answers: dict[str, str] = {}

    def ask(text: str) -> None:
        answers[text] = template.render([{"role": "user", "content": text}]).text

    threads = [threading.Thread(target=ask, args=(f"text {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(text == answer for text, answer in answers.items())


def test_an_interrupted_request_leaves_no_answer_behind():
    """Ctrl-C ends the worker, so that its answer is not taken for that of the next request."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            ChatTemplate(HOSTILE["empty loop"]).render(USER)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ChatTemplate("next").render(USER).text == "next"
