"""Misuse that kills libllama: each case in one process, which has to live to the end."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap

import pytest

from pyllama.core import sampler

PRELUDE = """
import sys, numpy as np, pyllama
from pyllama.core import sampler as s
from pyllama.errors import *

def opened():
    return pyllama.Model(sys.argv[1])

def dry(vocab):
    options = {"dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 2}
    return s.dry(vocab, **options, dry_penalty_last_n=9, seq_breakers=["a"])

model = opened()
vocab, n = model.vocab, model.vocab.n_tokens
row = np.linspace(-1, 1, n, dtype=np.float32)
chain = lambda *parts: s.SamplerChain(parts)
grammar = lambda text='root ::= "a"': s.grammar(vocab, text)
candidates = lambda *logits: s.Candidates(np.array(logits, np.float32))
foreign = candidates(1, 2)
foreign.data["id"][0] = 2**31 - 1
"""

# process_killers.md row: what to run, and the exception that has to come
CASES = {
    "S1 empty chain": ("chain().sample(row)", "SamplingError"),
    "S1 nothing selects": ("chain(s.greedy(), s.top_k(3)).sample(row)", "SamplingError"),
    "S2 no candidates": ("candidates()", "ValueError"),
    "S2 empty row": ("s.mirostat_v2(tau=3, eta=1).sample(row[:0])", "ValueError"),
    "S3 nan": ("chain(s.top_p(.9), s.dist()).sample(row * np.nan)", "SamplingError"),
    "S3 all ruled out": ("s.dist().sample(row - np.inf)", "SamplingError"),
    "S4 add None": ("chain(None)", "TypeError"),
    "S4 add to itself": ("c = chain(); c.add(c)", "StateError"),
    "S4 add to a sampler": ("s.greedy().add(s.greedy())", "AttributeError"),
    "S4 perf of a sampler": ("s.greedy().perf", "AttributeError"),
    "S4 bad index": ("chain(s.greedy()).pop(1)", "IndexError"),
    "S5 accept": ("chain(grammar()).accept(n)", "ValueError"),
    "S5 accept -1": ("s.adaptive_p(.5, decay=.5).accept(-1)", "ValueError"),
    "S6 foreign token, grammar": ("grammar().apply(foreign)", "ValueError"),
    "S6 foreign token, infill": ("s.infill(vocab).apply(foreign)", "ValueError"),
    "S7 empty grammar": ("grammar('')", "GrammarError"),
    "S7 no root": ("grammar('x ::= \"a\"')", "GrammarError"),
    "S7 root None": ("s.grammar(vocab, 'root ::= \"a\"', grammar_root=None)", "TypeError"),
    "S7 vocab None": ("s.grammar(None, 'root ::= \"a\"')", "TypeError"),
    "S8 brackets": ("grammar('root ::= ' + '(' * 30_000 + ')' * 30_000)", "GrammarError"),
    "S8 a chain of rules": (
        "grammar('root ::= r0' + ''.join(f'\\nr{i} ::= r{i+1}' for i in range(30_000)))",
        "GrammarError",
    ),
    "S8 limits crossed": ("grammar('root ::= \"a\"{5,3}')", "GrammarError"),
    "S8 hidden left recursion": (
        'grammar(\'root ::= e root "x" | "y"\\ne ::= f\\nf ::= ""\')',
        "GrammarError",
    ),
    "S9 token not allowed": ("grammar().accept(101)", "GrammarError"),
    "S9 early end": ("grammar().accept(2)", "GrammarError"),
    "S9 nothing left": (
        "chain(s.top_k(1), grammar(), s.greedy()).sample(row)",
        "GrammarError",
    ),
    "S10 bad pattern": (
        "s.grammar_lazy_patterns(vocab, 'root ::= \"a\"', trigger_patterns=['('])",
        "GrammarError",
    ),
    "S10 pattern None": (
        "s.grammar_lazy_patterns(vocab, 'root ::= \"a\"', trigger_patterns=[None])",
        "TypeError",
    ),
    "S12 copy between kinds": ("s.greedy().copy_from(s.dist())", "ValueError"),
    "S12 copy between lengths": ("chain().copy_from(chain(s.greedy()))", "ValueError"),
    "H3 added twice": ("g = s.greedy(); chain(g, g)", "StateError"),
    "H3 child freed by hand": ("g = s.greedy(); c = chain(g); g.close()", "StateError"),
    "H5 grammar after its model": (
        "m = opened(); g = s.grammar(m.vocab, 'root ::= \"a\"'); m.close(); g.accept(1)",
        "ClosedError",
    ),
    "H5 dry after its model": (
        "m = opened(); d = dry(m.vocab); m.close(); d.apply(candidates(1, 2))",
        "ClosedError",
    ),
}


def test_no_misuse_ends_the_process(tiny_path):
    """Every case raises what it should, one after another, and the process exits with 0."""
    steps = [PRELUDE]
    for name, (code, error) in CASES.items():
        steps.append(
            textwrap.dedent(f"""
            try:
                {code}
            except {error}:
                pass
            else:
                raise SystemExit({name!r} + " went through")
            """)
        )
    steps.append("print(chain(s.top_k(5), s.dist(seed=1)).sample(row) >= 0)")
    done = subprocess.run(
        [sys.executable, "-c", "".join(steps), str(tiny_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


NUMBERS = {
    "top_k": (lambda x: sampler.top_k(x), (-1, 2**31, 1.5, None, True)),
    "top_p": (lambda x: sampler.top_p(x), (-0.1, 1.1, math.nan, math.inf, "1", None)),
    "top_p min_keep": (lambda x: sampler.top_p(0.5, min_keep=x), (-1, 2**31, 0.5)),
    "min_p": (lambda x: sampler.min_p(x), (-0.1, 1.1, math.nan)),
    "typical": (lambda x: sampler.typical(x), (-0.1, 1.1, math.nan)),
    "temp": (lambda x: sampler.temp(x), (-0.1, math.nan, math.inf, 1e39)),
    "temp_ext delta": (
        lambda x: sampler.temp_ext(1, delta=x, exponent=1),
        (-0.1, math.nan, math.inf),
    ),
    "temp_ext exponent": (
        lambda x: sampler.temp_ext(1, delta=1, exponent=x),
        (-0.1, math.nan, math.inf),
    ),
    "top_n_sigma": (sampler.top_n_sigma, (-1, math.nan, math.inf, 10**400, "1", True)),
    "xtc p": (lambda x: sampler.xtc(x, 0.1), (-0.1, 1.1, math.nan)),
    "xtc t": (lambda x: sampler.xtc(0.5, x), (-0.1, 1.1, math.nan)),
    "dist": (lambda x: sampler.dist(x), (-1, 2**32 - 1, 2**64, 1.5, "1")),
    "mirostat n_vocab": (lambda x: sampler.mirostat(x, tau=5, eta=0.1), (0, -1, 2**31)),
    "mirostat m": (lambda x: sampler.mirostat(9, tau=5, eta=0.1, m=x), (1, 0, -1)),
    "mirostat tau": (lambda x: sampler.mirostat(9, tau=x, eta=0.1), (-1, math.nan, math.inf)),
    "mirostat_v2 eta": (lambda x: sampler.mirostat_v2(tau=5, eta=x), (-1, 1.5, math.nan)),
    "adaptive_p": (lambda x: sampler.adaptive_p(x, decay=0.5), (-0.1, 1.1, math.nan)),
    "adaptive_p decay": (lambda x: sampler.adaptive_p(0.5, decay=x), (-0.1, 1.0, math.nan)),
    "penalties n_vocab": (lambda x: sampler.penalties(x, penalty_last_n=4), (0, -1)),
    "penalties last_n": (lambda x: sampler.penalties(9, penalty_last_n=x), (-1, 2**31 - 1)),
    "penalties repeat": (
        lambda x: sampler.penalties(9, penalty_last_n=4, penalty_repeat=x),
        (0, -1, math.nan, math.inf),
    ),
    "penalties freq": (
        lambda x: sampler.penalties(9, penalty_last_n=4, penalty_freq=x),
        (math.nan, math.inf, -math.inf),
    ),
    "logit_bias token": (lambda x: sampler.logit_bias(9, {x: 1.0}), (-1, 9, 1.5)),
    "logit_bias bias": (lambda x: sampler.logit_bias(9, {1: x}), (math.nan, math.inf, "1")),
}


@pytest.mark.parametrize(
    ("make", "wrong"),
    [(make, wrong) for make, values in NUMBERS.values() for wrong in values],
    ids=[f"{name}={wrong}" for name, (_, values) in NUMBERS.items() for wrong in values],
)
def test_numbers_are_checked(make, wrong):
    """libllama takes any of them, and computes nonsense or asks for gigabytes (S11)."""
    with pytest.raises((TypeError, ValueError)):
        make(wrong)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("dry_multiplier", -1),
        ("dry_multiplier", math.nan),
        ("dry_base", 0.5),
        ("dry_base", math.inf),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", 2**31 - 1),
        ("seq_breakers", [""]),
        ("seq_breakers", ["a\0b"]),
        ("seq_breakers", ["x" * 41]),
        ("seq_breakers", "abc"),
        ("seq_breakers", [None]),
    ],
)
def test_dry_checks_its_options(option, wrong, model):
    """A breaker that libllama would cut or skip is refused as well."""
    options = {
        "dry_multiplier": 1,
        "dry_base": 2,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": 9,
        "seq_breakers": ["a"],
    }
    sampler.dry(model.vocab, **options).close()
    with pytest.raises((TypeError, ValueError)):
        sampler.dry(model.vocab, **{**options, option: wrong})
