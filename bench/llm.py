"""Measure `LLM` beside llama.cpp's own programs: text, first token, vectors, structure.

    python bench/llm.py

Both sides run in turns in one go, on the same files and libraries; the median of the ratios of
neighbours in time is told. Quote it from a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time

import numpy as np
from peers import SCRATCH, model_file, output, program

N_TOKENS = 2000
ROUNDS = 7
WORDS = "the a dog cat sun tree house runs sleeps sings green small old and near under".split()
SCHEMA = {"type": "array", "items": {"type": "integer"}, "minItems": 400}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"pairs ({ROUNDS})")
    parser.add_argument("--large", action="store_true", help="structure on 1.1 G parameters too")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # what a child does
    options = parser.parse_args()
    if options.measure:
        print(per_second(*options.measure))
        return
    for line in (
        *texts(options.rounds),
        first_token(options.rounds),
        vectors(options.rounds),
        *structure(options.rounds, large=options.large),
    ):
        print(line, flush=True)


def texts(rounds: int) -> list[str]:
    """Return lines on generation against llama-bench."""
    path = model_file("small", "write_overhead")
    theirs = [program("llama-bench"), "-m", path, "-p", 0, "-n", N_TOKENS, "-t", 1, "-r", 1]
    lines = []
    for what in ("complete", "stream"):
        mine = [sys.executable, __file__, "--measure", what, path]
        ratios = []
        for _ in range(rounds):
            ours = float(output([str(each) for each in mine]))
            other = json.loads(output([*map(str, theirs), "-o", "json"]))[0]["avg_ts"]
            ratios.append(ours / other)
        name = {"complete": "LLM.complete", "stream": "LLM.complete(stream=True)"}[what]
        lines.append(f"{name:26} / llama-bench      {told(ratios)}   asked: 0.95")
    return lines


def per_second(what: str, path: str) -> float:
    """Return the tokens per second of one run, after one to warm up."""
    from pyllama.llm import LLM  # noqa: PLC0415 - only the child process needs it

    options = {"max_tokens": N_TOKENS, "ignore_eog": True, "temperature": 0}
    with LLM(path, n_ctx=N_TOKENS + 8, n_threads=1) as llm:
        for _ in range(2):
            begin = time.perf_counter()
            if what == "stream":
                for _part in llm.complete([1], stream=True, **options):
                    pass
            else:
                llm.complete([1], **options)
            taken = time.perf_counter() - begin
    return N_TOKENS / taken


def first_token(rounds: int) -> str:
    """Return a line on the time to the first token with a prefix of 2,000 tokens in the cache."""
    import pyllama  # noqa: PLC0415 - after the race, so that it does not share the machine
    from pyllama.llm import LLM  # noqa: PLC0415

    rng = np.random.default_rng(0)
    cold, warm = [], []
    with LLM(pyllama.demo_model(), n_ctx=4096, n_threads=1) as llm:
        prefix, other = (rng.integers(300, llm.model.n_vocab, 2000).tolist() for _ in range(2))

        def ask(ids: list[int]) -> float:
            begin = time.perf_counter()
            llm.complete([*ids, int(rng.integers(300, llm.model.n_vocab))], max_tokens=1)
            return time.perf_counter() - begin

        for _ in range(rounds):
            llm._cache.clear()
            llm.context.memory.clear()
            cold.append(ask(prefix))
            ask(other)  # takes its place
            warm.append(ask(prefix))
    ratios = [b / a for a, b in zip(cold, warm, strict=True)]
    return f"{'first token, warm':26} / cold             {told(ratios)}   asked: under 0.05"


def vectors(rounds: int) -> str:
    """Return a line on 1,000 short texts against the batches of llama-embedding."""
    import pyllama  # noqa: PLC0415
    from pyllama.embedding import Embedder  # noqa: PLC0415

    shape = {"n_embd": 384, "n_layer": 6, "n_head": 12, "n_ff": 1536, "n_ctx_train": 512}
    path = model_file("bert", "write_bert", **shape)
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(4, 16))) for _ in range(1000)]
    file = SCRATCH / "texts.txt"
    file.write_text("\n".join(texts))
    theirs = [program("llama-embedding"), "-m", path, "-f", file, "-t", 1, "-c", 512, "-b", 512]
    theirs += ["--embd-output-format", "array"]
    ratios = []
    with pyllama.Model(path) as model, Embedder(model, n_threads=1, n_threads_batch=1) as embedder:
        embedder.embed(texts[:100])
        for _ in range(rounds):
            begin = time.perf_counter()
            embedder.embed(texts)
            ours = time.perf_counter() - begin
            done = subprocess.run([*map(str, theirs)], check=True, capture_output=True, text=True)
            ratios.append(batches_took(done.stderr + done.stdout) / ours)
    return f"{'Embedder.embed':26} / llama-embedding  {told(ratios)}   asked: 1"


def batches_took(log: str) -> float:
    """Return the seconds that the batches took, by the times in the log: when each one began."""
    stamps = re.findall(r"(\d+)\.(\d+)\.(\d+)\.(\d+) I batch_decode", log)
    began = [60 * int(m) + int(s) + int(ms) / 1e3 + int(us) / 1e6 for m, s, ms, us in stamps]
    return (began[-1] - began[0]) * len(began) / (len(began) - 1)


def structure(rounds: int, *, large: bool) -> list[str]:
    """Return lines on what a JSON schema costs, of the time that decoding takes."""
    from pyllama.llm import LLM  # noqa: PLC0415

    files = {"0.2 ms a token": ("small", "write_overhead", 200)}
    if large:
        files["1.1 G parameters"] = ("large", "write_tinyllama", 24)
    lines = []
    for name, (file, writer, n) in files.items():
        costs = []
        with LLM(model_file(file, writer), n_ctx=1024, n_threads=1) as llm:
            for _ in range(rounds):
                free, held = (
                    llm.complete([1], max_tokens=n, ignore_eog=True, seed=1, **more).timings
                    for more in ({}, {"schema": SCHEMA})
                )
                costs.append(held.generation_seconds / free.generation_seconds - 1)
        lines.append(f"JSON schema, {name:17} cost of decoding {told(costs)}   asked: under 0.15")
    return lines


def told(ratios: list[float]) -> str:
    """Return the median, and the range."""
    return f"{statistics.median(ratios):6.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main()
