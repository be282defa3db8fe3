"""Trials: verdicts that nobody else keeps, and how many processes were started for them."""

from __future__ import annotations

import pytest

from pyllama.core.loading import trial


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keep verdicts where nobody else does, and begin with none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "_verdicts", {})
    return tmp_path / "cache" / "pyllama" / "trials"


@pytest.fixture
def trials(cache, monkeypatch):
    """Count the processes; kept verdicts would hide some."""
    started = []
    real = trial._try

    def count(job):
        started.append(job)
        return real(job)

    monkeypatch.setattr(trial, "_try", count)
    return started
