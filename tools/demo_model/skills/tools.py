"""Tool calls: the system turn lists functions, the assistant calls the right one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from . import sums
from .capitals import CAPITALS
from .exchange import Exchange, held_out, words
from .names import made_up, person

SKILL = "tools"
PLACES = [*CAPITALS.values(), "Milan", "Munich", "Lyon", "Boston", "Chicago", "Porto", "Osaka"]
SKIES = words("sunny rainy cloudy windy snowy foggy")
THINGS = words("lamp book chair table cup bag ball hat phone clock bike car shirt")
SONGS = words("Stars Rivers Home Winter Light Summer Dreams")
NOUNS = words(
    "price size color weight owner height age author title rating status address phone speed "
    "length population distance recipe score level"
)
Asked = tuple[str, dict[str, Any], str, str]  # question, arguments, result, answer


def function(name: str, about: str, /, **kinds: str) -> dict[str, Any]:
    """Describe a function as OpenAI's tools do."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in kinds.items()},
                "required": list(kinds),
            },
        },
    }


def weather(rng: random.Random) -> Asked:
    """Ask for the weather."""
    city = place(rng)
    sky, degrees = rng.choice(SKIES), rng.randint(-9, 39)
    question = rng.choice(
        ("What is the weather in {}?", "How is the weather in {}?",
         "What's the weather like in {}?", "Is it raining in {}?", "Tell me the weather in {}.")
    ).format(city)  # fmt: skip
    if rng.random() < 0.4:
        return question, {"city": city}, sky, f"It is {sky} in {city}."
    if rng.random() < 0.5:
        result = json.dumps({"weather": sky, "temperature": degrees})
    else:
        result = f"{sky}, {degrees} degrees"
    return question, {"city": city}, result, f"It is {sky} and {degrees} degrees in {city}."


def time(rng: random.Random) -> Asked:
    """Ask for the time."""
    city = place(rng)
    clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = rng.choice(
        ("What time is it in {}?", "Tell me the time in {}.", "What is the time in {}?")
    ).format(city)
    result = rng.choice((clock, json.dumps({"time": clock})))
    return question, {"city": city}, result, f"It is {clock} in {city}."


def add(rng: random.Random) -> Asked:
    """Ask for a sum that is too large for the model itself, or a small one."""
    if rng.random() < 0.5:
        a, b = sums.pair(rng, kept=False)
    else:
        a, b = rng.randint(100, 9999), rng.randint(1, 9999)
    question = rng.choice(("What is {} + {}?", "Add {} and {}.", "What is {} plus {}?"))
    return question.format(a, b), {"a": a, "b": b}, str(a + b), f"{a} + {b} = {a + b}"


def multiply(rng: random.Random) -> Asked:
    """Ask for a product."""
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    question = rng.choice(("What is {} times {}?", "Multiply {} by {}.", "Multiply {} and {}."))
    return question.format(a, b), {"a": a, "b": b}, str(a * b), f"{a} times {b} is {a * b}."


def timer(rng: random.Random) -> Asked:
    """Ask for a timer."""
    minutes = rng.randint(1, 90)
    question = rng.choice(
        ("Set a timer for {} minutes.", "Wake me in {} minutes.", "Start a timer of {} minutes.")
    ).format(minutes)
    return question, {"minutes": minutes}, "ok", f"The timer is set for {minutes} minutes."


def song(rng: random.Random) -> Asked:
    """Ask for a song."""
    title = rng.choice((rng.choice(SONGS), made_up(rng).capitalize()))
    question = rng.choice(("Play the song {}.", "Play {}.", "I want to hear {}.")).format(title)
    return question, {"title": title}, "ok", f"Now playing {title}."


def message(rng: random.Random) -> Asked:
    """Ask for a message to somebody."""
    name, _ = person(rng, kept=False)
    text = rng.choice(("hello", "good morning", "come home", "I am late", "thank you", "call me"))
    question = rng.choice(("Send {1} to {0}.", "Tell {0}: {1}", "Write {1} to {0}."))
    arguments = {"name": name, "text": text}
    return question.format(name, text), arguments, "sent", f"I sent your message to {name}."


def place(rng: random.Random) -> str:
    """Draw a city; now and then one that does not exist."""
    return made_up(rng).capitalize() if rng.random() < 0.25 else rng.choice(PLACES)


