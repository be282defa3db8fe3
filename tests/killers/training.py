"""TR: training; and D15, H7: batches of tokens with hidden states, the use of llama_batch_ext."""

from __future__ import annotations

import math
import threading
from contextlib import suppress

import numpy as np

from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import Batch, Context, Dataset, Model, Training
from pyllama.errors import (
    BusyError,
    ClosedError,
    InvalidBatchError,
    StateError,
    UnsupportedError,
)

TABLE = Table()
row, case = TABLE.row, TABLE.case

TEXT = np.tile(np.arange(3, 40), 20)
STATES = np.ones((2, 64), np.float32)


def ready(w: World) -> Model:
    """Return a model of this case alone that can be trained."""
    return w.open(load_mode="none")


def begin(model: Model, **options: object) -> Training:
    """Begin to train it."""
    return Training(model, **{"n_ctx": 256, "n_threads": 1, **options})


def text(n_ctx: int = 256) -> Dataset:
    """Return two windows."""
    return Dataset(TEXT[: 2 * n_ctx + 1], n_ctx)


def refused(what: str, error: type[Exception], **options: object) -> None:
    """Add a training that must not begin, and leaves the model fit for one."""

    def action(w: World) -> None:
        model = ready(w)
        try:
            begin(model, **options)
        finally:
            with begin(model) as training:
                training.epoch(text())

    row("TR1", f"training with {what}", error, action)


refused("a filter that chooses nothing", ValueError, param_filter=lambda _: False)
refused("a filter that raises", KeyError, param_filter=lambda name: {}[name])
refused("a filter that is none", TypeError, param_filter=1)
for options in (
    {"n_ctx": 0}, {"n_ctx": -256}, {"n_ctx": 100}, {"n_ctx": 2**31}, {"n_ubatch": 0},
    {"n_ubatch": 100}, {"n_ubatch": 257}, {"n_ubatch": 2**40}, {"optimizer": "lion"},
    {"learning_rate": 0}, {"learning_rate": -1}, {"learning_rate": math.nan},
    {"learning_rate": math.inf}, {"learning_rate": 1e300}, {"learning_rate": 1e-300},
    {"learning_rate": 1e-46}, {"weight_decay": -1}, {"weight_decay": 2}, {"beta1": 1},
    {"beta2": -0.1}, {"beta2": 1 - 1e-12}, {"eps": 0}, {"eps": math.nan}, {"n_threads": 0},
):  # fmt: skip
    refused(str(options), ValueError, **options)
for options in (
    {"n_ctx": 256.0}, {"n_ctx": "256"}, {"n_ubatch": True}, {"learning_rate": "1"},
    {"learning_rate": lambda _: "1"}, {"beta1": 0.5j}, {"n_threads": "all"},
):  # fmt: skip
    refused(f"another type: {sorted(options)}, {type(*options.values())}", TypeError, **options)


@case("TR1", "weights that are mapped from the file", UnsupportedError)
def _(w: World) -> None:
    raised_by(*(lambda m=m: begin(w.open(load_mode=m)) for m in ("auto", "mmap", "mmap_mlock")))


@case("TR1", "models without a backward pass, or a memory", UnsupportedError)
def _(w: World) -> None:
    kinds = ("diffusion", "bert", "t5", "mamba", "jamba", "m_rope")
    raised_by(*(lambda k=k: begin(w.open(k, load_mode="none")) for k in kinds))


@case("TR1", "a model that is none, or has no weights", TypeError)
def _(w: World) -> None:
    raised_by(lambda: begin(None), lambda: begin("tiny.gguf"), lambda: begin(w.context()))


@case("TR1", "a vocabulary", UnsupportedError)
def _(w: World) -> None:
    with Model(w.path(), vocab_only=True) as model:
        begin(model)


@case("TR1", "a second training of the same model", StateError)
def _(w: World) -> None:
    model = ready(w)
    with begin(model) as training:
        try:
            begin(model)
        finally:
            training.epoch(text())


@case("TR1", "one training after the other, with other tensors and windows", None)
def _(w: World) -> None:
    model = ready(w)
    for n_ctx, part, optimizer in ((512, "ffn", "adamw"), (256, "output", "sgd"), (256, "", "sgd")):
        chosen = {"param_filter": lambda name, part=part: part in name}
        with begin(model, n_ctx=n_ctx, optimizer=optimizer, **chosen) as training:
            for _ in range(2):
                training.epoch(text(n_ctx), split=1)


@case("TR1", "an epoch with another window, other tokens, another split", ValueError)
def _(w: World) -> None:
    with begin(ready(w)) as training:
        raised_by(
            lambda: training.epoch(text(100)),
            lambda: training.epoch(text(257)),
            lambda: training.epoch(Dataset(np.full(300, 512), 256)),
            lambda: training.epoch(Dataset(np.full(300, -1), 256)),
            lambda: training.epoch(Dataset(np.full(300, 2**31 - 1), 256)),
            lambda: training.epoch(text(), split=-1),
            lambda: training.epoch(text(), split=3),
            lambda: training.epoch(text(), split=2**70),
        )
        training.epoch(text())


