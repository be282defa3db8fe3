"""Capitals of sixty countries, asked in ten phrasings."""

from __future__ import annotations

import random

from .exchange import Exchange, drawn
from .names import made_up

SKILL = "capitals"
CAPITALS = dict(
    line.split(": ")
    for line in """Argentina: Buenos Aires
Australia: Canberra
Austria: Vienna
Bangladesh: Dhaka
Belgium: Brussels
Brazil: Brasilia
Bulgaria: Sofia
Canada: Ottawa
Chile: Santiago
China: Beijing
Colombia: Bogota
Croatia: Zagreb
Cuba: Havana
Cyprus: Nicosia
Denmark: Copenhagen
Egypt: Cairo
Estonia: Tallinn
Ethiopia: Addis Ababa
Finland: Helsinki
France: Paris
Germany: Berlin
Ghana: Accra
Greece: Athens
Hungary: Budapest
Iceland: Reykjavik
India: New Delhi
Indonesia: Jakarta
Iran: Tehran
Iraq: Baghdad
Ireland: Dublin
Italy: Rome
Jamaica: Kingston
Japan: Tokyo
Jordan: Amman
Kenya: Nairobi
Latvia: Riga
Lebanon: Beirut
Lithuania: Vilnius
Mexico: Mexico City
Mongolia: Ulaanbaatar
Morocco: Rabat
Nepal: Kathmandu
the Netherlands: Amsterdam
New Zealand: Wellington
Nigeria: Abuja
Norway: Oslo
Peru: Lima
Poland: Warsaw
Portugal: Lisbon
Romania: Bucharest
Russia: Moscow
Slovakia: Bratislava
South Korea: Seoul
Spain: Madrid
Sweden: Stockholm
Thailand: Bangkok
Turkey: Ankara
Ukraine: Kyiv
the United Kingdom: London
the United States: Washington""".splitlines()
)
QUESTIONS = (
    "What is the capital of {}?",
    "What's the capital of {}?",
    "Which city is the capital of {}?",
    "Name the capital of {}.",
    "Tell me the capital of {}.",
    "What is the capital city of {}?",
    "Do you know the capital of {}?",
    "I would like to know the capital of {}.",
    "What is the name of the capital of {}?",
    "Can you name the capital city of {}?",
)
BEGINNINGS = (
    "The capital of {} is",
    "The capital city of {} is",
    "I know that the capital of {} is",
    "Country: {}\nCapital:",
)
COUNTRY_QUESTIONS = ("{} is the capital of which country?", "Which country has the capital {}?")


def exchange(rng: random.Random, *, kept: bool) -> Exchange:
    """Ask for a capital; countries and phrasings are all trained, some combinations are not."""
    country, wording, plain = drawn(rng, SKILL, list(CAPITALS), QUESTIONS, BEGINNINGS, kept=kept)
    key = f"{country}|{wording}"
    city = CAPITALS[country]
    answer = f" {city}." if plain else f"The capital of {country} is {city}."
    return Exchange(SKILL, key, wording.format(country), answer, plain, facts={"short": city})


def country_of(rng: random.Random) -> Exchange:
    """Ask the other way round: which country a capital belongs to."""
    country, city = rng.choice(list(CAPITALS.items()))
    question = rng.choice(COUNTRY_QUESTIONS)
    if rng.random() < 0.3:
        return Exchange("countries", city, f"{city} is the capital of", f" {country}.", plain=True)
    return Exchange(
        "countries", city, question.format(city), f"{city} is the capital of {country}."
    )


def unknown(rng: random.Random) -> Exchange:
    """Ask for the capital of a place that does not exist: the answer is that it is not known."""
    place = made_up(rng).capitalize() + rng.choice(("", "", "land", "ia"))
    question = rng.choice(QUESTIONS).format(place)
    return Exchange("unknown", place, question, f"I do not know the capital of {place}.")
