"""Log-probabilities of generated tokens: against numpy in float64, ties, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyllama.core.sampler.candidates import likeliest as greedy
from pyllama.text.logprobs import Recorder, likeliest

N = 300
PIECES = tuple(f"<{token}>".encode() for token in range(N))
ROWS = st.lists(st.integers(-3, 3), min_size=1, max_size=40)  # with many equal ones


@pytest.fixture
def row() -> np.ndarray:
    """Return a row of logits."""
    return np.random.default_rng(3).normal(0, 4, N).astype(np.float32)


def log_softmax(row: np.ndarray) -> np.ndarray:
    """Say what each token's log-probability is."""
    wide = row.astype(np.float64)
    return wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()


def test_the_token_is_the_others_choice(row):
    """It is told with its bytes and its own log-probability, likely or not."""
    recorder = Recorder(lambda _row: 7, 2, PIECES)
    assert recorder(row) == 7
    assert (recorder.last.token, recorder.last.bytes) == (7, b"<7>")
    assert recorder.last.logprob == pytest.approx(log_softmax(row)[7], abs=1e-12)


def test_all_probabilities_add_up_to_one(row):
    """With the whole vocabulary asked for."""
    recorder = Recorder(greedy, N, PIECES)
    recorder(row)
    assert math.fsum(math.exp(top.logprob) for top in recorder.last.top) == pytest.approx(1)
    assert [top.token for top in recorder.last.top] == np.argsort(-row).tolist()


def test_the_likeliest_come_first(row):
    """Each with its own number and bytes."""
    recorder = Recorder(greedy, 5, PIECES)
    token = recorder(row)
    expected = np.argsort(-row)[:5].tolist()
    assert [top.token for top in recorder.last.top] == expected
    assert [top.bytes for top in recorder.last.top] == [PIECES[each] for each in expected]
    assert [top.logprob for top in recorder.last.top] == pytest.approx(log_softmax(row)[expected])
    assert recorder.last.top[0].token == token


def test_none_of_the_likeliest(row):
    """The token alone."""
    recorder = Recorder(greedy, 0, PIECES)
    recorder(row)
    assert recorder.last.top == ()
    assert recorder.last.logprob == pytest.approx(log_softmax(row).max())


def test_tokens_that_are_ruled_out(row):
    """Their logarithm is -inf, and the rest still adds up."""
    row[100:] = -np.inf
    recorder = Recorder(lambda _row: 200, N, PIECES)
    recorder(row)
    assert recorder.last.logprob == -math.inf
    assert math.fsum(math.exp(top.logprob) for top in recorder.last.top) == pytest.approx(1)


@pytest.mark.parametrize("shift", [-1e4, 0, 1e4])
def test_large_logits_do_not_overflow(row, shift):
    """Only differences count."""
    recorder = Recorder(greedy, 0, PIECES)
    recorder(row + np.float32(shift))
    expected = log_softmax(row + np.float32(shift)).max()
    assert recorder.last.logprob == pytest.approx(expected, abs=1e-9)


def test_what_the_choice_raises_arrives(row):
    """Nothing is recorded for a token that was not chosen."""

    def fail(_row: np.ndarray) -> int:
        raise LookupError("mine")

    recorder = Recorder(fail, 1, PIECES)
    with pytest.raises(LookupError, match="mine"):
        recorder(row)
    assert not hasattr(recorder, "last")


@given(ROWS, st.data())
def test_of_equals_the_first(values, data):
    """As a stable sort has them."""
    row = np.array(values, np.float32)
    n = data.draw(st.integers(0, len(values)))
    assert likeliest(row, n).tolist() == np.argsort(-row, kind="stable")[:n].tolist()


def test_of_many_equals_the_first():
    """Also where a partition would take any."""
    row = np.zeros(10_000, np.float32)
    row[9_000] = 1
    assert likeliest(row, 4).tolist() == [9_000, 0, 1, 2]


@pytest.mark.parametrize(
    ("n_top", "error"), [(-1, ValueError), (N + 1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
def test_odd_numbers_are_refused(n_top, error):
    """At most the vocabulary, at least none."""
    with pytest.raises(error, match="logprobs"):
        Recorder(greedy, n_top, PIECES)
