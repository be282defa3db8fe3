"""Measure the loop of pyllama against llama.cpp's own llama-bench, side by side in one run.

    python bench/loop.py                 # the small file (about 0.2 ms a token: shows overhead)
    python bench/loop.py --large         # also a TinyLlama-1.1B-shaped Q4_K_M file (670 MB)

llama-bench is compiled from the pinned source, outside the repository, against the libraries that
pyllama was built with. Both sides generate the same number of tokens from an empty context, greedy,
in turns, each in a process of its own; the ratios are of neighbours in time, and of them the
median is told. Quote it from a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from peers import model_file, output, program

WRITERS = {"small": "write_overhead", "large": "write_tinyllama"}
TARGETS = {"small": {"tokens": 0.97, "stream": 0.95}, "large": {"tokens": 0.99, "stream": 0.99}}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also the file of 1.1 G parameters")
    parser.add_argument("--rounds", type=int, default=11, help="pairs for each line (11)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="thread counts (1 2)"
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.measure:
        path, what, n_threads, n_tokens = options.measure
        print(measure(path, what, int(n_threads), int(n_tokens)))
        return
    bench = program("llama-bench")
    print("file   threads loop        pyllama  llama-bench  ratio  asked")
    for name, n_tokens in (("small", 3000), ("large", 48))[: 2 if options.large else 1]:
        path = model_file(name, WRITERS[name])
        for n_threads in options.threads:
            for what in ("tokens", "stream"):
                ours, theirs = race(bench, path, options.rounds, what, n_threads, n_tokens)
                ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                print(
                    f"{name:6} {n_threads:7} {what:8} {statistics.median(ours):8.1f}/s"
                    f" {statistics.median(theirs):10.1f}/s {ratio:6.3f}  {TARGETS[name][what]}",
                    flush=True,
                )
    print()
    for line in small_costs():
        print(line)


def race(bench: Path, path: Path, rounds: int, *case: str | int) -> tuple[list[float], list[float]]:
    """Run both in turns; return the tokens per second of each."""
    ours, theirs = [], []
    what, n_threads, n_tokens = (str(each) for each in case)
    mine = [sys.executable, __file__, "--measure", str(path), what, n_threads, n_tokens]
    other = [str(bench), "-m", str(path), "-p", "0", "-n", n_tokens, "-t", n_threads]
    other += ["-r", "1", "-o", "json"]
    for _ in range(rounds):
        ours.append(float(output(mine)))
        theirs.append(json.loads(output(other))[0]["avg_ts"])
    return ours, theirs


def measure(path: str, what: str, n_threads: int, n_tokens: int) -> float:
    """Return the tokens per second of one run, after one to warm up, as llama-bench does."""
    import pyllama  # noqa: PLC0415 - only the child process needs it

    loop = getattr(pyllama.generate, what)
    with (
        pyllama.Model(path) as model,
        model.context(
            n_ctx=n_tokens + 1, n_threads=n_threads, n_threads_batch=n_threads
        ) as context,
    ):
        for _ in range(2):
            context.memory.clear()
            running = loop(context, [1], max_tokens=n_tokens + 1, ignore_eog=True)
            next(running)  # the prompt
            begin = time.perf_counter()
            for _ in running:
                pass
            seconds = time.perf_counter() - begin
    return n_tokens / seconds


def small_costs() -> list[str]:
    """Return lines on what single things cost."""
    import pyllama  # noqa: PLC0415 - after the race, so that it does not share the machine

    whole = "import pyllama; pyllama.Context, pyllama.generate"
    importing, using, others = (
        statistics.median(seconds(code) for _ in range(7))
        for code in ("import pyllama", whole, "import numpy, _cffi_backend")
    )
    with (
        pyllama.Model(model_file("small", WRITERS["small"])) as model,
        model.context(n_ctx=256) as context,
    ):
        context.decode(pyllama.Batch([1]))
        view = per_call(lambda: context.logits_view(0))
        call = per_call(lambda: context.n_ctx)
    return [
        f"import pyllama          {1e3 * importing:7.1f} ms   asked: under 60",
        f"  and its first use     {1e3 * using:7.1f} ms   numpy and cffi: {1e3 * others:.1f}",
        f"a row of logits lent    {1e6 * view:7.2f} us   asked: under 3",
        f"a property (one C call) {1e6 * call:7.2f} us",
    ]


def seconds(code: str) -> float:
    """Return how long *code* takes in a process of its own."""
    clock = "import time; t = time.perf_counter()"
    return float(output([sys.executable, "-c", f"{clock}; {code}; print(time.perf_counter() - t)"]))


def per_call(function: object, n: int = 20_000, rounds: int = 7) -> float:
    """Return the median seconds of one call of *function*."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(n):
            function()  # type: ignore[operator]
        times.append((time.perf_counter() - begin) / n)
    return statistics.median(times)


if __name__ == "__main__":
    main()
