"""Use a LoRA adapter for one call, and the model without it for the next.

The adapter has random weights, so that it needs no download: what it shows is the switching.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pyllama

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tools"), str(ROOT / "vendor" / "llama.cpp" / "gguf-py")]
from random_model import write_lora  # noqa: E402 - it is found there

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    width = llm.model.n_embd
    weights = {f"blk.{i}.attn_q.weight": (width, width) for i in range(llm.model.n_layer)}
    with tempfile.TemporaryDirectory() as directory:
        adapter = write_lora(Path(directory) / "adapter.gguf", weights, std=0.3)
        for lora in ({}, {adapter: 1.0}, {adapter: 0.01}, {}):
            done = llm.complete("The capital of France is", max_tokens=6, temperature=0, lora=lora)
            print(f"scale {lora.get(adapter, 0)}: {done.text!r}")
