"""Held-out cases of each skill: questions that the corpus never contains, and their checks."""

from __future__ import annotations

import random
from collections.abc import Callable

from .corpus import MEASURED
from .skills import capitals, objects, stories, talk, tools
from .skills.exchange import Exchange

SEED = 20_001
Draw = Callable[[random.Random], list[Exchange]]
# Skills with many right answers have their own check; in the others the answer is one text.
CHECKS = {stories.SKILL: stories.correct, objects.SKILL: objects.correct}
# What is measured beside the named skills; each is a conversation whose last answer counts.
PROBES: dict[str, Draw] = {
    "JSON with made-up keys": lambda rng: [objects.made_up_keys(rng)],
    "a name told in an earlier turn": lambda rng: talk.introduced(rng, kept=True),
    "a name told in the system turn": lambda rng: [talk.persona(rng, kept=True)],
    "two tool calls in one turn": lambda rng: [tools.two_places(rng)],
    "a capital that does not exist": lambda rng: [capitals.unknown(rng)],
    "tools offered, none needed": lambda rng: [
        tools.not_needed(rng, chatted(rng, capitals.exchange))
    ],
}


def chatted(rng: random.Random, draw: Callable[..., Exchange]) -> Exchange:
    """Draw a held-out exchange that is asked in a chat."""
    while True:
        exchange = draw(rng, kept=True)
        if not exchange.plain:
            return exchange


def distinct(draw: Draw, count: int) -> list[list[Exchange]]:
    """Draw up to ``count`` different conversations."""
    rng = random.Random(SEED)
    found: dict[tuple[str, str], list[Exchange]] = {}
    for _ in range(count * 50):
        conversation = draw(rng)
        found.setdefault((conversation[-1].key, conversation[-1].question), conversation)
        if len(found) == count:
            break
    return list(found.values())


def cases(skill: str, count: int) -> list[Exchange]:
    """Give up to ``count`` different held-out exchanges of a measured skill."""
    _, draw = MEASURED[skill]
    return [only for (only,) in distinct(lambda rng: [draw(rng, kept=True)], count)]


def correct(exchange: Exchange, text: str) -> bool:
    """Say whether a text answers an exchange."""
    check = CHECKS.get(exchange.skill)
    if check is not None:
        return check(exchange, text.rstrip())
    return text.strip() == exchange.answer.strip()
