"""Stream a text, stop it from a callback, and read tokens and tokens per second."""

from __future__ import annotations

import pyllama

n_seen = 0


def show(part: pyllama.llm.Part) -> bool:
    """Print what is new; returning False ends the generation."""
    global n_seen  # noqa: PLW0603 - it is the whole state of this example
    n_seen += 1
    print(part.text, end="", flush=True)
    return n_seen < 20


with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    done = llm.complete("Once upon a time", temperature=0, callback=show)
    print(f"\nfinish reason: {done.finish_reason}")
    print(f"tokens: {len(done.tokens)}")
    print(f"tokens per second: {done.timings.generation_per_second:.0f}")

    # The same as a loop; leaving it, or closing the iterator, ends the generation too.
    messages = [{"role": "user", "content": "Count to 10"}]
    for part in llm.chat(messages, temperature=0, stream=True):
        print(part.text, end="", flush=True)
    print(f"\nfinish reason: {part.finish_reason}")
