"""GBNF: what is a grammar, what is none, and where it goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pyllama.core import sampler
from pyllama.errors import GrammarError

LLAMA_CPP = Path(__file__).parents[3] / "vendor" / "llama.cpp"


BAD = {
    "": "does not define its root rule 'root'; it defines: none",
    "# nothing": "does not define its root rule",
    'main ::= "a"': "does not define its root rule 'root'; it defines: main",
    'root ::= "a': "line 1, column 10: this string does not end, at '\"a'",
    "root ::= [a-": "this set does not end",
    'root ::= ("a"': r"expected '\)', at the end",
    'root ::= "a")': "expected an item",
    'root ::= "a" | _': "expected an item, '|' or the end of the line, at '_'",
    'root := "a"': "expected '::='",
    'root ::= "a"\n%': "line 2, column 1: expected the name of a rule",
    r'root ::= "\q"': "unknown escape",
    r'root ::= "\x4"': "unknown escape",
    "root ::= missing": "line 1, column 10: rule 'missing' is not defined",
    'root ::= "a"\nroot ::= "b"': "line 2, column 1: rule 'root' is defined a second time",
    "root ::= *": "nothing stands before this repetition",
    'root ::= "" +': "nothing stands before this repetition",
    'root ::= "a"{': "expected {n}, {n,} or {n,m}",
    'root ::= "a"{2,1}': "upper limit of this repetition is below",
    'root ::= "a"{100000}': "more than 2000 repetitions",
    'root ::= "a"{1,100000}': "more than 2000 repetitions",
    'root ::= ("a"{0,100}){0,100}': "repetitions in each other",
    'root ::= root "a" | "b"': "left recursion in rule 'root'",
    'root ::= a "x" | "y"\na ::= root': "left recursion",
    'root ::= e root "x" | "y"\ne ::= f\nf ::= "" | "a"': "left recursion in rule 'root'",
    "root ::= root": "left recursion",
    "root ::= <[512]>": "token 512 is not one of the vocabulary's 512",
    "root ::= <nothing of the kind>": "is not one token",
    "root ::= <a": "expected a token",
    'root ::= "\0"': "a NUL character",
    "root ::= " + "(" * 1001 + '"a"' + ")" * 1001: "nested deeper than 1000",
    "root ::= " + "a " * (1 << 19) + "b": "at most 1048576 are allowed",
    "root ::= " + "(a)" * 60_000 + '\na ::= "a"': "more than 50000 rules",
    'root ::= "' + "a" * 10_000 + '"{2000}': "more than 2000000 elements",
    "root ::= r0\n"
    + "".join(f'r{i} ::= r{i + 1} "x" | r{i + 1} "y"\n' for i in range(40))
    + 'r40 ::= "z"': "can begin in too many ways",
    "root ::= r0\n"
    + "".join(f"r{i} ::= r{i + 1}\n" for i in range(20_000))
    + 'r20000 ::= "z"': "can begin in too many ways",
}


@pytest.mark.parametrize("source", BAD, ids=lambda source: source[:24])
def test_what_is_no_grammar_is_refused_with_the_place(source, model):
    """And libllama, which prints to stderr or dies, never sees it."""
    with pytest.raises(GrammarError) as caught:
        sampler.grammar(model.vocab, source)
    assert BAD[source].replace("\\", "") in str(caught.value)


def test_nothing_is_printed(model, capfd):
    """Neither by us nor by libllama, whose parser writes to stderr."""
    for source in BAD:
        with pytest.raises(GrammarError):
            sampler.grammar(model.vocab, source)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", sorted((LLAMA_CPP / "grammars").glob("*.gbnf")), ids=str)
def test_the_grammars_of_llama_cpp_are_grammars(path, model):
    """None of them is refused."""
    with sampler.grammar(model.vocab, path.read_text()) as grammar:
        assert grammar.name == "grammar"


@pytest.mark.parametrize(
    "source",
    [
        'root ::= ("a"? "b"?)* | ("c"?)+',
        "root ::= [^\\]\\-a-z-]+ | [] | [^]",
        'root ::= (\n "a" # one\n | "b"\n )\r\n\r\nx ::= root # end',
        'root ::= "\\x41\\u0041\\U00000041\\"\\\\\\n" "\n"',
        'root ::= "a"{ 2 , 5 } "b"{0,} "c"{3} ("d" | "e"){0,1}',
        "root ::= <[5]> !<[6]> <s>",
        'root ::= list\nlist ::= "a" list | ',
        "root ::= " + "(" * 1000 + '"a"' + ")" * 1000,
        'root ::= "日本" [ぁ-ん]+',
    ],
)
def test_accepts_the_whole_notation(source, model):
    """Each form that libllama parses."""
    grammar = sampler.grammar(model.vocab, source)
    grammar.reset()
    assert grammar.clone().name == "grammar"


def test_needs_only_a_small_stack_of_its_caller(model):
    """A thread with 256 KiB parses, resets and clones the deepest grammar."""
    source = "root ::= " + "(" * 1000 + '"a"' + ")" * 1000
    done = []

    def work() -> None:
        grammar = sampler.grammar(model.vocab, source)
        grammar.reset()
        grammar.clone().close()
        done.append(True)

    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert done


@pytest.mark.parametrize("source", [None, b'root ::= "a"', 5])
def test_a_grammar_must_be_a_string(source, model):
    """Bytes are not decoded by guess."""
    with pytest.raises(TypeError, match="must be a string"):
        sampler.grammar(model.vocab, source)
