"""Reading GBNF before libllama does, so that a bad grammar is a message and not a dead process.

libllama prints the reason for a refusal to stderr only, parses brackets recursively, and takes
without a word some grammars that fill the memory: ``"a"{5,3}`` (src/llama-grammar.cpp:521), left
recursion behind a rule that is empty only indirectly (:965), alternatives that double at each
rule. `check` finds those, with the line; what it lets through, libllama still parses itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyllama.core.sampler import gbnf_rules
from pyllama.errors import GrammarError

if TYPE_CHECKING:
    from pyllama.core.vocab import Vocab

MAX_BYTES = 1 << 20
MAX_DEPTH = 1000  # of brackets: libllama takes about 500 bytes of stack for each
MAX_SYMBOLS = 50_000  # rules, written or made for brackets and repetitions
MAX_ELEMENTS = 2_000_000  # characters and references after repetitions are written out
MAX_REPEAT = 2000  # MAX_REPETITION_THRESHOLD, src/llama-grammar.cpp:13
MAX_TOKEN_TEXT = 256  # characters in <text>: libllama tokenizes it on the stack it parses on

SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_OR_LINE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
NAME = re.compile(r"[A-Za-z0-9-]+")
PLAIN = re.compile(r'[^"\\]+')
ESCAPE = re.compile(r'\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[trn\\"\[\]-])')
TOKEN = re.compile(r"!?<(?:\[(?P<id>[0-9]+)\]|[^\[>][^>]*|)>")
REPEAT = re.compile(r"\*|\+|\?|\{S([0-9]+)S(?:\}|(,)S([0-9]*)S\})".replace("S", r"[ \t\r\n]*"))


def check(text: str, root: str, vocab: Vocab) -> None:
    """Raise unless *text* is a grammar that libllama can parse and follow.

    Parameters
    ----------
    text
        GBNF.
    root
        The rule that the whole text follows.
    vocab
        What ``<text>`` and ``<[id]>`` name tokens of.

    Raises
    ------
    TypeError
        If *text* or *root* is no string.
    GrammarError
        With the line and column where it goes wrong, and why.
    """
    for name, value in (("grammar_str", text), ("grammar_root", root)):
        if not isinstance(value, str):
            message = f"{name} must be a string, not {value!r:.60}"
            raise TypeError(message)
    if len(text.encode()) > MAX_BYTES:
        message = f"the grammar has {len(text.encode())} bytes; at most {MAX_BYTES} are allowed"
        raise GrammarError(message)
    reader = _Reader(text, vocab)
    reader.read()
    if root not in reader.defined:
        known = ", ".join(sorted(reader.defined)[:10]) or "none"
        message = f"the grammar does not define its root rule {root!r}; it defines: {known}"
        raise GrammarError(message)
    gbnf_rules.check(reader.rules, {number: name for name, number in reader.names.items()})


@dataclass
class _Level:
    """One bracket that is open, or the rule itself."""

    rule: int
    n_symbols: int  # when it began
    alternatives: list[list[int]] = field(default_factory=lambda: [[]])
    n_elements: int = 0  # of the last item, after repetitions; 0 if there is none to repeat
    n_repeated: int = 1  # libllama's count for the last item


class _Reader:
    """A position in the text, and the rules read so far."""

    def __init__(self, text: str, vocab: Vocab) -> None:
        self.text = text
        self.vocab = vocab
        self.at = 0
        self.names: dict[str, int] = {}
        self.used: dict[str, int] = {}  # where each name was first used
        self.defined: set[str] = set()
        self.rules: list[gbnf_rules.Rule] = []
        self.n_symbols = 0
        self.n_elements = 0

    def fail(self, what: str, at: int | None = None) -> GrammarError:
        at = self.at if at is None else at
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        found = f"{self.text[at : at + 20]!r}" if at < len(self.text) else "the end"
        return GrammarError(f"grammar, line {line}, column {column}: {what}, at {found}")

    def skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def new_rule(self) -> int:
        self.count_symbols(1)
        self.rules.append(gbnf_rules.Rule())
        return len(self.rules) - 1

    def count_symbols(self, n: int) -> None:
        self.n_symbols += n
        if self.n_symbols > MAX_SYMBOLS:
            raise self.fail(f"more than {MAX_SYMBOLS} rules, brackets and repetitions")

    def count_elements(self, n: int) -> None:
        self.n_elements += n
        if self.n_elements > MAX_ELEMENTS:
            raise self.fail(f"more than {MAX_ELEMENTS} elements once repetitions are written out")

    def rule_of(self, name: str) -> int:
        if name not in self.names:
            self.names[name] = self.new_rule()
        return self.names[name]

    def read(self) -> None:
        if "\0" in self.text:
            raise self.fail("a NUL character: write \\x00", self.text.index("\0"))
        self.skip(SPACE_OR_LINE)
        while self.at < len(self.text):
            self.read_rule()
        for name, at in self.used.items():
            if name not in self.defined:
                raise self.fail(f"rule {name!r} is not defined", at)

    def read_rule(self) -> None:
        found = NAME.match(self.text, self.at)
        if found is None:
            raise self.fail("expected the name of a rule: letters, digits and '-'")
        if found[0] in self.defined:
            raise self.fail(f"rule {found[0]!r} is defined a second time")
        self.defined.add(found[0])
        rule = self.rule_of(found[0])
        self.at = found.end()
        self.skip(SPACE)
        if not self.text.startswith("::=", self.at):
            raise self.fail("expected '::='")
        self.at += 3
        self.skip(SPACE_OR_LINE)
        self.read_body(_Level(rule, self.n_symbols))
        if self.at < len(self.text) and self.peek() not in "\r\n":
            raise self.fail("expected an item, '|' or the end of the line")
        self.skip(SPACE_OR_LINE)

    def read_body(self, level: _Level) -> None:
        """Read alternatives and all brackets in them, without recursion."""
        open_levels: list[_Level] = []
        while True:
            sign = self.peek()
            if sign == "(":
                if len(open_levels) == MAX_DEPTH:
                    raise self.fail(f"brackets nested deeper than {MAX_DEPTH}")
                open_levels.append(level)
                n_symbols = self.n_symbols
                level = _Level(self.new_rule(), n_symbols)
                self.step(SPACE_OR_LINE)
            elif sign == "|":
                level.alternatives.append([])
                level.n_elements = 0
                self.step(SPACE_OR_LINE)
            elif sign == ")" and open_levels:
                self.rules[level.rule].alternatives = level.alternatives
                rule, n_made = level.rule, self.n_symbols - level.n_symbols
                level = open_levels.pop()
                self.add(level, rule, 1, n_made)
                self.step(SPACE_OR_LINE if open_levels else SPACE)
            elif not self.read_item(level):
                break
            else:
                self.skip(SPACE_OR_LINE if open_levels else SPACE)
        if open_levels:
            raise self.fail("expected ')'")
        self.rules[level.rule].alternatives = level.alternatives

    def step(self, space: re.Pattern[str]) -> None:
        self.at += 1
        self.skip(space)

    def add(self, level: _Level, item: int, n_elements: int, n_repeated: int = 1) -> None:
        """Note an item; it is a rule's number, or TERMINAL for what consumes text."""
        level.n_elements, level.n_repeated = n_elements, n_repeated
        if n_elements:
            self.count_elements(n_elements)
            level.alternatives[-1].append(item)

    def read_item(self, level: _Level) -> bool:
        """Read a string, set, token, reference, '.' or repetition; return whether there was one."""
        sign = self.peek()
        if sign == '"':
            self.add(level, gbnf_rules.TERMINAL, self.read_string())
        elif sign == "[":
            self.add(level, gbnf_rules.TERMINAL, self.read_set())
        elif sign == ".":
            self.at += 1
            self.add(level, gbnf_rules.TERMINAL, 1)
        elif sign and sign in "<!":
            self.read_token()
            self.add(level, gbnf_rules.TERMINAL, 1)
        elif sign and sign in "*+?{":
            self.read_repeat(level)
        else:
            found = NAME.match(self.text, self.at)
            if found is None:
                return False
            self.used.setdefault(found[0], self.at)
            self.at = found.end()
            self.add(level, self.rule_of(found[0]), 1)
        return True

    def read_string(self) -> int:
        begin = self.at
        self.at += 1
        n_characters = 0
        while self.peek() != '"':
            plain = PLAIN.match(self.text, self.at)
            if plain is not None:
                n_characters += len(plain[0])
                self.at = plain.end()
            elif self.at == len(self.text):
                raise self.fail("this string does not end", begin)
            else:
                self.read_character()
                n_characters += 1
        self.at += 1
        return n_characters

    def read_set(self) -> int:
        begin = self.at
        self.at += 2 if self.text.startswith("[^", self.at) else 1
        n_elements = 0
        while self.peek() != "]":
            if self.at == len(self.text):
                raise self.fail("this set does not end", begin)
            self.read_character()
            n_elements += 1
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                self.read_character()
                n_elements += 1
        self.at += 1
        return n_elements

    def read_character(self) -> None:
        if self.peek() != "\\":
            self.at += 1
            return
        found = ESCAPE.match(self.text, self.at)
        if found is None:
            raise self.fail(r"unknown escape: \t \r \n \\ \" \[ \] \- \xHH \uHHHH \UHHHHHHHH exist")
        self.at = found.end()

    def read_token(self) -> None:
        found = TOKEN.match(self.text, self.at)
        if found is None or len(found[0]) > MAX_TOKEN_TEXT:
            raise self.fail("expected a token: <text>, <[id]>, or either after '!'")
        n_vocab = self.vocab.n_tokens
        if found["id"] is None:
            text = found[0].lstrip("!")
            if len(self.vocab.tokenize(text, add_special=False, parse_special=True)) != 1:
                raise self.fail(f"{text} is not one token of the vocabulary")
        elif int(found["id"][:10]) >= n_vocab:
            raise self.fail(f"token {found['id']} is not one of the vocabulary's {n_vocab}")
        self.at = found.end()

    def read_repeat(self, level: _Level) -> None:
        found = REPEAT.match(self.text, self.at)
        if found is None:
            raise self.fail("expected {n}, {n,} or {n,m}")
        if not level.n_elements:
            raise self.fail("nothing stands before this repetition")
        low, high = _bounds(found)
        if low > MAX_REPEAT or (high or 0) > MAX_REPEAT:
            raise self.fail(f"more than {MAX_REPEAT} repetitions; {{n,}} has no upper limit")
        if high is not None and high < low:
            raise self.fail("the upper limit of this repetition is below the lower")
        level.n_repeated *= high or low or 1
        if level.n_repeated > MAX_REPEAT:
            raise self.fail(f"repetitions in each other make more than {MAX_REPEAT} rules")
        self.at = found.end()
        self.repeat(level, low, high)

    def repeat(self, level: _Level, low: int, high: int | None) -> None:
        """Replace the last item by what libllama makes of its repetition."""
        item = level.alternatives[-1].pop()
        n_optional = 1 if high is None else high - low
        size = level.n_elements
        self.count_elements(size * (low + n_optional))
        # For how rules begin, two copies tell as much as a thousand.
        level.alternatives[-1] += [item] * min(low, 2)
        level.n_elements = size * low + min(n_optional, 1)
        if n_optional:
            self.count_symbols(n_optional - 1)
            rule = self.new_rule()
            again = [item, rule] if high is None else [item]
            self.rules[rule] = gbnf_rules.Rule([again, []], n_optional)
            level.alternatives[-1].append(rule)


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    """Return how often at least and at most; None is without end."""
    if found[0] in {"*", "+", "?"}:
        return (1, None) if found[0] == "+" else (0, 1 if found[0] == "?" else None)
    low, comma, high = found[1], found[2], found[3]
    # {n,m} of more digits than any limit would only be slow to convert
    numbers = [int(number[:9]) if number else None for number in (low, high)]
    return int(numbers[0] or 0), numbers[1] if comma else numbers[0]
