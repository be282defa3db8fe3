"""Forks a process for each callable from one that has imported pyllama, and computed nothing.

    python -m matrix.server DIRECTORY < names of cases

A name is ``callable | argument | value``. On stdout, for each: a JSON line ``{"begin": name}`` and
``{"end": name, "raised": ...}``, or ``{"died": name, "how": ...}``.
"""

from __future__ import annotations

import faulthandler
import json
import os
import selectors
import signal
import sys
import tempfile
import traceback
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

from matrix import table, values
from matrix.targets import Target, targets
from matrix.world import World

SECONDS = 60  # for one case, against hangs


def call(target: Target, argument: str, name: str, world: World) -> None:
    """Call it with one odd value, the others as usual, and go on with what it gives."""
    given: dict[str, Any] = {}
    for each in target.arguments:
        make = table.maker(target, each)
        if each == argument:
            given[each] = values.value(name, make(world) if make else None, world)
        elif make is not None and each in ("self", *target.required, *table.always(target)):
            given[each] = make(world)
    subject = given.pop("self", None)
    starred = [given.pop(each) for each in tuple(given) if each.startswith("*")]
    first = [] if target.owner is None else [subject]
    table.use(target.function(*first, *starred, **given), world)
    table.use(subject, world)


def run(case: str, world: World) -> str:
    """Return the error that was not declared, name and message; empty if all is well."""
    name, argument, value = case.split(" | ")
    try:
        call(targets()[name], argument, value, world)
    except BaseException as error:  # noqa: BLE001 - told to the parent
        if value == values.USUAL or not values.is_declared(error):
            return f"{type(error).__name__}: {error}"[:2000]
    return ""


def child(cases: list[str], directory: Path, pipe: int) -> None:
    """Run cases, and tell the parent before and after each."""
    out = os.fdopen(pipe, "w", buffering=1)
    os.chdir(tempfile.mkdtemp(dir=directory))
    world = World(directory)
    for case in cases:
        out.write(json.dumps({"begin": case}) + "\n")
        raised = run(case, world)
        out.write(json.dumps({"end": case, "raised": raised}) + "\n")
    world.prove()


def fork(cases: list[str], directory: Path) -> tuple[list[dict[str, str]], str]:
    """Run cases in a new process; return what it said, and how it failed, if it did."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as words:
        process = os.fork()
        if process == 0:
            os.close(reading)
            os.dup2(words.fileno(), 2)
            os.dup2(words.fileno(), 1)
            faulthandler.enable()
            code = 1
            try:
                child(cases, directory, writing)
                code = 0
            except BaseException:  # noqa: BLE001 - this process must end here
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        os.close(writing)
        lines, hung = listen(reading, process)
        _, status = os.waitpid(process, 0)
        words.seek(0)
        said = words.read()[-3000:].decode("utf-8", "replace")
    if status == 0:
        return lines, ""
    code = os.waitstatus_to_exitcode(status)
    return lines, f"{'hung' if hung else f'ended with {code}'}: {said}"


def listen(reading: int, process: int) -> tuple[list[dict[str, str]], bool]:
    """Read lines until the process has ended; end it when it says nothing for too long."""
    data, hung = b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if not selector.select(SECONDS):
                hung = True
                os.kill(process, signal.SIGKILL)
            part = os.read(reading, 1 << 16)
            if not part:
                break
            data += part
    os.close(reading)
    return [json.loads(line) for line in data.splitlines() if line.endswith(b"}")], hung


def run_all(cases: list[str], directory: Path) -> None:
    """Run the cases of one callable, in as many processes as it takes."""
    while cases:
        lines, how = fork(cases, directory)
        done = {line["end"] for line in lines if "end" in line}
        for line in lines:
            if "end" in line:
                say(line)
        left = [case for case in cases if case not in done]
        if how:
            # The one it was at; run alone it says whether others before it are to blame.
            culprit = left[0] if left else cases[-1]
            _, alone = fork([culprit], directory)
            blame = alone or f"only after the others of its callable: {how}"
            say({"died": culprit, "how": blame})
            left = left[1:]
        cases = left


def say(line: dict[str, str]) -> None:
    """Write a line to the test."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read names, run them."""
    warnings.simplefilter("ignore")
    directory = Path(sys.argv[1])
    targets()
    cases = json.load(sys.stdin)
    for _, group in groupby(cases, key=lambda case: case.partition(" | ")[0]):
        run_all(list(group), directory)


if __name__ == "__main__":
    main()
