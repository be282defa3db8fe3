"""A: LoRA adapters and control vectors."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from random_model import write_llama, write_lora

from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import Adapter, Batch, Model
from pyllama.errors import AdapterError, BusyError, LoadError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case

Q = {"blk.0.attn_q.weight": (64, 64)}


def lora(w: World, *, weights: dict[str, tuple[int, int]] = Q, **options: object) -> Path:
    """Write an adapter."""
    return write_lora(w.file(b""), weights, **options)


def adapter(w: World, **options: object) -> Adapter:
    """Load an adapter for the tiny model."""
    return Adapter(w.model(), lora(w, **options))


row("A1", "no such file", FileNotFoundError, lambda w: Adapter(w.model(), w.directory / "none"))
row("A1", "no path", TypeError, lambda w: Adapter(w.model(), None))
row("A1", "a model", LoadError, lambda w: Adapter(w.model(), w.path()))
row("A1", "text", LoadError, lambda w: Adapter(w.model(), __file__))
row("A1", "of another architecture", AdapterError, lambda w: adapter(w, arch="qwen2"))
row(
    "A1",
    "for a vocabulary alone",
    UnsupportedError,
    lambda w: Adapter(w.open(vocab_only=True), lora(w)),
)
row(
    "A1",
    "of weights that are not there",
    AdapterError,
    lambda w: adapter(w, weights={"blk.9.attn_q.weight": (64, 64)}),
)
row(
    "A1",
    "of other shapes",
    AdapterError,
    lambda w: adapter(w, weights={"blk.0.attn_q.weight": (65, 64)}),
)


@case("A1", "cut short anywhere", LoadError)
def _(w: World) -> None:
    whole = lora(w).read_bytes()
    cuts = (0, 4, 24, 100, len(whole) // 2, len(whole) - 64)
    raised_by(*(lambda cut=cut: Adapter(w.model(), w.file(whole[:cut])) for cut in cuts))


@case("A2", "metadata of another type", LoadError)
def _(w: World) -> None:
    wrong = {"general.type": 1, "adapter.type": 1, "adapter.lora.alpha": "8"}
    raised_by(*(lambda key=key: adapter(w, metadata={key: wrong[key]}) for key in wrong))


@case("A2", "a scale in the file that is no number", LoadError)
def _(w: World) -> None:
    raised_by(*(lambda alpha=alpha: adapter(w, alpha=alpha) for alpha in (math.nan, math.inf)))


@case("A3", "an adapter of another model", AdapterError)
def _(w: World) -> None:
    wide = Model(write_llama(w.file(b""), n_embd=128))
    try:
        other = Adapter(wide, lora(w, weights={"blk.0.attn_q.weight": (128, 128)}))
        w.context().set_adapters({other: 1.0})
    finally:
        wide.close()


@case("A4", "scales that are no numbers, or not finite", ValueError)
def _(w: World) -> None:
    context, one = w.context(), adapter(w)
    scales = (math.nan, math.inf, -math.inf, 1e39, 10**400)
    raised_by(*(lambda scale=scale: context.set_adapters({one: scale}) for scale in scales))


@case("A4", "what is no adapter", TypeError)
def _(w: World) -> None:
    context = w.context()
    raised_by(
        lambda: context.set_adapters(None),
        lambda: context.set_adapters([]),
        lambda: context.set_adapters({None: 1.0}),
        lambda: context.set_adapters({w.model(): 1.0}),
    )


@case("A4", "many adapters, in a context that is older", None)
def _(w: World) -> None:
    context = w.held()
    several = [adapter(w, seed=seed, std=0.01) for seed in range(40)]
    context.set_adapters(dict.fromkeys(several, 0.1))
    context.decode(Batch([1], pos=3))
    for each in several:
        each.close()


@case("A5", "control vectors of another shape", ValueError)
def _(w: World) -> None:
    context, n_embd = w.context(), w.model().n_embd
    n_layer = w.model().n_layer
    shapes = ((n_layer - 1, n_embd + 1), (n_layer, n_embd), (n_layer - 2, n_embd), (n_embd,), (0,))
    raised_by(
        *(lambda shape=shape: context.set_control_vector(np.zeros(shape)) for shape in shapes),
        lambda: context.set_control_vector(np.full((n_layer - 1, n_embd), math.nan)),
    )


@case("A5", "layers out of range", ValueError)
def _(w: World) -> None:
    context = w.context()
    vector = np.zeros((w.model().n_layer - 1, w.model().n_embd))
    ranges = ((-5, 500), (0, 1), (1, 2**31), (1, 1), (2, 1))
    raised_by(
        *(lambda pair=pair: context.set_control_vector(vector, layers=pair) for pair in ranges)
    )


@case("A6", "invocation tokens that are not in the vocabulary", AdapterError)
def _(w: World) -> None:
    raised_by(lambda: adapter(w, invocation=[512]), lambda: adapter(w, invocation=[2**32 - 1]))


row("A6", "no invocation tokens", None, lambda w: adapter(w).alora_invocation_tokens)
row("A6", "metadata that is not there", KeyError, lambda w: adapter(w).metadata["none"])


@case("H12", "adapters that come and go while contexts are made", None)
def _(w: World) -> None:
    model, path = w.open(), lora(w)

    def load() -> None:
        for _ in range(100):
            with suppress(BusyError):  # a context is in a call
                Adapter(model, path).close()

    def make() -> None:
        for _ in range(20):
            with (
                suppress(BusyError),  # the adapters are being changed
                model.context(n_ctx=64, n_threads=1, n_threads_batch=1) as context,
            ):
                context.decode(Batch([1]))

    at_once(load, load, make, make)
