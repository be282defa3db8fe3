"""End a text at a string that is not part of it."""

from __future__ import annotations

import pyllama

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    messages = [{"role": "user", "content": "Count to 10"}]
    for stop in ([], [", 6"], ["9", "4, 5", "4, 5, 6"]):
        reply = llm.chat(messages, temperature=0, stop=stop)
        print(f"stop={stop}: {reply.text!r}, stopped by {reply.completion.stopped_by!r}")
