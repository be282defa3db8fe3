"""One asked and answered thing, and the rule that keeps part of each skill out of training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HELD_OUT_PERCENT = 20


@dataclass(frozen=True)
class Exchange:
    """A question with its answer.

    ``key`` names what must not be shared between training and measurement (a pair of summands, a
    country with a phrasing, a name). A plain exchange is text to continue: no chat turns around
    it. ``calls`` are the tool calls that the assistant makes before it can answer, ``results``
    what the tools said.
    """

    skill: str
    key: str
    question: str
    answer: str
    plain: bool = False
    system: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[Mapping[str, Any], ...] = ()
    results: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def held_out(skill: str, key: str) -> bool:
    """Say whether this key of a skill is kept for measurement and never trained."""
    return zlib.crc32(f"{skill}|{key}".encode()) % 100 < HELD_OUT_PERCENT


def drawn(
    rng: random.Random,
    skill: str,
    things: Sequence[str],
    questions: Sequence[str],
    beginnings: Sequence[str],
    *,
    kept: bool,
) -> tuple[str, str, bool]:
    """Draw a thing, a phrasing, and whether it is one to continue; some combinations are kept."""
    while True:
        thing = rng.choice(things)
        plain = rng.random() < 0.35
        wording = rng.choice(beginnings if plain else questions)
        if held_out(skill, f"{thing}|{wording}") == kept:
            return thing, wording, plain


def words(text: str) -> list[str]:
    """Give the words of a text."""
    return text.split()


def listed(words: Sequence[str], last: str = " and ") -> str:
    """Join words the way a sentence does: ``a, b and c``."""
    return last.join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
