"""Little stories that keep the name of their character."""

from __future__ import annotations

import random
import re

from .exchange import Exchange, words
from .names import person

SKILL = "stories"
ANIMALS = words("fox rabbit bird bear mouse frog cat dog duck goose squirrel hedgehog")
PLACES = words("forest garden park village meadow castle jungle wood valley farm market tower")
THINGS = words("ball hat key book kite shoe ring lamp flower box coin boat")
TREATS = words("apples cake bread berries soup cookies honey nuts")
MOODS = words("happy curious brave kind cheerful quiet clever")
STARTERS = frozenset(
    words(
        "Once One The She He They It But So Then In At On That Every After Suddenly Thank Please "
        "Do There Come You To We From I A"
    )
)
OPENINGS = (
    "Once upon a time there was a {kind} named {name}.",
    "Once there was a {mood} {kind} called {name}.",
    "There was a {mood} {kind} named {name} who lived near a {place}.",
    "One day a {kind} named {name} went to the {place}.",
)
LIVES = (
    "{name} loved to play in the {place}.",
    "Every morning {name} walked to the {place}.",
    "{name} had a little {thing} and took it everywhere.",
    "{name} was very {mood} and liked to eat {treat}.",
)
LOST = (
    "One day {name} lost the {thing} near the {place}. {She} looked everywhere but could not find "
    "it."
)
CRYING = (
    'One day {name} saw a {animal} that was crying. "I have lost my {thing}," said the {animal}.'
)
# What goes wrong, who helps, how it turns out: each plot holds together.
PLOTS = (
    (
        (LOST, "One day the {thing} of {name} was gone. {She} was very sad."),
        ("A {animal} came and said, \"Do not be sad, {name}. I will help you.\"",
         "Then {name} met a {animal}. \"I will help you,\" said the {animal}."),
        ("They went to the {place} and found the {thing} under a big tree.",
         "{name} looked behind a stone with the {animal}, and there was the {thing}."),
    ),
    (
        (CRYING, "In the {place} a {animal} was looking for a {thing}."),
        ("\"I will help you,\" said {name}, and they looked for it together.",
         "\"Do not cry,\" said {name}. \"We will find it.\""),
        ("After a while {name} found the {thing} under a big tree.",
         "They found the {thing} in the grass, and the {animal} laughed."),
    ),
    (
        ("Suddenly it began to rain, and {name} could not find the way home.",
         "It was dark in the {place}, and {name} was lost and afraid."),
        ("Then {name} met a {animal}. \"Come with me,\" said the {animal}.",
         "But a {animal} came and said, \"I know the way, {name}.\""),
        ("They walked together, and soon {name} saw a light and was not afraid any more.",
         "The {animal} went in front, and {name} came home before night."),
    ),
    (
        ("One day {name} found a {animal} that was hungry and cold.",
         "In the {place} {name} met a little {animal} that had nothing to eat."),
        ("{name} gave the {animal} some {treat}, and soon they were friends.",
         "\"You can have my {treat},\" said {name}, and the {animal} ate it all."),
        ("The {animal} showed {name} a {thing} that was inside a tree.",
         "To say thank you, the {animal} gave {name} a {thing}."),
    ),
)  # fmt: skip
ENDINGS = (
    "{name} was very happy and went home. The end.",
    "From that day on {name} and the {animal} were best friends. The end.",
    "In the evening {name} told the story to {his} family and ate {treat}. The end.",
    "{name} said thank you to the {animal} and slept well that night. The end.",
)
QUESTIONS = (
    "Tell me a story about {}.",
    "Tell me a short story about {}.",
    "Tell me a little story about {}.",
    "Write a story about {}.",
    "Write a short story about {}.",
    "Please tell me a story about {}.",
    "Can you tell me a story about {}?",
)


def story(rng: random.Random, world: dict[str, str]) -> str:
    """Write one: an opening, a life, the three parts of a plot, and an ending."""
    groups = (OPENINGS, LIVES, *rng.choice(PLOTS), ENDINGS)
    parts = [rng.choice(group) for group in groups]
    if rng.random() < 0.2:
        parts.pop(1)
    return " ".join(parts).format(**world)


def setting(rng: random.Random, name: str, pronoun: str) -> dict[str, str]:
    """Draw what a story is about."""
    return {
        "name": name,
        "kind": "girl" if pronoun == "she" else "boy",
        "She": pronoun.capitalize(),
        "his": "her" if pronoun == "she" else "his",
        "mood": rng.choice(MOODS),
        "place": rng.choice(PLACES),
        "thing": rng.choice(THINGS),
        "treat": rng.choice(TREATS),
        "animal": rng.choice(ANIMALS),
    }


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for a story; the names kept for measurement are in no text of the corpus."""
    name, pronoun = person(rng, kept=kept)
    world = setting(rng, name, pronoun)
    text = story(rng, world)
    facts = {"name": name}
    if rng.random() < 0.35:
        first, rest = text.split(name, 1)
        return Exchange(SKILL, name, first + name, rest, plain=True, facts=facts)
    about = rng.choice((name, name, name, f"a {world['kind']} named {name}"))
    if rng.random() < 0.25:
        about += f" and a {world['animal']}"
        facts["animal"] = world["animal"]
        if world["animal"] not in text:
            text = text.replace("The end.", f"The {world['animal']} was happy too. The end.")
    return Exchange(SKILL, name, rng.choice(QUESTIONS).format(about), text, facts=facts)


def correct(exchange: Exchange, text: str) -> bool:
    """Say whether a story ends, uses its character's name often, and no other name."""
    name = exchange.facts["name"]
    named = re.findall(r"[A-Z]\w*", (exchange.question + text) if exchange.plain else text)
    others = {word for word in named if word not in STARTERS and word != name}
    animal = exchange.facts.get("animal", "")
    return named.count(name) >= 3 and not others and text.endswith("The end.") and animal in text
