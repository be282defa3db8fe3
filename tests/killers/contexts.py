"""C: options and switches of contexts."""

from __future__ import annotations

import math
import os
import threading
import time

import random_model

from killers.table import Table
from killers.world import World, compute, raised_by
from pyllama import Batch, Context, GGMLType, Model
from pyllama.core.params import CACHE_TYPES
from pyllama.errors import (
    AbortedError,
    InvalidBatchError,
    StateError,
    UnsupportedError,
)

TABLE = Table()
row, case = TABLE.row, TABLE.case


def refused(number: str, error: type[Exception], *, kind: str = "tiny", **options: object) -> None:
    """Add a context that must not come to be."""
    what = ", ".join(f"{name}={value!r}" for name, value in options.items())
    row(number, f"{what} ({kind})", error, lambda w: w.context(kind, **options))


def works(number: str, *, kind: str = "tiny", **options: object) -> None:
    """Add a context that must come to be, and compute."""
    what = ", ".join(f"{name}={value!r}" for name, value in options.items())
    row(number, f"{what} ({kind}) works", None, lambda w: compute(w.context(kind, **options)))


refused("C1", ValueError, n_batch=0)
refused("C1", ValueError, n_ubatch=0)
refused("C1", ValueError, n_batch=0, n_ubatch=0)
refused("C1", ValueError, n_batch=4, n_seq_max=8)
refused("C1", ValueError, n_outputs_max=4, n_seq_max=8)
refused("C1", ValueError, n_batch=2**31)
refused("C1", ValueError, n_outputs_max=-1)
works("C1", n_batch=8, n_ubatch=512)
works("C1", n_batch=2**31 - 1, n_ubatch=2**31 - 1)
works("C1", n_batch=8, n_seq_max=8)
works("C1", n_outputs_max=1)

refused("C2", MemoryError, n_ctx=2**31 - 256)
refused("C2", ValueError, n_ctx=2**31)
refused("C2", ValueError, n_ctx=2**32)
refused("C2", ValueError, n_ctx=-1)
refused("C2", TypeError, n_ctx=True)
works("C2", n_ctx=0)
works("C2", n_ctx=2)

refused("C3", ValueError, n_seq_max=0)
refused("C3", ValueError, n_seq_max=257)


@case("C3", "256 sequences, each with 256 tokens of its own", None)
def _(w: World) -> None:
    context = w.context(n_seq_max=256)
    assert context.n_ctx == 65_536
    context.decode(Batch([1] * 256, pos=[0] * 256, seq_id=range(256)))


for name in ("n_threads", "n_threads_batch"):
    for value in (0, -1, -100, 513, 100_000, 2**32 + 1):
        refused("C4", ValueError, **{name: value})


@case("C4", "set_n_threads out of range", ValueError)
def _(w: World) -> None:
    context = w.held()
    raised_by(
        *(lambda n=n: context.set_n_threads(n) for n in (0, -1, 513, 100_000)),
        *(lambda n=n: context.set_n_threads(1, n) for n in (0, -1, 513, 100_000)),
    )


@case("C5", "every type that is no type for a cache, as keys and as values", ValueError)
def _(w: World) -> None:
    others = [*(set(GGMLType.__members__) - CACHE_TYPES), 4, 31, 36, 999, -1, "bogus"]
    raised_by(
        *(lambda t=t: w.context("head_64", type_k=t) for t in others),
        *(lambda t=t: w.context("head_64", type_v=t) for t in others),
    )


@case("C5", "every type that is one", None)
def _(w: World) -> None:
    for each in sorted(CACHE_TYPES):
        compute(w.context("head_64", type_k=each, type_v=each))
        compute(w.context("head_64", type_k=each, flash_attn_type="disabled"))


refused("C5", ValueError, kind="head_64", type_v="q8_0", flash_attn_type="disabled")
refused("C5", ValueError, type_k="q8_0")
refused("C5", ValueError, type_v="q4_0")


def shift_then_decode(context: Context) -> None:
    """Do what kills the process one call after the one at fault."""
    context.decode(Batch([1, 2, 3, 4]))
    context.memory.remove(0, 0, 2)
    context.memory.shift(0, delta=-2)
    context.decode(Batch([5], pos=2))


for kind, cache in (
    ("tiny", "bf16"),
    ("head_32", "q8_0"),
    ("head_32", "q4_0"),
    ("head_64", "bf16"),
):
    row(
        "C6",
        f"shifting {cache} keys of {kind}",
        UnsupportedError,
        lambda w, kind=kind, cache=cache: shift_then_decode(w.context(kind, type_k=cache)),
    )
