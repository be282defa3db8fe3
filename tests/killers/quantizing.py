"""Q1, Q2: files that are written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import random_model

from killers.table import Table
from killers.world import World, raised_by
from pyllama import FType, ImportanceMatrix, Model, quantize
from pyllama.errors import LoadError, QuantizeError

LONG = {"a" * 1001: "q4_0"}

TABLE = Table()
row, case = TABLE.row, TABLE.case


def out(w: World) -> Path:
    """Return where to write."""
    return w.directory / "out.gguf"


row("Q1", "no source", TypeError, lambda w: quantize(None, out(w)))
row("Q1", "a source that is not there", FileNotFoundError, lambda w: quantize("none", out(w)))
row("Q1", "a source that is text", LoadError, lambda w: quantize(__file__, out(w)))
row("Q1", "a target without a folder", FileNotFoundError, lambda w: quantize(w.path(), "/no/out"))
row("Q1", "/dev/full as target", OSError, lambda w: quantize(w.path(), "/dev/full"))
row("Q1", "no target", TypeError, lambda w: quantize(w.path()))
row("Q1", "ftype 9999", ValueError, lambda w: quantize(w.path(), out(w), ftype=9999))
row("Q1", "a NUL in the target", ValueError, lambda w: quantize(w.path(), "a\0b"))


@case("Q1", "types that ggml cannot quantise to", ValueError)
def _(w: World) -> None:
    options = ("output_tensor_type", "token_embedding_type")
    kinds = (99, -1, 4, 31, "i8", "i32", "i64", "f64", "q8_1", "q8_K")
    raised_by(
        *(
            lambda name=name, kind=kind: quantize(w.path(), out(w), **{name: kind})
            for name in options
            for kind in kinds
        )
    )


@case("Q1", "types that need an imatrix, without one", ValueError)
def _(w: World) -> None:
    kinds = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs")
    raised_by(
        *(lambda kind=kind: quantize(w.path(), out(w), output_tensor_type=kind) for kind in kinds),
        *(lambda kind=kind: quantize(w.path(), out(w), ftype=kind) for kind in kinds),
        *(lambda kind=kind: quantize(w.path(), out(w), tt_overrides={".": kind}) for kind in kinds),
    )


@case("Q1", "the source as target, by every name it has", ValueError)
def _(w: World) -> None:
    path, link, symlink = w.file(), w.directory / "hard", w.directory / "soft"
    before = path.read_bytes()
    os.link(path, link)
    symlink.symlink_to(path)
    try:
        raised_by(*(lambda name=name: quantize(path, name) for name in (path, link, symlink)))
    finally:
        unchanged = path.read_bytes() == before
        link.unlink()
        symlink.unlink()
        if not unchanged:
            message = "the source was changed"
            raise AssertionError(message)


@case("Q1", "what is quantised already", QuantizeError)
def _(w: World) -> None:
    path = random_model.write_llama(w.file(b""), type="q8_0")
    quantize(path, out(w), ftype=FType.MOSTLY_Q4_0)


@case("Q1", "a source cut short", LoadError)
def _(w: World) -> None:
    quantize(w.file(w.path().read_bytes()[:-1]), out(w))


@case("Q1", "an imatrix of another model", ValueError)
def _(w: World) -> None:
    name = "blk.0.attn_q.weight"
    matrix = ImportanceMatrix({name: np.ones((1, 63))}, {name: [1]})
    quantize(w.path(), out(w), imatrix=matrix)


@case("Q1", "an imatrix and layers left out", None)
def _(w: World) -> None:
    names = [f"blk.{layer}.attn_q.weight" for layer in (0, 1, 7)]
    ones = {name: np.ones((1, 64)) for name in names}
    matrix = ImportanceMatrix(ones, {name: [1] for name in names})
    for layers in ([0], [1]):
        quantize(w.path(), out(w), imatrix=matrix, prune_layers=layers)
        with Model(out(w)) as model:
            model.context(n_ctx=256).close()


@case("Q1", "a pattern that is no pattern", QuantizeError)
def _(w: World) -> None:
    quantize(w.path(), out(w), tt_overrides={"(": "q4_0"})


@case("Q1", "a pattern with 450 groups in one another", None)
def _(w: World) -> None:
    quantize(w.path(), out(w), tt_overrides={"(" * 450 + "a" + ")" * 450: "q4_0"})


row("Q1", "a pattern too long", ValueError, lambda w: quantize(w.path(), out(w), tt_overrides=LONG))
