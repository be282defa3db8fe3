"""Regular expressions as llama.cpp's schema converter takes them.

The converter knows a part of the notation, and has its own ideas of ``.`` and of quotes inside a
JSON string. So an expression is read here, and written again in what the two have in common:
groups, ``|``, repetitions, and classes of characters named by number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pyllama.errors import GrammarError

MAX_PATTERN = 1000  # characters
Ranges = list[tuple[int, int]]

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_PRINTABLE = (0x20, 0x7E)
_DIGIT: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0D), (0x20, 0x20)]
_CATEGORIES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_NAMED = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "a": 0x07, "0": 0x00}
_REPEAT = re.compile(r"[*+?]|\{\d*(?:,\d*)?\}")
_SHORT_ESCAPES = (0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x22, 0x5C)
_MANY = 128  # a range of so many characters does without those that need an escape
_ESCAPED: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]  # in a JSON string


def portable(pattern: str, *, in_json: bool) -> str:
    """Write a regular expression so that the converter follows it.

    Parameters
    ----------
    pattern
        In Python's notation.
    in_json
        Whether the text stands in a JSON string, where some characters are escaped and where the
        expression may match any part of the text; otherwise it is the whole text.

    Returns
    -------
    str
        Anchored at both ends.

    Raises
    ------
    GrammarError
        If the expression cannot be read, or uses what no grammar can follow: lookaround, references
        to groups, flags, word boundaries, anchors in the middle.
    """
    if len(pattern) > MAX_PATTERN:
        message = f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed"
        raise GrammarError(message)
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"the pattern {pattern!r} is no regular expression: {error}"
        raise GrammarError(message) from error
    return f"^({_Reader(pattern, in_json=in_json).whole()})$"


@dataclass
class _Reader:
    """A place in the pattern."""

    pattern: str
    in_json: bool
    at: int = 0

    def refuse(self, what: str) -> GrammarError:
        return GrammarError(
            f"a grammar cannot follow {what}: character {self.at} of the pattern {self.pattern!r}"
        )

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, text: str) -> bool:
        found = self.peek(text)
        self.at += len(text) * found
        return found

    def next(self) -> str:
        if self.at >= len(self.pattern):
            raise self.refuse("what is missing")
        self.at += 1
        return self.pattern[self.at - 1]

    def whole(self) -> str:
        """Read all of it: each alternative begins and ends anywhere unless it has an anchor."""
        anything = f"{self.written(_without([(0, _LAST)], []))}*" if self.in_json else ""
        branches = []
        while True:
            before = "" if self.take("^") or self.take(r"\A") else anything
            body = self.sequence()
            after = "" if self.take("$") or self.take(r"\Z") else anything
            branches.append(before + body + after)
            if not self.take("|"):
                break
        if self.at < len(self.pattern):
            raise self.refuse("this")
        return "|".join(branches)

    def sequence(self) -> str:
        text = ""
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)$":
            if self.peek(r"\Z"):
                break
            item = self.item()
            repeat = _REPEAT.match(self.pattern, self.at)
            if repeat and repeat[0] not in ("{}", "{,}"):
                self.at = repeat.end()
                item += _repeated(repeat[0])
                self.take("?")  # as many or as few: the texts are the same
                if self.peek("+") or self.peek("*"):
                    raise self.refuse("a possessive repetition")
            text += item
        return text

    def item(self) -> str:
        if self.take("("):
            return self.group()
        if self.take("["):
            return self.written(self.char_class())
        if self.take("."):
            return self.written(_without([(0, _LAST)], [(0x0A, 0x0A)]))
        if self.peek("^"):
            raise self.refuse("an anchor inside")
        if self.take("\\"):
            return self.written(self.escape())
        return self.written([(ord(self.peeked()), ord(self.next()))])

    def peeked(self) -> str:
        return self.pattern[self.at]

    def group(self) -> str:
        if self.take("?") and not self.take(":"):
            found = re.compile(r"P<\w+>").match(self.pattern, self.at)
            if not found:
                raise self.refuse("lookaround, references and flags")
            self.at = found.end()
        branches = [self.sequence()]
        while self.take("|"):
            branches.append(self.sequence())
        if not self.take(")"):
            raise self.refuse("an anchor inside")
        return f"({'|'.join(branches)})"

    def escape(self) -> Ranges:
        letter = self.next()
        if letter.lower() in _CATEGORIES:
            ranges = _CATEGORIES[letter.lower()]
            # Beyond ASCII the categories differ from one library to the other.
            return ranges if letter.islower() else _without([_PRINTABLE], ranges)
        digits = {"x": 2, "u": 4, "U": 8}.get(letter)
        if digits:
            code = int(self.pattern[self.at : self.at + digits], 16)
            self.at += digits
            return [(code, code)]
        if letter in _NAMED:
            return [(_NAMED[letter], _NAMED[letter])]
        if letter.isalnum():
            raise self.refuse(f"\\{letter}")
        return [(ord(letter), ord(letter))]

    def char_class(self) -> Ranges:
        negated = self.take("^")
        ranges: Ranges = []
        limit = [(0, _LAST)]
        first = True
        while first or not self.peek("]"):
            first = False
            low = self.class_item()
            if self.peek("-") and not self.peek("-]") and low[0][0] == low[-1][1]:
                self.next()
                low = [(low[0][0], self.class_item()[-1][1])]
            if len(low) > 1:
                limit = [_PRINTABLE]
            ranges += low
        self.next()
        return _without(limit, ranges) if negated else ranges

    def class_item(self) -> Ranges:
        if self.take("\\"):
            return [(8, 8)] if self.take("b") else self.escape()
        return [(ord(self.peeked()), ord(self.next()))]

    def written(self, ranges: Ranges) -> str:
        """Return a class of characters as the converter reads it; in JSON, some are escaped."""
        plain = _without(ranges, [*_ESCAPED, _SURROGATES] if self.in_json else [_SURROGATES])
        inside = "".join(
            _code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in plain
        )
        choices = [f"[{inside}]"] if plain else []
        if self.in_json:
            choices += [
                "".join(f"[{_code(ord(c))}]" for c in json.dumps(chr(code))[1:-1])
                for code in _SHORT_ESCAPES
                if any(low <= code <= high < low + _MANY for low, high in ranges)
            ]
        if not choices:
            raise self.refuse("characters that cannot be written")
        return f"[{inside}]" if choices == [f"[{inside}]"] else f"({'|'.join(choices)})"


def _repeated(text: str) -> str:
    """Return a repetition with its numbers written out, as the converter reads them."""
    if text[0] != "{":
        return text
    low, comma, high = text[1:-1].partition(",")
    return f"{{{low or 0}{comma}{high}}}"


def _without(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the characters of *ranges* that are in none of *others*."""
    result = sorted(ranges)
    for low, high in others:
        result = [
            part
            for first, last in result
            for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
            if part[0] <= part[1]
        ]
    return list(dict.fromkeys(result))


def _code(code: int) -> str:
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
