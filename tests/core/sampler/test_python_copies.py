"""Samplers written in Python are copied, taken back, and let go of."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
from written_samplers import Counter, Failing, Gumbel, temp

from pyllama import LiveCandidates, SamplerChain, samplers
from pyllama.errors import UnsupportedError


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
