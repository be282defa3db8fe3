"""Decoding in the steps that several tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import pyllama

PROMPT = (1, 40, 300, 7, 99, 12)
SMALL = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}


def prefill(
    context: pyllama.Context, prompt: Sequence[int] = PROMPT, seq: int = 0, pos: int = 0
) -> NDArray[np.float32]:
    """Decode *prompt* and return the last row of logits."""
    context.decode(pyllama.Batch(prompt, pos=pos, seq_id=seq))
    return context.logits()[-1]


def go_on(context: pyllama.Context, seq: int = 0, n: int = 6) -> NDArray[np.float32]:
    """Decode a few tokens one by one, and return all their logits."""
    start = context.memory.pos_max(seq) + 1
    rows = [prefill(context, [10 + i], seq, start + i) for i in range(n)]
    return np.stack(rows)
