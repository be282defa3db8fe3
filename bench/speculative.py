"""Measure speculative decoding on the shipped pair of models against plain decoding.

    python bench/speculative.py                      # one thread, up to 4 tokens guessed at a time
    python bench/speculative.py --n-draft 2 4 8 --threads 1 2

Each round runs plain decoding, the draft model and prompt lookup one after the other on every
prompt, greedy, with the prompt already in the memory; what is told is the median over the rounds of
the tokens per second, and of the ratio to the plain run of the same round. The text is the same in
all three, or the program says so. Quote it from a quiet machine only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import pyllama
from pyllama.generate import Report, tokens
from pyllama.speculative import DraftModel, PromptLookup
from pyllama.speculative import tokens as speculative_tokens

PROMPTS = {
    "story": "Once upon a time",
    "counting": "<|im_start|>user\nCount from 1 to 30.<|im_end|>\n<|im_start|>assistant\n",
    "capital": (
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "json": (
        "<|im_start|>user\nWrite a JSON object with the keys name, age and city.<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="runs of each kind (15)")
    parser.add_argument("--max-tokens", type=int, default=128, help="of each text (128)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="thread counts (1)")
    parser.add_argument("--n-draft", type=int, nargs="+", default=[4], help="tokens guessed (4)")
    options = parser.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}: medians of {options.rounds} rounds")
    print("prompt    threads n_draft drafter    plain  drafted  ratio  accepted of drafted")
    for n_threads in options.threads:
        for n_draft in options.n_draft:
            for line in table(n_threads, n_draft, options.rounds, options.max_tokens):
                print(line, flush=True)


def table(n_threads: int, n_draft: int, rounds: int, max_tokens: int) -> list[str]:
    """Return a line for each prompt and drafter."""
    sizes = {"n_ctx": 512, "n_threads": n_threads, "n_threads_batch": n_threads}
    lines = []
    with (
        pyllama.Model(pyllama.demo_model()) as model,
        pyllama.Model(pyllama.demo_draft_model()) as small,
        model.context(**sizes) as context,
        small.context(**sizes) as other,
    ):
        drafters = {"model": DraftModel(other), "lookup": PromptLookup()}
        for name, text in PROMPTS.items():
            ids = model.vocab.tokenize(text, parse_special=True)
            loops: dict[str, Callable[[Report], object]] = {
                "plain": lambda report, ids=ids: tokens(
                    context, ids, max_tokens=max_tokens, report=report
                )
            }
            for kind, drafter in drafters.items():
                loops[kind] = lambda report, ids=ids, drafter=drafter: speculative_tokens(
                    context,
                    ids,
                    draft=drafter,
                    n_draft=n_draft,
                    max_tokens=max_tokens,
                    report=report,
                )
            speeds, reports = race(loops, rounds)
            for kind in drafters:
                pairs = zip(speeds[kind], speeds["plain"], strict=True)
                ratio = statistics.median(mine / plain for mine, plain in pairs)
                plain, mine = (statistics.median(speeds[each]) for each in ("plain", kind))
                report = reports[kind]
                lines.append(
                    f"{name:9} {n_threads:7} {n_draft:7} {kind:7} {plain:7.0f}/s {mine:6.0f}/s"
                    f" {ratio:6.2f}  {report.n_accepted} of {report.n_drafted}"
                )
    return lines


def race(
    loops: dict[str, Callable[[Report], object]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Report]]:
    """Run all loops in turns; return the tokens per second of each, and its last report."""
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    reports: dict[str, Report] = {}
    texts = {}
    for i in range(rounds + 1):  # the first one warms up
        for name, loop in loops.items():
            reports[name] = Report()
            running = loop(reports[name])
            made = [next(running)]  # the prompt
            begin = time.perf_counter()
            made += running
            seconds = time.perf_counter() - begin
            texts[name] = made
            if i:
                speeds[name].append((len(made) - 1) / seconds)
    for name, made in texts.items():
        if made != texts["plain"]:
            print(f"the text with {name} is another one: rounding has changed a token")
    return speeds, reports


if __name__ == "__main__":
    main()
