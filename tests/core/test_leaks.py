"""Memory, files and threads stay flat however often things are made and closed.

Each measurement has a process of its own. It looks at what the system says many times, because a
heap with holes goes up and down; what counts is the middle of the last looks against that of the
first, which come after a warm-up.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MEGABYTE = 1 << 20
TESTS = Path(__file__).parent.parent
GGUF_ARRAYS = f"""
sys.path.append({str(TESTS)!r})
from gguf_arrays import arrays_of
arrays = arrays_of(path)
"""
N_LOOKS, N_COMPARED = 25, 5
WARM_UP = 0.5  # of the number of cycles, before the first look

MEASURE = """
import ctypes, gc, json, os, sys
from pyllama import *
from pyllama.errors import LlamaError

OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}
path = sys.argv[1]

def look():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what free() keeps for later is no leak
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "bytes": resident,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "objects": len(gc.get_objects()),
    }
"""

CYCLES = {
    "loading and closing": (200, "Model(path).close()", ""),
    "loading and dropping": (200, "Model(path).vocab.tokenize('hello')", ""),
    "contexts closed": (
        2000,
        """
        with model.context(**OPTIONS) as context:
            context.decode(batch)
        """,
        "model, batch = Model(path), Batch([1, 2, 3])",
    ),
    "contexts dropped": (
        2000,
        """
        context = model.context(**OPTIONS)
        context.decode(batch)
        del context
        """,
        "model, batch = Model(path), Batch([1, 2, 3])",
    ),
    "contexts in cycles of garbage": (
        300,
        """
        context = model.context(**OPTIONS)
        context.decode(batch)
        context.cycle = context
        del context
        gc.collect()
        """,
        "model, batch = Model(path), Batch([1, 2, 3])",
    ),
    "contexts that fail": (
        2000,
        """
        try:
            model.context(**OPTIONS, type_k="q8_0")
        except ValueError:
            pass
        """,
        "model = Model(path)",
    ),
    "loads that fail": (
        200,
        """
        try:
            Model(path, progress=lambda f: False)
        except LlamaError:
            pass
        """,
        "",
    ),
    "open files, in time and too late": (
        200,
        """
        with open(path, "rb") as file:
            Model(file).close()
            try:
                Model(file, progress=lambda f: time.sleep(0.001), timeout=0.0005)
            except TimeoutError:
                pass
        """,
        "import time",
    ),
    "models of arrays, whole and incomplete": (
        96,
        """
        Model.from_arrays(*arrays).close()
        try:
            Model.from_arrays(arrays[0], {})
        except LlamaError:
            pass
        """,
        GGUF_ARRAYS,
    ),
    "saved models, and estimates": (
        96,
        """
        with Model(path, kv_overrides={"general.name": "x"}) as model:
            model.save(path + ".saved")
        estimate_memory(path, n_ctx=256)
        """,
        "",
    ),
    "decodes, views, copies and batches": (
        5000,
        """
        context.memory.clear()
        context.decode(Batch([1, 2, 3], output="all"))
        context.logits(), context.logits_view()[1]
        """,
        "model = Model(path); context = model.context(**OPTIONS)",
    ),
    "refused batches and aborted decodes": (
        2000,
        """
        for bad in (Batch([10**6]), Batch([1], pos=9), Batch([1, 2, 3])):
            context.abort()
            try:
                context.decode(bad)
            except LlamaError:
                pass
        """,
        "model = Model(path); context = model.context(**OPTIONS)",
    ),
    "generating": (
        300,
        """
        chain = SamplerChain([samplers.grammar(model.vocab, 'root ::= .*'), samplers.dist(1)])
        for piece in generate.stream(context, "hello", sampler=chain, max_tokens=5):
            pass
        run = generate.stream(context, "hello")
        next(run)
        """,
        "model = Model(path); context = model.context(**OPTIONS)",
    ),
    "tokenizing": (
        2000,
        "model.vocab.detokenize(model.vocab.tokenize('hello world ' * 20))",
        "model = Model(path)",
    ),
    "pools": (
        300,
        """
        with ThreadPool(2) as pool, model.context(**OPTIONS) as context:
            context.attach_threadpool(pool)
            context.decode(batch)
        """,
        "model, batch = Model(path), Batch([1, 2, 3])",
    ),
}


@pytest.mark.parametrize("name", CYCLES)
def test_nothing_grows(tiny_path, name):
    """Less than a megabyte after all cycles; not one file, thread or object more."""
    n_cycles, body, setup = CYCLES[name]
    first, step = int(WARM_UP * n_cycles), n_cycles // (N_LOOKS - 1)
    lines = [
        MEASURE,
        setup,
        f"looks = [look() for _ in range({N_LOOKS})][:0]",
        f"for n in range({first + n_cycles + 1}):",
        f"    if n >= {first} and (n - {first}) % {step} == 0: looks.append(look())",
        textwrap.indent(textwrap.dedent(body), "    "),
        "print(json.dumps(looks))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(tiny_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    looks = json.loads(done.stdout)
    assert len(looks) >= N_LOOKS
    grown = {key: growth([look[key] for look in looks]) for key in looks[0]}
    assert grown["bytes"] < MEGABYTE, grown
    assert grown["files"] <= 0, grown
    assert grown["threads"] <= 0, grown
    assert grown["objects"] < 10, grown


def growth(values: list[int]) -> float:
    """Return how much more the last looks saw than the first."""
    return statistics.median(values[-N_COMPARED:]) - statistics.median(values[:N_COMPARED])


def test_a_leak_would_be_seen():
    """The measure itself: a steady growth, and none with noise."""
    assert growth([100 * n for n in range(N_LOOKS)]) == 100 * (N_LOOKS - N_COMPARED)
    assert growth([5, 0, 5, 9, 5] * 5) == 0
