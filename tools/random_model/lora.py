"""LoRA adapters for models of the llama architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .write import Tensor, write


def write_lora(
    path: Path | str,
    weights: dict[str, tuple[int, int]],
    *,
    arch: str = "llama",
    rank: int = 4,
    alpha: float | None = 8.0,
    std: float = 0.2,
    invocation: Sequence[int] = (),
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a LoRA adapter with random factors.

    Parameters
    ----------
    path : Path or str
    weights : dict
        The weights to change (``blk.0.attn_q.weight``), and their shapes as numpy has them.
    arch : str
        Of the model.
    rank : int
        The width of the factors.
    alpha : float, optional
        Scales the product by alpha / rank; None leaves it out.
    std : float
        Of the factors.
    invocation : sequence of int
        The invocation tokens of an activated LoRA.
    metadata : dict, optional
        More key-value pairs, or others for those written; None as a value drops a pair.
    seed : int

    Returns
    -------
    Path
    """
    tensors = []
    for name, (n_out, n_in) in weights.items():
        a, b = (rank, n_in), (n_out, rank)
        if name == "token_embd.weight":  # rows of A are looked up: A lies the other way round
            a, b = (n_out, rank), (n_in, rank)
        tensors += [Tensor(f"{name}.lora_a", a, std), Tensor(f"{name}.lora_b", b, std)]
    pairs = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        "adapter.alora.invocation_tokens": np.array(invocation, np.uint32) if invocation else None,
        **(metadata or {}),
    }
    kept = {key: value for key, value in pairs.items() if value is not None}
    return write(path, arch, kept, tensors, seed=seed)
