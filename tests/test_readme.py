"""What the README and the pages in docs/ show, works."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from pyllama.text.sampling import ORDER, SamplingParams

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(TEXT)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(code):
    """Each in an interpreter of its own, and each prints something."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_print_what_stands_below_them(page):
    """One after another, in one namespace."""
    namespace: dict[str, object] = {"__name__": "page"}
    printed = None
    for language, content in blocks(PAGES[page]):
        if language == "python":
            assert not printed, f"nothing on the page shows {printed!r}"
            with redirect_stdout(io.StringIO()) as out:
                exec(compile(content, page, "exec", dont_inherit=True), namespace)
            printed = out.getvalue()
        elif language == "text" and printed:
            assert printed == content
            printed = None
    assert not printed


def test_the_table_of_sampling_parameters_is_complete():
    """Each field stands there in order, with its default; so do the samplers of the chain."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGES["sampling"], re.MULTILINE)
    defaults = {each.name: str(each.default) for each in dataclasses.fields(SamplingParams)}
    defaults["dry_sequence_breakers"] = r'`\n` `:` `"` `*`'
    defaults["logit_bias"] = "none"
    defaults["samplers"] = "the chain below"
    assert dict(rows) == defaults
    assert ", ".join(f"`{name}`" for name in ORDER) in " ".join(PAGES["sampling"].split())


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
    for page in PAGES.values():
        for path in re.findall(r"\]\((?!http)([^)]+)\)", page):
            assert (ROOT / "docs" / path).exists(), path


def test_the_command_line_answers():
    """`pyllama info` says what is in the build."""
    command = [sys.executable, "-m", "pyllama", "info"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert "CPU" in done.stdout
