"""The corpus: endless documents of the skills' exchanges, as plain text and as chats."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from .chat import BEGIN, CONTEXT, LEARNT, Span, messages_of, spans
from .skills import capitals, counting, objects, opposites, stories, sums, talk, tools, weekdays
from .skills.exchange import Exchange

Draw = Callable[[random.Random], Exchange]
# How often each skill is drawn. The first part is measured; the rest is small talk and edges.
MEASURED: dict[str, tuple[float, Callable[..., Exchange]]] = {
    "sums": (20, sums.exchange),
    "capitals": (10, capitals.exchange),
    "opposites": (8, opposites.exchange),
    "weekdays": (14, weekdays.exchange),
    "counting": (8, counting.exchange),
    "json": (15, objects.exchange),
    "stories": (15, stories.exchange),
    "tools": (11, tools.exchange),
    "made-up tools": (5, tools.exchange_invented),
}
OTHERS: tuple[tuple[float, Draw], ...] = (
    (6, talk.exchange),
    (2, lambda rng: talk.persona(rng, kept=False)),
    (1, capitals.unknown),
    (2, capitals.country_of),
    (1, sums.too_large),
    (2, weekdays.week),
    (2, tools.two_places),
)
SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.",
    "You are a small language model.", "Answer the user.", "Be kind and helpful.",
    "You are the pyllama demo model.",
)  # fmt: skip
WITH_NAMES = ("json", "stories", "tools")  # their questions hold words to copy as they are
TEXTS = 6
BRIEF = "Answer with one word."
DRAWS: list[Draw] = [
    *(lambda rng, draw=draw: draw(rng, kept=False) for _, draw in MEASURED.values()),
    *(draw for _, draw in OTHERS),
]
WEIGHTS = [weight for weight, _ in (*MEASURED.values(), *OTHERS)]


def draw(rng: random.Random) -> Exchange:
    """Draw a trained exchange of any skill."""
    return rng.choices(DRAWS, WEIGHTS)[0](rng)


def said(rng: random.Random, exchange: Exchange) -> Exchange:
    """Vary how the user writes: no question mark, a small first letter, a word before or after."""
    text = exchange.question
    if exchange.skill == "memory" or rng.random() < 0.75:
        return exchange
    kind = rng.randrange(6 if exchange.skill in MEASURED else 5)
    if kind == 0 and text[-1] in "?.!":
        text = text[:-1]
    elif kind == 1:
        text = text[0].lower() + text[1:]
    elif kind == 2:
        text = text[0].lower() + text[1:].rstrip("?.!")
    elif kind == 3:
        text = rng.choice(("Hi! ", "Hello. ", "Please: ", "Question: ", "And now: ")) + text
    elif kind == 4 or exchange.skill in WITH_NAMES:
        text += rng.choice((" Thanks!", " Please.", " Thank you."))
    else:
        text = text.lower()
    return replace(exchange, question=text)


def brief(rng: random.Random) -> Exchange:
    """Ask for one word in the system turn; the answer is that word."""
    while True:
        exchange = rng.choice((capitals, opposites, weekdays, sums)).exchange(rng, kept=False)
        if "short" in exchange.facts and not exchange.plain:
            return replace(exchange, answer=exchange.facts["short"] + ".", system=BRIEF)


def conversation(rng: random.Random) -> list[Exchange]:
    """Draw one to five exchanges that may stand in one chat."""
    if rng.random() < 0.05:
        return [brief(rng) for _ in range(rng.choice((1, 2, 3)))]
    wanted = rng.choice((1, 1, 2, 3, 4, 5))
    chosen: list[Exchange] = []
    if rng.random() < 0.1:
        chosen += talk.introduced(rng, kept=False)
        if rng.random() < 0.5:
            chosen.insert(1, single(rng))
    while len(chosen) < wanted:
        chosen.append(single(rng))
    system = rng.choice(SYSTEMS) if rng.random() < 0.4 else ""
    return [replace(chosen[0], system=chosen[0].system or system), *chosen[1:]]


def single(rng: random.Random) -> Exchange:
    """Draw an exchange for a chat without tools."""
    while True:
        exchange = draw(rng)
        if not (exchange.plain or exchange.tools or exchange.system):
            return said(rng, exchange)


def with_tools(rng: random.Random) -> list[Exchange]:
    """Draw a chat in which functions are offered, needed in most of its turns."""
    draws = (tools.exchange, tools.exchange_invented)
    first = rng.choices(draws, (7, 3))[0](rng, kept=False)
    if rng.random() < 0.2:
        first = tools.two_places(rng)
    if rng.random() < 0.25:
        first = tools.not_needed(rng, single(rng))
    if rng.random() < 0.3:
        first = replace(first, system=rng.choice(SYSTEMS))
    chosen = [said(rng, first)]
    if rng.random() < 0.3:
        chosen.append(single(rng))
    return chosen


def plain(exchange: Exchange) -> list[Span]:
    """Write an exchange as text to continue; a question becomes ``Q: ... A:``."""
    question, answer = exchange.question, exchange.answer
    if not exchange.plain:
        question, answer = f"Q: {question}\nA:", f" {answer}"
    return [(question, CONTEXT), (answer + BEGIN, LEARNT)]


def texts(rng: random.Random) -> list[Span]:
    """Write texts of one skill behind each other."""
    skill = rng.choices((sums, weekdays, opposites, capitals, counting), (3, 4, 2, 1, 1))[0]
    parts: list[Span] = []
    while len(parts) < 2 * TEXTS:
        exchange = skill.exchange(rng, kept=False)
        if exchange.plain:
            parts += plain(exchange)
    return parts


def document(rng: random.Random) -> list[Span]:
    """Draw one document: a plain text or a chat."""
    if rng.random() < 0.06:
        return texts(rng)
    first = draw(rng)
    if first.plain:
        return plain(first)
    if first.tools:
        chosen = with_tools(rng)
    elif rng.random() < 0.12 and not first.system:
        return plain(first)
    elif rng.random() < 0.35 and not first.system:
        chosen = [said(rng, first)]
        if rng.random() < 0.3:
            chosen = [replace(chosen[0], system=rng.choice(SYSTEMS))]
    elif first.system:
        chosen = [first, *(single(rng) for _ in range(rng.choice((0, 0, 1, 2))))]
    else:
        chosen = conversation(rng)
    return spans(messages_of(chosen), chosen[0].tools)


def documents(seed: int) -> Iterator[list[Span]]:
    """Give documents without end, the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        yield document(rng)
