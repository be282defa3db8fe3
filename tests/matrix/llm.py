"""The object for applications, and what stands under it: what its callables are usually given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyllama

if TYPE_CHECKING:
    from matrix.world import World

Maker = Callable[["World"], Any]

ONE_THREAD: dict[str, Maker] = {
    "n_ctx": lambda w: 256,
    "n_threads": lambda w: 1,
    "n_threads_batch": lambda w: 1,
}
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "some text"}]
FEW: dict[str, Maker] = {"max_tokens": lambda w: 2}
REPLY: dict[str, Maker] = {
    "messages": lambda w: MESSAGES,
    "chat_template": lambda w: TEMPLATE,
    **FEW,
}


def add(a: int) -> int:
    """Add one."""
    return a + 1


def embedder(w: World, **options: Any) -> pyllama.Embedder:
    """Make one on a small model."""
    return pyllama.Embedder(w.model(), n_batch=64, n_seq_max=4, n_threads=1, **options)


def letter(w: World) -> int:
    """Find the token of one letter."""
    return next(token for token in range(512) if w.vocab().piece(token) == b"a")


def grammar(w: World) -> pyllama.Sampler:
    """Make a grammar sampler that allows some tokens."""
    return pyllama.samplers.grammar(w.vocab(), "root ::= [a-z]+")


OBJECTS: dict[str, Maker] = {
    "Constrained": lambda w: pyllama.Constrained(grammar(w)),
    "Guidance": lambda w: pyllama.Guidance(w.vocab(), ["a", "b"]),
    "Embedder": embedder,
    "LLM": lambda w: w.llm(),
    "PromptCache": lambda w: pyllama.PromptCache(),
    "SamplingParams": lambda w: pyllama.SamplingParams(),
}

SPECIAL: dict[str, dict[str, Maker]] = {
    "Constrained": {"grammar": grammar, "chain": lambda w: w.chain()},
    "Constrained.__call__": {"row": lambda w: w.row()},
    "Guidance": {"what": lambda w: ["a", "b"]},
    "Guidance.accept": {"token": letter},
    "Guidance.rollback": {"n_tokens": lambda w: 0},
    "Embedder": {**ONE_THREAD, "n_batch": lambda w: 64, "n_seq_max": lambda w: 4},
    "Embedder.embed_tokens": {"self": lambda w: embedder(w, pooling_type="none")},
    "Embedder.rerank": {
        "self": lambda w: w.ranker(),
        "query": lambda w: "some",
        "documents": lambda w: ["text", "texts"],
    },
    "LLM": {"model": lambda w: w.path(), **ONE_THREAD},
    "LLM.chat": REPLY,
    "LLM.complete": FEW,
    "LLM.infill": {
        "self": lambda w: w.llm("infill"),
        "prefix": lambda w: "a",
        "suffix": lambda w: "b",
        **FEW,
    },
    "LLM.rerank": {
        "self": lambda w: w.llm("ranker"),
        "query": lambda w: "some",
        "documents": lambda w: ["text", "texts"],
    },
    "LLM.run": {"tools": lambda w: [add], **REPLY},
    "PromptCache.prefill": {"ids": lambda w: [1, 2, 3]},
}

VALUES = ("Constrained", "Guidance", "PromptCache", "SamplingParams")
