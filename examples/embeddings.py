"""Turn texts into vectors, and find the one that is closest to a question."""

from __future__ import annotations

import pyllama

TEXTS = [
    "The capital of France is Paris.",
    "Seven plus five is twelve.",
    "Monday, Tuesday, Wednesday, Thursday, Friday.",
]

with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    rows = llm.embed(TEXTS)  # float32 (3, n_embd), each of length 1
    query = llm.embed("The capital of Spain is Madrid.")
    similarity = rows @ query
    for text, value in zip(TEXTS, similarity, strict=True):
        print(f"{value:.3f} {text}")
    print(f"closest: {TEXTS[similarity.argmax()]}")
