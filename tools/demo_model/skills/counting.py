"""Counting to n, and from one number to another."""

from __future__ import annotations

import random

from .exchange import Exchange, held_out

SKILL = "counting"
LARGEST = 30
QUESTIONS = (
    "Count to {b}.",
    "Count from 1 to {b}.",
    "Can you count to {b}?",
    "Please count up to {b}.",
    "Count up to {b}.",
    "Show me how you count to {b}.",
)
SPANS = (
    "Count from {a} to {b}.",
    "Count up from {a} to {b}.",
    "List the numbers from {a} to {b}.",
    "Write the numbers from {a} to {b}.",
)
BEGINNINGS = ("Counting from {a} to {b}:", "The numbers from {a} to {b} are")


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask to count; ``Count to 10`` is trained for every n, in some phrasings only."""
    while True:
        b = rng.randint(3, LARGEST)
        plain = rng.random() < 0.3
        from_one = rng.random() < 0.5
        a = 1 if from_one else rng.randint(2, b - 1)
        asked = QUESTIONS if from_one else SPANS
        wording = rng.choice(BEGINNINGS if plain else asked)
        key = f"{a}|{b}|{wording}" if from_one else f"{a}|{b}"
        if held_out(SKILL, key) == kept:
            break
    answer = ", ".join(map(str, range(a, b + 1))) + "."
    return Exchange(SKILL, key, wording.format(a=a, b=b), f" {answer}" if plain else answer, plain)
