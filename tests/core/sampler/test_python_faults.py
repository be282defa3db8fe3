"""What samplers written in Python do wrong: what C cannot take, and exceptions."""

from __future__ import annotations

import numpy as np
import pytest
from written_samplers import Counter, Failing, N, rows

import pyllama
from pyllama import LiveCandidates, SamplerChain, samplers
from pyllama.errors import GrammarError, SamplingError


def test_an_answer_instead_of_a_change_is_refused(logits):
    """As of a logits processor in the wrong place, or of a coroutine."""
    chain = SamplerChain([samplers.python(lambda c: c["logit"] * 2), samplers.greedy()])
    with pytest.raises(TypeError, match="must change its argument in place"):
        chain.sample(logits)


def cut_to(size: int):
    """Return a function that keeps so many."""
    return lambda c: setattr(c, "size", size)


def put(field: str, value: object, where: object = 0):
    """Return a function that writes into the candidates."""
    return lambda c: c[field].__setitem__(where, value)


def select_and_cut(candidates: LiveCandidates) -> None:
    """Choose a row that is cut away then."""
    candidates.selected, candidates.size = 9, 5


FAULTS = {
    "NaN": (put("logit", np.nan), "left a logit that is NaN"),
    "+inf": (put("logit", np.inf), r"left a logit of \+inf"),
    "all -inf": (put("logit", -np.inf, slice(None)), "ruled out every token"),
    "no candidate": (cut_to(0), "left no candidate"),
    "a negative id": (put("id", -5), "left token -5, but the vocabulary has"),
    "an id too large": (put("id", 2**20), "left token 1048576, but the vocabulary has"),
    "selected too large": (lambda c: setattr(c, "selected", 2**20), "selected row 1048576 of"),
    "selected negative": (lambda c: setattr(c, "selected", -1), "selected row -1"),
    "selected, then cut": (select_and_cut, "selected row 9 of 5"),
    "sorted, untrue": (lambda c: setattr(c, "sorted", True), "said sorted=True"),
}


AFTER = {
    "nothing": lambda m: [],
    "top_p, dist": lambda m: [samplers.top_p(0.9), samplers.dist(seed=1)],
    "mirostat_v2": lambda m: [samplers.mirostat_v2(tau=3, eta=0.1, seed=1)],
    "infill, dist": lambda m: [samplers.infill(m.vocab), samplers.dist(seed=1)],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", AFTER)
def test_candidates_that_c_cannot_take_are_an_error(fault, after, model):
    """Whatever follows in the chain; and the chain works afterwards."""
    row = rows(1, model.n_vocab)[0]
    harm, message = FAULTS[fault]
    harmful = [True]

    def sometimes(candidates: LiveCandidates) -> None:
        if harmful[0]:
            harm(candidates)
        else:
            candidates.selected = 0

    chain = SamplerChain([samplers.python(sometimes), *AFTER[after](model)])
    for _ in range(3):
        with pytest.raises(SamplingError, match=message):
            chain.sample(row)
    harmful[0] = False
    assert 0 <= chain.sample(row) < len(row)


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (cut_to(-1), ValueError),
        (cut_to(N + 1), ValueError),
        (cut_to(1.5), TypeError),
        (lambda c: setattr(c, "selected", "a"), TypeError),
        (lambda c: setattr(c, "selected", 2**40), ValueError),
        (lambda c: setattr(c, "sorted", 1), TypeError),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_written(write, error, logits):
    """In the function itself."""
    with pytest.raises(error):
        SamplerChain([samplers.python(write), samplers.greedy()]).sample(logits)


@pytest.mark.parametrize(
    ("where", "use"),
    [
        ("apply", lambda chain, row: chain.sample(row)),
        ("apply", lambda chain, row: chain.apply(pyllama.Candidates(row))),
        ("accept", lambda chain, row: chain.sample(row)),
        ("accept", lambda chain, row: chain.accept(1)),
        ("reset", lambda chain, row: chain.reset()),
        ("clone", lambda chain, row: chain.clone()),
        ("clone", lambda chain, row: SamplerChain([samplers.python(Failing()), samplers.greedy()])
         .copy_from(chain)),
    ],
)  # fmt: skip
def test_what_the_python_code_raises_is_raised(where, use, logits):
    """The original, once, by the method that ran it; then the chain works again."""
    failing = Failing(where)
    chain = SamplerChain([samplers.python(failing), samplers.greedy()])
    with pytest.raises(KeyError, match=where):
        use(chain, logits)
    failing.where.clear()
    assert chain.sample(logits) == logits.argmax()


def test_the_first_exception_is_raised_and_later_samplers_see_nothing(logits):
    """What comes after a failure has no candidates worth looking at."""
    second = Failing("apply")
    chain = SamplerChain(
        [samplers.python(Failing("apply"), name="one"), samplers.python(second), samplers.greedy()]
    )
    with pytest.raises(KeyError):
        chain.sample(logits)
    assert second.calls == []


def test_an_exception_in_accept_keeps_no_other_from_accepting(logits):
    """Counters stay in step with the text."""
    counter = Counter()
    chain = SamplerChain([samplers.python(Failing("accept")), samplers.python(counter)])
    with pytest.raises(KeyError):
        chain.accept(5)
    assert counter.tokens == [5]


def test_an_interrupt_is_raised_as_such(logits):
    """It is no Exception, and is kept all the same."""

    def interrupt(candidates: LiveCandidates) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SamplerChain([samplers.python(interrupt), samplers.greedy()]).sample(logits)


def test_candidates_after_a_failure_are_to_be_filled_again(logits):
    """They hold one harmless row meanwhile."""
    candidates = pyllama.Candidates(logits)
    with pytest.raises(KeyError):
        samplers.python(Failing("apply")).apply(candidates)
    assert len(candidates) == 1
    candidates.fill(logits)
    assert len(candidates) == N


def test_an_exception_beside_a_grammar_is_raised(model):
    """A grammar's tokens are accepted on another thread's stack."""
    grammar = samplers.grammar(model.vocab, 'root ::= "a"+')
    chain = SamplerChain([grammar, samplers.python(Failing("accept")), samplers.greedy()])
    with pytest.raises(KeyError, match="accept"):
        chain.sample(rows(1, model.n_vocab)[0])


def test_what_a_failed_call_left_does_not_come_up_later(model):
    """Where C fails as well, what C says is raised, and the rest forgotten."""
    grammar = samplers.grammar_lazy_patterns(
        model.vocab, 'root ::= "zz"', trigger_patterns=["(b+)"]
    )
    failing = Failing("accept")
    chain = SamplerChain([samplers.python(failing), grammar, samplers.greedy()])
    letter = int(model.vocab.tokenize("b", add_special=False)[-1])
    with pytest.raises(GrammarError):
        chain.accept(letter)
    assert failing.calls == ["accept"]
    failing.where.clear()
    assert chain.sample(rows(1, model.n_vocab)[0]) >= 0
