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

Nothing is loaded before it is used: a name is imported from its home when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; a test compares
    from pyllama import errors as errors
    from pyllama import generate as generate
    from pyllama import speculative as speculative
    from pyllama.core import sampler as samplers  # noqa: F401
    from pyllama.core.adapter import Adapter as Adapter
    from pyllama.core.backend import numa as numa
    from pyllama.core.batch import Batch as Batch
    from pyllama.core.build import BuildInfo as BuildInfo
    from pyllama.core.build import build_info as build_info
    from pyllama.core.build import system_info as system_info
    from pyllama.core.context import Context as Context
    from pyllama.core.control_vector import ControlVector as ControlVector
    from pyllama.core.device import Device as Device
    from pyllama.core.device import devices as devices
    from pyllama.core.enums import AttentionType as AttentionType
    from pyllama.core.enums import ContextType as ContextType
    from pyllama.core.enums import DeviceType as DeviceType
    from pyllama.core.enums import FlashAttnType as FlashAttnType
    from pyllama.core.enums import FType as FType
    from pyllama.core.enums import GGMLType as GGMLType
    from pyllama.core.enums import LazyMode as LazyMode
    from pyllama.core.enums import LoadMode as LoadMode
    from pyllama.core.enums import NumaStrategy as NumaStrategy
    from pyllama.core.enums import PoolingType as PoolingType
    from pyllama.core.enums import RopeScalingType as RopeScalingType
    from pyllama.core.enums import RopeType as RopeType
    from pyllama.core.enums import SplitMode as SplitMode
    from pyllama.core.enums import TokenAttr as TokenAttr
    from pyllama.core.enums import VocabType as VocabType
    from pyllama.core.hooks import Node as Node
    from pyllama.core.loading.estimate import estimate_memory as estimate_memory
    from pyllama.core.media.bitmap import Bitmap as Bitmap
    from pyllama.core.media.chunks import Chunk as Chunk
    from pyllama.core.media.chunks import Chunks as Chunks
    from pyllama.core.media.limits import MediaLimits as MediaLimits
    from pyllama.core.media.projector import Projector as Projector
    from pyllama.core.memory import Memory as Memory
    from pyllama.core.memory_needs import MemoryNeeds as MemoryNeeds
    from pyllama.core.metadata import Metadata as Metadata
    from pyllama.core.model import Model as Model
    from pyllama.core.quantization.imatrix import imatrix as imatrix
    from pyllama.core.quantization.importance import ImportanceMatrix as ImportanceMatrix
    from pyllama.core.quantization.quantize import Quantized as Quantized
    from pyllama.core.quantization.quantize import quantize as quantize
    from pyllama.core.sampler import Candidates as Candidates
    from pyllama.core.sampler import LiveCandidates as LiveCandidates
    from pyllama.core.sampler import Sampler as Sampler
    from pyllama.core.sampler import SamplerChain as SamplerChain
    from pyllama.core.sampler import sampler as sampler
    from pyllama.core.settings import ContextPerf as ContextPerf
    from pyllama.core.state import State as State
    from pyllama.core.threadpool import ThreadPool as ThreadPool
    from pyllama.core.training.dataset import Dataset as Dataset
    from pyllama.core.training.trainer import Training as Training
    from pyllama.core.training.trainer import TrainingResult as TrainingResult
    from pyllama.core.training.trainer import TrainingStep as TrainingStep
    from pyllama.core.vocab import Vocab as Vocab
    from pyllama.embedding import Embedder as Embedder
    from pyllama.errors import LlamaError as LlamaError
    from pyllama.llm import LLM as LLM
    from pyllama.llm import ChatCompletion as ChatCompletion
    from pyllama.llm import ChatPart as ChatPart
    from pyllama.llm import Completion as Completion
    from pyllama.llm import Conversation as Conversation
    from pyllama.llm import Part as Part
    from pyllama.llm import Usage as Usage
    from pyllama.models import demo_draft_model as demo_draft_model
    from pyllama.models import demo_model as demo_model
    from pyllama.prompt_cache import PromptCache as PromptCache
    from pyllama.text.chat import ChatTemplate as ChatTemplate
    from pyllama.text.constrained import Constrained as Constrained
    from pyllama.text.guidance import Guidance as Guidance
    from pyllama.text.logprobs import TokenLogprob as TokenLogprob
    from pyllama.text.logprobs import TopLogprob as TopLogprob
    from pyllama.text.messages import Message as Message
    from pyllama.text.messages import ToolCall as ToolCall
    from pyllama.text.prompt import Prompt as Prompt
    from pyllama.text.sampling import SamplingParams as SamplingParams
    from pyllama.text.schema import grammar_of as grammar_of
    from pyllama.text.schema import json_schema as json_schema
    from pyllama.text.tools import Tool as Tool

