"""The encoder for images against the same network written in numpy, in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import media
import numpy as np
import random_model
from numpy.typing import NDArray

from pyllama import Bitmap, Model, Projector
from pyllama.core.files.array_file import read_arrays
from pyllama.core.files.gguf import read_header

Array = NDArray[np.float64]
N_HEAD, PATCH = 2, 8


def tensors(path: Path) -> dict[str, Array]:
    """Return the weights of a file, the axes as numpy has them."""
    arrays = read_arrays(read_header(path))
    return {name: array.astype(np.float64) for name, array in arrays.items()}


class Encoder:
    """A vision transformer with a projection of two layers (Janus Pro)."""

    def __init__(self, path: Path) -> None:
        self.weights = tensors(path)

    def linear(self, x: Array, name: str) -> Array:
        """Multiply and add."""
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: Array, name: str) -> Array:
        """Give each row mean 0 and variance 1, then scale and shift."""
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, x: Array, block: str) -> Array:
        """Let each patch look at all patches."""
        q, k, v = (
            self.linear(x, f"{block}attn_{part}").reshape(len(x), N_HEAD, -1).swapaxes(0, 1)
            for part in "qkv"
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(2, keepdims=True))
        mixed = weights / weights.sum(2, keepdims=True) @ v
        return self.linear(mixed.swapaxes(0, 1).reshape(x.shape), f"{block}attn_out")

    def __call__(self, pixels: NDArray[np.uint8]) -> Array:
        """Return the embeddings of an image of the right size."""
        image = (pixels / 255 - 0.5) / 0.5
        side = len(pixels) // PATCH
        grid = image.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 4, 1, 3)
        kernel = self.weights["v.patch_embd.weight"].reshape(-1, 3 * PATCH**2)
        # Pixels and kernel are multiplied as halves (ggml/src/ggml.c:4772).
        x = half(grid.reshape(side**2, -1)) @ half(kernel).T + self.weights["v.patch_embd.bias"]
        x = x + self.weights["v.position_embd.weight"]
        for layer in range(2):
            block = f"v.blk.{layer}."
            x = x + self.attention(self.norm(x, f"{block}ln1"), block)
            hidden = silu(self.linear(self.norm(x, f"{block}ln2"), f"{block}ffn_up"))
            x = x + self.linear(hidden, f"{block}ffn_down")
        x = self.norm(x, "v.post_ln")
        return self.linear(silu(self.linear(x, "mm.0")), "mm.1")


def half(x: Array) -> Array:
    """Round to half precision."""
    return x.astype(np.float16).astype(np.float64)


def silu(x: Array) -> Array:
    """Return x times its logistic."""
    return x / (1 + np.exp(-x))


def test_embeddings_are_those_of_the_network(model: Model, tmp_path: Path):
    """With an exact activation and no flash attention each number agrees to 1e-5."""
    # libllama looks GELU up in a table of half precision.
    exact: dict[str, Any] = {"clip.use_gelu": None, "clip.use_silu": True}
    path = random_model.write_projector(tmp_path / "exact.gguf", metadata=exact)
    pixels, options = media.noise(32, 32), {"flash_attn_type": "disabled", "n_threads": 1}
    with Projector(model, path, **options) as projector:
        found = projector.encode(projector.tokenize([Bitmap(pixels)])[1])
    expected = Encoder(path)(pixels)
    assert expected.std() > 0.3
    assert np.abs(found - expected).max() < 1e-5
