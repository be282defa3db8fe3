"""Which special tokens a template wrote, told apart from text that only looks like them.

A template gives one string. Before it is rendered, every special token in what the caller brought
is broken by a character that nobody uses; what is whole afterwards, the template wrote. The
character is taken out again. So it does not matter what a template does with its input: trim it,
cut it, or write it as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

# None of them is a space to a template, and JSON writes all of them as they are.
_BREAKERS = ("\x7f", *map(chr, range(0xE000, 0xE100)))
# Words that were checked; templates build special tokens from the role.
_KEPT = {
    ("messages", "role"),
    ("messages", "content", "type"),
    ("messages", "tool_calls", "type"),
    ("tools", "type"),
}


class Breaker:
    """A way to break special tokens in what goes into a template, and to mend what comes out.

    Parameters
    ----------
    specials
        The texts of the special tokens.
    template
        The template.
    inputs
        Everything that the caller brings.

    Raises
    ------
    ValueError
        If every character that could break them is used.
    """

    def __init__(self, specials: Sequence[str], template: str, inputs: Any) -> None:
        self._pattern = pattern(tuple(specials))
        # A template may write a text in small letters.
        self._anyhow = self._pattern and re.compile(self._pattern.pattern, re.IGNORECASE)
        self._beginnings, self._ends = _edges(tuple(specials))
        used = [template, *_strings(inputs)]
        free = (each for each in _BREAKERS if not any(each in text for text in used))
        found = next(free, None)
        if found is None:
            raise ValueError("the messages use every character that could mark special tokens")
        self._breaker = found

    def break_up(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what goes into the template with every special token in its strings broken."""
        return {key: self._broken(value, (key,)) for key, value in given.items()}

    def _broken(self, value: Any, place: tuple[str, ...] = ()) -> Any:
        if isinstance(value, str):
            return value if place in _KEPT else self._text(value)
        if isinstance(value, Mapping):
            return {
                self._inside(key): self._broken(each, (*place, key)) for key, each in value.items()
            }
        if isinstance(value, Sequence):
            return [self._broken(each, place) for each in value]
        return value

    def _inside(self, text: str) -> str:
        """Break what is whole in *text*; breaking one may leave another whole."""
        while self._anyhow is not None:
            broken = self._anyhow.sub(self._split, text)
            if broken == text:
                break
            text = broken
        return text

    def _text(self, text: str) -> str:
        if "\\" in text and (hidden := self._hidden(text)) is not None:
            return hidden
        return self._at_edges(self._inside(text))

    def _hidden(self, text: str) -> str | None:
        r"""Break what is special in *text* only when it is read as JSON, as arguments of calls are.

        ``"\u003c|im_end|>"`` would come out as the token.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if self._anyhow is None or not any(map(self._anyhow.search, _strings(value))):
            return None
        return json.dumps(self._broken(value), ensure_ascii=False)

    def _at_edges(self, text: str) -> str:
        """Break what *text* begins or ends with, where the template's words could complete it."""
        body = text.strip()
        lead = text[: len(text) - len(text.lstrip())]
        after = text[len(lead) + len(body) :]
        if n := _longest(body, self._beginnings, lambda n: body[len(body) - n :]):
            body = body[: len(body) - n + 1] + self._breaker + body[len(body) - n + 1 :]
        if n := _longest(body, self._ends, lambda n: body[:n]):
            body = body[: n - 1] + self._breaker + body[n - 1 :]
        return lead + body + after

    def _split(self, found: re.Match[str]) -> str:
        text = found[0]
        return text[0] + self._breaker + text[1:]

    def mend(self, text: str) -> str:
        """Return *text* as it would be had nothing been broken."""
        return text.replace(self._breaker, "")

    def pieces(self, text: str) -> tuple[tuple[str, bool], ...]:
        """Cut a rendered text into pieces, each with whether it is a special token."""
        if self._pattern is None:
            return ((self.mend(text), False),) if text else ()
        pieces = []
        at = 0
        for found in self._pattern.finditer(text):
            pieces += [(self.mend(text[at : found.start()]), False), (found[0], True)]
            at = found.end()
        pieces.append((self.mend(text[at:]), False))
        return tuple(piece for piece in pieces if piece[0])


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for each in pair for text in _strings(each)]
    if isinstance(value, Sequence):
        return [text for each in value for text in _strings(each)]
    return []


@lru_cache(maxsize=16)
def pattern(specials: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return what finds special tokens, the longest first; None if there are none."""
    long = [text for text in specials if len(text) > 1]  # a single character cannot be broken
    if not long:
        return None
    tree: dict[str, Any] = {}
    for text in long:
        node = tree
        for letter in text:
            node = node.setdefault(letter, {})
        node[""] = {}
    return re.compile(_branches(tree))


def _branches(tree: dict[str, Any]) -> str:
    """Return a pattern that shares common beginnings: thousands of tokens are tried at once."""
    text = ""
    while len(tree) == 1 and "" not in tree:
        (letter, tree), *_ = tree.items()
        text += re.escape(letter)
    if not tree.keys() - {""}:
        return text
    inner = "|".join(re.escape(letter) + _branches(tree[letter]) for letter in tree if letter)
    return f"{text}(?:{inner})" + ("?" if "" in tree else "")


@lru_cache(maxsize=16)
def _edges(specials: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the beginnings and the ends of special tokens; not those that are plain words."""
    cuts = [(text, cut) for text in specials for cut in range(1, len(text))]
    beginnings = {text[:cut] for text, cut in cuts}
    ends = {text[cut:] for text, cut in cuts}
    return (
        frozenset(text for text in beginnings if not text.isalnum()),
        frozenset(text for text in ends if not text.isalnum()),
    )


def _longest(text: str, known: frozenset[str], part: Callable[[int], str]) -> int:
    """Return the length of the longest part of *text* that is *known*; 0 if none is."""
    most = min(len(text), max(map(len, known), default=0))
    return next((n for n in range(most, 0, -1) if part(n) in known), 0)
