"""Samplers written in Python: what they see, what they may do, and how they mix with C's."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import subprocess
import sys
import weakref

import numpy as np
import pytest

import pyllama
from pyllama import LiveCandidates, SamplerChain, samplers
from pyllama.errors import BusyError, GrammarError, SamplingError, StateError, UnsupportedError

N = 300


def rows(n: int, width: int = N) -> np.ndarray:
    """Return rows of logits without two equal ones."""
    return np.random.default_rng(5).normal(0, 3, (n, width)).astype(np.float32)


@pytest.fixture
def logits() -> np.ndarray:
    """Return one row of logits."""
    return rows(1)[0]


@pyllama.sampler
def temp(candidates: LiveCandidates, *, t: float) -> None:
    """Divide, as `samplers.temp` does."""
    candidates["logit"] /= np.float32(t)


@pyllama.sampler
def top_k(candidates: LiveCandidates, *, k: int) -> None:
    """Sort and cut, as `samplers.top_k` does."""
    data = candidates.data
    data[:] = data[np.argsort(-data["logit"], kind="stable")]
    candidates.size, candidates.sorted = k, True


@pyllama.sampler
def top_p(candidates: LiveCandidates, *, p: float) -> None:
    """Cut sorted candidates, as `samplers.top_p` does, in floats of the same width."""
    logits = candidates["logit"]
    weights = np.exp(logits - logits[0])
    shares = weights / np.cumsum(weights)[-1]
    reached = np.cumsum(shares) >= np.float32(p)
    candidates.size = int(reached.argmax()) + 1 if reached.any() else len(candidates)


@pyllama.sampler
class Gumbel:
    """Draw each token with its probability, by adding noise to the logits."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def apply(self, candidates: LiveCandidates) -> None:
        """Select one."""
        noise = self.rng.gumbel(size=len(candidates))
        candidates.selected = int((candidates["logit"] + noise).argmax())


class Counter:
    """Remember what it was told, and forbid the last token."""

    name = "counter"

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.n_applied = 0

    def accept(self, token: int) -> None:
        """Take note of a token."""
        self.tokens.append(token)

    def apply(self, candidates: LiveCandidates) -> None:
        """Rule the last token out."""
        self.n_applied += 1
        if self.tokens:
            candidates["logit"][candidates["id"] == self.tokens[-1]] = -np.inf

    def reset(self) -> None:
        """Forget."""
        self.tokens.clear()


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


class Failing:
    """Raise in the methods that are named."""

    def __init__(self, *where: str) -> None:
        self.where = set(where)
        self.calls: list[str] = []

    def _at(self, name: str) -> None:
        self.calls.append(name)
        if name in self.where:
            raise KeyError(name)

    def apply(self, candidates: LiveCandidates) -> None:
        """Raise, perhaps."""
        self._at("apply")

    def accept(self, token: int) -> None:
        """Raise, perhaps."""
        self._at("accept")

    def reset(self) -> None:
        """Raise, perhaps."""
        self._at("reset")

    def clone(self) -> Failing:
        """Raise, perhaps."""
        self._at("clone")
        return copy.deepcopy(self)


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


def test_a_copy_has_its_own_state(logits):
    """Deeply, and in the state of its original."""
    chain = SamplerChain([samplers.top_k(50), Gumbel(seed=9)])
    for _ in range(5):
        chain.sample(logits)
    twin = chain.clone()
    assert [chain.sample(logits) for _ in range(20)] == [twin.sample(logits) for _ in range(20)]


def test_a_state_can_be_taken_back(logits):
    """`copy_from` brings Python objects along, in chains and alone, and again and again."""
    chain = SamplerChain([samplers.python(Counter()), Gumbel(seed=9)])
    saved = chain.clone()
    first = [chain.sample(logits) for _ in range(10)]
    for _ in range(3):
        chain.copy_from(saved)
        gc.collect()
        assert [chain.sample(logits) for _ in range(10)] == first
    alone, other = Gumbel(seed=1), Gumbel(seed=2)
    alone.copy_from(other)
    assert [alone.sample(logits) for _ in range(9)] == [other.sample(logits) for _ in range(9)]


