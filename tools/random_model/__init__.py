"""Writes GGUF models with random weights: any shape, in no time, for tests and benchmarks.

    python tools/random_model tinyllama tinyllama.gguf

The weights are scaled so that activations stay near 1 and logits have a standard deviation of
about 3: like a real model's, they neither vanish nor choose one token for certain.
"""

from __future__ import annotations

from .llama import write_big_vocab, write_llama, write_overhead, write_tinyllama
from .lora import write_lora
from .mtp import write_mtp
from .others import write_bert, write_jamba, write_mamba, write_t5
from .projector import write_audio_projector, write_projector
from .vocab import vocabulary
from .write import Tensor, write

__all__ = [
    "Tensor",
    "vocabulary",
    "write",
    "write_audio_projector",
    "write_bert",
    "write_big_vocab",
    "write_jamba",
    "write_llama",
    "write_lora",
    "write_mamba",
    "write_mtp",
    "write_overhead",
    "write_projector",
    "write_t5",
    "write_tinyllama",
]
