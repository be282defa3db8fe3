"""Run the cases named on stdin, one after another, and say before each which one comes.

    python -m killers.worker SECTION DIRECTORY < names

On stdout: a JSON line ``{"begin": name}``, then ``{"end": name, "raised": ..., "proof": ...}``. A
process that dies or hangs has begun a case that it did not end.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path

from killers.table import Case, section
from killers.world import World


def say(**line: str | None) -> None:
    """Write a line that the parent can read whatever happens next."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def run(case: Case, world: World) -> str:
    """Do it, and return the name of what it raised, with its message; empty if nothing."""
    try:
        case.action(world)
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt is one of those wanted
        return f"{type(error).__name__}: {error}"
    return ""


def prove(world: World) -> str:
    """Return why the process or an object is not well; empty if it is."""
    try:
        world.prove()
    except BaseException:  # noqa: BLE001 - told, not raised
        return traceback.format_exc()
    return ""


def main() -> None:
    """Read names, run those cases of the section."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    name, directory = sys.argv[1:]
    cases = {case.name: case for case in section(name)}
    world = World(Path(directory))
    for wanted in json.load(sys.stdin):
        say(begin=wanted)
        raised = run(cases[wanted], world)
        say(end=wanted, raised=raised, proof=prove(world))


if __name__ == "__main__":
    main()
