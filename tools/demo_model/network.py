"""The network: a small llama-architecture decoder in torch, named as GGUF names its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of one network; every width is a multiple of 32 so that Q8_0 fits."""

    n_vocab: int = 2048
    n_embd: int = 256
    n_layer: int = 5
    n_head: int = 8
    n_head_kv: int = 4
    n_ff: int = 640
    n_ctx: int = 512
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Give the width of one attention head."""
        return self.n_embd // self.n_head


MAIN = Shape()
DRAFT = Shape(n_embd=64, n_layer=3, n_head=2, n_head_kv=1, n_ff=192)


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Scale each row to unit mean square, then by the learned weights."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Block(nn.Module):
    """One layer: grouped-query attention with RoPE, then SwiGLU, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width_kv = shape.n_head_kv * shape.head_size
        self.attn_norm = Norm(shape.n_embd, shape.epsilon)
        self.attn_q = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.attn_k = nn.Linear(shape.n_embd, width_kv, bias=False)
        self.attn_v = nn.Linear(shape.n_embd, width_kv, bias=False)
        self.attn_output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.ffn_norm = Norm(shape.n_embd, shape.epsilon)
        self.ffn_gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Add what attention and the feed-forward part say to the residual stream."""
        x = x + self.attend(self.attn_norm(x), turn, mask)
        y = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y))

    def attend(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Mix the rows that the mask lets each row see."""
        rows, length, width = x.shape
        size = self.shape.head_size
        q = rotate(self.attn_q(x).view(rows, length, -1, size).transpose(1, 2), turn)
        k = rotate(self.attn_k(x).view(rows, length, -1, size).transpose(1, 2), turn)
        v = self.attn_v(x).view(rows, length, -1, size).transpose(1, 2)
        groups = self.shape.n_head // self.shape.n_head_kv
        k = k.repeat_interleave(groups, 1)
        v = v.repeat_interleave(groups, 1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.attn_output(y.transpose(1, 2).reshape(rows, length, width))


class Network(nn.Module):
    """The whole network; the output matrix is the embedding matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.output_norm = Norm(shape.n_embd, shape.epsilon)
        self.start()

    def start(self) -> None:
        """Draw the first weights; what writes to the residual stream starts smaller."""
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            spread = 0.02 if name == "token_embd.weight" else weight.shape[1] ** -0.5
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                spread /= (2 * self.shape.n_layer) ** 0.5
            nn.init.normal_(weight, std=spread)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Give the normed last hidden state, (rows, length, n_embd)."""
        x = self.token_embd(tokens)
        turn = turns(self.shape, tokens.shape[1])
        for block in self.blk:
            x = block(x, turn, mask)
        return self.output_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Give the logits of hidden rows."""
        return functional.linear(hidden, self.token_embd.weight)


def turns(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Give cosines and sines of every position's RoPE angles, each (length, head_size / 2)."""
    half = torch.arange(0, shape.head_size, 2) / shape.head_size
    angles = torch.outer(torch.arange(length), shape.rope_base**-half)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of a head: the order that llama.cpp's llama architecture uses."""
    cos, sin = (part.to(x.dtype) for part in turn)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
