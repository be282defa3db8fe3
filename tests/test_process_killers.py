"""Nothing that kills libllama kills a process that uses pyllama: a table of it, case by case.

The cases of a section run in one process, which says which one it is at. If it dies or hangs, that
case has failed, and the rest is run in a new one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killers.table import SECTIONS, Case, section

CASES = [(name, case) for name in SECTIONS for case in section(name)]
TESTS = Path(__file__).parent
# For a section, against hangs; the slowest takes about 10, under a sanitizer many times that.
SECONDS = 3600 if "PYLLAMA_SANITIZER" in os.environ else 240

# Rows about what cannot be made to happen through the public names.
REASONS = {
    "B3": "tensors, buffers, schedulers and graphs stay libllama's: test_unwrapped.py",
    "B4": "the RPC backend is not built unless asked for: test_cves.py",
    "G1": "GGUF files are read in Python, core/files/gguf.py; no gguf_get_* is called",
    "G2": "no file is read or written through gguf.h",
    "M6": "no file of that architecture can be made small",
    "ST8": "the flag for states on a device is not offered",
    "T1": "llama_chat_apply_template is refused: test_unwrapped.py; of chat templates see J",
}
N_ROWS = {
    "H": 14,
    "L": 13,
    "C": 14,
    "D": 16,
    "M": 7,
    "O": 4,
    "S": 14,
    "V": 7,
    "T": 2,
    "A": 6,
    "ST": 9,
    "Q": 6,
    "TR": 1,
    "G": 2,
    "B": 4,
    "P": 6,
    "J": 7,
}


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """Return a function that gives what came of the chosen cases of a section, run at first use."""
    directory = tmp_path_factory.mktemp("killers")
    tests = [item for item in request.session.items if "outcomes" in item.fixturenames]
    chosen = {test.callspec.params["case"].name for test in tests}
    return functools.cache(lambda name: run_section(name, directory, chosen))


def run_section(
    name: str, directory: Path, chosen: set[str] | None = None
) -> dict[str, dict[str, str]]:
    """Run the cases of a section, or those chosen, in as many processes as it takes."""
    waiting = [case.name for case in section(name) if chosen is None or case.name in chosen]
    found: dict[str, dict[str, str]] = {}
    while waiting:
        how, lines = run_worker(name, directory, waiting)
        found |= {line["end"]: line for line in lines if "end" in line}
        begun = [line["begin"] for line in lines if "begin" in line]
        waiting = [each for each in waiting if each not in found]
        if how:  # the case it was at has failed; all, if it did not get so far
            culprits = begun[-1:] or waiting
            found |= {culprit: {"raised": how, "proof": ""} for culprit in culprits}
            waiting = [each for each in waiting if each not in culprits]
    return found


def run_worker(name: str, directory: Path, names: list[str]) -> tuple[str, list[dict[str, str]]]:
    """Run cases in one process; return how it failed, if it did, and what it said."""
    paths = [str(TESTS), str(TESTS.parent / "tools")]
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "killers.worker", name, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        out, err = process.communicate(json.dumps(names), SECONDS)
        how = f"the process ended with {process.returncode}: {err[-2000:]}"
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        how = f"the process hung: {err[-2000:]}"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    finished = bool(lines) and lines[-1].get("end") == names[-1]
    return "" if finished and process.returncode == 0 and not err else how, lines


@pytest.mark.parametrize(("name", "case"), [pytest.param(*pair, id=pair[1].name) for pair in CASES])
def test_the_process_lives_and_raises_what_it_should(outcomes, name: str, case: Case):
    """Each row of the list of process killers is a Python exception, or works."""
    outcome = outcomes(name)[case.name]
    wanted = "" if case.error is None else case.error.__name__
    assert outcome["raised"].partition(":")[0] == wanted, outcome["raised"]
    assert not outcome["proof"], outcome["proof"]


def test_a_death_fails_the_case_that_died_and_no_other(tmp_path):
    """The harness itself: what is wrong is seen, what comes after is run in a new process."""
    found = run_section("deaths", tmp_path)
    raised = {name: outcome["raised"].partition(":")[0] for name, outcome in found.items()}
    assert raised == {
        "X works": "",
        "X aborts": "the process ended with -6",
        "X raises": "KeyError",
        "X spoils what comes after": "",
        "X leaves": "the process ended with 0",
        "X works still": "",
    }
    assert [name for name, outcome in found.items() if outcome["proof"]] == [
        "X spoils what comes after"
    ]


def test_every_row_has_a_case_or_a_reason():
    """None is forgotten."""
    rows = {f"{letter}{n + 1}" for letter, count in N_ROWS.items() for n in range(count)}
    covered = {case.row for _, case in CASES} | REASONS.keys()
    assert sorted(rows - covered) == []


def test_no_two_cases_have_the_same_name():
    """Names are what a worker is told."""
    names = [case.name for _, case in CASES]
    assert len(names) == len(set(names))
