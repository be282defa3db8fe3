"""Look at what a layer puts out, and change it while the model computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyllama


def nothing(array: NDArray[Any], _node: pyllama.Node) -> NDArray[Any]:
    """Replace what a part of the network puts out by zeros."""
    return np.zeros_like(array)


with (
    pyllama.Model(pyllama.demo_model()) as model,
    model.context(n_ctx=512, n_threads=1) as ctx,
):
    batch = pyllama.Batch(model.vocab.tokenize("The capital of France is"))

    with ctx.observe("l_out-*") as seen:
        ctx.decode(batch)
    for node, array in seen:
        print(f"{node.name}: shape {array.shape}, norm {np.linalg.norm(array[-1]):.1f}")
    print(f"likeliest next: {model.vocab.piece(int(ctx.logits()[-1].argmax()))!r}")

    for layer in range(model.n_layer):
        ctx.memory.clear()
        with ctx.hooks({f"ffn_out-{layer}": nothing}):
            ctx.decode(batch)
        token = int(ctx.logits()[-1].argmax())
        print(f"likeliest without ffn_out-{layer}: {model.vocab.piece(token)!r}")
