"""What the targets share: the folder, the seed files, and models that stay open for many inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyllama

T = TypeVar("T")

ONE_THREAD = {"n_threads": 1, "n_threads_batch": 1}
RAN, REFUSED = "ran", "refused"  # what `Target.use` returns when all is well


class Bench:
    """One for each worker process; what a target makes for itself it keeps here.

    Parameters
    ----------
    folder
        For files; it is the worker's alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = 0  # of the input
        self._kept: dict[str, Any] = {}

    def keep(self, name: str, make: Callable[[], T]) -> T:
        """Return what *make* made the first time."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    def forget(self, name: str) -> None:
        """Make it anew the next time."""
        self._kept.pop(name, None)

    def model(self, name: str, write: Callable[[Path], Path], **options: Any) -> pyllama.Model:
        """Return a model that stays open."""

        def load() -> pyllama.Model:
            path = self.folder / f"{name}.gguf"
            return pyllama.Model(path if path.exists() else write(path), **options)

        return self.keep(f"model {name}", load)


class Target(NamedTuple):
    """What is fuzzed: how an input is made, and what is done with it.

    ``make`` returns the input and what was changed in it; the same random numbers give the same
    input. ``use`` returns `RAN` or `REFUSED`, or raises: what the library declares is a refusal
    too, anything else a finding.
    """

    make: Callable[[Bench, random.Random], tuple[bytes, str]]
    use: Callable[[Bench, bytes], str]
    # Of address space, in MiB: an input that makes libllama take more is a finding.
    megabytes: int = 4096
