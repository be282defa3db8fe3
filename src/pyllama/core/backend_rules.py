"""Which samplers libllama may run inside its graph: where it computes what they do elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.sampler import Sampler, SamplerChain
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyllama.core.model import Model

# Those with a backend_init (src/llama-sampler.cpp); the first other one and all after it run on
# the CPU.
IN_GRAPH = frozenset(
    ["greedy", "dist", "top_k", "top_p", "min_p", "temp", "temp_ext", "penalties", "logit_bias"]
)
PROBE = 128 * 1024  # candidates that backend_init tries a sampler with (llama-sampler.cpp:763)


def check_chain(chain: SamplerChain, model: Model) -> None:
    """Raise unless libllama can run *chain* in the graph, and chooses there what it should.

    Parameters
    ----------
    chain
        What is to be attached.
    model
        The model of the context.

    Raises
    ------
    TypeError
        If it is no chain.
    ValueError
        If it is empty, or was made for another model or vocabulary.
    UnsupportedError
        If libllama would end the process for it, or choose other tokens than the chain itself.
    """
    if not isinstance(chain, SamplerChain):  # llama-context.cpp:1306 reads any other as one
        message = f"a SamplerChain is attached, not {chain!r:.80}: SamplerChain([...])"
        raise TypeError(message)
    if not len(chain):
        message = "an empty chain does nothing: add a sampler first"
        raise ValueError(message)
    if chain._parent is not None and chain._parent is not model:
        message = f"{chain!r} was made for another model than this context's"
        raise ValueError(message)
    if chain.n_vocab not in {None, model.n_vocab}:
        message = f"{chain!r} is for {chain.n_vocab} tokens, the model has {model.n_vocab}"
        raise ValueError(message)
    n_left, is_moved, in_graph = model.n_vocab, False, True
    for sampler in chain:
        if isinstance(sampler, SamplerChain):  # half of it would run nowhere (:759)
            message = f"{chain!r} holds a chain, which libllama runs only in part: make it flat"
            raise UnsupportedError(message)
        if sampler._selects and sampler is not chain[-1] and sampler._kind != "python":
            message = f"after {sampler!r} libllama runs no other sampler: it must be the last"
            raise UnsupportedError(message)
        in_graph = in_graph and (sampler._kind in IN_GRAPH)
        if in_graph and not sampler.name.startswith("?"):
            fault = _fault(sampler, n_left, is_moved=is_moved)
            if fault:
                message = f"{sampler!r} cannot be attached: {fault}"
                raise UnsupportedError(message)
            n_left, is_moved = _effect(sampler, n_left, is_moved=is_moved)


def _fault(sampler: Sampler, n_left: int, *, is_moved: bool) -> str:
    """Return why *sampler* goes wrong there, if it does; *is_moved*: row *i* is not token *i*."""
    kind, options = sampler._kind, sampler._options
    fault = ""
    if kind == "top_k" and options["k"] > min(n_left, PROBE):  # asserted by ggml.c:5472
        fault = f"k is more than the {min(n_left, PROBE)} candidates that there are"
    elif kind in {"top_p", "min_p"} and options["min_keep"] > 1:
        fault = "libllama's graph has no min_keep"
    elif kind == "min_p" and np.float32(options["p"]) == 1:
        fault = "libllama's graph keeps no token at p=1, not even the likeliest"
    elif kind == "greedy" and is_moved:
        fault = (
            "after samplers that cut or sort, libllama's graph takes its row for the token; "
            "greedy needs none before it"
        )
    elif kind == "logit_bias" and is_moved:
        fault = (
            "after samplers that cut or sort, libllama's graph writes to wrong rows: put it first"
        )
    elif kind == "temp_ext" and n_left == 1 and _bends(options):
        fault = "the entropy of one token is 0, by which libllama's graph divides"
    return fault


def _effect(sampler: Sampler, n_left: int, *, is_moved: bool) -> tuple[int, bool]:
    kind, options = sampler._kind, sampler._options
    if kind == "top_k":
        return options["k"], True
    if kind == "top_p":
        return n_left, True
    if kind in {"temp", "temp_ext"} and options["t"] <= 0:
        return 1, True
    return n_left, is_moved


def _bends(options: Mapping[str, Any]) -> bool:
    """Whether a temp_ext depends on the entropy."""
    return bool(options["delta"] > 0 and options["t"] > 0)
