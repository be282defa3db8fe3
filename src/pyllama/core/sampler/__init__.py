"""Samplers: what picks the next token from a row of logits.

One function here for each constructor of llama.h makes a native `Sampler`; a `SamplerChain` runs
several in turn::

    from pyllama.core import sampler

    chain = SamplerChain([sampler.top_k(40), sampler.temp(0.8), sampler.dist(seed=1)])
    token = chain.sample(row)

Each raises TypeError for an argument of the wrong type and ValueError for one out of range, before
it makes anything.

`python` makes one of a Python function or object, and the decorator `sampler` a function that does.
"""

from __future__ import annotations

from pyllama.core.sampler.base import Sampler
from pyllama.core.sampler.biasing import dry, infill, logit_bias, penalties
from pyllama.core.sampler.candidates import Candidates
from pyllama.core.sampler.chain import SamplerChain, SamplerPerf
from pyllama.core.sampler.choosing import adaptive_p, dist, greedy, mirostat, mirostat_v2
from pyllama.core.sampler.grammar import grammar, grammar_lazy_patterns
from pyllama.core.sampler.live import LiveCandidates
from pyllama.core.sampler.python import python, sampler
from pyllama.core.sampler.shaping import (
    min_p,
    temp,
    temp_ext,
    top_k,
    top_n_sigma,
    top_p,
    typical,
    xtc,
)

__all__ = [
    "Candidates",
    "LiveCandidates",
    "Sampler",
    "SamplerChain",
    "SamplerPerf",
    "adaptive_p",
    "dist",
    "dry",
    "grammar",
    "grammar_lazy_patterns",
    "greedy",
    "infill",
    "logit_bias",
    "min_p",
    "mirostat",
    "mirostat_v2",
    "penalties",
    "python",
    "sampler",
    "temp",
    "temp_ext",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typical",
    "xtc",
]
