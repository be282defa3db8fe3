"""What a text has to be (a schema, a type, a pattern, one of several texts) as a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pyllama.core.chat_template import schema_to_grammar
from pyllama.errors import GrammarError
from pyllama.text.hints import schema_of
from pyllama.text.regex import portable
from pyllama.text.schema_rules import prepare

TIMEOUT = 5.0
MAX_BYTES = 256 << 10

# Half of a surrogate pair is no character, and 1e999999 no number that a program can hold.
_CHARACTER = (
    r'char ::= [^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" ([0-9A-Ca-cEFef] [0-9a-fA-F]{3} '
    r"| [Dd] [0-7] [0-9a-fA-F]{2}))"
)
_EXPONENT = "([eE] [-+]? [0-9] [0-9]?)?"
_ROOT = re.compile(r'^root ::= "\\"" (.*) "\\""$', re.MULTILINE)


def json_schema(what: Any) -> dict[str, Any]:
    """Return the JSON schema of a type; a schema is returned as it is.

    Parameters
    ----------
    what
        A dict, or a type that `pyllama.text.hints.schema_of` takes: a dataclass, a pydantic
        model, ``list[int]``.

    Returns
    -------
    dict

    Raises
    ------
    TypeError
        If the type has no JSON form.
    """
    return dict(what) if isinstance(what, Mapping) else schema_of(what)


def grammar_of(what: Any, *, strict: bool = True, timeout: float = TIMEOUT) -> str:
    """Turn what a text has to be into a grammar.

    Parameters
    ----------
    what
        A JSON schema (dict); a type with one (dataclass, TypedDict, pydantic model, ``list[int]``);
        a compiled regular expression, which the whole text matches; or a list of strings, of which
        it is one.
    strict
        Whether a keyword of a schema that a grammar cannot follow (uniqueItems, multipleOf, not,
        ...) is refused; otherwise it is left out.
    timeout
        Seconds that it may take.

    Returns
    -------
    str
        GBNF, for `pyllama.samplers.grammar`.

    Raises
    ------
    GrammarError
        If no grammar can follow it, or it is larger than 256 KiB or deeper than 64.
    TypeError
        If it is nothing of that kind.
    TimeoutError
        If it took too long.

    Notes
    -----
    Texts that the grammar allows follow the schema, but not all such texts are allowed: keys come
    in the order of the schema, keys that it does not name are left out unless it describes them,
    dates are those of the years 1000 to 9999 without 29 February.

    Calls: pyllama_schema_to_grammar
    """
    if isinstance(what, re.Pattern):
        return _of_pattern(what, timeout)
    if isinstance(what, Sequence):
        return _of_choices(what)
    schema, spliced = prepared(what, strict=strict)
    return finished(schema_to_grammar(schema, timeout), spliced)


def prepared(what: Any, *, strict: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the schema for llama.cpp's converter, and what `finished` puts into its grammar.

    Parameters
    ----------
    what, strict
        As for `grammar_of`: a schema, or a type with one.

    Returns
    -------
    schema : dict
    spliced : dict of str to str

    Raises
    ------
    GrammarError, TypeError
        As `grammar_of`.
    """
    schema = json_schema(what)
    try:
        size = len(json.dumps(schema))
    except RecursionError:
        raise GrammarError("the schema is nested too deeply") from None
    except (TypeError, ValueError) as error:
        message = f"a JSON schema holds only what JSON can hold: {error}"
        raise GrammarError(message) from None
    if size > MAX_BYTES:
        message = f"the schema has {size} bytes; at most {MAX_BYTES} are allowed"
        raise GrammarError(message)
    return prepare(schema, strict=strict)


def finished(grammar: str, spliced: Mapping[str, str]) -> str:
    """Return a grammar of llama.cpp's converter with all that the schema asks for.

    Parameters
    ----------
    grammar
        What the converter made of a schema of `prepared`.
    spliced
        What `prepared` returned beside it.

    Returns
    -------
    str
        GBNF.
    """
    for name, text in spliced.items():
        grammar = grammar.replace(rf'"\"{name}\""', text)
    return "\n".join(_corrected(rule) for rule in grammar.splitlines()) + "\n"


def _corrected(rule: str) -> str:
    """Return a rule of the converter without the texts that are no JSON, or no value of it."""
    name = rule.partition(" ")[0]
    if name == "char":
        return _CHARACTER
    if name == "number":
        return rule.replace("([eE] [-+]? integral-part)?", _EXPONENT)
    if name.endswith("additional-k"):  # "any other key" forgets what a string must escape
        return rule.replace('[^"', r'[^"\\\x7F\x00-\x1F')
    return rule


def _of_pattern(pattern: re.Pattern[Any], timeout: float) -> str:
    if not isinstance(pattern.pattern, str) or pattern.flags & ~re.UNICODE:
        message = f"a grammar follows patterns of text without flags, not {pattern!r:.80}"
        raise GrammarError(message)
    wanted = {"type": "string", "pattern": portable(pattern.pattern, in_json=False)}
    grammar = schema_to_grammar(wanted, timeout)
    if not _ROOT.search(grammar):
        raise GrammarError("llama.cpp's converter wrote a pattern in an unknown way")
    return _ROOT.sub(lambda found: f"root ::= {found[1]}", grammar)  # without the quotes of JSON


def check_choices(choices: Sequence[Any]) -> None:
    """Raise TypeError unless *choices* are strings to choose from.

    Parameters
    ----------
    choices
        What was given as a list of strings.

    Raises
    ------
    TypeError
        If it is one string, or one of them is none, or empty.
    """
    if isinstance(choices, (str, bytes)):
        message = (
            "a string is not a constraint: give re.compile(...) for a pattern, a list of strings "
            "to choose from, or use the grammar as it is"
        )
        raise TypeError(message)
    if not choices or not all(isinstance(each, str) and each for each in choices):
        message = (
            f"the texts to choose from must be strings with something in them: {choices!r:.80}"
        )
        raise TypeError(message)


def _of_choices(choices: Sequence[Any]) -> str:
    check_choices(choices)
    literals = [
        '"' + "".join(f"\\U{ord(c):08X}" if c in '"\\\n\r' else c for c in each) + '"'
        for each in dict.fromkeys(choices)
    ]
    return f"root ::= {' | '.join(literals)}\n"
