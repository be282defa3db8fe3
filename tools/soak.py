"""Do everything very often, and watch that memory, files and threads stay flat.

    python tools/soak.py loads decodes errors

Each job has a process of its own. It looks at what the system says a hundred times; the figure is
the slope of a line through the looks of the second half, in bytes for one cycle.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import random_model

import pyllama
from pyllama import Batch, Model, SamplerChain, State, samplers
from pyllama.errors import LlamaError

N_LOOKS = 100
OPTIONS: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1}
LIMIT = 1024  # bytes a cycle


class Job(NamedTuple):
    """What is done, how often, and what stays open for it."""

    count: int
    make: Callable[[Path], Callable[[int], object]]


def loads(path: Path) -> Callable[[int], object]:
    """Load, decode, close."""

    def cycle(_n: int) -> None:
        with Model(path) as model, model.context(**OPTIONS) as context:
            context.decode(Batch([1, 2, 3]))

    return cycle


def decodes(path: Path) -> Callable[[int], object]:
    """Decode one token after another in one context, with sampling; begin anew when it is full."""
    context = Model(path).context(**OPTIONS)
    chain = SamplerChain([samplers.top_k(40), samplers.dist(1)])
    batch = Batch([1])

    def cycle(n: int) -> None:
        if n % 64 == 0:
            context.memory.clear()
        batch.pos[0] = n % 64
        context.decode(batch)
        chain.sample(context.logits()[0])

    return cycle


def errors(path: Path) -> Callable[[int], object]:
    """Go through every kind of refusal, and use the object again."""
    model = Model(path)
    context = model.context(**OPTIONS)
    state = context.state()
    broken = path.with_name("broken.gguf")
    broken.write_bytes(path.read_bytes()[:5000])
    lora = path.with_name("lora.gguf")
    random_model.write_lora(lora, {"blk.0.attn_q.weight": (8, 8)})
    calls: tuple[Callable[[], object], ...] = (
        lambda: Model(broken),
        lambda: Model(path.with_name("missing.gguf")),
        lambda: Model(path, progress=lambda _fraction: False),
        lambda: Model(path, n_gpu_layers="x"),  # type: ignore[arg-type]
        lambda: pyllama.Adapter(model, lora),
        lambda: pyllama.Adapter(model, path),
        lambda: model.context(n_ctx=-1),
        lambda: model.context(type_k="q8_0", n_ctx=64),
        lambda: model.context(bogus=1),  # type: ignore[call-arg]
        lambda: context.decode(Batch([10**6])),
        lambda: context.decode(Batch([1, 2], pos=[5, 3])),
        lambda: context.decode(Batch([1] * 65)),
        lambda: context.decode(Batch([1], seq_id=9)),
        context.logits,
        context.embeddings,
        lambda: context.memory.remove(9),
        lambda: context.encode(Batch([1])),
        lambda: context.restore(State(b"x" * 50, fingerprint=state.fingerprint, n_past={})),
        lambda: State.from_bytes(state.to_bytes()[:-1]),
        lambda: samplers.grammar(model.vocab, "root ::= ("),
        lambda: samplers.grammar_lazy_patterns(model.vocab, 'root ::= "a"', trigger_patterns=["("]),
        lambda: SamplerChain([samplers.temp(1.0)]).sample(np.zeros(4, np.float32)),
        lambda: SamplerChain([samplers.dist(1)]).sample(np.full(4, np.nan, np.float32)),
        lambda: model.vocab.tokenize(5),  # type: ignore[arg-type]
        lambda: model.vocab.detokenize([10**6]),
        lambda: _aborted(context),
    )

    def cycle(n: int) -> None:
        context.memory.clear()
        try:
            calls[n % len(calls)]()
        except (LlamaError, TypeError, ValueError, IndexError, OSError):
            return
        raise SystemExit(f"call {n % len(calls)} raised nothing")

    return cycle


def _aborted(context: pyllama.Context) -> None:
    context.abort()
    context.decode(Batch([1, 2, 3]))


JOBS = {
    "loads": Job(10_000, loads),
    "decodes": Job(1_000_000, decodes),
    "errors": Job(26_000, errors),
}


def look() -> dict[str, int]:
    """Return what the process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what free() keeps for later is no leak
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files, threads = (sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("fd", "task"))
    return {"bytes": resident, "files": files, "threads": threads}


def measure(name: str, count: int) -> Iterator[dict[str, int]]:
    """Run a job in this process, and look at even distances."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        path = random_model.write_llama(
            Path(folder) / "model.gguf", n_embd=32, n_head=2, n_layer=1, n_ff=32, n_vocab=400
        )
        cycle = JOBS[name].make(path)
        step = max(1, count // N_LOOKS)
        for n in range(count):
            cycle(n)
            if n % step == step - 1:
                yield {"cycle": n + 1, **look()}


def slope(looks: list[dict[str, int]]) -> float:
    """Return the growth of resident memory in the second half, in bytes a cycle."""
    half = looks[len(looks) // 2 :]
    x, y = ([look[key] for look in half] for key in ("cycle", "bytes"))
    return float(np.polyfit(x, y, 1)[0])


def report(name: str, looks: list[dict[str, int]], seconds: float) -> dict[str, Any]:
    """Return the figures of a job."""
    middle, last = looks[len(looks) // 2], looks[-1]
    return {
        "job": name,
        "cycles": last["cycle"],
        "seconds": round(seconds),
        "bytes_per_cycle": round(slope(looks), 2),
        "first_bytes": looks[0]["bytes"],
        "last_bytes": last["bytes"],
        "more_files": last["files"] - middle["files"],
        "more_threads": last["threads"] - middle["threads"],
    }


def main() -> int:
    """Parse the command line, run the jobs, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="job", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of cycles")
    parser.add_argument("--here", action="store_true", help="run one job in this process")
    options = parser.parse_args()
    if set(options.jobs) - JOBS.keys():
        parser.error(f"the jobs are {', '.join(JOBS)}")
    failed = False
    for name in options.jobs or JOBS:
        if options.here:
            since = time.monotonic()
            looks = list(measure(name, max(N_LOOKS, int(JOBS[name].count * options.share))))
            print(json.dumps(report(name, looks, time.monotonic() - since)))
            continue
        command = [sys.executable, __file__, name, "--here", "--share", str(options.share)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, end="", flush=True)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        grew = found.get("bytes_per_cycle", LIMIT) >= LIMIT
        failed |= grew or bool(found.get("more_files") or found.get("more_threads"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
