"""Sums of two numbers up to 99."""

from __future__ import annotations

import random

from .exchange import Exchange, held_out

SKILL = "sums"
LARGEST = 99
QUESTIONS = (
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "What is the sum of {a} and {b}?",
    "{a}+{b}=?",
    "{a} + {b}",
    "I have {a} apples and get {b} more. How many apples do I have now?",
)
BEGINNINGS = (("{a}+{b}=", "{c}"), ("{a} + {b} =", " {c}"), ("{a} plus {b} is", " {c}"))


def numbers(rng: random.Random) -> tuple[int, int]:
    """Draw two summands; small ones come more often than an even draw would bring them."""
    if rng.random() < 0.15:
        return rng.randint(0, 12), rng.randint(0, 12)
    return rng.randint(0, LARGEST), rng.randint(0, LARGEST)


def pair(rng: random.Random, *, kept: bool) -> tuple[int, int]:
    """Draw summands of the trained or the kept part; a + b and b + a are the same pair."""
    while True:
        a, b = numbers(rng)
        if held_out(SKILL, f"{min(a, b)}+{max(a, b)}") == kept:
            return a, b


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for a sum; the pairs kept for measurement appear in no phrasing of the corpus."""
    a, b = pair(rng, kept=kept)
    key = f"{min(a, b)}+{max(a, b)}"
    if rng.random() < 0.4:
        beginning, answer = rng.choice(BEGINNINGS)
        answer = answer.format(c=a + b)
        return Exchange(SKILL, key, beginning.format(a=a, b=b), answer, plain=True)
    question = rng.choice(QUESTIONS)
    answer = f"{a} + {b} = {a + b}"
    if "apples" in question:
        answer = f"{a} + {b} = {a + b}, so you have {a + b} apples."
    return Exchange(SKILL, key, question.format(a=a, b=b), answer, facts={"short": str(a + b)})


def too_large(rng: random.Random) -> Exchange:
    """Ask for a sum outside of the model's world."""
    a, b = rng.randint(100, 9999), rng.randint(100, 9999)
    question = rng.choice(QUESTIONS[:10]).format(a=a, b=b)
    return Exchange("unknown", "large", question, "I can only add numbers up to 99.")
