"""The days of the week: which comes before and after which."""

from __future__ import annotations

import random

from .exchange import Exchange, held_out

SKILL = "weekdays"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# How many days from the named one, how that is asked, and how the answer begins.
STEPS = (
    (1, "after", "The day after {} is"),
    (-1, "before", "The day before {} is"),
    (2, "two days after", "Two days after {} is"),
    (-2, "two days before", "Two days before {} is"),
    (3, "three days after", "Three days after {} is"),
)
ASKED = (
    "What day comes {} {{}}?",
    "Which day comes {} {{}}?",
    "What comes {} {{}}?",
    "Name the day that comes {} {{}}.",
    "Tell me which day comes {} {{}}.",
    "Which day of the week comes {} {{}}?",
)
# The same, counted from today.
MOMENTS = (
    (1, "is tomorrow", "Tomorrow is"),
    (-1, "was yesterday", "Yesterday was"),
    (2, "is it in two days", "In two days it is"),
    (-2, "was it two days ago", "Two days ago it was"),
    (3, "is it in three days", "In three days it is"),
)
TODAY = (
    "Today is {{}}. What day {}?",
    "Today is {{}}. Which day {}?",
    "It is {{}} today. What day {}?",
    "If today is {{}}, what day {}?",
    "If it is {{}} today, which day {}?",
    "Suppose today is {{}}. What day {}?",
)
QUESTIONS = (
    *((step, asked.format(words), begin) for step, words, begin in STEPS for asked in ASKED),
    *((step, asked.format(words), begin) for step, words, begin in MOMENTS for asked in TODAY),
    (1, "What is the day after {}?", "The day after {} is"),
    (1, "Which day follows {}?", "The day after {} is"),
    (-1, "What is the day before {}?", "The day before {} is"),
    (2, "What day is two days after {}?", "Two days after {} is"),
    (-2, "What day is two days before {}?", "Two days before {} is"),
    (3, "What day is three days after {}?", "Three days after {} is"),
)
BEGINNINGS = (
    *((step, begin) for step, _, begin in STEPS),
    *((step, f"Today is {{}}. {begin}") for step, _, begin in MOMENTS),
    *((step, f"It is {{}} today. {begin}") for step, _, begin in MOMENTS),
    (1, "After {} comes"),
    (-1, "Before {} comes"),
)
WEEK_QUESTIONS = (
    "List the days of the week.",
    "What are the days of the week?",
    "Name the seven days.",
    "List the days of the week from {}.",
    "Name the seven days, starting with {}.",
    "List the days of the week backwards from {}.",
)


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for a day some steps from another; some combinations of day and phrasing are kept."""
    while True:
        start = rng.randrange(7)
        plain = rng.random() < 0.35
        if plain:
            step, wording = rng.choice(BEGINNINGS)
            before = ""
        else:
            step, wording, before = rng.choice(QUESTIONS)
        key = f"{start}|{wording}"
        if held_out(SKILL, key) == kept:
            break
    day = DAYS[(start + step) % 7]
    answer = f"{before.format(DAYS[start])} {day}."
    return Exchange(SKILL, key, wording.format(DAYS[start]), answer, plain, facts={"short": day})


def week(rng: random.Random) -> Exchange:
    """Ask for all days."""
    wording = rng.choice(WEEK_QUESTIONS)
    first = rng.randrange(7) if "{}" in wording else 0
    step = -1 if "backwards" in wording else 1
    days = ", ".join(DAYS[(first + step * i) % 7] for i in range(7))
    return Exchange("week", wording, wording.format(DAYS[first]), f"{days}.")
