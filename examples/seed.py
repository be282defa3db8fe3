"""Make a generation come out the same again: the seed is drawn, told, and can be given."""

from __future__ import annotations

import pyllama

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    prompt = "Once upon a time"
    first = llm.complete(prompt, max_tokens=20, temperature=1.2)
    again = llm.complete(prompt, max_tokens=20, temperature=1.2, seed=first.seed)
    other = llm.complete(prompt, max_tokens=20, temperature=1.2, seed=1)
    for done in (first, again, other):
        print(f"seed {done.seed}: {done.text!r}")
    print(f"the same seed gives the same text: {first.tokens == again.tokens}")
