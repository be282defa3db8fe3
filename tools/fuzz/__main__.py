"""Fuzz what reads foreign input, with many thousands of inputs that are nearly right.

    python tools/fuzz model --count 100000 --seed 1 --save build/fuzz
    python tools/fuzz --replay build/fuzz/model-1-4711.json

Each input is made of a seed and its index, so a run can be repeated. One that ends its process,
takes longer than a minute, makes libllama assert or throw, or raises what the library does not
declare is a finding: the first of each kind are saved, and the table at the end counts them all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else ggml starts a debugger on each abort
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz import files, worker
from fuzz.targets import TARGETS
from pyllama.core.files import model_rules

SAVED_OF_EACH = 3
PROGRESS_SECONDS = 60


class Run:
    """One target, its inputs, and what came of them."""

    def __init__(self, name: str, seed: int, folder: Path, save: Path) -> None:
        self.name, self.seed, self.folder, self.save = name, seed, folder, save
        self.page = worker.Page()
        self.sites: Counter[str] = Counter()
        self.first = 0  # of the worker at work

    def go(self, start: int, count: int, seconds: float) -> int:
        """Run inputs from *start* on until the count or the time is over; return how many."""
        end, deadline = start + count, time.monotonic() + seconds
        index, told = start, time.monotonic()
        while index < end and time.monotonic() < deadline:
            self.first = index
            stop = min(end, index + worker.PER_WORKER)
            code = self._start(range(index, stop))
            self._collect_raised()
            index = stop
            if code:
                index = self._collect_death(code) + 1
            if time.monotonic() > told + PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"{self.name}: {index - start} of {count}", flush=True)
        return index - start

    def _start(self, indices: range) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                target = TARGETS[self.name]
                worker.confine(target, self.folder / "report")
                worker.work(target, self.folder, self.page, self.seed, indices)
                code = 0
            except BaseException:  # noqa: BLE001 - of the fuzzer itself
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _collect_raised(self) -> None:
        """Take up what the worker lived through."""
        for path in sorted(self.folder.glob("*.found")):
            about = json.loads(path.read_text())
            data = path.with_suffix(".input").read_bytes()
            self._add(f"{about.pop('outcome')} {_place(about['report'])}", about, data)
            path.unlink()
            path.with_suffix(".input").unlink()

    def _collect_death(self, code: int) -> int:
        """Take up what killed the worker, and return its index."""
        index, data, notes = self.page.read()
        self.page.end("DIED")
        report = (self.folder / "report").read_text(errors="replace")[-4000:]
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        about = {"index": index, "notes": notes, "report": report}
        self._add(f"DIED {how} {_place(report)}", about, data)
        return index

    def _add(self, where: str, about: dict[str, Any], data: bytes) -> None:
        """Count a finding, and save the first few of each kind."""
        self.sites[where] += 1
        if self.sites[where] > SAVED_OF_EACH:
            return
        self.save.mkdir(parents=True, exist_ok=True)
        stem = self.save / f"{self.name}-{self.seed}-{about['index']}"
        about = {"target": self.name, "seed": self.seed, "first": self.first, "how": where, **about}
        stem.with_suffix(".input").write_bytes(data)
        stem.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
        print(f"{self.name} {about['index']}: {where}\n    {about['notes'][:300]}", flush=True)


def _place(text: str) -> str:
    """Return where libllama says it failed, or else what the text ends with."""
    places = re.findall(r"[\w./-]+\.(?:cpp|c|h):\d+", text)
    if places:
        return str(places[-1].rpartition("/")[2])
    frames = re.findall(r'File "[^"]*/([\w.]+)", line (\d+) in (\w+)', text)
    if frames:
        return " < ".join(f"{name}:{line} {function}" for name, line, function in frames[:3])
    return " ".join(text.split())[-160:]


def replay(path: Path, folder: Path) -> int:
    """Run a saved finding again: the input alone, then, if nothing comes of it, those before it."""
    about = json.loads(path.read_text())
    run = Run(about["target"], about["seed"], folder, folder / "saved")
    first, index = about["first"], about["index"]
    for indices in (range(index, index + 1), range(first, index + 1)):
        code = run._start(indices)
        print(f"inputs {indices.start} to {index}: the process ended with {code}")
        print((folder / "report").read_text(errors="replace")[-4000:])
        run._collect_raised()
        if code or run.sites:
            return 1
    print("nothing was found")
    return 0


def summary(run: Run, count: int, seconds: float) -> str:
    """Return a line and a table of what a run found."""
    counts = {name: n for name, n in run.page.counts().items() if n}
    lines = [f"{run.name}: {count} inputs, {count / seconds:.0f} a second: {counts}"]
    return "\n".join(lines + [f"{n:8} {where}" for where, n in run.sites.most_common()])


def main() -> int:
    """Parse the command line, fuzz, and print what was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--count", type=int, default=1000, help="of inputs, for each target")
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="index of the first input")
    parser.add_argument("--save", type=Path, default=Path("build/fuzz"), help="for the findings")
    parser.add_argument("--grow", type=Path, help="folder for seeds of all architectures")
    parser.add_argument("--no-rules", action="store_true", help="check the structure only")
    parser.add_argument("--replay", type=Path, help="a .json that --save wrote")
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.no_rules:
        model_rules.RULES = ()
    failed = False
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        if options.grow is not None:
            options.grow.mkdir(parents=True, exist_ok=True)
            (folder / "grown").symlink_to(options.grow.resolve())
            print(f"{files.grow_seeds(folder)} architectures grown", flush=True)
        if options.replay is not None:
            return replay(options.replay, folder)
        for target in options.targets or TARGETS:
            run = Run(target, options.seed, folder, options.save)
            since = time.monotonic()
            count = run.go(options.start, options.count, options.seconds)
            print(summary(run, count, time.monotonic() - since), flush=True)
            failed |= bool(run.sites)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
