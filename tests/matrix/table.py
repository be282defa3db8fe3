"""What each public callable is usually given: an object to call it on, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

import pyllama
from matrix import chat, drafting, llm, media
from pyllama import samplers
from pyllama.core.sampler.live import LiveCandidates
from pyllama.errors import AbortedError

if TYPE_CHECKING:
    from matrix.targets import Target
    from matrix.world import World

Maker = Callable[["World"], Any]

GRAMMAR = 'root ::= "a" | "b"'

# An object of each class.
OBJECTS: dict[str, Maker] = {
    "Adapter": lambda w: w.adapter(),
    "Candidates": lambda w: pyllama.Candidates(w.row()),
    "Context": lambda w: w.context(),
    "ControlVector": lambda w: pyllama.ControlVector({1: [0.5] * 64}),
    "Dataset": lambda w: pyllama.Dataset(range(1, 200), 64),
    "ImportanceMatrix": lambda w: w.importance(),
    "LiveCandidates": lambda w: LiveCandidates(pyllama.Candidates(w.row())),
    "Memory": lambda w: w.context().memory,
    "Metadata": lambda w: w.model().metadata,
    "Model": lambda w: w.model(),
    "Sampler": lambda w: w.like_of(pyllama.Sampler),
    "SamplerChain": lambda w: w.chain(),
    "State": lambda w: w.state(),
    "ThreadPool": lambda w: pyllama.ThreadPool(1),
    "Training": lambda w: w.training(),
    "Vocab": lambda w: w.vocab(),
    **chat.OBJECTS,
    **drafting.OBJECTS,
    **llm.OBJECTS,
    **media.OBJECTS,
}

# An argument of this name, whosever it is.
ARGUMENTS: dict[str, Maker] = {
    "batch": lambda w: pyllama.Batch([5], pos=3),
    "candidates": lambda w: pyllama.Candidates(w.row()),
    "context": lambda w: w.context(),
    "decay": lambda w: 0.9,
    "divisor": lambda w: 2,
    "delta": lambda w: 1,
    "exponent": lambda w: 1.0,
    "eta": lambda w: 0.1,
    "grammar_str": lambda w: GRAMMAR,
    "logits": lambda w: w.row(),
    "message": lambda w: "message",
    "model": lambda w: w.model(),
    "n_vocab": lambda w: 512,
    "p": lambda w: 0.5,
    "path": lambda w: w.path(),
    "pool": lambda w: pyllama.ThreadPool(1),
    "prompt": lambda w: [1, 2, 3],
    "seq": lambda w: 0,
    "state": lambda w: w.state(),
    "t": lambda w: 0.5,
    "target": lambda w: 0.5,
    "tau": lambda w: 5.0,
    "text": lambda w: "some text",
    "texts": lambda w: ["some", "texts"],
    "token": lambda w: 1,
    "tokens": lambda w: [1, 2, 3],
    "vocab": lambda w: w.vocab(),
}

# More would wait for each other where other work is going on.
ONE_THREAD: dict[str, Maker] = {
    "n_ctx": lambda w: 256,
    "n_threads": lambda w: 1,
    "n_threads_batch": lambda w: 1,
}

# An argument of one callable, given also where it is optional.
SPECIAL: dict[str, dict[str, Maker]] = {
    "Adapter": {"path": lambda w: w.path("tiny-lora")},
    "Batch": {"tokens": lambda w: [1, 2, 3]},
    "Context": ONE_THREAD,
    "Context.accept": {"self": lambda w: w.sampling()},
    "Context.attach_sampler": {"chain": lambda w: pyllama.SamplerChain([samplers.greedy()])},
    "Context.attach_threadpool": {"pool_batch": lambda w: pyllama.ThreadPool(1)},
    "Context.detach_sampler": {"self": lambda w: w.sampling()},
    "Context.embedding": {"self": lambda w: w.context(embeddings=True, pooling_type="mean")},
    "Context.embeddings": {"self": lambda w: w.context(embeddings=True)},
    "Context.hooks": {"functions": lambda w: {"l_out-0": lambda node, array: None}},
    "Context.sample": {"self": lambda w: w.sampling()},
    "Context.sampled_candidates": {"self": lambda w: w.sampling()},
    "Context.sampled_token": {"self": lambda w: w.sampling()},
    "Context.set_adapters": {"adapters": lambda w: {}},
    "Context.set_causal_attn": {"causal_attn": lambda w: True},
    "Context.set_control_vector": {"vector": lambda w: None},
    "Context.set_embeddings": {"embeddings": lambda w: True},
    "Context.set_n_threads": {"n_threads": lambda w: 1},
    "Context.warmup": {"self": lambda w: w.empty()},
    "ControlVector": {"directions": lambda w: {1: [0.5] * 64}},
    "ControlVector.load": {"path": lambda w: w.directory / "missing.gguf"},
    "ControlVector.matrix": {"n_layer": lambda w: 2},
    "ControlVector.save": {"path": lambda w: w.directory / "saved.gguf"},
    "ImportanceMatrix": {
        "sums": lambda w: {"blk.0.attn_q.weight": np.ones((1, 64))},
        "counts": lambda w: {"blk.0.attn_q.weight": [10]},
    },
    "ImportanceMatrix.load": {"path": lambda w: w.imatrix_file()},
    "ImportanceMatrix.mean": {"name": lambda w: "blk.0.attn_q.weight"},
    "ImportanceMatrix.save": {"path": lambda w: w.directory / "saved.imatrix"},
    "LiveCandidates.__getitem__": {"key": lambda w: "id"},
    "LiveCandidates.__setitem__": {"key": lambda w: 0, "value": lambda w: (1, 0.5, 0.0)},
    "LiveCandidates.selected=": {"row": lambda w: 0},
    "LiveCandidates.size=": {"size": lambda w: 3},
    "LiveCandidates.sorted=": {"value": lambda w: True},
    "Memory.copy": {"source": lambda w: 0, "target": lambda w: 0},
    "Metadata": {"owner": lambda w: w.model()},
    "Metadata.__getitem__": {"key": lambda w: "general.architecture"},
    "Sampler.copy_from": {"other": lambda w: w.like_of(pyllama.Sampler)},
    "SamplerChain": {"samplers": lambda w: [samplers.dist(1)]},
    "SamplerChain.__getitem__": {"index": lambda w: 0},
    "SamplerChain.add": {"sampler": lambda w: samplers.dist(1)},
    "SamplerChain.copy_from": {"other": lambda w: w.chain()},
    "State": {
        "data": lambda w: b"data",
        "fingerprint": lambda w: {"a": "b"},
        "n_past": lambda w: {0: 3},
    },
    "State.from_bytes": {"data": lambda w: w.state().to_bytes()},
    "State.load": {"path": lambda w: w.directory / "missing.state"},
    "State.save": {"path": lambda w: w.directory / "saved.state"},
    "ThreadPool": {"n_threads": lambda w: 1},
    "errors.decode_error": {"code": lambda w: -2},
    "generate.generate": {"max_tokens": lambda w: 2},
    "generate.stream": {"max_tokens": lambda w: 2},
    "generate.tokens": {"max_tokens": lambda w: 2},
    "Dataset": {"tokens": lambda w: range(1, 200), "n_ctx": lambda w: 64},
    "Dataset.__getitem__": {"index": lambda w: 0},
    "Model.context": ONE_THREAD,
    "Model.from_arrays": {
        "metadata": lambda w: {"general.architecture": "llama"},
        "tensors": lambda w: {},
    },
    "Model": {"source": lambda w: w.path()},
    "Model.save": {"path": lambda w: w.directory / "copy.gguf"},
    "Sampler": {"pointer": lambda w: None, "kind": lambda w: "greedy", "options": lambda w: {}},
    "Training": {"model": lambda w: w.trainable(), "n_ctx": lambda w: 256},
    "Training.epoch": {"dataset": lambda w: pyllama.Dataset([1, 2, 3] * 200, 256)},
    "estimate_memory": {"source": lambda w: w.path()},
    "numa": {"strategy": lambda w: "disabled"},
    "samplers.dry": {
        "dry_multiplier": lambda w: 0.5,
        "dry_base": lambda w: 1.5,
        "dry_allowed_length": lambda w: 2,
        "dry_penalty_last_n": lambda w: 16,
    },
    "samplers.grammar_lazy_patterns": {"trigger_patterns": lambda w: ["a"]},
    "samplers.logit_bias": {"bias": lambda w: {1: 0.5}},
    "samplers.penalties": {"penalty_last_n": lambda w: 16},
    "samplers.python": {"sampler": lambda w: lambda candidates: None},
    "imatrix": {
        "context": lambda w: w.empty(),
        "text": lambda w: [1, 2, 3] * 30,
        "chunk_size": lambda w: 32,
    },
    "quantize": {
        "source": lambda w: w.path(),
        "target": lambda w: w.directory / "quantized.gguf",
        "nthread": lambda w: 1,
    },
    "sampler": {"definition": lambda w: lambda candidates: None},
    "samplers.top_k": {"k": lambda w: 5},
    "samplers.top_n_sigma": {"n": lambda w: 1.0},
    **chat.SPECIAL,
    **drafting.SPECIAL,
    **llm.SPECIAL,
    **media.SPECIAL,
}

# What refuses even its usual arguments, on these objects or always.
REFUSED = {
    "Context.encode",  # not with this model
    "ControlVector.load",  # no such file
    "Model.from_arrays",  # no tensors
    "Sampler",  # made from a pointer
    "Device",  # made from a pointer
    "State",  # of nothing
    "State.load",  # no such file
    *drafting.REFUSED,
    *media.REFUSED,
}

# What takes minutes, as it was asked to.
LONG = {"imatrix | text | 10**6 characters"}  # a million tokens to decode

# Classes of plain values, which nothing closes.
VALUES = (
    "Candidates",
    "ControlVector",
    "Dataset",
    "ImportanceMatrix",
    "LiveCandidates",
    "State",
    *chat.VALUES,
    *drafting.VALUES,
    *llm.VALUES,
    *media.VALUES,
)

# Classes that hold what they are given, and exceptions: nothing to be usual.
_RECORDS = (
    "ChatCompletion",
    "ChatPart",
    "Completion",
    "Conversation",
    "Part",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
    "BuildInfo",
    "ContextPerf",
    "Device",
    "MemoryNeeds",
    "Node",
    "Prompt",
    "Quantized",
    "TrainingResult",
    "TrainingStep",
    "errors.",
    "generate.",
    "samplers.SamplerPerf",
)


def maker(target: Target, argument: str) -> Maker | None:
    """Return what makes the usual value of an argument; None if nobody said what it is."""
    special = SPECIAL.get(target.name, {}).get(argument)
    if argument == "self" and special is None:
        return OBJECTS.get(target.owner.__name__ if target.owner else "")
    if special is not None or argument in ARGUMENTS:
        return special or ARGUMENTS[argument]
    if target.owner is None and isinstance(target.function, type):
        is_record = target.name.startswith(_RECORDS) or target.is_enum
        return (lambda w: 0) if is_record else None
    return None


def always(target: Target) -> tuple[str, ...]:
    """Name the arguments that it is usually given, required or not."""
    return tuple(SPECIAL.get(target.name, ()))


def is_closable(target: Target) -> bool:
    """Whether the object it is called on can be closed, or with its model."""
    return target.owner is not None and target.owner.__name__ not in VALUES


def use(result: Any, world: World) -> None:
    """Go on with what a call gave: what was wrongly let through shows when it is used."""
    if isinstance(result, pyllama.Context):
        if not result.closed:
            result.memory.clear()
            with suppress(AbortedError):  # the next call, after abort()
                result.decode(pyllama.Batch([5]))
    elif isinstance(result, pyllama.Model):
        if not result.closed and result is not world.model():
            use(result.context(n_ctx=256, n_threads=1, n_threads_batch=1), world)
    elif isinstance(result, pyllama.Sampler) and not result.closed:
        result.clone().apply(pyllama.Candidates(world.row()))
    elif isinstance(result, pyllama.Batch):
        with world.context() as context:
            context.memory.clear()
            context.decode(result)
    elif isinstance(result, pyllama.State):
        with world.context() as context:
            context.restore(result)
    elif isinstance(result, pyllama.ControlVector):
        result.matrix(2)
    elif hasattr(result, "__next__"):
        for _, _ in zip(range(3), result, strict=False):
            pass
    elif hasattr(result, "__enter__") and not hasattr(result, "close"):
        with result:
            pass
