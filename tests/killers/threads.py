"""H10 to H13: several threads in one object, one closing while another works, and fork."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

from killers.table import Table
from killers.world import World, at_once
from pyllama import Batch, Model, SamplerChain, ThreadPool, generate, samplers
from pyllama.errors import AbortedError, BusyError, ClosedError, InvalidBatchError

TABLE = Table()
case = TABLE.case

USED_ELSEWHERE = (BusyError, ClosedError)


def until_closed(action: Callable[[], object]) -> None:
    """Repeat *action* until it says that something is closed."""
    while True:
        try:
            action()
        except (BusyError, InvalidBatchError):
            time.sleep(0)
        except ClosedError:
            return


def close_soon(handle: Model, seconds: float) -> None:
    """Close something as soon as nobody uses it."""
    time.sleep(seconds)
    while True:
        try:
            handle.close()
        except (BusyError, BufferError):
            time.sleep(0)
        else:
            return


@case("H11", "one context in four threads", None)
def _(w: World) -> None:
    context = w.context(n_ctx=1024)

    def work() -> None:
        for _ in range(200):
            try:
                context.decode(Batch([1, 2], pos=(context.memory.pos_max(0) or -1) + 1))
                context.logits()
                context.memory.remove(0, 50)
            except (BusyError, InvalidBatchError, BufferError):
                pass

    at_once(*[work] * 4)


@case("H11", "a second thread during a decode", BusyError)
def _(w: World) -> None:
    context = w.context("slow", n_ctx=4096, n_batch=4096)

    def decode() -> None:
        at_once(lambda: context.decode(Batch([1] * 4000)), expected=(AbortedError,))

    thread = threading.Thread(target=decode)
    thread.start()
    while not context._record.users:
        time.sleep(0.001)
    try:
        context.memory.clear()
    finally:
        context.abort()
        thread.join()


@case("H11", "closing the context that a thread decodes and reads", None)
def _(w: World) -> None:
    for n in range(20):
        context = w.context()

        def work(context=context) -> None:
            until_closed(lambda: context.decode(Batch([1])) or context.logits())

        at_once(work, work, lambda context=context, n=n: close_soon(context, n / 5000))


@case("H11", "closing the model that threads make contexts and tokens of", None)
def _(w: World) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for n in range(20):
            close_in_use(Model(w.path()), n / 2000)
    finally:
        sys.setswitchinterval(interval)


def close_in_use(model: Model, seconds: float) -> None:
    vocab = model.vocab
    context = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)

    def make() -> None:
        with model.context(n_ctx=256, n_threads=1, n_threads_batch=1) as made:
            made.decode(Batch([1]))

    def look() -> None:
        assert context.n_ctx == 256
        assert model.n_embd == 64
        assert vocab.text(5) == "<0x02>"
        vocab.tokenize("hello")

    def chain() -> None:
        sampler = SamplerChain([samplers.grammar(vocab, 'root ::= "a"*'), samplers.dist(1)])
        sampler.pop(0).clone().close()

    at_once(
        lambda: until_closed(make),
        lambda: until_closed(look),
        lambda: until_closed(chain),
        lambda: close_soon(model, seconds),
    )


@case("H11", "closing the context that a generator runs on in another thread", None)
def _(w: World) -> None:
    for n in range(10):
        context, chain = w.context(), SamplerChain([samplers.dist(1)])

        def run(context=context, chain=chain) -> None:
            for _ in generate.tokens(context, [1, 2], sampler=chain, ignore_eog=True):
                pass

        at_once(
            lambda run=run: until_closed(run),
            lambda context=context, n=n: close_soon(context, n / 2000),
        )


@case("H11", "one sampler in four threads", None)
def _(w: World) -> None:
    row = w.row()
    chain = SamplerChain([samplers.top_k(40), samplers.temp(0.8), samplers.dist(1)])

    def work() -> None:
        for _ in range(300):
            try:
                chain.sample(row)
                chain.clone().close()
            except BusyError:
                pass

    at_once(*[work] * 4)


@case("H11", "one pool for two contexts that decode at once", None)
def _(w: World) -> None:
    pool = ThreadPool(2)
    contexts = [w.context("slow", n_threads=2, n_threads_batch=2) for _ in range(2)]
    for context in contexts:
        context.attach_threadpool(pool)

    def work(context) -> None:
        for _ in range(10):
            try:
                context.memory.clear()
                context.decode(Batch([1] * 20))
            except BusyError:
                time.sleep(0.001)

    at_once(*(lambda context=context: work(context) for context in contexts))
    for context in contexts:
        context.detach_threadpool()


@case("H12", "two contexts of one model in two threads", None)
def _(w: World) -> None:
    contexts = [w.context(n_ctx=512) for _ in range(2)]
    at_once(
        *(
            lambda context=context: list(
                generate.tokens(context, [1, 2], max_tokens=200, ignore_eog=True)
            )
            for context in contexts
        )
    )


@case("H12", "tokenizing in four threads, loading in another", None)
def _(w: World) -> None:
    def tokenize() -> None:
        for _ in range(100):
            w.vocab("bpe").tokenize("hello world, " * 100)
            w.vocab().tokenize("hello world, " * 10)

    def load() -> None:
        for _ in range(20):
            Model(w.path()).close()

    w.vocab(), w.vocab("bpe")
    at_once(*[tokenize] * 4, load)


FORK = """
import os, sys, threading, time
import pyllama
from pyllama import *
from pyllama.errors import StateError

