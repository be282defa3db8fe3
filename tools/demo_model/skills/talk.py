"""Small talk: greetings, who the model is, names told by the user, what it does not know."""

from __future__ import annotations

import random

from .exchange import Exchange, words
from .names import person

SKILL = "talk"
ABOUT = (
    "I am the pyllama demo model, a very small language model. I know capitals, sums, counting, "
    "weekdays, opposites, JSON and little stories."
)
ABLE = (
    "I can name capitals, add numbers up to 99, count, name weekdays and opposites, write JSON "
    "and tell little stories."
)
FIXED = (
    (("Hello!", "Hi!", "Hello", "Hi", "Hey!", "Hello there!", "Good morning!", "Good evening!"),
     "Hello! How can I help you?"),
    (("How are you?", "How are you today?", "How is it going?"),
     "I am fine, thank you. How can I help you?"),
    (("Who are you?", "What are you?", "Tell me about yourself.", "What is this model?",
      "Are you a language model?"), ABOUT),
    (("What can you do?", "What do you know?", "Help", "Help me.", "How can you help me?"),
     ABLE),
    (("Thank you!", "Thanks!", "Thanks", "Thank you very much."), "You are welcome!"),
    (("Goodbye!", "Bye!", "Bye", "See you!", "Good night!"), "Goodbye!"),
    (("Ok", "Okay.", "Good.", "Nice!", "Great!", "Well done!"), "I am glad. What else can I do?"),
)  # fmt: skip
DOERS = words("you cats birds people fish doctors planes trees my friends we computers")
SUBJECTS = (
    "the sky", "the sea", "a car", "the moon", "a house", "the king", "my dog", "the internet",
    "physics", "history", "chess", "the stock market", "love", "music", "a poem", "the president",
    "an engine", "the future", "a horse", "bitcoin", "the law", "my job", "the universe",
)  # fmt: skip
ODD = (
    "Why is {} blue?", "How do I repair {}?", "Who invented {}?", "What do you think about {}?",
    "When was {} made?", "Explain {} to me.", "How old is {}?", "Where is {}?", "Who is {}?",
    "Write an essay about {}.", "How does {} work?", "What is {}?", "Is {} good?",
    "How much does {} cost?", "Why do {do} sleep?", "What do {do} eat?", "Can {do} swim?",
    "How do {do} fly?", "Tell me a joke about {}.", "Translate {} into French.",
)  # fmt: skip
UNKNOWN = "I do not know that. I am a very small model."


def exchange(rng: random.Random) -> Exchange:
    """Greet, ask who it is, or ask something outside of its small world."""
    if rng.random() < 0.5:
        questions, answer = rng.choice(FIXED)
        return Exchange(SKILL, answer, rng.choice(questions), answer)
    question = rng.choice(ODD).format(rng.choice(SUBJECTS), do=rng.choice(DOERS))
    return Exchange("unknown", question, question, UNKNOWN)


def introduced(rng: random.Random, *, kept: bool) -> list[Exchange]:
    """Let the user say a name and ask for it in the next turn."""
    name, _ = person(rng, kept=kept)
    hello = rng.choice(("My name is {}.", "Hi, I am {}.", "Hello, my name is {}.", "I am {}."))
    asked = rng.choice(("What is my name?", "Do you know my name?", "Who am I?"))
    return [
        Exchange("memory", name, hello.format(name), f"Hello {name}! How can I help you?"),
        Exchange("memory", name, asked, f"Your name is {name}."),
    ]


def persona(rng: random.Random, *, kept: bool) -> Exchange:
    """Let the system turn give the model a name."""
    name, _ = person(rng, kept=kept)
    system = rng.choice(("Your name is {}.", "You are {}.", "You are a helper named {}."))
    asked = rng.choice(("What is your name?", "Who are you?", "What are you called?"))
    return Exchange("persona", name, asked, f"My name is {name}.", system=system.format(name))
