"""S8, S10: grammars and triggers that libllama can follow in so many ways that it never ends."""

from __future__ import annotations

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Candidates, SamplerChain
from pyllama import samplers as s
from pyllama.errors import GrammarError

TABLE = Table()
case = TABLE.case

EQUAL = "root ::= " + " | ".join(['"b" root "a"'] * 50) + ' | "a"'  # the fuzzer's find
TWOFOLD = "root ::= " + " | ".join(f'"b" root "{end}"' for end in "acde") + ' | "x"'
CHAIN = "\n".join(f'r{n} ::= r{n + 1} "x" | "y"' for n in range(4000)) + '\nr4000 ::= "z"'


def letters(w: World, chain: SamplerChain, text: str) -> None:
    """Let a grammar choose, and go on, letter by letter."""
    for letter in text:
        chain.sample(w.row(), accept=False)
        chain.accept(int(w.vocab().tokenize(letter, add_special=False)[-1]))


def chain_of(w: World, text: str, **options: str) -> SamplerChain:
    """Return a chain with a grammar in it."""
    return SamplerChain([s.grammar(w.vocab(), text, **options), s.dist(1)])


for name, text in (
    ("fifty equal alternatives that call their own rule", EQUAL),
    ("readings that multiply with each letter", TWOFOLD),
):

    @case("S8", name, GrammarError)
    def _(w: World, text: str = text) -> None:
        chain = chain_of(w, text)
        try:
            letters(w, chain, "b" * 30)
        finally:
            chain.reset()
            letters(w, chain, "b")


@case("S8", "repetitions in repetitions, and a long word", GrammarError)
def _(w: World) -> None:
    model = w.model("long_word")
    grammar = s.grammar(model.vocab, "root ::= ([a-z]+)*")
    row = w.row()
    row.resize(model.n_vocab)
    raised_by(lambda: grammar.apply(Candidates(row)))


@case("S8", "a grammar of many ways to begin, cloned", None)
def _(w: World) -> None:
    with chain_of(w, CHAIN, grammar_root="r0") as chain:
        letters(w, chain.clone(), "zx")


@case("S10", "a trigger that is searched in ever more ways", GrammarError)
def _(w: World) -> None:
    grammar = s.grammar_lazy_patterns(w.vocab(), 'root ::= "b"', trigger_patterns=["([^b]*)*b"])
    token = int(w.vocab().tokenize("a", add_special=False)[-1])
    try:
        for _ in range(40):
            grammar.accept(token)
    finally:
        grammar.reset()
        grammar.accept(token)
