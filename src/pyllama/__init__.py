"""pyllama: the direct Python binding of libllama (llama.cpp).

A one-screen tour::

    import pyllama

    with pyllama.Model(pyllama.demo_model()) as model, model.context(n_ctx=512) as ctx:
        tokens = model.vocab.tokenize("The capital of France is")
        ctx.decode(pyllama.Batch(tokens))          # numpy arrays that C reads in place
        row = ctx.logits()[-1]                     # float32 (n_vocab,), a copy
        token = int(row.argmax())

        for piece in pyllama.generate.stream(ctx, "Once upon a time", max_tokens=64):
            print(piece.text, end="")

`Model` owns weights, `Vocab` turns text into tokens, `Context` decodes a `Batch` into logits,
`Memory` cuts and copies what a context holds, `Sampler` picks tokens; `generate` is the loop over
them. Objects are closed with ``with`` or ``close()``; errors are a tree under `LlamaError`.
"""

from __future__ import annotations

from pyllama import errors, generate
from pyllama.core import sampler as samplers
from pyllama.core.adapter import Adapter
from pyllama.core.backend import numa
from pyllama.core.batch import Batch
from pyllama.core.build import BuildInfo, build_info, system_info
from pyllama.core.context import Context
from pyllama.core.control_vector import ControlVector
from pyllama.core.device import Device, devices
from pyllama.core.enums import (
    AttentionType,
    ContextType,
    DeviceType,
    FlashAttnType,
    FType,
    GGMLType,
    LazyMode,
    LoadMode,
    NumaStrategy,
    PoolingType,
    RopeScalingType,
    RopeType,
    SplitMode,
    TokenAttr,
    VocabType,
)
from pyllama.core.memory import Memory
from pyllama.core.metadata import Metadata
from pyllama.core.model import Model
from pyllama.core.sampler import Candidates, Sampler, SamplerChain
from pyllama.core.settings import ContextPerf
from pyllama.core.state import State
from pyllama.core.threadpool import ThreadPool
from pyllama.core.vocab import Vocab
from pyllama.errors import LlamaError
from pyllama.models import demo_draft_model, demo_model

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AttentionType",
    "Batch",
    "BuildInfo",
    "Candidates",
    "Context",
    "ContextPerf",
    "ContextType",
    "ControlVector",
    "Device",
    "DeviceType",
    "FType",
    "FlashAttnType",
    "GGMLType",
    "LazyMode",
    "LlamaError",
    "LoadMode",
    "Memory",
    "Metadata",
    "Model",
    "NumaStrategy",
    "PoolingType",
    "RopeScalingType",
    "RopeType",
    "Sampler",
    "SamplerChain",
    "SplitMode",
    "State",
    "ThreadPool",
    "TokenAttr",
    "Vocab",
    "VocabType",
    "build_info",
    "demo_draft_model",
    "demo_model",
    "devices",
    "errors",
    "generate",
    "numa",
    "samplers",
    "system_info",
]