def test_states_go_only_between_samplers_of_the_same_making(logits):
    """Another function, class or option is another sampler."""
    for ours, theirs in (
        (samplers.python(len), samplers.python(repr, name="len")),
        (samplers.python(Counter()), samplers.python(Failing(), name="counter")),
        (temp(t=1.0), temp(t=2.0)),
    ):
        with pytest.raises(ValueError, match="other kinds or options"):
            ours.copy_from(theirs)


def test_what_cannot_be_copied_says_so(logits):
    """A generator, a lock, an open file; and the chain goes on."""

    class Held:
        def __init__(self) -> None:
            self.source = (token for token in range(9))

        def apply(self, candidates: LiveCandidates) -> None:
            candidates.selected = next(self.source)

    chain = SamplerChain([samplers.python(Held())])
    with pytest.raises(UnsupportedError, match=r"cannot be copied .*: give it a method clone\(\)"):
        chain.clone()
    assert chain.sample(logits) == 0


@pytest.mark.parametrize("answer", [None, "itself", object()])
def test_a_clone_that_is_none_is_refused(answer):
    """It would share its state, or have none of the methods."""

    class Wrong:
        def apply(self, candidates: LiveCandidates) -> None:
            """Do nothing."""

        def clone(self) -> object:
            return self if answer == "itself" else answer

    with pytest.raises(TypeError, match=r"Wrong\.clone\(\) must return a new one"):
        samplers.python(Wrong()).clone()


def test_popped_it_is_free_again(logits):
    """And raises what it raises alone, not in the chain that it was in."""
    failing = Failing("apply")
    inner = SamplerChain([samplers.python(failing), samplers.greedy()])
    outer = SamplerChain([inner, samplers.greedy()])
    with pytest.raises(KeyError):
        outer.sample(logits)
    alone = outer.pop(0).pop(0)
    with pytest.raises(KeyError):
        alone.sample(logits)
    assert outer.sample(logits) == logits.argmax()


def test_closing_lets_go_of_the_object(logits):
    """C's free function says when."""
    counter = Counter()
    gone = weakref.ref(counter)
    chain = SamplerChain([samplers.python(counter), samplers.greedy()])
    del counter
    assert chain.sample(logits) >= 0
    assert gone() is not None
    chain.close()
    assert gone() is None


def test_a_dropped_chain_lets_go_of_the_object(logits):
    """Without waiting for the garbage collector."""
    counter = Counter()
    gone = weakref.ref(counter)
    chain = SamplerChain([samplers.python(counter), samplers.greedy()])
    chain.sample(logits)
    twin = chain.clone()
    del counter, chain
    assert gone() is None
    assert twin.sample(logits) >= 0


def test_a_cycle_through_c_is_collected(logits):
    """An object that knows its own chain."""

    class Knowing(Counter):
        chain: SamplerChain

    knowing = Knowing()
    knowing.chain = SamplerChain([samplers.python(knowing), samplers.greedy()])
    knowing.chain.sample(logits)
    gone = weakref.ref(knowing)
    del knowing
    gc.collect()
    assert gone() is None


def test_an_exception_is_not_kept_alive(logits):
    """Nor is what its frames hold."""

    class BigError(Exception):
        """An exception that can be watched."""

    def fail(candidates: LiveCandidates) -> None:
        raise BigError

    chain = SamplerChain([samplers.python(fail), samplers.greedy()])
    try:
        chain.sample(logits)
    except BigError as error:
        gone = weakref.ref(error)
    gc.collect()
    assert gone() is None


AT_EXIT = """
import numpy as np, pyllama
from pyllama import SamplerChain, samplers

class Forever:
    def __init__(self): self.seen = []
    def accept(self, token): self.seen.append(token)
    def apply(self, candidates): candidates.selected = 0
    def __del__(self): print("freed")

one = SamplerChain([samplers.python(Forever())])
one.sample(np.zeros(9, np.float32))
forever = Forever()
forever.chain = SamplerChain([samplers.top_k(3), samplers.python(forever)])
forever.chain.sample(np.zeros(9, np.float32))
pyllama.kept = forever, one.clone()
alone = samplers.python(lambda c: None)
"""


def test_at_interpreter_exit_all_is_freed_and_nothing_said():
    """In chains, in cycles, alone, and held by a module."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", AT_EXIT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "freed\n" * 3
