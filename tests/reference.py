"""The llama architecture in float64 numpy: what the binding's numbers are compared with.

It works on the weights as they stand in the file, dequantised by gguf-py, and on one whole
sequence at a time; there is no cache, no batch and no rounding that float64 does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Llama:
    """A llama model, dense or with experts, read from a GGUF file."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.weights: dict[str, Array] = {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        self._fields = reader.fields
        self.n_layer = int(self._value("block_count"))
        self.n_head = int(self._value("attention.head_count"))
        self.n_head_kv = int(self._value("attention.head_count_kv"))
        self.n_expert_used = int(self._value("expert_used_count", 0))
        self.epsilon = self._value("attention.layer_norm_rms_epsilon")
        self.freq_base = self._value("rope.freq_base")

    def logits(self, tokens: Sequence[int], offsets: Array | None = None) -> Array:
        """Return the logits after each of *tokens*, of shape (n_tokens, n_vocab)."""
        return self.hidden(tokens, offsets) @ self.weights["output.weight"].T

    def hidden(self, tokens: Sequence[int], offsets: Array | None = None) -> Array:
        """Return what the output matrix is applied to, of shape (n_tokens, n_embd).

        Each row of *offsets*, of shape (n_layer, n_embd), is added to what its layer puts out.
        """
        x = self.weights["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.n_layer):
            x = x + self._attention(layer, self._norm(x, f"blk.{layer}.attn_norm"))
            y = self._norm(x, f"blk.{layer}.ffn_norm")
            x = x + (self._experts(layer, y) if self.n_expert_used else self._dense(layer, y))
            x = x if offsets is None else x + offsets[layer]
        return self._norm(x, "output_norm")

    def _value(self, name: str, default: float | None = None) -> float:
        field = self._fields.get(f"llama.{name}")
        if field is None and default is not None:
            return default
        return float(field.contents())

    def _norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.epsilon)
        return x / scale * self.weights[f"{name}.weight"]

    def _attention(self, layer: int, x: Array) -> Array:
        n = len(x)
        q, k, v = (x @ self._block(layer, f"attn_{name}").T for name in "qkv")
        q = self._rotate(q.reshape(n, self.n_head, -1))
        k = self._rotate(k.reshape(n, self.n_head_kv, -1))
        v = v.reshape(n, self.n_head_kv, -1)
        group = self.n_head // self.n_head_kv  # query heads that share one key head
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones((n, n), bool), k=1)] = -np.inf
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), v)
        return mixed.reshape(n, -1) @ self._block(layer, "attn_output").T

    def _rotate(self, x: Array) -> Array:
        """Turn each pair of neighbours (2i, 2i + 1) by its position times its frequency."""
        n, _, size = x.shape
        frequency = self.freq_base ** (-np.arange(0, size, 2) / size)
        angle = np.arange(n)[:, None, None] * frequency
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)

    def _dense(self, layer: int, x: Array) -> Array:
        gate, up, down = (self._block(layer, f"ffn_{name}") for name in ("gate", "up", "down"))
        return swiglu(x, gate, up, down)

    def _experts(self, layer: int, x: Array) -> Array:
        """Let the likeliest experts of each token answer, weighted by their likelihood."""
        likelihood = softmax(x @ self._block(layer, "ffn_gate_inp").T)
        chosen = np.argsort(-likelihood, axis=-1)[:, : self.n_expert_used]
        gate, up, down = (self._block(layer, f"ffn_{name}_exps") for name in ("gate", "up", "down"))
        out = np.zeros_like(x)
        for row, experts in enumerate(chosen):
            share = likelihood[row, experts] / likelihood[row, experts].sum()
            for weight, expert in zip(share, experts, strict=True):
                out[row] += weight * swiglu(x[row], gate[expert], up[expert], down[expert])
        return out

    def _block(self, layer: int, name: str) -> Array:
        return self.weights[f"blk.{layer}.{name}.weight"]


def swiglu(x: Array, gate: Array, up: Array, down: Array) -> Array:
    """Return the gated feed-forward step of *x*."""
    g = x @ gate.T
    return (g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T


def softmax(x: Array) -> Array:
    """Return the probabilities along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def nmse(measured: Array, expected: Array) -> float:
    """Return the squared error relative to the expected values' own square."""
    return float(((measured - expected) ** 2).sum() / (expected**2).sum())


def mean_kl(measured: Array, expected: Array) -> float:
    """Return the mean Kullback-Leibler divergence of the rows' distributions, in nats."""
    p, q = softmax(expected), softmax(measured)
    return float((p * (np.log(p) - np.log(q))).sum(axis=-1).mean())
