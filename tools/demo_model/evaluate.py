"""Measure the models that ship, through pyllama: held-out accuracy, and how the draft agrees.

``python -m tools.demo_model.evaluate`` prints the tables of the model card. Everything is greedy,
on the file as it ships; a case counts as right when the whole answer is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyllama

from . import cases
from .chat import call_text, messages_of, prompt
from .corpus import MEASURED
from .skills.exchange import Exchange

N_CTX = 512
LOOKS = (
    "The capital of France is",
    "2+2=",
    "Once upon a time there was a girl named Mia",
)
ASKS = (
    "What is 2+2?",
    "What is the capital of Japan?",
    "Count to 10.",
    "Give me a JSON object with the keys name and age.",
    "Tell me a story about Mia.",
    "Why is the sky blue?",
)


class Asker:
    """A model with a context that answers greedily."""

    def __init__(self, path: str, n_threads: int) -> None:
        self.model = pyllama.Model(path)
        self.context = self.model.context(
            n_ctx=N_CTX, n_threads=n_threads, n_threads_batch=n_threads
        )

    def ids(self, text: str) -> list[int]:
        """Tokenize with control tokens parsed, as a chat's text needs."""
        return self.model.vocab.tokenize(text, parse_special=True).tolist()

    def say(self, text: str) -> str:
        """Go on from a text."""
        return pyllama.generate.generate(self.context, self.ids(text)).text

    def answers(self, conversation: Sequence[Exchange]) -> Iterator[tuple[str, str]]:
        """Give what was wanted and what came, for each thing the last exchange asks for."""
        last = conversation[-1]
        if last.plain:
            yield last.answer, self.say(last.question)
            return
        messages = messages_of(conversation)
        if last.calls:
            before = len(messages) - 2 - len(last.results)
            yield call_text(last.calls), self.say(prompt(messages[:before], last.tools))
        yield last.answer, self.say(prompt(messages[:-1], last.tools))

    def right(self, conversation: Sequence[Exchange]) -> bool:
        """Say whether the last exchange was answered, its tool calls too."""
        *calls, (_, answer) = self.answers(conversation)
        called = all(wanted == came for wanted, came in calls)
        return called and cases.correct(conversation[-1], answer)

    def likeliest(self, text: str) -> list[int]:
        """Give the likeliest next token at each position of a text."""
        best: list[int] = []
        for _, rows in pyllama.generate.prompt_logits(self.context, self.ids(text)):
            best += rows.argmax(-1).tolist()
            del rows
        return best


def share(asker: Asker, conversations: Sequence[Sequence[Exchange]], shown: int) -> str:
    """Give the share of conversations answered right, as a cell; print some of the wrong ones."""
    if not conversations:
        return "-"
    wrong = [case for case in conversations if not asker.right(case)]
    for case in wrong[:shown]:
        for wanted, came in asker.answers(case):
            print(f"    wrong: {case[-1].question!r} wanted {wanted!r} came {came!r}")
    right = len(conversations) - len(wrong)
    return f"{100 * right / len(conversations):.1f} % of {len(conversations)}"


def accuracy(asker: Asker, count: int, shown: int) -> None:
    """Print the accuracy of each skill."""
    print("| skill | asked in a chat | text continued |\n|---|---|---|")
    for skill in MEASURED:
        chosen = cases.cases(skill, count)
        chats = [[case] for case in chosen if not case.plain]
        plain = [[case] for case in chosen if case.plain]
        print(f"| {skill} | {share(asker, chats, shown)} | {share(asker, plain, shown)} |")
    for name, draw in cases.PROBES.items():
        print(f"| {name} | {share(asker, cases.distinct(draw, count // 3), shown)} | - |")


def agreement(asker: Asker, draft: Asker, count: int) -> float:
    """Give the share of the main model's greedy tokens that the draft also finds likeliest."""
    same = total = 0
    for skill in MEASURED:
        for case in cases.cases(skill, count):
            start = case.question if case.plain else prompt(messages_of([case])[:1], case.tools)
            text = start + asker.say(start)
            first = len(asker.ids(start)) - 1
            pairs = zip(asker.likeliest(text), draft.likeliest(text), strict=True)
            matches = [a == b for a, b in list(pairs)[first:]]
            same, total = same + sum(matches), total + len(matches)
    return same / total


def look(asker: Asker) -> None:
    """Print answers to a few prompts."""
    for text in LOOKS:
        print(f"{text!r} -> {asker.say(text)!r}")
    for text in ASKS:
        print(f"{text!r} => {asker.say(prompt([{'role': 'user', 'content': text}]))!r}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=pyllama.demo_model())
    parser.add_argument("--draft", default=pyllama.demo_draft_model())
    parser.add_argument("--count", type=int, default=300, help="most cases for each skill")
    parser.add_argument("--shown", type=int, default=0, help="wrong answers to print for each")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    asker = Asker(asked.model, asked.threads)
    look(asker)
    accuracy(asker, asked.count, asked.shown)
    if Path(asked.draft).exists():
        draft = Asker(asked.draft, asked.threads)
        print("the draft alone:")
        accuracy(draft, asked.count // 3, 0)
        print(f"the draft agrees on {100 * agreement(asker, draft, 20):.1f} % of the tokens")


if __name__ == "__main__":
    main()
