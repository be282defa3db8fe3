"""Names of people: real ones, a fifth of them kept out of training, and made-up ones."""

from __future__ import annotations

import random

from .exchange import held_out, words

GIRLS = words(
    "Mia Anna Emma Lily Sara Nora Ella Lucy Ruby Zoe Clara Alice Amy Eva Ida Lena Maya Nina Olga "
    "Rosa Tina Vera Wendy Yara Hanna Julia Karin Laura Maria Paula Sofia Emily Grace Chloe Daisy "
    "Freya Gina Helen Irene Jane Kate Molly Nadia Olivia Penny Rita Susan Tara Uma Violet Bella "
    "Carla Diana Elsa Fiona Greta Holly Iris Jenny Kira Lola Marta Naomi Petra Rachel Selma "
    "Thea Ursula Vicky Zara"
)
BOYS = words(
    "Tom Ben Max Leo Sam Tim Jack Noah Paul Adam Carl David Eric Felix George Hugo Ivan John Karl "
    "Liam Mark Nick Oscar Peter Ralf Simon Theo Victor Will Xavier Yusuf Zack Bob Alex Andy Bill "
    "Chris Dan Emil Fred Gus Harry Ian James Kevin Lukas Martin Nils Otto Philip Robin Steve "
    "Toby Umar Vince Walter Anton Bruno Colin Dylan Edgar Frank Gary Henry Jonas Kurt Louis "
    "Miles Neil Owen"
)
# Kept for measurement as a whole, beside the fifth of the lists above.
KEPT_GIRLS = words(
    "Abby Beth Cora Dora Edith Faye Gloria Heidi Ines Joan Kelly Linda Mary Nancy Opal Pam Rhea "
    "Sally Trudy Una Vivian Willa Yvonne Zelda Ashley Britta Celia Doris Erica Frida"
)
KEPT_BOYS = words(
    "Aaron Basil Cyril Derek Ernest Fabian Gilbert Howard Igor Jasper Keith Larry Milo Norman "
    "Orson Percy Quentin Roger Stanley Trevor Ulrich Vernon Wesley Yorick Zeno Angus Bernard "
    "Cedric Duncan Elmer"
)
# Beginnings and ends of made-up words come from these too, so that tokens of all sorts are copied.
COMMON = words(
    "tomorrow yesterday thank friend happy garden forest village mountain station picture "
    "letter window summer winter morning evening kitchen orange purple silver golden number "
    "question answer brother sister mother father people animal rabbit monkey tiger lion eagle "
    "dragon castle tower bridge island river ocean desert valley meadow market office school "
    "doctor farmer pilot dancer singer writer reader runner table chair lamp phone clock paper "
    "pencil camera guitar piano violin basket blanket pillow candle button pocket jacket "
    "sweater shoes boots hammer ladder bucket shovel thunder lightning rainbow snowman sunshine "
    "moonlight football tennis chess puzzle circus theatre museum library hospital airport "
    "harbour engine wagon bicycle tractor rocket planet comet frost flower branch cherry lemon "
    "banana butter honey sugar pepper prince queen knight wizard giant tomato frame trumpet "
    "drum flute harvest country capital weather minute hour second monday friday sunday april "
    "august october"
)
VOWELS = words("a e i o u y ai ea ee ei ia ie io oa oo ou ue")
CONSONANTS = words(
    "b c d f g h j k l m n p q r s t v w x z bb ck cl cr dd dr ff fl gg gr kl ll lt mm mb nd nn ng "
    "nt pp ph pl pr rr rd rk rl rm rn rs rt sh sk sl ss st th tr tt tz vr wh"
)


def kept_name(name: str) -> bool:
    """Say whether a name may not occur in the corpus."""
    return name in KEPT_GIRLS or name in KEPT_BOYS or held_out("name", name)


def real(rng: random.Random, *, kept: bool) -> tuple[str, str]:
    """Give a real name of the trained or of the kept part, and its pronoun."""
    girls = GIRLS + KEPT_GIRLS if kept else GIRLS
    boys = BOYS + KEPT_BOYS if kept else BOYS
    while True:
        name, pronoun = rng.choice(((rng.choice(girls), "she"), (rng.choice(boys), "he")))
        if kept_name(name) == kept:
            return name, pronoun


def spliced(rng: random.Random) -> str:
    """Join the beginning of a name or word to the end of another."""
    first, second = (
        rng.choice(COMMON) if rng.random() < 0.5 else real(rng, kept=False)[0].lower()
        for _ in range(2)
    )
    return first[: rng.randint(1, min(5, len(first)))] + second[-rng.randint(1, 5) :]


def sounds(rng: random.Random) -> str:
    """Join consonants and vowels in turn."""
    count = rng.randint(2, 6)
    odd = rng.randrange(2)
    return "".join(rng.choice(VOWELS if i % 2 == odd else CONSONANTS) for i in range(count))


def made_up(rng: random.Random) -> str:
    """Make up a word, so that copying is learnt and not a list of names."""
    while True:
        word = spliced(rng) if rng.random() < 0.65 else sounds(rng)
        if len(word) > 1 and not kept_name(word.capitalize()):
            return word


def person(rng: random.Random, *, kept: bool) -> tuple[str, str]:
    """Give a name and its pronoun; in training mostly a made-up name."""
    if not kept and rng.random() < 0.75:
        return made_up(rng).capitalize(), rng.choice(("she", "he"))
    return real(rng, kept=kept)
