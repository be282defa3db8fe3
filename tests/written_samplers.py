"""Samplers written in Python, as users would write them, and rows of logits for them."""

from __future__ import annotations

import copy

import numpy as np

import pyllama
from pyllama import LiveCandidates

N = 300


def rows(n: int, width: int = N) -> np.ndarray:
    """Return rows of logits without two equal ones."""
    return np.random.default_rng(5).normal(0, 3, (n, width)).astype(np.float32)


@pyllama.sampler
def temp(candidates: LiveCandidates, *, t: float) -> None:
    """Divide, as `samplers.temp` does."""
    candidates["logit"] /= np.float32(t)


@pyllama.sampler
def top_k(candidates: LiveCandidates, *, k: int) -> None:
    """Sort and cut, as `samplers.top_k` does."""
    data = candidates.data
    data[:] = data[np.argsort(-data["logit"], kind="stable")]
    candidates.size, candidates.sorted = k, True


@pyllama.sampler
def top_p(candidates: LiveCandidates, *, p: float) -> None:
    """Cut sorted candidates, as `samplers.top_p` does, in floats of the same width."""
    logits = candidates["logit"]
    weights = np.exp(logits - logits[0])
    shares = weights / np.cumsum(weights)[-1]
    reached = np.cumsum(shares) >= np.float32(p)
    candidates.size = int(reached.argmax()) + 1 if reached.any() else len(candidates)


@pyllama.sampler
class Gumbel:
    """Draw each token with its probability, by adding noise to the logits."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def apply(self, candidates: LiveCandidates) -> None:
        """Select one."""
        noise = self.rng.gumbel(size=len(candidates))
        candidates.selected = int((candidates["logit"] + noise).argmax())


class Counter:
    """Remember what it was told, and forbid the last token."""

    name = "counter"

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.n_applied = 0

    def accept(self, token: int) -> None:
        """Take note of a token."""
        self.tokens.append(token)

    def apply(self, candidates: LiveCandidates) -> None:
        """Rule the last token out."""
        self.n_applied += 1
        if self.tokens:
            candidates["logit"][candidates["id"] == self.tokens[-1]] = -np.inf

    def reset(self) -> None:
        """Forget."""
        self.tokens.clear()


class Failing:
    """Raise in the methods that are named."""

    def __init__(self, *where: str) -> None:
        self.where = set(where)
        self.calls: list[str] = []

    def _at(self, name: str) -> None:
        self.calls.append(name)
        if name in self.where:
            raise KeyError(name)

    def apply(self, candidates: LiveCandidates) -> None:
        """Raise, perhaps."""
        self._at("apply")

    def accept(self, token: int) -> None:
        """Raise, perhaps."""
        self._at("accept")

    def reset(self) -> None:
        """Raise, perhaps."""
        self._at("reset")

    def clone(self) -> Failing:
        """Raise, perhaps."""
        self._at("clone")
        return copy.deepcopy(self)
