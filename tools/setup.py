"""Set pyllama up for `make demo` and `make test`: a .venv, llama.cpp at the pin, the build.

    python3 tools/setup.py [options of vendor/fetch.py]

Needs python3 (3.10 or later), a C++ compiler and git; make or a person starts it. It says what it
does while it works, keeps everything the tools print in build/setup.log, and does nothing (in a
tenth of a second) when nothing that a build depends on has changed. CMAKE_ARGS is passed on, and
remembered until another one is given or `make clean` forgets it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
LOG = Path("build/setup.log")
PYTHON = ".venv/bin/python"
STAMP = Path(".venv/pyllama-setup.json")  # in .venv, so that both go together
INPUTS = ("pyproject.toml", "CMakeLists.txt", "bindings")
SHOWN_LINES, READ_LINES = 30, 400  # of the end of a failed command's output
ERROR = re.compile(r"CMake Error|FAILED: |.*\berror: ")

# What a failed command printed, and what to do about it; the first that matches is said.
ADVICE = (
    (
        r"ensurepip is not available|No module named '?(venv|ensurepip)",
        "Python lacks its venv module: install it (`apt install python3-venv`)",
    ),
    (r"No space left on device", "the disk is full: make room (a build takes about 1 GB)"),
    (
        r"Killed signal|signal terminated program|[Cc]annot allocate memory",
        "the memory is full: build one file at a time with CMAKE_BUILD_PARALLEL_LEVEL=1",
    ),
    (
        r"NameResolution|NewConnection|TimeoutError|ProxyError|SSLError|No matching distribution",
        "pip cannot get a package: check the network and `pip config list`",
    ),
    (
        r"Python\.h: No such file|Could NOT find Python ",
        "Python's C headers are missing: install them (`apt install python3-dev`)",
    ),
    (
        r"No CMAKE_\w+_COMPILER could be found|is not able to compile a simple test program",
        "CMake finds no compiler that works: install one (`apt install g++`) or set CC and CXX",
    ),
    (
        r"CMake Error|Configuring incomplete",
        "CMake's reason stands above: check CMAKE_ARGS, or start afresh with `make clean`",
    ),
    (
        r"ninja: build stopped|\bError \d",
        "a file does not compile, see above: check CMAKE_ARGS and that the compiler knows C++17",
    ),
)
# read in .venv, because Python 3.10 has no tomllib and pip brings a TOML reader along
BUILD_REQUIREMENTS = """\
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\\n")
"""
# the backend's own answer: cmake and ninja, if the machine has none that is new enough
BACKEND_REQUIREMENTS = """\
from scikit_build_core.build import get_requires_for_build_editable
print(*get_requires_for_build_editable(), sep="\\n")
"""


class SetupError(Exception):
    """What went wrong and what to do, in one sentence; `output` is what a tool said of it."""

    def __init__(self, message: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.output = output


class Counter:
    """Show how far a build is: one line that changes on a terminal, else a line each tenth."""

    STEP = re.compile(r"\s*\[\s*(\d+)(?:/(\d+)|%)\]")  # ninja's [12/345], make's [ 12%]

    def __init__(self, screen: TextIO) -> None:
        self.screen = screen
        self.on_terminal = screen.isatty()
        self.total = 0
        self.tenth = 0

    def read(self, line: str) -> None:
        """Take one line of the build's output."""
        found = self.STEP.match(line)
        if found is None:
            return
        done, total = int(found[1]), int(found[2] or 100)
        if total < self.total:  # a build inside the build (shader compilers) counts for itself
            return
        self.total = total
        if self.on_terminal:
            self.screen.write(f"\r\033[Kbuilding {done} of {total}")
        elif done * 10 // total > self.tenth:
            self.tenth = done * 10 // total
            self.screen.write(f"building {done} of {total}\n")
        self.screen.flush()

    def finish(self) -> None:
        """Leave the changing line."""
        if self.on_terminal and self.total:
            self.screen.write("\n")


def say(message: str) -> None:
    """Tell the person at the terminal what happens now."""
    print(message, flush=True)


def run(command: list[str], log: TextIO, *, show: Callable[[str], object] | None = None) -> None:
    """Run *command*, give what it prints to *log* and *show*, and raise with advice if it fails."""
    log.write(f"\n$ {' '.join(command)}\n")
    log.flush()
    tail: deque[str] = deque(maxlen=READ_LINES)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            tail.append(line.rstrip())
            if show is not None:
                show(line.rstrip())
    if process.returncode != 0:
        sentence = advice("\n".join(tail), process.returncode)
        raise SetupError(sentence, reason(list(tail)))


