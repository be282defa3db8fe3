"""Opposites of common words."""

from __future__ import annotations

import random

from .exchange import Exchange, drawn, words

SKILL = "opposites"
PAIRS = words(
    "hot/cold big/small up/down good/bad fast/slow happy/sad old/young long/short high/low "
    "light/dark open/closed full/empty hard/soft loud/quiet rich/poor strong/weak wet/dry "
    "early/late left/right in/out on/off yes/no day/night black/white clean/dirty near/far "
    "thick/thin wide/narrow deep/shallow heavy/weightless sweet/sour true/false first/last "
    "inside/outside above/below before/after always/never begin/end win/lose buy/sell "
    "push/pull give/take love/hate friend/enemy war/peace life/death summer/winter "
    "north/south east/west boy/girl man/woman king/queen front/back top/bottom start/finish "
    "question/answer sunrise/sunset remember/forget laugh/cry brave/afraid easy/difficult "
    "cheap/expensive safe/dangerous same/different"
)
FIRST = dict(pair.split("/") for pair in PAIRS)
OPPOSITES = FIRST | {second: first for first, second in FIRST.items()}
QUESTIONS = (
    "What is the opposite of {}?",
    "What's the opposite of {}?",
    "Tell me the opposite of {}.",
    "Name the opposite of {}.",
    "Which word is the opposite of {}?",
    "Do you know the opposite of {}?",
)
BEGINNINGS = ("The opposite of {} is", "Word: {}\nOpposite:", "It is not {}, it is")


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for an opposite; some combinations of word and phrasing are kept."""
    word, wording, plain = drawn(rng, SKILL, list(OPPOSITES), QUESTIONS, BEGINNINGS, kept=kept)
    key = f"{word}|{wording}"
    other = OPPOSITES[word]
    answer = f" {other}." if plain else f"The opposite of {word} is {other}."
    return Exchange(SKILL, key, wording.format(word), answer, plain, facts={"short": other})
