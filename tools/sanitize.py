"""Run the tests on a build that watches every access to memory, or every race between threads.

    python tools/sanitize.py address        ASan and UBSan, all tests that call libllama
    python tools/sanitize.py thread         TSan without OpenMP, the tests about threads

The build has a place and a Python environment of its own under build/sanitize, so that the usual
one stays as it is. A report of any process that a test starts counts; what is upstream's and known
stands with its reason in tools/sanitize/*.supp.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "tools" / "sanitize"  # the suppressions
SHOWN_LINES = 40
STACK = ("n_bytes // _UNIT", "8 * n_bytes // _UNIT")  # ASan puts so much more on it


class Kind(NamedTuple):
    """A sanitizer: how to build for it, what to run under it."""

    flags: str
    libraries: tuple[str, ...]
    cmake: str
    options: dict[str, str]
    tests: tuple[str, ...]


# A sanitizer keeps notes of what was allocated, and for a while what was freed.
MEASURING_MEMORY = tuple(
    f"--deselect=tests/core/test_aborts.py::test_{name}"
    for name in (
        "decode_leaves_nothing_behind",
        "load_raises_what_libllama_said",
        "sample_leaves_nothing_behind",
        "tokenize_raises_and_the_model_can_only_be_closed",
    )
)
THREADED = (
    "tests/core/test_handle.py",
    "tests/core/test_lifetimes.py",
    "tests/core/test_aborts.py",
    "tests/core/test_ends.py",
    "tests/core/test_making.py",
    "tests/test_process_killers.py",
    "-k",
    "test_handle or test_lifetimes or test_aborts or test_ends or test_making or thread",
    *MEASURING_MEMORY,
)
# The shadow memory of ASan does not fit under a limit of address space: what sets one is left out,
# and so is what measures the stack, and what only tests the build, which runs compilers.
# ASan wants to be the first library that is preloaded (test_atomic), cannot follow how Python
# unwinds the threads that it ends (test_ends), and takes its time: what measures memory or time is
# left out as well.
ROW = "test_the_process_lives_and_raises_what_it_should"
NOT_UNDER_ASAN = (
    "--ignore=tests/tools",
    *MEASURING_MEMORY,
    *(f"--ignore=tests/core/test_{name}.py" for name in ("leaks", "bigstack", "atomic", "ends")),
    *(
        f"--deselect=tests/{name}"
        for name in (
            "core/loading/test_model_options.py::test_a_load_that_takes_too_long_ends",
            "core/test_tokenizer.py::test_a_long_number_is_quick",
            f"test_process_killers.py::{ROW}[J1 a template of brackets]",
        )
    ),
)
# Deaths, which the tests see by themselves: some let a worker overflow its stack or take too much
# memory (ASan's operator new ends the process), or try a damaged model in a process that it ends.
DEATH = re.compile(r"ERROR: AddressSanitizer: (stack-overflow|SEGV|allocator is out of memory)")

KINDS = {
    "address": Kind(
        "-fsanitize=address,undefined -fno-omit-frame-pointer",
        ("libasan.so", "libubsan.so"),
        "",
        {
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        ("tests", *NOT_UNDER_ASAN),
    ),
    "thread": Kind(
        "-fsanitize=thread -fno-omit-frame-pointer",
        ("libtsan.so",),
        "-DGGML_OPENMP=OFF",
        {"TSAN_OPTIONS": "history_size=4:second_deadlock_stack=1"},
        THREADED,
    ),
}


def environment(name: str) -> Path:
    """Make a Python environment for one sanitizer, unless there is one; return its Python."""
    folder = ROOT / "build" / "sanitize" / name / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        # A path named in a .pth file is searched, but the .pth files in it are not read: the
        # environment has our dependencies, and not the editable install.
        outer = sysconfig.get_path("purelib")
        (site_packages(folder) / "outer.pth").write_text(f"{outer}\n")
    return python


def site_packages(folder: Path) -> Path:
    """Return where an environment has its packages."""
    return next((folder / "lib").glob("python*/site-packages"))


def build(name: str) -> Path:
    """Build and install for one sanitizer, and return the Python that finds it."""
    python = environment(name)
    kind, folder = KINDS[name], python.parents[2]
    cmake = (
        f"-DCMAKE_C_FLAGS='{kind.flags}' -DCMAKE_CXX_FLAGS='{kind.flags}' "
        "-DCMAKE_C_FLAGS_RELEASE='-O1 -g1 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELEASE='-O1 -g1 -DNDEBUG' "
        f"{kind.cmake}"
    )
    command: list[object] = [sys.executable, "-m", "pip", "install", "--quiet"]
    command += ["--no-build-isolation", "--no-deps", "--upgrade"]
    command += ["--target", site_packages(folder / "venv")]
    settings = [f"build-dir={folder / 'cmake'}", "build.targets=_libllama"]
    run([*command, *(f"-C{setting}" for setting in settings), ROOT], CMAKE_ARGS=cmake)
    deepen(site_packages(folder / "venv") / "pyllama" / "core" / "bigstack.py")
    return python


def deepen(path: Path) -> None:
    """Let the installed package ask for larger stacks."""
    old, new = STACK
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{path}: {old!r} is not there once")
    path.write_text(text.replace(old, new))


def run(command: list[object], **environment: str) -> int:
    """Run a command from the root of the repository; raise if it fails."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, check=True).returncode


