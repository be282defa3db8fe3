"""JSON objects with the keys that were asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from .capitals import CAPITALS
from .exchange import Exchange, held_out, listed
from .names import made_up, person

SKILL = "json"
Value = str | int | float | bool | list[str]


def one_of(text: str) -> Callable[[random.Random], Value]:
    """Make a drawer of one of the words."""
    choices = text.split()
    return lambda rng: rng.choice(choices)


def whole(low: int, high: int) -> Callable[[random.Random], Value]:
    """Make a drawer of a whole number."""
    return lambda rng: rng.randint(low, high)


def name(rng: random.Random) -> Value:
    """Draw a name of the trained part."""
    return person(rng, kept=False)[0]


def flag(rng: random.Random) -> Value:
    """Draw true or false."""
    return rng.random() < 0.5


def city(rng: random.Random) -> Value:
    """Draw a capital."""
    return rng.choice(list(CAPITALS.values()))


COLORS = "red blue green yellow black white brown pink"
ANIMALS = "dog cat bird fish horse rabbit fox bear mouse frog"
FOODS = "bread soup rice cake pizza pasta cheese salad"
THINGS = "lamp book chair table cup bag ball hat phone clock"
DRAWERS: dict[str, Callable[[random.Random], Value]] = {
    "name": name, "first_name": name, "friend": name, "owner": name, "author": name,
    "teacher": name, "user": name, "age": whole(1, 99), "year": whole(1950, 2025),
    "price": whole(1, 99), "count": whole(0, 50), "id": whole(1, 999), "score": whole(0, 100),
    "height": whole(50, 200), "weight": whole(1, 99), "speed": whole(1, 99),
    "width": whole(1, 99), "length": whole(1, 99), "number": whole(1, 99),
    "temperature": whole(0, 35), "hour": whole(0, 23), "minute": whole(0, 59),
    "quantity": whole(1, 20), "rating": whole(1, 5), "total": whole(1, 99), "pages": whole(10, 500),
    "city": city, "place": city, "capital": city,
    "country": lambda r: r.choice(list(CAPITALS)[:30]),
    "color": one_of(COLORS), "animal": one_of(ANIMALS), "pet": one_of(ANIMALS),
    "food": one_of(FOODS), "item": one_of(THINGS), "product": one_of(THINGS),
    "title": one_of("Stars Rivers Home Winter Light"),
    "job": one_of("teacher doctor cook farmer pilot nurse baker driver"),
    "hobby": one_of("reading music chess dancing cooking running"),
    "sport": one_of("tennis football swimming golf rugby"),
    "fruit": one_of("apple pear banana cherry plum lemon"),
    "drink": one_of("water tea coffee milk juice"), "size": one_of("small medium large"),
    "weather": one_of("sunny rainy cloudy windy snowy"),
    "day": one_of("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": one_of("January March May July October December"),
    "language": one_of("English French German Spanish Polish"),
    "season": one_of("spring summer autumn winter"), "shape": one_of("circle square triangle"),
    "status": one_of("open closed done new"), "type": one_of("car house book song game"),
    "happy": flag, "active": flag, "married": flag, "done": flag, "available": flag,
    "tags": lambda r: r.sample(COLORS.split(), r.randint(1, 3)),
    "colors": lambda r: r.sample(COLORS.split(), r.randint(2, 3)),
    "pets": lambda r: r.sample(ANIMALS.split(), r.randint(1, 3)),
    "foods": lambda r: r.sample(FOODS.split(), r.randint(2, 3)),
}  # fmt: skip
QUESTIONS = (
    "Give me a JSON object with the keys {}.",
    "Make a JSON object with the keys {}.",
    "Write a JSON object with {}.",
    "I need JSON with the keys {}.",
    "Create a JSON object that has the keys {}.",
    "Return a JSON object with the keys {}.",
    "JSON with keys: {}",
)
GIVEN = (
    "Give me a JSON object where {}.",
    "Make a JSON object in which {}.",
    "Write this as JSON: {}.",
)
BEGINNINGS = ("A JSON object with the keys {}:\n", "JSON with {}:\n")


def key_names(rng: random.Random, *, kept: bool) -> list[str]:
    """Draw one to five keys; in training now and then made-up ones."""
    count = rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 5))
    keys = rng.sample(list(DRAWERS), count)
    if not kept:
        keys = [made_up(rng) if rng.random() < 0.25 else key for key in keys]
    return keys


def draw(rng: random.Random, key: str) -> Value:
    """Draw a value that fits the key; a key without a meaning gets a word or a number."""
    if key in DRAWERS:
        return DRAWERS[key](rng)
    return rng.choice((rng.randint(1, 99), rng.choice(THINGS.split())))


def wanted(rng: random.Random, keys: list[str]) -> str:
    """Write the list of keys in one of the ways people do."""
    if len(keys) == 1:
        return rng.choice((keys[0], f'"{keys[0]}"'))
    if rng.random() < 0.2:
        return listed([f'"{key}"' for key in keys])
    return rng.choice((listed(keys), listed(keys), ", ".join(keys)))


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for an object; the kept part are lists of keys that are never trained."""
    while True:
        keys = key_names(rng, kept=kept)
        key = "|".join(keys)
        if held_out(SKILL, key) == kept:
            break
    values = {name: draw(rng, name) for name in keys}
    answer = json.dumps(values)
    facts = {"keys": list(values)}
    kind = rng.random()
    if kind < 0.25:
        parts = [f"{name} is {json.dumps(value)}" for name, value in values.items()]
        question = rng.choice(GIVEN).format(listed(parts))
        return Exchange(SKILL, key, question, answer, facts=facts | {"values": values})
    asked = wanted(rng, keys)
    if kind < 0.45:
        return Exchange(
            SKILL, key, rng.choice(BEGINNINGS).format(asked), answer, plain=True, facts=facts
        )
    wording = rng.choice(QUESTIONS)
    if len(keys) == 1:
        wording = wording.replace("keys", "key")
    return Exchange(SKILL, key, wording.format(asked), answer, facts=facts)


def correct(exchange: Exchange, text: str) -> bool:
    """Say whether the text is JSON with exactly the wanted keys, in order, and any given values."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    if not isinstance(found, dict) or list(found) != exchange.facts["keys"]:
        return False
    return "values" not in exchange.facts or found == exchange.facts["values"]


def made_up_keys(rng: random.Random) -> Exchange:
    """Ask for keys that mean nothing: they can only be copied."""
    keys = [made_up(rng) for _ in range(rng.randint(1, 4))]
    asked = rng.choice(QUESTIONS).format(listed(keys))
    return Exchange(SKILL, "|".join(keys), asked, "{}", facts={"keys": keys})