def ask(code: str) -> list[str]:
    """Return the lines that *code* prints when the Python of .venv runs it."""
    done = subprocess.run([PYTHON, "-c", code], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        output = tuple(done.stderr.splitlines())
        raise SetupError("pyproject.toml does not say what the build needs", output)
    return [line for line in done.stdout.splitlines() if line]


def reason(output: list[str]) -> tuple[str, ...]:
    """Return the lines from the first error on, or the last ones if none looks like an error."""
    for number, line in enumerate(output):
        if "error: subprocess-exited-with-error" in line:  # from here on pip speaks of itself
            output = output[:number]
            break
    for number, line in enumerate(output):
        if ERROR.match(line.strip()):
            return tuple(output[number : number + SHOWN_LINES])
    return tuple(output[-SHOWN_LINES:])


def advice(output: str, status: int) -> str:
    """Return the sentence that fits the output of a failed command."""
    for pattern, sentence in ADVICE:
        if re.search(pattern, output):
            return sentence
    return f"a command ended with status {status}: its output stands above"


def check_machine() -> None:
    """Raise if something is missing that pip cannot bring."""
    usual = {"C": ("CC", ["cc", "gcc", "clang"]), "C++": ("CXX", ["c++", "g++", "clang++"])}
    for language, (variable, names) in usual.items():
        tried = os.environ.get(variable, "").split()[:1] or names
        if not any(shutil.which(name) for name in tried):
            tools = ", ".join(tried)
            raise SetupError(f"no {language} compiler ({tools}): install one (`apt install g++`)")
    if not shutil.which("git"):
        raise SetupError("no git: install it (`apt install git`)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise SetupError(
            "Python's C headers (Python.h) are missing: install them (`apt install python3-dev`)"
        )


def input_files() -> Iterator[Path]:
    """Yield each file that a build depends on, besides llama.cpp."""
    for name in INPUTS:
        path = Path(name)
        if path.is_dir():
            yield from sorted(
                file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"
            )
        elif path.exists():
            yield path


def state_of_inputs() -> str:
    """Return a digest of what a build depends on: the files, the pin, the Python."""
    link = ["git", "ls-files", "--stage", "--", "vendor/llama.cpp"]
    try:
        pin = subprocess.run(link, check=False, capture_output=True).stdout
    except FileNotFoundError:
        pin = b""  # check_machine has the sentence for it
    digest = hashlib.sha256(pin + sys.version.encode())
    for file in input_files():
        content = file.read_bytes()
        digest.update(f"{file} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def last_setup() -> dict[str, str]:
    """Return what the last complete setup recorded, or nothing."""
    try:
        recorded: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return recorded


def make_environment(log: TextIO) -> None:
    """Make .venv unless one with pip is there."""
    try:
        run([PYTHON, "-m", "pip", "--version"], log)
    except (OSError, SetupError):
        say("making .venv")
        run([sys.executable, "-m", "venv", ".venv"], log)


def fetch(options: list[str], log: TextIO) -> None:
    """Bring vendor/llama.cpp to its pin; vendor/fetch.py says itself what it does."""
    try:
        run([PYTHON, "vendor/fetch.py", *options], log, show=say)
    except SetupError:
        raise SetupError("llama.cpp is not there yet, the reason stands above") from None


def build(log: TextIO) -> None:
    """Install the build tools, then build and install pyllama with its development extras."""
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    say("installing the build tools")
    run([*pip, *ask(BUILD_REQUIREMENTS)], log)
    tools = ask(BACKEND_REQUIREMENTS)
    if tools:
        run([*pip, *tools], log)
    say(f"building llama.cpp and the binding (some minutes; the log is {LOG})")
    counter = Counter(sys.stdout)
    try:
        run([*pip, "--no-build-isolation", "-v", "-e", ".[dev]"], log, show=counter.read)
    finally:
        counter.finish()


def choose_cmake_args(recorded: dict[str, str]) -> str:
    """Return the CMAKE_ARGS given, or else those of the last setup."""
    return os.environ.get("CMAKE_ARGS", recorded.get("cmake_args", ""))


def set_up(options: list[str]) -> None:
    """Do what is left to do."""
    recorded = last_setup()
    cmake_args = choose_cmake_args(recorded)
    wanted = {"inputs": state_of_inputs(), "cmake_args": cmake_args}
    if recorded == wanted:
        return
    start = time.monotonic()
    check_machine()
    os.environ["CMAKE_ARGS"] = cmake_args
    if cmake_args:
        say(f"CMAKE_ARGS is {cmake_args}")
    for cache in Path("build").glob("*/CMakeCache.txt"):
        cache.unlink()  # it would keep options that are no longer given; what is compiled stays
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:
        make_environment(log)
        fetch(options, log)
        build(log)
    STAMP.write_text(json.dumps(wanted))
    say(f"pyllama is set up ({time.monotonic() - start:.0f} s)")


def main() -> int:
    """Run the command line; return its exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036 - the python3 of a machine may be any
        print("setup failed: this Python is too old: name one, `make setup PYTHON=python3.12`")
        return 1
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return 0
    os.chdir(ROOT)
    try:
        set_up(sys.argv[1:])
    except SetupError as error:
        for line in error.output:
            print(line, file=sys.stderr)
        print(f"setup failed: {error}", file=sys.stderr)
        if error.output:
            print(f"everything that the tools printed is in {LOG}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup was interrupted; run this again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