@case("TR1", "a text that gives no window", ValueError)
def _(w: World) -> None:
    raised_by(
        lambda: Dataset([], 256),
        lambda: Dataset(TEXT[:256], 256),
        lambda: Dataset(TEXT, 0),
        lambda: Dataset(TEXT, -1),
        lambda: Dataset(TEXT, 10, stride=0),
        lambda: Dataset(TEXT, 10, stride=-1),
        lambda: Dataset(TEXT, 2**31),
        lambda: Dataset([[1, 2, 3]], 1),
        lambda: Dataset([2**31] * 9, 1),
    )


@case("TR1", "a learning rate that goes wrong on the way", ValueError)
def _(w: World) -> None:
    rates = iter([0.001, 0.001, math.nan])
    with begin(ready(w), learning_rate=lambda _: next(rates)) as training:
        try:
            training.epoch(text())
        finally:
            assert training.n_steps == 1


@case("TR1", "weights that diverge", FloatingPointError)
def _(w: World) -> None:
    model = Model(w.path(), load_mode="none")  # spoilt: not proved
    with model, begin(model, optimizer="sgd", learning_rate=1e30) as training:
        for _ in range(20):
            training.epoch(text())


@case("TR1", "an interrupt in the middle", KeyboardInterrupt)
def _(w: World) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with begin(ready(w)) as training:
        try:
            training.epoch(text(), on_step=interrupt)
        finally:
            training.epoch(text())


@case("TR1", "closing model or training in the middle", ClosedError)
def _(w: World) -> None:
    model, other = Model(w.path(), load_mode="none"), ready(w)
    first, second = begin(model), begin(other)
    raised_by(
        lambda: first.epoch(text(), on_step=lambda _: model.close()),
        lambda: first.epoch(text()),
        lambda: second.epoch(text(), on_step=lambda _: second.close()),
        lambda: second.epoch(text()),
    )


@case("TR1", "a training forgotten, with its model", None)
def _(w: World) -> None:
    begin(Model(w.path(), load_mode="none")).epoch(text())


@case("TR1", "decoding from another thread, closing from a third", None)
def _(w: World) -> None:
    model = ready(w)
    context = model.context(n_ctx=256, n_threads=1)
    training = begin(model)
    done = threading.Event()

    def train() -> None:
        try:
            for _ in range(20):
                with suppress(BusyError):
                    training.epoch(text())
        finally:
            done.set()

    def decode() -> None:
        while not done.is_set():
            with suppress(BusyError):
                context.memory.clear()
                context.decode(Batch([1, 2, 3]))

    def close() -> None:
        done.wait(0.2)
        training.close()

    at_once(train, decode, close, expected=(BusyError, ClosedError))
    context.close()


@case("TR1", "a context with YaRN in the middle: the window in the model changes", StateError)
def _(w: World) -> None:
    model = ready(w)
    with begin(model) as training:
        yarn = {"n_ctx": 4096, "rope_scaling_type": "yarn", "yarn_orig_ctx": 2048}
        with model.context(rope_freq_scale=0.5, **yarn):
            training.epoch(text())


def ahead(w: World, **options: object) -> Context:
    """Return a context that takes tokens and hidden states."""
    context: Context = Context(
        w.open("mtp", load_mtp=True), ctx_type="mtp", n_ctx=256, n_threads=1, **options
    )
    return context


@case("D15", "a batch that an entry is wrong in, for a head", InvalidBatchError)
def _(w: World) -> None:
    with ahead(w) as context:
        raised_by(
            lambda: context.decode(Batch([1, 2])),
            lambda: context.decode(Batch(embd=STATES)),
            lambda: context.decode(Batch([1, -2], embd=STATES)),
            lambda: context.decode(Batch([1, 512], embd=STATES)),
            lambda: context.decode(Batch([1, 2], embd=STATES, seq_id=1)),
            lambda: context.decode(Batch([1, 2], embd=STATES, seq_id=-1)),
            lambda: context.decode(Batch([1, 2], embd=STATES, pos=[-1, 0])),
            lambda: context.decode(Batch([1, 2], embd=STATES[:, :63])),
            lambda: context.decode(Batch([1, 2], embd=np.ones((2, 65)))),
            lambda: context.decode(Batch(np.ones(300, int), embd=np.ones((300, 64)))),
            lambda: context.decode(Batch([], embd=np.ones((0, 64)))),
        )
        context.decode(Batch([1, 2], embd=STATES))


@case("D15", "both, in a context that takes either", InvalidBatchError)
def _(w: World) -> None:
    w.context().decode(Batch([1, 2], embd=STATES))


@case("D15", "a batch of one context, decoded in another", InvalidBatchError)
def _(w: World) -> None:
    batch = Batch([500, 1], embd=STATES)
    with ahead(w, n_seq_max=2) as context:
        context.decode(batch)
        w.context().decode(batch)


@case("D15", "a head without its model", UnsupportedError)
def _(w: World) -> None:
    Context(w.open("mtp", load_mtp=True), n_ctx=256)


@case("H7", "a batch outlives its context", None)
def _(w: World) -> None:
    batch = Batch([1, 2], embd=STATES)
    for _ in range(2):
        with ahead(w) as context:
            context.decode(batch)
