"""Load the programs of `tools/` and `vendor/`, which are no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a fresh module made from the file at *path*."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fetch(monkeypatch):
    """vendor/fetch.py, for archives of any hash and disks of any size."""
    module = load("pyllama_vendor_fetch", ROOT / "vendor" / "fetch.py", monkeypatch)
    monkeypatch.setattr(module, "DISK_BYTES", 0)
    return module


@pytest.fixture
def setup(monkeypatch):
    """tools/setup.py."""
    return load("pyllama_tools_setup", ROOT / "tools" / "setup.py", monkeypatch)
