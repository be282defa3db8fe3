"""See how probable each token was, and what else was likely."""

from __future__ import annotations

import math

import pyllama

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    done = llm.complete("The opposite of big is", max_tokens=4, temperature=0, logprobs=3)
    for each in done.logprobs or ():
        others = ", ".join(f"{top.bytes!r} {math.exp(top.logprob):.4f}" for top in each.top)
        print(f"{each.bytes!r}: probability {math.exp(each.logprob):.4f}; likeliest: {others}")
    print(f"the whole text: {sum(each.logprob for each in done.logprobs or ()):.3f} nats")
