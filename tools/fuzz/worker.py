"""The process that runs inputs, one after another, until it is told to stop or dies of one.

The process that starts it never computes, so that its forks may. Both see one shared page: which
input is at work, the input itself, and how many ended how; that is all that is left of a worker
that died.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import re
import resource
import signal
import struct
from collections import Counter
from pathlib import Path

from fuzz.bench import RAN, REFUSED, Bench, Target
from pyllama.errors import LibraryError, LlamaError, LoadError

SECONDS, CPU_SECONDS = 60, 10  # for one input
PER_WORKER = 3000  # inputs, then a fresh one: what leaks or is written astray shows the sooner
DATA_BYTES, NOTES_BYTES = 16 << 20, 4096
DECLARED = (LlamaError, TypeError, ValueError, IndexError, MemoryError, BufferError)

# How an input ends. What libllama itself caught while it loaded is a refusal, though one by an
# assertion; one that only the guard around each call caught should have been a check.
OUTCOMES = (RAN, REFUSED, "asserted", "CAUGHT", "UNDECLARED", "DIED")
FINDINGS = OUTCOMES[3:]
_HEAD = struct.Struct("<qQQ6Q")  # index, lengths of data and notes, one count for each outcome


class Page:
    """Memory that a worker and the process that started it share."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _HEAD.size + DATA_BYTES + NOTES_BYTES)
        _HEAD.pack_into(self._map, 0, -1, *[0] * 8)

    def _change(self, where: slice, *values: int) -> None:
        fields = list(_HEAD.unpack_from(self._map, 0))
        fields[where] = values
        _HEAD.pack_into(self._map, 0, *fields)

    def begin(self, index: int) -> None:
        """Say which input comes next; there is nothing of it yet."""
        self._change(slice(3), index, 0, 0)

    def put(self, data: bytes, notes: str) -> None:
        """Keep an input, and what was changed in it."""
        text = notes.encode("utf-8", "replace")[:NOTES_BYTES]
        data = data[:DATA_BYTES]
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        end = _HEAD.size + DATA_BYTES
        self._map[end : end + len(text)] = text
        self._change(slice(1, 3), len(data), len(text))

    def end(self, outcome: str) -> None:
        """Count how the input ended."""
        at = 3 + OUTCOMES.index(outcome)
        self._change(slice(at, at + 1), self.counts()[outcome] + 1)

    def read(self) -> tuple[int, bytes, str]:
        """Return the index, the input and its notes."""
        index, n_data, n_notes, *_ = _HEAD.unpack_from(self._map, 0)
        data = self._map[_HEAD.size : _HEAD.size + n_data]
        end = _HEAD.size + DATA_BYTES
        return index, data, self._map[end : end + n_notes].decode("utf-8", "replace")

    def counts(self) -> Counter[str]:
        """Return how many inputs ended how."""
        return Counter(dict(zip(OUTCOMES, _HEAD.unpack_from(self._map, 0)[3:], strict=True)))


def classify(error: BaseException) -> str:
    """Return the outcome that an exception stands for."""
    if isinstance(error, LibraryError):
        return "CAUGHT"
    if isinstance(error, LoadError):
        return "asserted" if re.search(r"\.(?:cpp|c|h):\d+: ", str(error)) else REFUSED
    return REFUSED if isinstance(error, DECLARED) else "UNDECLARED"


def generator(seed: int, index: int) -> random.Random:
    """Return the random numbers of one input."""
    return random.Random(f"{seed}:{index}")


def confine(target: Target, report: Path) -> None:
    """Limit what the process may take, and let it tell where it was when it dies."""
    if "PYLLAMA_SANITIZER" not in os.environ:  # shadow memory takes terabytes of address space
        n_bytes = target.megabytes << 20
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file = os.open(report, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable(2)
    for number in (signal.SIGALRM, signal.SIGPROF):
        faulthandler.register(number, 2, chain=True)


def work(target: Target, folder: Path, page: Page, seed: int, indices: range) -> None:
    """Run inputs; keep each that raised what it should not as a pair of files in *folder*."""
    bench = Bench(folder)
    for index in indices:
        os.ftruncate(2, 0)
        page.begin(index)
        bench.index = index
        signal.alarm(SECONDS)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        data, notes = target.make(bench, generator(seed, index))
        page.put(data, notes)
        outcome = _use(target, bench, data)
        page.end(outcome)
        if outcome in FINDINGS:
            about = {"index": index, "outcome": outcome, "notes": notes, "report": _report()}
            (folder / f"{index}.input").write_bytes(data)
            (folder / f"{index}.found").write_text(json.dumps(about))
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)


def _use(target: Target, bench: Bench, data: bytes) -> str:
    try:
        return target.use(bench, data)
    except BaseException as error:  # noqa: BLE001 - all that comes is counted
        outcome = classify(error)
        if outcome in FINDINGS:
            text = f"{type(error).__name__}: {error}"
            os.write(2, text.encode("utf-8", "replace"))
        return outcome


def _report() -> str:
    """Return what the process wrote to its standard error since the input began."""
    return os.pread(2, 1 << 20, 0)[-4000:].decode("utf-8", "replace")