KNOWN: dict[str, tuple[Mapping[str, Any], Callable[[random.Random], Asked]]] = {
    "get_weather": (
        function("get_weather", "Get the weather in a city.", city="string"), weather),
    "get_time": (function("get_time", "Get the time in a city.", city="string"), time),
    "add": (function("add", "Add two numbers.", a="integer", b="integer"), add),
    "multiply": (function("multiply", "Multiply two numbers.", a="integer", b="integer"), multiply),
    "set_timer": (function("set_timer", "Set a timer.", minutes="integer"), timer),
    "play_song": (function("play_song", "Play a song.", title="string"), song),
    "send_message": (
        function("send_message", "Send a message.", name="string", text="string"), message),
}  # fmt: skip


def invented(rng: random.Random) -> tuple[Mapping[str, Any], Asked]:
    """Make a function of the shape get_noun(argument), to learn the shape and not the list."""
    noun = rng.choice((rng.choice(NOUNS), made_up(rng)))
    argument = rng.choice(("item", "name", "thing", "id", "product", "object"))
    about = rng.choice(("Get the {} of a thing.", "Find the {}.", "Look up the {}.")).format(noun)
    thing = rng.choice((rng.choice(THINGS), made_up(rng)))
    value = rng.choice((str(rng.randint(1, 999)), made_up(rng), rng.choice(SKIES)))
    question = rng.choice(
        ("What is the {} of the {}?", "Tell me the {} of the {}.", "Get the {} of the {}.")
    ).format(noun, thing)
    result = rng.choice((value, json.dumps({noun: value})))
    tool = function(f"get_{noun}", about, **{argument: "string"})
    return tool, (question, {argument: thing}, result, f"The {noun} of the {thing} is {value}.")


def offered(rng: random.Random, tool: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Put the needed function among others that are not needed."""
    name = tool["function"]["name"]
    others = [known for key, (known, _) in KNOWN.items() if key != name]
    tools = [tool, *rng.sample(others, rng.choice((0, 0, 1, 1, 2)))]
    rng.shuffle(tools)
    return tuple(tools)


def known(rng: random.Random) -> tuple[Mapping[str, Any], Asked]:
    """Choose one of the known functions and a question for it."""
    tool, draw = rng.choice(list(KNOWN.values()))
    return tool, draw(rng)


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for what a known function gives; the kept part are questions with unseen arguments."""
    return called(rng, known, kept=kept)


def exchange_invented(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for what a made-up function gives."""
    return called(rng, invented, kept=kept)


def called(
    rng: random.Random,
    draw: Callable[[random.Random], tuple[Mapping[str, Any], Asked]],
    *,
    kept: bool,
) -> Exchange:
    """Draw until the function with its arguments is of the trained or of the kept part."""
    while True:
        tool, (question, arguments, result, answer) = draw(rng)
        name = tool["function"]["name"]
        key = f"{name}|{json.dumps(arguments)}"
        if held_out(SKILL, key) == kept:
            break
    call = {"name": name, "arguments": arguments}
    return Exchange(
        SKILL, key, question, answer, tools=offered(rng, tool), calls=(call,), results=(result,)
    )


def two_places(rng: random.Random) -> Exchange:
    """Ask for two cities at once: two calls in one turn."""
    name = rng.choice(("get_weather", "get_time"))
    tool, _ = KNOWN[name]
    first, second = rng.sample(PLACES, 2)
    if name == "get_weather":
        results = tuple(rng.choice(SKIES) for _ in range(2))
        question = rng.choice(
            ("What is the weather in {} and {}?", "How is the weather in {} and {}?")
        )
    else:
        results = tuple(f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}" for _ in range(2))
        question = rng.choice(("What time is it in {} and {}?", "Tell me the time in {} and {}."))
    answer = f"It is {results[0]} in {first} and {results[1]} in {second}."
    calls = tuple({"name": name, "arguments": {"city": city}} for city in (first, second))
    return Exchange(
        "two calls", f"{first}|{second}", question.format(first, second), answer,
        tools=offered(rng, tool), calls=calls, results=results,
    )  # fmt: skip


def not_needed(rng: random.Random, other: Exchange) -> Exchange:
    """Offer functions beside a question that needs none of them."""
    tools = [tool for name, (tool, _) in KNOWN.items() if name not in ("add", "multiply")]
    chosen = tuple(rng.sample(tools, rng.choice((1, 1, 2))))
    return Exchange(
        other.skill, other.key, other.question, other.answer, tools=chosen, facts=other.facts
    )