for kind, cache in (("tiny", "f16"), ("tiny", "f32"), ("head_64", "q8_0"), ("head_64", "iq4_nl")):
    row(
        "C6",
        f"shifting {cache} keys of {kind}, which works",
        None,
        lambda w, kind=kind, cache=cache: shift_then_decode(w.context(kind, type_k=cache)),
    )


@case("C6", "shifting q8_0 keys that are not rotated", UnsupportedError)
def _(w: World) -> None:
    os.environ["LLAMA_ATTN_ROT_DISABLE"] = "1"  # llama-kv-cache.cpp reads it for each context
    try:
        context = w.context("head_64", type_k="q8_0")
    finally:
        del os.environ["LLAMA_ATTN_ROT_DISABLE"]
    shift_then_decode(context)


@case("C6", "shifting keys of a model without RoPE", UnsupportedError)
def _(w: World) -> None:
    scales = ("logit_scale", "residual_scale", "embedding_scale", "attention.scale")
    metadata = {f"granite.{name}": 1.0 for name in scales} | {
        "granite.rope.scaling.finetuned": False
    }
    path = random_model.write_llama(w.file(b""), arch="granite", metadata=metadata)
    with Model(path) as model, model.context(n_ctx=256, n_threads=1, n_threads_batch=1) as context:
        shift_then_decode(context)


for name in ("flash_attn_type", "pooling_type", "ctx_type", "rope_scaling_type", "attention_type"):
    for value in (99, -7, "bogus"):
        refused("C7", ValueError, **{name: value})
    refused("C7", TypeError, **{name: 1.0})
refused("C7", UnsupportedError, ctx_type="mtp")

for name in ("rope_freq_base", "rope_freq_scale"):
    for value in (math.nan, math.inf, -1.0, 1e39):
        refused("C8", ValueError, **{name: value})
for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"):
    for value in (math.nan, math.inf, 1e39):
        refused("C8", ValueError, **{name: value})
refused("C8", ValueError, yarn_orig_ctx=2**31)
works("C8", rope_freq_base=1e30, rope_freq_scale=1e-30)
works("C8", rope_scaling_type="yarn", yarn_ext_factor=1e30, yarn_beta_fast=1e30)
works("C8", rope_scaling_type="longrope")

refused("C10", UnsupportedError, pooling_type="rank")
refused("C10", UnsupportedError, kind="bert", pooling_type="rank", embeddings=True)


@case("C11", "switching everything on and off between decodes", None)
def _(w: World) -> None:
    context = w.context(n_ubatch=8)
    for causal in (False, True):
        for embeddings in (True, False):
            context.set_causal_attn(causal)
            context.set_embeddings(embeddings)
            context.synchronize()
            context.memory.clear()
            context.decode(Batch([1] * 8))
            context.logits()


@case("C11", "a switch that is no bool", TypeError)
def _(w: World) -> None:
    context = w.held()
    raised_by(
        lambda: context.set_embeddings(1),
        lambda: context.set_causal_attn(None),
        lambda: context.memory.clear(data=0),
        lambda: w.context(embeddings=1),
        lambda: w.context(exact=1),
    )


@case("C11", "a longer batch once attention is not causal", InvalidBatchError)
def _(w: World) -> None:
    context = w.context(n_ubatch=8)
    context.decode(Batch([1] * 20))
    context.set_causal_attn(False)
    context.decode(Batch([1] * 9, pos=20))


@case("C11", "outputs of before a switch", StateError)
def _(w: World) -> None:
    context = w.held()
    context.set_embeddings(True)
    raised_by(context.logits, context.embeddings)


@case("C12", "abort from another thread", AbortedError)
def _(w: World) -> None:
    context = w.context("slow", n_ctx=4096, n_batch=4096)
    context.decode(Batch([1, 2, 3]))

    def abort() -> None:
        while not context._record.users:
            time.sleep(0.001)
        context.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    try:
        context.decode(Batch([1] * 4000, pos=3))
    finally:
        thread.join()
        assert context.memory.pos_max(0) == 2


@case("C12", "abort before anything runs, and of a context that is closed", AbortedError)
def _(w: World) -> None:
    context, closed = w.held(), w.context()
    closed.close()
    closed.abort()
    context.abort()
    try:
        context.decode(Batch([1], pos=3))
    finally:
        assert context.memory.pos_max(0) == 2
        context.decode(Batch([1], pos=3))


row(
    "X",
    "a context of what is no model",
    TypeError,
    lambda w: raised_by(lambda: Context(5), lambda: Context(w.held()), lambda: Context("a.gguf")),
)