model = Model(sys.argv[1])
context = model.context(n_ctx=4096, n_batch=4096, n_threads=2, n_threads_batch=2)
context.decode(Batch([1, 2, 3]))
vocab, memory = model.vocab, context.memory
chain, pool = SamplerChain([samplers.dist(1)]), ThreadPool(1)
other = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
run = generate.stream(other, [1, 2], ignore_eog=True)
next(run)
view = other.logits_view()
WHILE_BUSY
pid = os.fork()
if pid == 0:
    for call in (
        lambda: context.decode(Batch([1], pos=3)),
        lambda: other.decode(Batch([1], pos=3)),
        context.logits, memory.clear, lambda: context.n_ctx, lambda: next(run),
        lambda: vocab.tokenize("x"), lambda: model.n_embd, model.context,
        lambda: chain.clone(), pool.pause,
        lambda: Model(sys.argv[1]).context(n_ctx=256),
    ):
        try:
            call()
        except StateError:
            continue
        os._exit(7)
    del view
    for each in (other, context, chain, pool, model):
        each.close()
    sys.exit(0)
deadline = time.monotonic() + 60
while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done or time.monotonic() > deadline:
        break
    time.sleep(0.01)
if not done:
    os.kill(pid, 9)
AFTER_BUSY
del view
next(run)
raise SystemExit(0 if done and status == 0 else f"the child ended with {status}, {done=}")
"""


def fork(w: World, before: str = "", after: str = "") -> None:
    """Run FORK in a process of its own, and raise what it complained of."""
    code = FORK.replace("WHILE_BUSY", before).replace("AFTER_BUSY", after)
    command = [sys.executable, "-c", code, str(w.path("slow"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise AssertionError(done.stderr)


@case("H13", "a forked child that uses everything, and exits", None)
def _(w: World) -> None:
    fork(w)


@case("H13", "a fork while another thread decodes", None)
def _(w: World) -> None:
    fork(
        w,
        "thread = threading.Thread(target=lambda: context.decode(Batch([1] * 500, pos=3)))\n"
        "thread.start(); time.sleep(0.02)",
        "thread.join()",
    )


@case("H13", "a forked child with a model of its own, where the parent did not compute", None)
def _(w: World) -> None:
    code = (
        "import os, sys; from pyllama import *; model = Model(sys.argv[1]); pid = os.fork()\n"
        "if pid == 0:\n"
        "    with Model(sys.argv[1]) as own, own.context(n_ctx=256, n_threads=2) as context:\n"
        "        context.decode(Batch([1, 2, 3]))\n"
        "    sys.exit(0)\n"
        "sys.exit(os.waitpid(pid, 0)[1] != 0)\n"
    )
    command = [sys.executable, "-c", code, str(w.path())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise AssertionError(done.stderr)
