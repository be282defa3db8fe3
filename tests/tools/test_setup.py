"""tools/setup.py and the Makefile: progress, advice, and when there is something to do."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NINJA = "  [{}/193] Building CXX object llama.cpp/src/CMakeFiles/llama.dir/llama.cpp.o\n"


class Terminal(io.StringIO):
    """A screen that says it is a terminal."""

    def isatty(self):
        """Say so."""
        return True


@pytest.fixture
def log():
    """Keep the log in memory."""
    return io.StringIO()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Enter a directory with the files that a build depends on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bindings").mkdir()
    for name in ("pyproject.toml", "CMakeLists.txt", "bindings/declarations.py"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def script(text):
    """Return the command that runs a Python program."""
    return [sys.executable, "-c", text]


def show(setup, screen, lines):
    """Give a counter the lines of a build."""
    counter = setup.Counter(screen)
    for line in lines:
        counter.read(line)
    counter.finish()


def test_a_build_is_shown_in_tenths(setup):
    """In a file there is one line for each tenth of the build."""
    screen = io.StringIO()
    show(setup, screen, [NINJA.format(step) for step in range(1, 194)])
    lines = screen.getvalue().splitlines()
    assert lines[0] == "building 20 of 193"
    assert lines[-1] == "building 193 of 193"
    assert len(lines) == 10


def test_a_terminal_shows_one_line_that_changes(setup):
    """Each step overwrites the last, and the line is left at the end."""
    screen = Terminal()
    show(setup, screen, [NINJA.format(step) for step in (1, 2)])
    assert screen.getvalue() == "\r\033[Kbuilding 1 of 193\r\033[Kbuilding 2 of 193\n"


def test_make_is_understood_too(setup):
    """Where there is no ninja the steps are percents."""
    screen = Terminal()
    show(setup, screen, ["[ 45%] Building C object llama.cpp/ggml/src/ggml.c.o\n"])
    assert "building 45 of 100" in screen.getvalue()


def test_a_build_inside_the_build_does_not_count(setup):
    """Shader compilers are built by a ninja of their own with its own steps."""
    screen = Terminal()
    show(setup, screen, [NINJA.format(9), "  [1/2] Building CXX object vulkan-shaders-gen.o\n"])
    assert "of 2" not in screen.getvalue()


def test_other_output_is_not_shown(setup):
    """What is no step of a build stays in the log."""
    screen = io.StringIO()
    show(setup, screen, ["  -- Found OpenMP: TRUE\n", "  Collecting numpy>=1.24\n", "[notice] x\n"])
    assert screen.getvalue() == ""


def test_the_log_holds_the_command_and_its_output(setup, log):
    """Both streams are kept, in order."""
    setup.run(script("import sys; print(1, flush=True); print(2, file=sys.stderr)"), log)
    assert log.getvalue().startswith(f"\n$ {sys.executable} -c ")
    assert log.getvalue().endswith("\n1\n2\n")


def test_a_failure_shows_the_last_lines(setup, log):
    """Thirty lines of the output come with the error, all of them are in the log."""
    with pytest.raises(setup.SetupError, match="status 3") as caught:
        setup.run(script("print(*range(1, 101), sep='\\n'); raise SystemExit(3)"), log)
    assert caught.value.output == tuple(str(number) for number in range(71, 101))
    assert "\n1\n2\n3\n" in log.getvalue()


def test_a_failed_build_shows_its_first_error(setup):
    """What pip says about itself afterwards, and what came before, is left out."""
    error = ["  CMake Error at CMakeLists.txt:9 (message):", "    no nvcc was found"]
    end = ["  -- Configuring incomplete, errors occurred!"]
    pip = ["  error: subprocess-exited-with-error", "  exit code: 1", "ERROR: Failed building"]
    output = ["  -- Found OpenMP: TRUE"] * 50 + error + end + pip
    assert setup.reason(output) == (*error, *end)


def test_output_that_is_not_text_is_kept(setup, log):
    """A compiler may quote bytes that are not UTF-8."""
    setup.run(script(r"import sys; sys.stdout.buffer.write(b'\xff ok\n')"), log)
    assert "ok" in log.getvalue()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("because ensurepip is not\navailable... ensurepip is not available.  On", "python3-venv"),
        ("/usr/bin/python3: No module named venv", "python3-venv"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "BUILD_PARALLEL_LEVEL=1"),
        ("NewConnectionError(': Failed to establish a new connection')", "check the network"),
        ("ERROR: No matching distribution found for cffi>=1.17", "check the network"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "no compiler that works"),
        ("-- Configuring incomplete, errors occurred!", "check CMAKE_ARGS"),
        ("llama.cpp:1:2: error: 'x' was not declared\nninja: build stopped", "does not compile"),
        ("anything else", "status 7"),
    ],
)
def test_each_failure_has_its_advice(setup, output, sentence):
    """What the tools print about the cause becomes what to do."""
    assert sentence in setup.advice(output, 7)


def test_a_missing_compiler_is_said_first(setup, monkeypatch, tmp_path):
    """Before anything is downloaded, one sentence names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(setup.SetupError, match=r"no C compiler .*apt install g\+\+"):
        setup.check_machine()


