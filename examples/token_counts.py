"""Generate a text, and count the tokens of prompt and completion."""

from __future__ import annotations

import pyllama

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    done = llm.complete(
        "Once upon a time",
        max_tokens=30,
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        penalty_repeat=1.1,
        seed=1,
    )
    print(done.text.strip())
    print(f"finish reason: {done.finish_reason}")
    print(f"prompt tokens: {done.usage.prompt_tokens}")
    print(f"completion tokens: {done.usage.completion_tokens}")
    print(f"total tokens: {done.usage.total_tokens}")

    # The same prompt again: it is still in the memory, all but the token that is decoded anew.
    again = llm.complete("Once upon a time", max_tokens=1)
    print(f"cached tokens: {again.usage.cached_tokens}")