def preload(kind: Kind) -> str:
    """Return the run-time libraries, which must come before all others."""
    compiler = os.environ.get("CC", "gcc")
    found = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in kind.libraries
    ]
    missing = [name for name in found if not Path(name).is_absolute()]
    if missing:
        raise SystemExit(f"{compiler} has no {', '.join(missing)}: install its sanitizers")
    return " ".join(found)


def test(name: str, python: Path, arguments: list[str]) -> int:
    """Run pytest under the sanitizer; return how many reports came, or its status if it failed."""
    kind = KINDS[name]
    reports = ROOT / "build" / "sanitize" / name / "reports"
    reports.mkdir(exist_ok=True)
    for old in reports.iterdir():
        old.unlink()
    variables = dict(os.environ)
    for variable, value in kind.options.items():
        which = variable.partition("_")[0].lower()
        rules = RULES / f"{which}.supp"
        known = f":suppressions={rules}" if rules.exists() else ""
        variables[variable] = f"{value}:log_path={reports / which}{known}"
    variables |= {"LD_PRELOAD": preload(kind), "PYTHONMALLOC": "malloc"}
    variables["PYLLAMA_SANITIZER"] = name  # for tests and tools that limit the address space
    # UBSan beside ASan takes no notice of log_path, so what goes to stderr must not be captured.
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--capture=sys"]
    command += arguments or kind.tests
    # TSan of gcc 12 does not know all the places that the system may put a library at.
    words = ["setarch", "--addr-no-randomize", *map(str, command)]
    with (reports / "stderr").open("wb") as stderr:
        done = subprocess.run(words, cwd=ROOT, env=variables, stderr=stderr, check=False)
    status = done.returncode
    found = [report for report in sorted(reports.iterdir()) if counts(report)]
    for report in found:
        lines = report.read_text(errors="replace").splitlines()
        print(f"--- {report.name}", *lines[:SHOWN_LINES], sep="\n")
    summary = [place for report in found for place in places(report)]
    print(f"{name}: {len(found)} processes reported, {len(summary)} reports; pytest ended {status}")
    for place in sorted(set(summary)):
        print(f"{summary.count(place):6} {place}")
    return status or int(bool(found))


def counts(report: Path) -> bool:
    """Return whether a file holds what nobody expects."""
    text = report.read_text(errors="replace")
    return "runtime error:" in text or not (report.name == "stderr" or DEATH.search(text))


def places(report: Path) -> list[str]:
    """Return where each finding of a report lies."""
    text = report.read_text(errors="replace")
    return re.findall(r"^(?:SUMMARY: .*|\S+: runtime error: .*)$", text, re.MULTILINE) or ["?"]


def main() -> int:
    """Parse the command line, build, test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--no-build", action="store_true", help="test what was built last")
    options, arguments = parser.parse_known_args()
    python = environment(options.kind) if options.no_build else build(options.kind)
    return 0 if options.build_only else test(options.kind, python, arguments)


if __name__ == "__main__":
    sys.exit(main())
