"""C13, H14: hooks, the eval callback of a context."""

from __future__ import annotations

import gc

import numpy as np

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch
from pyllama.errors import BusyError, StateError

TABLE = Table()
row, case = TABLE.row, TABLE.case
TOKENS = Batch([1, 2, 3])


def boom(array: object, node: object) -> None:
    """Raise inside libllama's call."""
    raise KeyError


def collect(array: object, node: object) -> None:
    """Collect garbage inside libllama's call."""
    gc.collect()


@case("C13", "a hook that raises, at any node", KeyError)
def _(w: World) -> None:
    context = w.context(n_ubatch=16)
    with context.observe("*") as seen:
        context.decode(TOKENS)
    context.memory.clear()
    names = {node.name for node, _ in seen}

    def fail_at(name: str) -> None:
        with context.hooks({name: boom}):
            context.decode(TOKENS)

    raised_by(*(lambda name=name: fail_at(name) for name in names))


@case("C13", "reading logits after a hook that raised", StateError)
def _(w: World) -> None:
    context = w.held()
    try:
        with context.hooks({"l_out-0": boom}):
            context.decode(Batch([4], pos=3))
    except KeyError:
        context.logits()


@case("C13", "an early stop at any node", None)
def _(w: World) -> None:
    context = w.context()
    with context.observe("*") as seen:
        context.decode(TOKENS)
    context.memory.clear()
    for name in {node.name for node, _ in seen}:
        with context.observe(stop_after=name):
            context.decode(TOKENS)


@case("C13", "a hook that computes in its own context", BusyError)
def _(w: World) -> None:
    context = w.context()
    with context.hooks({"l_out-0": lambda array, node: context.decode(TOKENS)}):
        context.decode(TOKENS)


@case("C13", "a hook that closes its context", BusyError)
def _(w: World) -> None:
    context = w.context()
    with context.hooks({"*": lambda array, node: context.close()}):
        context.decode(TOKENS)


@case("C13", "a hook that closes its model", BusyError)
def _(w: World) -> None:
    model = w.open()
    context = w.context(model)
    with context.hooks({"*": lambda array, node: model.close()}):
        context.decode(TOKENS)


@case("C13", "every float tensor replaced by NaN, infinity and zero", None)
def _(w: World) -> None:
    for value in (np.nan, np.inf, -np.inf, 0):
        context = w.context(type_k="f32", type_v="f32")
        with context.hooks(
            {"*": lambda array, node, value=value: np.full(node.shape, value, node.dtype)}
        ):
            context.decode(TOKENS)


@case("C13", "replacements of every wrong kind", ValueError)
def _(w: World) -> None:
    context = w.context()

    def give(values: object) -> None:
        with context.hooks({"l_out-0": lambda array, node: values}):
            context.decode(TOKENS)

    shapes = ((), (0,), (3,), (64,), (64, 3), (3, 64, 1), (2**20, 64))
    raised_by(*(lambda shape=shape: give(np.zeros(shape, np.float32)) for shape in shapes))


@case("H14", "hooks and contexts dropped while and after C holds them", None)
def _(w: World) -> None:
    model = w.model()
    for _ in range(5):
        context = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
        with context.hooks({"l_out-*": collect}):
            context.decode(TOKENS)
        block = context.hooks({"l_out-*": boom})
        del context, block
        gc.collect()
