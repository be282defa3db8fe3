"""Measure what it costs to look at a file before libllama loads it.

    python bench/checks.py

The check of a vocabulary of 128,256 tokens and 280,147 merges stands beside the whole load, which
is libllama's for the rest; a kept verdict of `verify="trial"` stands alone.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

from peers import model_file

from pyllama import Model
from pyllama.core.loading import trial
from pyllama.core.loading.model_file import check_model

ROUNDS = 9


def main() -> None:
    """Print the medians."""
    path = model_file("vocabulary", "write_big_vocab")
    checked = median(lambda: check_model(path))
    loaded = median(lambda: Model(path, vocab_only=True).close())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        files = [str(model_file("overhead", "write_overhead"))]
        trial.require("trial", files)
        memory = median(lambda: trial.require("trial", files))
        disk = median(lambda: from_disk(files))
    print(f"check of a 128k vocabulary {1000 * checked:8.1f} ms")
    print(f"check and load {1000 * loaded:20.1f} ms: the check is {checked / loaded:.2f}")
    print(f"a verdict kept in memory   {1000 * memory:9.2f} ms")
    print(f"a verdict kept on disk     {1000 * disk:9.2f} ms")


def median(call: Callable[[], object]) -> float:
    """Return the median of the seconds that a call takes."""
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def from_disk(files: list[str]) -> None:
    """Ask for a verdict as the next process would."""
    trial._verdicts.clear()
    trial.require("trial", files)


if __name__ == "__main__":
    main()
