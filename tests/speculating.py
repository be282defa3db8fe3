"""Drafters that say what a test wants, and the two ways to make a text."""

from __future__ import annotations

from pyllama import speculative
from pyllama.generate import tokens
from pyllama.speculative import Drafter

ONE = {"n_threads": 1, "n_threads_batch": 1}
PROMPT = [5, 6, 7, 8]


class Scripted(Drafter):
    """Draft what a function says, and note what was asked."""

    def __init__(self, function):
        self.function = function
        self.asked = []

    def draft(self, ids, n):
        """Answer."""
        self.asked.append((len(ids), n))
        return self.function(list(ids), n)


def oracle(text, wrong_every=0):
    """Return a drafter that knows how the text goes on, or errs at some positions."""

    def function(ids, n):
        start = len(ids)
        guesses = list(text[start : start + n])
        for i in range(len(guesses)):
            if wrong_every and (start + i) % wrong_every == 0:
                guesses[i] = (guesses[i] + 1) % 500
        return guesses

    return Scripted(function)


def whole(context, prompt=PROMPT, n=40, **options):
    """Return prompt and greedy continuation."""
    return [*prompt, *tokens(context, prompt, max_tokens=n, ignore_eog=True, **options)]


def drafted(context, draft, prompt=PROMPT, n=40, **options):
    """Return the same, with a drafter."""
    made = speculative.tokens(
        context, prompt, draft=draft, max_tokens=n, ignore_eog=True, **options
    )
    return [*prompt, *made]
