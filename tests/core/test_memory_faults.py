"""Every amount of memory that is too little is an exception, and never the end of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "PYLLAMA_SANITIZER" in os.environ,
    reason="limits the address space, which sanitizers need",
)

# The process that forks never computes. Each child has a little more memory than the one before.
SWEEP = """
import collections, json, os, resource, sys
import pyllama
from pyllama import Batch, Model

path, n_threads, step, count = sys.argv[1], *map(int, sys.argv[2:])
options = {"n_ctx": 512, "n_threads": n_threads, "n_threads_batch": n_threads}

def use():
    with Model(path) as model, model.context(**options) as context:
        context.decode(Batch(list(range(1, 30))))
        context.logits()
        context.restore(context.state())
        model.vocab.tokenize("hello " * 200)

outcomes = collections.Counter()
for n in range(count):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        limit = size + n * step
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            use()
            said = "fine"
        except (MemoryError, pyllama.LlamaError) as error:
            said = type(error).__name__
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 100).decode()
    os.close(read)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    outcomes[said if code == 0 else f"ended with {code}"] += 1
print(json.dumps(outcomes))
"""


def sweep(path: os.PathLike[str], n_threads: int, step: int, count: int) -> dict[str, int]:
    """Return how many amounts of memory had which outcome."""
    command = [sys.executable, "-c", SWEEP, os.fspath(path), str(n_threads), str(step), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


def test_too_little_memory_is_an_exception(tiny_path):
    """From none at all to enough, a megabyte more each time."""
    outcomes = sweep(tiny_path, 1, 1 << 20, 40)
    assert not [said for said in outcomes if said.startswith("ended")], outcomes
    assert outcomes["fine"] > 5
    assert sum(outcomes.values()) - outcomes["fine"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
def test_too_little_memory_is_an_exception_in_small_steps(tiny_path, n_threads):
    """The same, 64 KiB more each time."""
    outcomes = sweep(tiny_path, n_threads, 1 << 16, 600)
    assert not [said for said in outcomes if said.startswith("ended")], outcomes
