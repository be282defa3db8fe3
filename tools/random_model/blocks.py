"""Random tensors in the storage types of ggml, written as finished blocks.

Quantising is not what these are for: every bit pattern below is drawn at random, with scales
chosen so that the numbers it stands for have mean near 0 and the wanted standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Generator = np.random.Generator


def random_tensor(
    kind: str, shape: tuple[int, ...], std: float, rng: Generator
) -> NDArray[np.generic]:
    """Draw one tensor.

    Parameters
    ----------
    kind : str
        ``f32``, ``f16``, or a key of `BLOCKS`.
    shape : tuple of int
        As numpy has it: the length of a row comes last.
    std : float
        The standard deviation of the weights.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        float32 or float16 of the given shape, or uint8 with the bytes of a row in the last axis.
    """
    if kind in ("f32", "f16"):
        values = rng.standard_normal(shape, np.float32) * np.float32(std)
        return values.astype(np.float16) if kind == "f16" else values
    size, draw = BLOCKS[kind]
    *rows, columns = shape
    if columns % size:
        raise ValueError(f"rows of {columns} do not divide into {kind} blocks of {size}")
    blocks = draw(math.prod(rows) * columns // size, std, rng)
    return blocks.reshape(*rows, columns // size * blocks.shape[1])


def _uniform(n: int, mean: float, rng: Generator) -> NDArray[np.float32]:
    """Draw scales that differ from block to block, so that a mixed-up scale shows."""
    return (mean * rng.uniform(0.5, 1.5, (n, 1))).astype(np.float32)


def _half(values: NDArray[np.float32]) -> Bytes:
    return values.astype("<f2").view(np.uint8)


def _q8_0(n: int, std: float, rng: Generator) -> Bytes:
    """Draw ``d q``: a half, then 32 signed bytes."""
    q = rng.integers(-127, 128, (n, 32), np.int8)
    return np.hstack([_half(_uniform(n, std / 73.3, rng)), q.view(np.uint8)])


def _q4_k(n: int, std: float, rng: Generator) -> Bytes:
    """Draw ``d s q - e m`` with 4-bit q, and 6-bit s and m for each of 8 groups of 32."""
    s = rng.integers(24, 60, (n, 8), np.uint8)
    m = s + rng.integers(0, 4, (n, 8), np.uint8)
    d = _uniform(n, std / (4.6 * 43.2), rng)
    packed = np.empty((n, 12), np.uint8)  # ggml/src/ggml-quants.c: get_scale_min_k4
    packed[:, 0:4] = s[:, :4] | (s[:, 4:] >> 4) << 6
    packed[:, 4:8] = m[:, :4] | (m[:, 4:] >> 4) << 6
    packed[:, 8:12] = s[:, 4:] & 15 | (m[:, 4:] & 15) << 4
    q = np.frombuffer(rng.bytes(n * 128), np.uint8).reshape(n, 128)
    return np.hstack([_half(d), _half(7.5 * d * np.float32(42 / 43)), packed, q])


def _q6_k(n: int, std: float, rng: Generator) -> Bytes:
    """Draw ``d s (q - 32)`` with 6-bit q, and a signed byte s for each of 16 groups of 16."""
    q = np.frombuffer(rng.bytes(n * 192), np.uint8).reshape(n, 192)
    s = rng.integers(32, 128, (n, 16), np.int8) * rng.choice(np.array([-1, 1], np.int8), (n, 16))
    return np.hstack([q, s.view(np.uint8), _half(_uniform(n, std / (18.5 * 84.0), rng))])


BLOCKS: dict[str, tuple[int, Callable[[int, float, Generator], Bytes]]] = {
    "q8_0": (32, _q8_0),
    "q4_K": (256, _q4_k),
    "q6_K": (256, _q6_k),
}
