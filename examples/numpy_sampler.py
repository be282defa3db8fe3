"""Write a sampler in numpy, and use it in a chain with llama.cpp's own."""

from __future__ import annotations

import numpy as np

import pyllama
from pyllama import samplers


@pyllama.sampler
def top_share(candidates: pyllama.LiveCandidates, *, share: float) -> None:
    """Keep the tokens that are at least *share* times as probable as the likeliest."""
    data = candidates.data
    keep = data["logit"] >= data["logit"].max() + np.log(share)
    data[: keep.sum()] = data[keep]
    candidates.size = int(keep.sum())


with (
    pyllama.Model(pyllama.demo_model()) as model,
    model.context(n_ctx=512, n_threads=1) as ctx,
):
    own = pyllama.SamplerChain([top_share(share=0.05), samplers.temp(0.9), samplers.dist(seed=1)])
    native = pyllama.SamplerChain([samplers.min_p(0.05), samplers.temp(0.9), samplers.dist(seed=1)])
    for name, chain in (("numpy", own), ("llama.cpp", native)):
        done = pyllama.generate.generate(ctx, "Once upon a time", sampler=chain, max_tokens=25)
        print(f"{name}: {done.text}")
