"""Saving while the disk fails, or the process dies: the old file stays, or the new one is whole.

tests/faults.c is preloaded; it makes each call to the system, one after another, fail.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyllama.core.atomic import write_whole

SOURCE = Path(__file__).parents[1] / "faults.c"
COMPILER = shutil.which("cc") or shutil.which("gcc")
OLD, PARTS = b"old" * 1000, (b"new", b"er" * 50_000, b"est")
NEW = b"".join(PARTS)
SAVE = """
import sys
from pyllama.core.atomic import write_whole
try:
    write_whole(sys.argv[1], (b"new", b"er" * 50_000, b"est"))
except OSError as error:
    print("refused", error.errno)
else:
    print("saved")
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or COMPILER is None, reason="needs Linux and a C compiler"
)


class Disk:
    """A folder with one old file, and a way to save to it while the disk fails."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library = library
        self.folder = folder
        self.path = folder / "state"
        self.report = folder.with_name("calls")

    def save(self, at: int = 0, how: str = "") -> tuple[int, str]:
        """Save in a process of its own; return its exit status and what it said."""
        self.path.write_bytes(OLD)
        preload = f"{self.library} {os.environ.get('LD_PRELOAD', '')}".strip()
        faults = {"FAULT_AT": str(at), "FAULT_HOW": how, "FAULT_FOLDER": str(self.folder)}
        environment = {**os.environ, **faults, "LD_PRELOAD": preload}
        environment["FAULT_REPORT"] = str(self.report)
        command = [sys.executable, "-c", SAVE, str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    def names(self) -> list[str]:
        """Return what lies in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def n_calls(self) -> int:
        """Return how many calls a save takes that goes well."""
        assert self.save() == (0, "saved")
        return int(self.report.read_text())


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Compile what makes calls fail."""
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True)
    return path


@pytest.fixture
def disk(library, tmp_path) -> Disk:
    """Return a disk that can fail."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return Disk(library, folder)


def test_the_calls_are_seen(disk):
    """Making the file, the writes, two fsyncs, the rename: fewer would mean a blind test."""
    assert disk.n_calls() >= 5
    assert disk.path.read_bytes() == NEW


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_each_call_that_fails_is_an_error_and_keeps_the_old_file(disk, error):
    """Only the folder's own fsync comes after the new file has its name."""
    kept, n_calls = 0, disk.n_calls()
    refused = 0
    for at in range(1, n_calls + 1):
        status, said = disk.save(at, str(error))
        assert status == 0
        if said == "saved":  # the calls that this kind of error leaves out
            continue
        assert said == f"refused {error}"
        refused += 1
        assert disk.path.read_bytes() in (OLD, NEW)
        kept += disk.path.read_bytes() == OLD
        assert disk.names() == ["state"]
    assert refused >= 5
    assert kept >= refused - 1


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_death_at_each_call_leaves_one_whole_file(disk, how):
    """What was being written may lie beside it."""
    for at in range(1, disk.n_calls() + 1):
        assert disk.save(at, how) == (9, "")
        assert disk.path.read_bytes() in (OLD, NEW)
        assert all(name == "state" or name.startswith(".pyllama-") for name in disk.names())


def test_short_writes_are_gone_on_with(disk):
    """A system may take less than it was given."""
    assert disk.save(0, "short") == (0, "saved")
    assert disk.path.read_bytes() == NEW


def test_a_full_device_is_an_error(tmp_path):
    """And not the success that libllama reports for a short state (src/llama-mmap.cpp)."""
    link = tmp_path / "state"
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="regular"):
        write_whole(link, PARTS)


def test_the_errors_are_those_of_the_system(tmp_path):
    """A missing folder, a folder in the place of the file."""
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "state", PARTS)
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, PARTS)
    assert not list(tmp_path.iterdir())
