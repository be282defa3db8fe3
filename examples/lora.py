"""Use a LoRA adapter for one call, and the model without it for the next.

The adapter has random weights, so that it needs no download: what it shows is the switching.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import pyllama
from pyllama.core.files.gguf_writer import encode_header, stored_tensor

RANK = 4


def write_adapter(path: Path, model: pyllama.Model) -> Path:
    """Write a file as training programs do: for each matrix two thin ones, whose product counts."""
    rng = np.random.default_rng(0)
    shapes = {"a": (RANK, model.n_embd), "b": (model.n_embd, RANK)}
    tensors = {
        name: stored_tensor(name, rng.normal(0, 0.3, shape).astype(np.float32))
        for layer in range(model.n_layer)
        for part, shape in shapes.items()
        for name in [f"blk.{layer}.attn_q.weight.lora_{part}"]
    }
    about: dict[str, str | float] = {
        "general.architecture": model.architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    data = b"".join(tensor.data.tobytes() for tensor in tensors.values())
    path.write_bytes(encode_header(about, tensors) + data)
    return path


with (
    pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm,
    tempfile.TemporaryDirectory() as directory,
):
    adapter = write_adapter(Path(directory) / "adapter.gguf", llm.model)
    for scale in (0, 1.0, 0.01, 0):
        lora = {adapter: scale} if scale else None
        done = llm.complete("The capital of France is", max_tokens=6, temperature=0, lora=lora)
        print(f"scale {scale}: {done.text!r}")
