"""Every public callable with every argument set to every odd value: an error, or it works.

The cases run in processes forked from one that has imported pyllama and computed nothing: a fork
after that would wait for threads it does not have. A death or a hang fails the case it happened in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matrix import table, values
from matrix.targets import targets
from matrix.world import write_files

TESTS = Path(__file__).parent


def all_cases() -> list[str]:
    """Name every case: callable, argument, value; the first of each callable has nothing odd."""
    cases = []
    for target in targets().values():
        if target.name not in table.REFUSED and not target.is_enum:
            cases.append(f"{target.name} | - | {values.USUAL}")
        for argument in target.arguments:
            closable = ("closed", "other") if table.is_closable(target) else ()
            names = values.NAMES if argument != "self" else closable
            cases += [f"{target.name} | {argument} | {name}" for name in names]
    return [case for case in cases if case not in table.LONG]


def run(cases: list[str], directory: Path) -> dict[str, str]:
    """Run cases, and return what is wrong with those that failed."""
    write_files(directory)
    paths = [str(TESTS), str(TESTS.parent / "tools")]
    more = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "matrix.server", str(directory)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["end"]: line["raised"] for line in lines if "end" in line}
    found |= {line["died"]: line["how"] for line in lines if "died" in line}
    assert sorted(found) == sorted(cases)
    return {case: wrong for case, wrong in found.items() if wrong}


def test_every_public_callable_is_in_the_table():
    """A new one needs an object to call it on, and its usual arguments."""
    missing = [
        f"{target.name}: {argument}"
        for target in targets().values()
        for argument in (*(("self",) if target.owner else ()), *target.required)
        if table.maker(target, argument) is None
    ]
    assert missing == []


@pytest.mark.parametrize("nth", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_odd_values_are_refused_or_work(tmp_path, capsys, nth):
    """No signal, no hang, no error that nobody documented; and what is usual works.

    A usual run takes each fourth value of an argument, and others of the next argument.
    """
    cases = [
        case
        for n, case in enumerate(all_cases())
        if n % nth == 0 or case.endswith(f"| {values.USUAL}")
    ]
    wrong = run(cases, tmp_path)
    assert not wrong, "\n".join(f"{case}: {how}" for case, how in wrong.items())
    with capsys.disabled():
        print(f" [{len(cases)} cases] ", end="")
