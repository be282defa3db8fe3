"""Let a smaller model guess tokens that the larger one checks many at a time: the same text."""

from __future__ import annotations

import pyllama

draft = pyllama.demo_draft_model()
with pyllama.LLM(pyllama.demo_model(), draft=draft, n_ctx=512, n_threads=1) as llm:
    plain = llm.complete("Once upon a time", max_tokens=60, temperature=0, draft=False)
    done = llm.complete("Once upon a time", max_tokens=60, temperature=0)

print(done.text)
print(f"the same text: {done.tokens == plain.tokens}")
print(f"{done.timings.n_accepted} of {done.timings.n_drafted} guesses were right")
for name, timings in (("alone", plain.timings), ("with the draft model", done.timings)):
    print(f"{name}: {timings.generation_per_second:.0f} tokens per second")
