"""S: samplers, chains and grammars. More of them, value by value, in tests/core/sampler."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch, Candidates, Sampler, SamplerChain, Vocab, generate
from pyllama import samplers as s
from pyllama.errors import GrammarError, SamplingError, StateError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case

TEXT = 'root ::= "a" "b"?'


def dry(vocab: Vocab, **options: object) -> Sampler:
    """Return a DRY sampler with some options changed."""
    usual = {"dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 2, "dry_penalty_last_n": 9}
    return s.dry(vocab, **{**usual, **options})


def letter(w: World, text: str) -> int:
    """Return the token of one character."""
    return int(w.vocab().tokenize(text, add_special=False)[-1])


@case("S1", "a chain that chooses nothing", SamplingError)
def _(w: World) -> None:
    context = w.held()
    raised_by(
        lambda: SamplerChain().sample(w.row()),
        lambda: SamplerChain([s.greedy(), s.top_k(3)]).sample(w.row()),
        lambda: s.temp(0.5).sample(w.row()),
        lambda: list(generate.tokens(context, [1, 2], sampler=SamplerChain())),
    )


@case("S1", "sampling before a decode, or where there is no output", StateError)
def _(w: World) -> None:
    context = w.context()
    chain = SamplerChain([s.dist(1)])
    raised_by(
        lambda: chain.sample(context.logits_view(-1)),
        lambda: context.decode(Batch([1], output="none")) or chain.sample(context.logits()[-1]),
    )


@case("S2", "no candidates", ValueError)
def _(w: World) -> None:
    empty = w.row()[:0]
    made = [
        s.top_p(0.9), s.typical(0.9), s.mirostat(512, tau=5, eta=0.1),
        s.mirostat_v2(tau=5, eta=0.1), s.adaptive_p(0.5, decay=0.9), s.infill(w.vocab()),
    ]  # fmt: skip
    raised_by(
        lambda: Candidates(empty),
        lambda: s.greedy().sample(empty),
        *(lambda each=each: SamplerChain([each, s.dist(1)]).sample(empty) for each in made),
    )


@case("S3", "logits of which none can be chosen", SamplingError)
def _(w: World) -> None:
    nan, inf, none = (np.full(512, value, np.float32) for value in (math.nan, math.inf, -math.inf))
    mixed = w.row()
    mixed[7] = math.nan
    chains = [
        s.greedy(), s.dist(1), SamplerChain([s.top_k(5), s.temp(0), s.dist(1)]),
        SamplerChain([s.typical(0.5), s.mirostat_v2(tau=5, eta=0.1)]),
    ]  # fmt: skip
    raised_by(*(
        lambda chain=chain, bad=bad: chain.sample(bad)
        for chain in chains for bad in (nan, inf, none, mixed)
    ))  # fmt: skip


@case("S3", "a model whose logits are NaN, in every kind of loop", SamplingError)
def _(w: World) -> None:
    context = w.context()

    def spoil(ids: object, scores: np.ndarray) -> np.ndarray:
        return scores * np.float32(math.nan)

    def run(**options: object) -> None:
        list(generate.tokens(context, [1, 2], logits_processor=[spoil], **options))

    raised_by(run, lambda: run(sampler=s.greedy()), lambda: run(sampler=SamplerChain([s.dist()])))


row(
    "S4",
    "adding what is no sampler",
    TypeError,
    lambda w: raised_by(
        lambda: SamplerChain([None]),
        lambda: SamplerChain([5]),
        lambda: SamplerChain(5),
        lambda: SamplerChain().add(lambda row: 0),
    ),
)


@case("S4", "adding a chain to itself, or round about", StateError)
def _(w: World) -> None:
    outer, inner = SamplerChain(), SamplerChain()
    outer.add(inner)
    raised_by(lambda: outer.add(outer), lambda: inner.add(outer), lambda: inner.add(s.greedy()))


row(
    "S4",
    "a chain's methods on what is no chain",
    AttributeError,
    lambda w: raised_by(
        lambda: s.greedy().add(s.greedy()), lambda: s.greedy().perf, lambda: s.greedy().pop()
    ),
)
row(
    "S4",
    "a place in a chain that is not there",
    IndexError,
    lambda w: raised_by(
        *(lambda n=n: SamplerChain([s.greedy()]).pop(n) for n in (1, -2, 2**31, -(2**64)))
    ),
)


@case("S5", "accepting tokens out of range", ValueError)
def _(w: World) -> None:
    grammar = s.grammar(w.vocab(), TEXT)
    raised_by(
        *(lambda n=n: grammar.accept(n) for n in (-1, 512, 2**31, -(2**64))),
        lambda: s.adaptive_p(0.5, decay=0.5).accept(-1),
        lambda: s.penalties(512, penalty_last_n=4).accept(512),
    )


@case("S5", "accepting before anything was applied", None)
def _(w: World) -> None:
    for each in (s.adaptive_p(0.5, decay=0.5), s.mirostat(512, tau=5, eta=0.1), s.dist(1)):
        each.accept(5)
        each.sample(w.row())


@case("S6", "candidates that are not in the vocabulary", ValueError)
def _(w: World) -> None:
    def applied(sampler: Sampler, token: int) -> None:
        candidates = Candidates(w.row())
        candidates.data["id"][3] = token
        sampler.apply(candidates)

    grammar, infill = s.grammar(w.vocab(), TEXT), s.infill(w.vocab())
    bias = s.logit_bias(512, {1: 5.0})
    raised_by(*(
        lambda each=each, token=token: applied(each, token)
        for each in (grammar, infill, bias) for token in (-1, 512, 2**31 - 1)
    ))  # fmt: skip


row(
    "S6",
    "a row for another vocabulary",
    ValueError,
    lambda w: raised_by(
        lambda: SamplerChain([s.grammar(w.vocab(), TEXT), s.dist()]).sample(w.row()[:9]),
        lambda: s.mirostat(9, tau=5, eta=0.1).sample(w.row()),
    ),
)


GRAMMARS = {
    "S7 empty": "",
    "S7 no rule": "hello",
    "S7 no root": 'x ::= "a"',
    "S7 an undefined rule": "root ::= x",
    "S7 left recursion": 'root ::= root "a" | "a"',
    "S7 hidden left recursion": 'root ::= e root "x" | "y"\ne ::= f\nf ::= ""',
    "S7 a string without end": 'root ::= "a',
    "S7 100,000 repetitions": 'root ::= "a"{100000}',
    "S7 repetitions of repetitions": 'root ::= "a"{1000}{1000}',
    "S7 more to less": 'root ::= "a"{5,3}',
    "S7 a NUL": 'root ::= "a\0"',
    "S7 half a surrogate pair": 'root ::= "\udc80"',
    "S7 a token that is none": "root ::= <[99999]>",
    "S8 30,000 brackets": "root ::= " + "(" * 30_000 + ")" * 30_000,
    "S8 30,000 brackets that are open": "root ::= " + "(" * 30_000,
    "S8 100,000 rules in a chain": "root ::= r0\n"
    + "".join(f"r{n} ::= r{n + 1}\n" for n in range(100_000)),
    "S8 alternatives that double": "root ::= r0\n"
    + "".join(f"r{n} ::= r{n + 1} | r{n + 1}\n" for n in range(40))
    + 'r40 ::= "a"',
    "S8 two megabytes": 'root ::= "' + "a" * (2 << 20) + '"',
}
for name, text in GRAMMARS.items():
    error = UnicodeEncodeError if "surrogate" in name else GrammarError
    row(name[:2], f"a grammar: {name[3:]}", error, lambda w, text=text: s.grammar(w.vocab(), text))

row(
    "S7",
    "a root or vocabulary that is none",
    TypeError,
    lambda w: raised_by(
        lambda: s.grammar(w.vocab(), TEXT, grammar_root=None),
        lambda: s.grammar(None, TEXT),
        lambda: s.grammar(w.vocab(), None),
        lambda: s.grammar(w.model(), TEXT),
    ),
)
row(
    "S7",
    "samplers for a model without a vocabulary",
    UnsupportedError,
    lambda w: raised_by(
        lambda: s.grammar(w.vocab("no_vocab"), TEXT),
        lambda: s.infill(w.vocab("no_vocab")),
        lambda: dry(w.vocab("no_vocab")),
    ),
)


@case("S9", "accepting what the grammar does not allow", GrammarError)
def _(w: World) -> None:
    grammar, eos = s.grammar(w.vocab(), TEXT), w.vocab().eos
    chain = SamplerChain([s.grammar(w.vocab(), TEXT), s.dist(1)])
    try:
        raised_by(
            lambda: grammar.accept(letter(w, "z")),
            lambda: grammar.accept(eos),
            lambda: chain.accept(letter(w, "z")),
            lambda: chain.accept(eos),
        )
    finally:
        for text in "ab":
            grammar.accept(letter(w, text))
        grammar.accept(eos)


@case("S9", "accepting after the end", GrammarError)
def _(w: World) -> None:
    grammar = s.grammar(w.vocab(), TEXT)
    grammar.accept(letter(w, "a"))
    grammar.accept(w.vocab().eos)
    raised_by(lambda: grammar.accept(letter(w, "b")), lambda: grammar.accept(w.vocab().eos))


@case("S9", "other samplers that leave nothing for the grammar", GrammarError)
def _(w: World) -> None:
    chain = SamplerChain([s.top_k(1), s.grammar(w.vocab(), TEXT), s.dist(1)])
    chain.sample(w.row())


@case("S10", "bad triggers of a lazy grammar", GrammarError)
def _(w: World) -> None:
    def lazy(*patterns: str) -> None:
        s.grammar_lazy_patterns(w.vocab(), TEXT, trigger_patterns=patterns)

    raised_by(lambda: lazy("("), lambda: lazy("[z-a]"), lambda: lazy("a", "*"))


@case("S10", "20,000 characters before the trigger of a recursive pattern", None)
def _(w: World) -> None:
    grammar = s.grammar_lazy_patterns(w.vocab(), TEXT, trigger_patterns=[r"^(.|\n)*<tool>(.*)$"])
    words = sorted(w.vocab().piece_table(), key=len)[-1]
    longest = w.vocab().piece_table().index(words)
    with suppress(GrammarError):  # that it takes too long, on a slow machine
        for _ in range(2000):
            grammar.accept(longest)


@case("S11", "numbers that make no sense", ValueError)
def _(w: World) -> None:
    vocab = w.vocab()
    raised_by(
        lambda: s.penalties(512, penalty_last_n=2**31 - 1),
        lambda: s.penalties(512, penalty_last_n=4, penalty_freq=math.nan),
        lambda: s.penalties(-1, penalty_last_n=4),
        lambda: dry(vocab, dry_penalty_last_n=2**31 - 1),
        lambda: dry(vocab, dry_base=math.inf),
        lambda: dry(vocab, seq_breakers=[""]),
        lambda: s.logit_bias(512, {512: 1.0}),
        lambda: s.logit_bias(512, {-1: 1.0}),
        lambda: s.logit_bias(512, {1: math.nan}),
        lambda: s.mirostat(0, tau=5, eta=0.1),
        lambda: s.mirostat(512, tau=math.nan, eta=0.1),
        lambda: s.mirostat(512, tau=5, eta=0.1, m=1),
        lambda: s.temp(math.nan),
        lambda: s.top_k(-1),
        lambda: s.dist(-1),
    )


@case("S12", "taking over the state of another kind", ValueError)
def _(w: World) -> None:
    raised_by(
        lambda: s.greedy().copy_from(s.dist(1)),
        lambda: SamplerChain().copy_from(SamplerChain([s.greedy()])),
        lambda: s.top_k(5).copy_from(s.top_k(6)),
    )


@case("S14", "every sampler: name, reset, clone, seed, chain, close", None)
def _(w: World) -> None:
    vocab, sampler = w.vocab(), None
    for sampler in (
        s.greedy(), s.dist(1), s.top_k(3), s.top_p(0.5), s.min_p(0.1), s.typical(0.5), s.temp(2),
        s.temp_ext(1, delta=0.5, exponent=1), s.xtc(0.5, 0.1), s.top_n_sigma(1), s.infill(vocab),
        s.mirostat(512, tau=5, eta=0.1), s.mirostat_v2(tau=5, eta=0.1), dry(vocab),
        s.adaptive_p(0.5, decay=0.9), s.penalties(512, penalty_last_n=4), s.grammar(vocab, TEXT),
        s.logit_bias(512, {1: 2.0}),
    ):  # fmt: skip
        sampler.reset()
        assert sampler.name
        with sampler.clone() as twin:
            twin.copy_from(sampler)
        grammar = () if "grammar" in sampler.name else (s.top_k(9),)
        with SamplerChain([*grammar, sampler, s.dist(1)]) as chain:
            chain.sample(w.row())
            chain.clone().close()
            chain.pop(len(grammar)).close()
