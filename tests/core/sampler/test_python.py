"""Samplers written in Python: what they see, what they may do, and how they mix with C's."""

from __future__ import annotations

import functools
import gc
import itertools

import numpy as np
import pytest
from written_samplers import Counter, Failing, Gumbel, N, rows, temp, top_k, top_p

import pyllama
from pyllama import LiveCandidates, SamplerChain, samplers
from pyllama.errors import BusyError, SamplingError, StateError


@pytest.mark.parametrize(
    ("ours", "native"),
    [
        (lambda: [temp(t=0.7)], lambda: [samplers.temp(0.7)]),
        (lambda: [top_k(k=7)], lambda: [samplers.top_k(7)]),
        (lambda: [top_k(k=N), top_p(p=0.9)], lambda: [samplers.top_k(N), samplers.top_p(0.9)]),
        (
            lambda: [temp(t=0.7), samplers.top_k(20), top_p(p=0.8)],
            lambda: [samplers.temp(0.7), top_k(k=20), samplers.top_p(0.8)],
        ),
    ],
    ids=["temp", "top_k", "top_p", "mixed"],
)
def test_in_numpy_it_leaves_the_same_candidates_as_in_c(ours, native):
    """Ids and logits are equal bit for bit, over many rows."""
    for row in rows(50):
        left = []
        for made in (ours(), native()):
            candidates = pyllama.Candidates(row)
            SamplerChain(made).apply(candidates)
            left.append([candidates.data[field].tobytes() for field in ("id", "logit")])
        assert left[0] == left[1]


def test_chains_of_python_and_of_c_choose_the_same_tokens():
    """Also where they only stand between samplers of C."""
    native = SamplerChain(
        [samplers.temp(0.9), samplers.top_k(30), samplers.top_p(0.9), samplers.dist(seed=4)]
    )
    ours = SamplerChain([temp(t=0.9), top_k(k=30), top_p(p=0.9), samplers.dist(seed=4)])
    between = SamplerChain(
        [samplers.temp(0.9), top_k(k=30), samplers.top_p(0.9), samplers.dist(seed=4)]
    )
    for row in rows(300):
        assert native.sample(row) == ours.sample(row) == between.sample(row)


def test_a_gumbel_sampler_draws_by_probability():
    """Chi-squared over 20,000 draws stays below the 0.999 quantile for 9 degrees of freedom."""
    logits = rows(1, 10)[0] / 2
    expected = np.exp(logits) / np.exp(logits).sum() * 20_000
    chain = SamplerChain([Gumbel(seed=3)])
    drawn = np.bincount([chain.sample(logits) for _ in range(20_000)], minlength=10)
    assert ((drawn - expected) ** 2 / expected).sum() < 27.88


def test_the_last_sampler_that_selects_decides(logits):
    """A choice made earlier is overwritten by a later one."""
    first = samplers.python(lambda c: setattr(c, "selected", 0))
    last = samplers.python(lambda c: setattr(c, "selected", len(c) - 1))
    assert SamplerChain([first, samplers.greedy()]).sample(logits) == logits.argmax()
    assert SamplerChain([samplers.greedy(), last]).sample(logits) == N - 1


def test_a_later_sampler_sees_what_was_selected(logits):
    """And may leave it so."""
    seen = []
    look = samplers.python(lambda c: seen.append(int(c.data[c.selected]["id"])))
    assert SamplerChain([samplers.greedy(), look]).sample(logits) == seen[0] == logits.argmax()


def test_one_that_selects_nothing_cannot_stand_last(logits):
    """The message says what to do."""
    with pytest.raises(SamplingError, match="selected no token: a sampler that chooses"):
        SamplerChain([temp(t=2.0)]).sample(logits)


def test_alone_it_is_a_sampler(logits):
    """No chain is needed."""
    assert samplers.python(lambda c: setattr(c, "selected", 3)).sample(logits) == 3


def test_the_candidates_are_those_of_c(logits):
    """The array has the fields of C, all tokens, and nothing selected."""
    seen = {}

    def look(candidates: LiveCandidates) -> None:
        seen.update(
            names=candidates.data.dtype.names,
            size=(candidates.size, len(candidates), candidates.n_vocab),
            flags=(candidates.selected, candidates.sorted),
            logits=candidates["logit"].copy(),
            text=repr(candidates),
        )

    SamplerChain([samplers.python(look), samplers.greedy()]).sample(logits)
    assert seen["names"] == ("id", "logit", "p")
    assert seen["size"] == (N, N, N)
    assert seen["flags"] == (None, False)
    assert (seen["logits"] == logits).all()
    assert seen["text"] == "<LiveCandidates: 300 of 300 tokens, selected None>"


def test_candidates_that_xtc_moved_are_seen_rightly(logits):
    """C moves the pointer to drop the likeliest; the view begins where C does."""
    seen = []
    look = samplers.python(lambda c: seen.extend(c["id"].tolist()))
    xtc = samplers.xtc(1.0, 0.0001, seed=1)
    chain = SamplerChain([samplers.top_k(9), xtc, look, samplers.greedy()])
    token = chain.sample(logits)
    assert seen
    assert token == seen[0] != logits.argmax()


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.data,
        lambda c: c["id"],
        len,
        lambda c: c.size,
        lambda c: c.selected,
        lambda c: c.sorted,
        lambda c: c.n_vocab,
        lambda c: setattr(c, "selected", 1),
        lambda c: setattr(c, "size", 1),
        lambda c: setattr(c, "sorted", True),
    ],
)
def test_candidates_are_dead_after_the_call(use, logits):
    """What is kept cannot be used; its repr says why."""
    kept = []
    SamplerChain([samplers.python(kept.append), samplers.greedy()]).sample(logits)
    with pytest.raises(StateError, match="a call that has ended"):
        use(kept[0])
    assert repr(kept[0]) == "<LiveCandidates: the call has ended>"


