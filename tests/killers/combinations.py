"""X: combinations that no list names, found by trying to break things."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref

import numpy as np

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch, Context, Model, SamplerChain, ThreadPool, generate, samplers
from pyllama.errors import BusyError, ClosedError, InvalidBatchError, SamplingError, StateError

TABLE = Table()
row, case = TABLE.row, TABLE.case


@case("X", "a stream goes on after its context was closed", ClosedError)
def _(w: World) -> None:
    context = w.context()
    run = generate.stream(context, "hello", ignore_eog=True)
    next(run)
    context.close()
    next(run)


@case("X", "a stream goes on after its model was closed", ClosedError)
def _(w: World) -> None:
    model = w.open()
    run = generate.stream(w.context(model), "hello", ignore_eog=True)
    next(run)
    model.close()
    next(run)


@case("X", "a stream goes on after its sampler was closed", ClosedError)
def _(w: World) -> None:
    chain = SamplerChain([samplers.dist(1)])
    run = generate.tokens(w.context(), [1, 2], sampler=chain, ignore_eog=True)
    next(run)
    chain.close()
    next(run)


@case("X", "a sampler that closes the context it is asked for", ClosedError)
def _(w: World) -> None:
    context = w.context()
    run = generate.tokens(context, [1], sampler=lambda row: context.close() or 5)
    assert next(run) == 5
    next(run)


@case("X", "a logits processor that closes the model", ClosedError)
def _(w: World) -> None:
    model = w.open()
    context = w.context(model)

    def close(ids: object, scores: np.ndarray) -> np.ndarray:
        model.close()
        return scores

    run = generate.tokens(context, [1], logits_processor=[close], ignore_eog=True)
    next(run)
    next(run)


@case("X", "a sampler that decodes on the context it is asked for", InvalidBatchError)
def _(w: World) -> None:
    context = w.context()

    def decode(row: object) -> int:
        context.decode(Batch([1], pos=(context.memory.pos_max(0) or 0) + 1))
        return 5

    list(generate.tokens(context, [1, 2], sampler=decode, max_tokens=5))


@case("X", "a sampler that clears the memory under the loop", None)
def _(w: World) -> None:
    context = w.context()

    def clear(row: object) -> int:
        context.memory.clear()
        return 5

    list(generate.tokens(context, [1, 2], sampler=clear, max_tokens=5))


@case("X", "a sampler that asks the generator it runs in", ValueError)
def _(w: World) -> None:
    run = generate.tokens(w.context(), [1, 2], sampler=lambda row: next(run))
    next(run)


@case("X", "two streams on one sequence, in turn", StateError)
def _(w: World) -> None:
    context = w.context()
    runs = [generate.tokens(context, [1, n], ignore_eog=True) for n in (2, 3)]
    for _ in range(20):
        for run in runs:
            next(run)


@case("X", "a wrapper of the native sampler inside a Python one", SamplingError)
def _(w: World) -> None:
    chain = SamplerChain([samplers.dist(1)])
    run = generate.tokens(w.context(), [1], sampler=lambda row: chain.sample(row * np.nan))
    next(run)


@case("X", "the view of a prompt's logits, kept over the next step", BufferError)
def _(w: World) -> None:
    run = generate.prompt_logits(w.context(n_batch=2), [1, 2, 3, 4])
    _, rows = next(run)
    try:
        next(run)
    finally:
        del rows


@case("X", "garbage cycles of everything, and views in them", None)
def _(w: World) -> None:
    alive = []
    for _ in range(10):
        model = Model(w.path())
        context = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
        context.decode(Batch([1]))
        chain = SamplerChain([samplers.grammar(model.vocab, 'root ::= "a"*'), samplers.dist(1)])
        pool = ThreadPool(1)
        context.attach_threadpool(pool)
        run = generate.tokens(context, [1, 2], sampler=chain, ignore_eog=True)
        next(run)
        everything = [model, context, chain, pool, model.vocab, context.memory, run]
        everything.append(context.logits_view())
        model.all = context.all = chain.all = pool.all = everything
        alive += [weakref.ref(each) for each in (model, context, chain, pool)]
        del everything[-1]  # arrays take no part in garbage collection
        del model, context, chain, pool, run, everything
    gc.collect()
    assert not any(each() for each in alive)


@case("X", "weak references, and finalizers that close and use what dies", None)
def _(w: World) -> None:
    seen = []

    class Keeper:
        def __init__(self, context: Context) -> None:
            self.context, self.me = context, self

        def __del__(self) -> None:
            try:
                self.context.decode(Batch([1], pos=3))
                self.context.close()
                self.context.model.close()
            except ClosedError as error:
                seen.append(error)

    for _ in range(5):
        model = Model(w.path())
        context = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
        context.decode(Batch([1, 2, 3]))
        context.keeper = Keeper(context)
        weakref.finalize(context, seen.append, None)
        del model, context
        gc.collect()
    assert len(seen) >= 5


@case("X", "constructors that fail at every stage, and are then collected", None)
def _(w: World) -> None:
    class Early(Model):
        def __init__(self) -> None:
            raise ZeroDivisionError

    class Late(Context):
        def __init__(self, model: Model) -> None:
            super().__init__(model, n_ctx=256, n_threads=1, n_threads_batch=1)
            raise ZeroDivisionError

    class Never(Context):
        def __init__(self, model: Model) -> None:
            pass

    model = w.open()
    for make in (Early, lambda: Late(model), lambda: Context(model, n_ctx=-1), lambda: Model("no")):
        try:
            make()
        except (ZeroDivisionError, ValueError, FileNotFoundError):
            gc.collect()
    Never(model)
    gc.collect()
    model.close()


@case("X", "an object whose constructor was never run", AttributeError)
def _(w: World) -> None:
    unborn = Context.__new__(Context)
    raised_by(unborn.logits, unborn.close, lambda: unborn.closed)


@case("X", "closing a context from within its own call", BusyError)
def _(w: World) -> None:
    context = w.held()
    with context._call:
        raised_by(context.close, context.model.close, context.memory.clear)


@case("X", "Ctrl-C during a decode and during a load", KeyboardInterrupt)
def _(w: World) -> None:
    def interrupt(context: Context) -> None:
        while not context._record.users:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    context = w.context("slow", n_ctx=1024, n_batch=1024)
    thread = threading.Thread(target=interrupt, args=(context,))
    thread.start()
    try:
        context.decode(Batch([1] * 300))
    finally:
        thread.join()