__version__ = "0.1.0"

_MODULES = {
    "errors": "errors",
    "generate": "generate",
    "samplers": "core.sampler",
    "speculative": "speculative",
}
_HOMES = {
    "Adapter": "core.adapter",
    "AttentionType": "core.enums",
    "Batch": "core.batch",
    "Bitmap": "core.media.bitmap",
    "BuildInfo": "core.build",
    "Candidates": "core.sampler",
    "ChatCompletion": "llm",
    "ChatPart": "llm",
    "ChatTemplate": "text.chat",
    "Chunk": "core.media.chunks",
    "Chunks": "core.media.chunks",
    "Completion": "llm",
    "Constrained": "text.constrained",
    "Context": "core.context",
    "ContextPerf": "core.settings",
    "ContextType": "core.enums",
    "ControlVector": "core.control_vector",
    "Conversation": "llm",
    "Dataset": "core.training.dataset",
    "Device": "core.device",
    "DeviceType": "core.enums",
    "Embedder": "embedding",
    "FType": "core.enums",
    "FlashAttnType": "core.enums",
    "GGMLType": "core.enums",
    "Guidance": "text.guidance",
    "ImportanceMatrix": "core.quantization.importance",
    "LLM": "llm",
    "LazyMode": "core.enums",
    "LiveCandidates": "core.sampler",
    "LlamaError": "errors",
    "LoadMode": "core.enums",
    "MediaLimits": "core.media.limits",
    "Memory": "core.memory",
    "MemoryNeeds": "core.memory_needs",
    "Message": "text.messages",
    "Metadata": "core.metadata",
    "Model": "core.model",
    "Node": "core.hooks",
    "NumaStrategy": "core.enums",
    "Part": "llm",
    "PoolingType": "core.enums",
    "Projector": "core.media.projector",
    "Prompt": "text.prompt",
    "PromptCache": "prompt_cache",
    "Quantized": "core.quantization.quantize",
    "RopeScalingType": "core.enums",
    "RopeType": "core.enums",
    "Sampler": "core.sampler",
    "SamplerChain": "core.sampler",
    "SamplingParams": "text.sampling",
    "SplitMode": "core.enums",
    "State": "core.state",
    "ThreadPool": "core.threadpool",
    "TokenAttr": "core.enums",
    "TokenLogprob": "text.logprobs",
    "Tool": "text.tools",
    "ToolCall": "text.messages",
    "TopLogprob": "text.logprobs",
    "Training": "core.training.trainer",
    "TrainingResult": "core.training.trainer",
    "TrainingStep": "core.training.trainer",
    "Usage": "llm",
    "Vocab": "core.vocab",
    "VocabType": "core.enums",
    "build_info": "core.build",
    "demo_draft_model": "models",
    "demo_model": "models",
    "devices": "core.device",
    "estimate_memory": "core.loading.estimate",
    "grammar_of": "text.schema",
    "imatrix": "core.quantization.imatrix",
    "json_schema": "text.schema",
    "numa": "core.backend",
    "quantize": "core.quantization.quantize",
    "sampler": "core.sampler",
    "system_info": "core.build",
}

__all__ = sorted([*_MODULES, *_HOMES])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import the public *name* at its first use."""
    if name in _MODULES:
        value = import_module(f"pyllama.{_MODULES[name]}")
    elif name in _HOMES:
        value = getattr(import_module(f"pyllama.{_HOMES[name]}"), name)
    else:
        message = f"module 'pyllama' has no attribute {name!r}"
        raise AttributeError(message)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