def test_an_array_kept_after_the_call_stays_memory(logits):
    """It may show other numbers later, but it is never freed under its holder."""
    kept = []
    chain = SamplerChain([samplers.python(lambda c: kept.append(c.data)), samplers.greedy()])
    chain.sample(logits)
    chain.close()
    del chain
    gc.collect()
    assert len(kept[0]["logit"].copy()) == N


def test_an_order_that_no_longer_holds_is_noticed(logits):
    """After top_k the rows are sorted; who writes other logits need not say so."""

    def turn(candidates: LiveCandidates) -> None:
        candidates["logit"] *= -1

    chain = SamplerChain(
        [samplers.top_k(5), samplers.python(turn), samplers.top_k(1), samplers.greedy()]
    )
    assert chain.sample(logits) == np.argsort(-logits)[4]


def test_logits_processors_and_python_samplers_work_together(context):
    """Each does its part in one loop, on a real model."""
    chain = SamplerChain([samplers.python(Counter()), samplers.greedy()])
    seen = []

    def look(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen.append(len(ids))
        return scores

    made = list(
        pyllama.generate.tokens(
            context,
            [1, 2, 3],
            sampler=chain,
            logits_processor=[look],
            max_tokens=8,
            ignore_eog=True,
        )
    )
    assert len(made) == 8
    assert all(a != b for a, b in itertools.pairwise(made))
    assert seen == list(range(3, 11))


def test_accept_and_reset_reach_the_object(logits):
    """`sample` accepts; `reset` forgets."""
    counter = Counter()
    chain = SamplerChain([samplers.python(counter), samplers.greedy()])
    first, second = chain.sample(logits), chain.sample(logits)
    assert counter.tokens == [first, second]
    assert first != second
    chain.accept(7)
    assert counter.tokens[-1] == 7
    chain.reset()
    assert counter.tokens == []


def test_an_object_that_is_called_may_have_the_other_methods(logits):
    """``__call__`` is its apply."""

    class Called(Counter):
        apply = None

        def __call__(self, candidates: LiveCandidates) -> None:
            Counter.apply(self, candidates)

    counter = Called()
    chain = SamplerChain([samplers.python(counter), samplers.greedy()])
    assert chain.sample(logits) != chain.sample(logits)
    assert (counter.n_applied, len(counter.tokens)) == (2, 2)


def test_an_object_with_accept_alone_leaves_candidates_alone(logits):
    """All methods are optional; such a one does not choose."""

    class Listener:
        def accept(self, token: int) -> None:
            seen.append(token)

    seen: list[int] = []
    chain = SamplerChain([samplers.python(Listener()), samplers.greedy()])
    assert [chain.sample(logits)] == seen
    with pytest.raises(SamplingError, match="does not choose"):
        samplers.python(Listener()).sample(logits)


def test_names():
    """The object's own, given as string or method; else that of function or class."""

    class Named:
        def name(self) -> str:
            return "from a method"

        def apply(self, candidates: LiveCandidates) -> None:
            """Do nothing."""

    class Plain:
        def apply(self, candidates: LiveCandidates) -> None:
            """Do nothing."""

    assert samplers.python(Counter()).name == "counter"
    assert samplers.python(Named()).name == "from a method"
    assert samplers.python(Plain()).name == "Plain"
    assert samplers.python(len).name == "len"
    assert samplers.python(functools.partial(print, end="")).name == "print"
    assert samplers.python(len, name="größe").name == "größe"
    assert temp(t=2.0).name == "temp"
    assert repr(temp(t=2.0)) == "<Sampler python(name='temp', t=2.0)>"


@pytest.mark.parametrize("wrong", [None, 5, "f", object(), Counter, samplers.greedy()])
def test_what_is_no_sampler_is_refused(wrong):
    """Classes too: it is their objects that are wanted."""
    with pytest.raises(TypeError, match="a Python sampler is a function"):
        samplers.python(wrong)


def test_a_wrong_name_is_refused():
    """C reads it up to the first NUL."""
    for wrong in ("a\0b", 5):
        with pytest.raises(TypeError, match="without NUL"):
            samplers.python(len, name=wrong)


def test_options_that_do_not_fit_are_refused_at_once():
    """Not only when the sampler is called."""
    for wrong in (lambda: temp(), lambda: temp(t=1, x=2), lambda: temp(1.0), lambda: Gumbel()):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError, match="decorates a function or a class"):
        pyllama.sampler(5)


def test_a_sampler_that_uses_its_own_chain_is_busy(logits):
    """It is inside a call of it."""
    raised = []

    def reenter(candidates: LiveCandidates) -> None:
        for use in (
            lambda: chain.sample(logits), chain.close, chain.pop, chain.reset, chain.clone,
            lambda: chain.accept(1), lambda: chain.add(samplers.greedy()),
        ):  # fmt: skip
            with pytest.raises(BusyError) as caught:
                use()
            raised.append(caught.type)

    chain = SamplerChain([samplers.python(reenter), samplers.greedy()])
    assert chain.sample(logits) == logits.argmax()
    assert raised == [BusyError] * 7


def test_a_sampler_may_use_another_chain(logits):
    """What each one raises, or sees, stays its own."""
    inner = SamplerChain([samplers.python(Failing("apply")), samplers.greedy()])

    def use(candidates: LiveCandidates) -> None:
        with pytest.raises(KeyError):
            inner.sample(logits)
        assert len(candidates) == N

    assert SamplerChain([samplers.python(use), samplers.greedy()]).sample(logits) == logits.argmax()
