"""The house rules that the source text itself shows: who may import whom, no assert, no print."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "pyllama"
FILES = sorted(SOURCE.rglob("*.py"))

# Each part of the package with the parts it may import besides itself: downwards only.
BELOW = {
    "errors": set(),
    "_libllama": set(),
    "core": {"errors", "_libllama"},
    "text": {"errors", "core"},
    "prefill": {"errors", "core", "text", "choose"},
    "prompt_cache": {"errors", "core", "prefill"},
    "choose": {"errors", "core"},
    "generate": {"errors", "core", "text", "prefill", "choose"},
    "speculative": {"errors", "core", "prefill", "choose", "generate"},
    "models": {"errors"},
    "embedding": {"errors", "core"},
    "llm": {
        *("errors", "core", "text", "choose", "prefill", "generate", "embedding", "prompt_cache"),
        "speculative",
    },
    "engine": {"errors", "core", "text", "generate"},
    "server": {"errors", "core", "text", "generate", "engine"},
    "research": {"errors", "_libllama", "core", "text", "generate"},
    "integrations": {"errors", "core", "text", "generate", "engine", "server", "research"},
    "cli": {"__init__"},  # the public names only
    "__main__": {"cli"},
    "__init__": {
        *("errors", "core", "text", "generate", "models", "engine", "research", "llm"),
        *("speculative", "embedding", "prompt_cache"),
    },
}
TOUCH_C = {"core", "research"}
# What `import pyllama` loads.
LIGHT = {"errors", "core", "text", "prefill", "choose", "generate", "models", "__init__"}
DEPENDENCIES = {"numpy", "cffi", "pyllama"}
# What `import pyllama` has no business to load: each costs milliseconds at every start.
HEAVY = {"argparse", "asyncio", "email", "http", "importlib.metadata", "multiprocessing"}
HEAVY |= {"pydoc", "socket", "sqlite3", "ssl", "unittest", "urllib.request", "xml"}


def part_of(file: Path) -> str:
    """Return the part of the package that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line, dotted name, and whether only a type checker reads it, for each import."""
    package = ["pyllama", *file.relative_to(SOURCE).parent.parts]
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield node.lineno, name, id(node) in typing_only


def imported_part(name: str) -> str:
    """Return the part of the package that ``pyllama.part.and.so.on`` names."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in BELOW else "__init__"


def relative(file: Path) -> str:
    """Return the name of a test for a file."""
    return str(file.relative_to(SOURCE))


def test_every_part_has_its_place():
    """A new part of the package says what it may import."""
    assert {part_of(file) for file in FILES} <= set(BELOW)


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_go_downwards(file):
    """No file imports a part above its own."""
    part = part_of(file)
    wrong = [
        f"{file}:{line}: {part} imports {name}"
        for line, name, _ in imports(file)
        if name.split(".")[0] == "pyllama" and imported_part(name) not in BELOW[part] | {part}
    ]
    assert wrong == []


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_c_is_reached_from_core_only(file):
    """Only core/ and research/ see ``ffi`` and ``lib``."""
    doors = ("pyllama._libllama", "pyllama.core.library")
    wrong = [
        f"{file}:{line}: imports {name}"
        for line, name, _ in imports(file)
        if name.startswith(doors) and part_of(file) not in TOUCH_C
    ]
    assert wrong == []


@pytest.mark.parametrize("file", [f for f in FILES if part_of(f) in LIGHT], ids=relative)
def test_core_needs_numpy_and_cffi_only(file):
    """What ``import pyllama`` runs imports the standard library, numpy and cffi."""
    allowed = DEPENDENCIES | sys.stdlib_module_names
    wrong = [
        f"{file}:{line}: imports {name}"
        for line, name, typing_only in imports(file)
        if not typing_only and name.split(".")[0] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_assert(file):
    """``python -O`` would drop the check, so a check is an ``if`` and an exception."""
    nodes = ast.walk(ast.parse(file.read_text()))
    assert [node.lineno for node in nodes if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("file", [f for f in FILES if part_of(f) != "cli"], ids=relative)
def test_library_never_prints(file):
    """Only the command line writes to the terminal."""
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"))
    ]
    assert lines == []


def loaded_by(code: str) -> set[str]:
    """Return the modules that *code* loads beyond what numpy and cffi load."""
    script = (
        "import sys, numpy, _cffi_backend\n"
        "before = set(sys.modules)\n"
        f"{code}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_is_light():
    """``import pyllama`` itself loads no file of the package besides the first."""
    assert {name for name in loaded_by("import pyllama") if name.startswith("pyllama")} == {
        "pyllama"
    }


def test_first_use_is_light():
    """What the main objects load holds nothing heavy that numpy and cffi do not load anyway."""
    assert loaded_by("import pyllama; pyllama.Context, pyllama.generate") & HEAVY == set()
