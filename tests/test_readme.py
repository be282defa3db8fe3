"""What the README shows, works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(code):
    """Each in an interpreter of its own, and each prints something."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_targets_exist():
    """The commands for make are targets of the Makefile."""
    wanted = set(re.findall(r"^make (\w+)", "\n".join(SHELL), re.MULTILINE))
    wanted |= set(re.findall(r"`make (\w+)`", TEXT))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test", "bench"} <= wanted
    assert wanted <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_options_for_cmake_exist():
    """Each -D option of the README is one of llama.cpp's."""
    options = set(re.findall(r"-D(\w+)=", TEXT))
    known = "".join(
        (ROOT / "vendor" / "llama.cpp" / path).read_text()
        for path in ("CMakeLists.txt", "ggml/CMakeLists.txt")
    )
    assert options
    assert all(re.search(rf"option\({option}\b", known) for option in options)


def test_programs_and_files_exist():
    """The scripts and links lead somewhere."""
    for path in re.findall(r"\]\((?!http)([^)]+)\)|python ([\w/]+\.py)", TEXT):
        assert (ROOT / "".join(path)).exists(), path


def test_the_command_line_answers():
    """`pyllama info` says what is in the build."""
    command = [sys.executable, "-m", "pyllama", "info"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CPU" in done.stdout