def test_a_chosen_compiler_that_is_missing_is_named(setup, monkeypatch):
    """CXX is what CMake takes, so it is what must be there."""
    monkeypatch.setenv("CXX", "no-such-c++ -O2")
    with pytest.raises(setup.SetupError, match="no-such-c"):
        setup.check_machine()


@pytest.mark.parametrize("name", ["pyproject.toml", "CMakeLists.txt", "bindings/declarations.py"])
def test_a_changed_input_is_noticed(setup, project, name):
    """The content counts, not the time of the file."""
    before = setup.state_of_inputs()
    (project / name).touch()
    assert setup.state_of_inputs() == before
    (project / name).write_text("changed")
    assert setup.state_of_inputs() != before


def test_a_new_pin_is_noticed(setup, project):
    """The commit that git records for llama.cpp is an input."""
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    before = setup.state_of_inputs()
    entry = f"160000,{'1' * 40},vendor/llama.cpp"
    command = ["git", "update-index", "--add", "--cacheinfo", entry]
    subprocess.run(command, cwd=project, check=True)
    assert setup.state_of_inputs() != before


@pytest.mark.usefixtures("project")
def test_cmake_args_are_remembered(setup, monkeypatch):
    """Left out they are those of the last setup; given, also empty, they count."""
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    recorded = {"cmake_args": "-DGGML_CUDA=on"}
    assert setup.choose_cmake_args(recorded) == "-DGGML_CUDA=on"
    monkeypatch.setenv("CMAKE_ARGS", "")
    assert setup.choose_cmake_args(recorded) == ""


def test_nothing_is_done_twice(setup, project, monkeypatch, capsys):
    """With the inputs of the last setup no tool is started and nothing is said."""
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=off")
    (project / setup.STAMP).write_text(
        f'{{"inputs": "{setup.state_of_inputs()}", "cmake_args": "-DGGML_NATIVE=off"}}'
    )
    setup.set_up([])
    assert capsys.readouterr().out == ""
    assert not (project / setup.LOG).exists()


@pytest.mark.usefixtures("project")
def test_a_damaged_record_counts_as_none(setup):
    """A setup that was cut short while it wrote is done again."""
    setup.STAMP.write_text('{"inputs": ')
    assert setup.last_setup() == {}


@pytest.mark.usefixtures("project")
def test_the_build_requirements_are_read_from_pyproject(setup, monkeypatch):
    """They are typed once, in the table that pip reads too."""
    Path("pyproject.toml").write_text('[build-system]\nrequires = ["a>=1", "b"]\n')
    monkeypatch.setattr(setup, "PYTHON", sys.executable)
    assert setup.ask(setup.BUILD_REQUIREMENTS) == ["a>=1", "b"]


def test_make_help_lists_every_command():
    """Each target that a person may type has its line."""
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make (\S+)", listed, re.MULTILINE) == phony[1].split()


def test_help_sets_nothing_up(setup, project, monkeypatch, capsys):
    """It only says what would be done."""
    monkeypatch.setattr(setup, "ROOT", project)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--help"])
    before = sorted(project.rglob("*"))
    assert setup.main() == 0
    assert "make demo" in capsys.readouterr().out
    assert sorted(project.rglob("*")) == before
