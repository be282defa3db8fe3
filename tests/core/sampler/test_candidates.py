"""The array of candidates: what C sees of it, and what it refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pyllama.core import sampler
from pyllama.errors import BusyError, SamplingError


def row(*logits: float) -> np.ndarray:
    return np.array(logits, np.float32)


def test_holds_every_token_with_its_logit():
    """A fresh array is the row of logits, unsorted, with nothing selected."""
    candidates = sampler.Candidates(row(0.5, -1, 2))
    assert candidates.data["id"].tolist() == [0, 1, 2]
    assert candidates.data["logit"].tolist() == [0.5, -1, 2]
    assert candidates.data["p"].tolist() == [0, 0, 0]
    assert (candidates.size, candidates.n_vocab, len(candidates)) == (3, 3, 3)
    assert candidates.selected is None
    assert not candidates.sorted


def test_copies_the_row():
    """What a sampler writes does not reach the caller's logits, which may be read-only."""
    logits = row(1, 2, 3)
    logits.flags.writeable = False
    candidates = sampler.Candidates(logits)
    sampler.temp(0.5).apply(candidates)
    assert candidates.data["logit"].tolist() == [2, 4, 6]
    assert logits.tolist() == [1, 2, 3]


def test_takes_a_row_that_is_not_contiguous():
    """A column of a table serves as a row."""
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert sampler.Candidates(table[:, 1]).data["logit"].tolist() == [1, 3, 5]


def test_fill_undoes_sorting_cutting_and_selecting():
    """The same object serves for the next row."""
    candidates = sampler.Candidates(row(1, 3, 2))
    sampler.SamplerChain([sampler.top_k(2), sampler.greedy()]).apply(candidates)
    assert candidates.data["id"].tolist() == [1, 2]
    assert candidates.sorted
    assert candidates.selected == 0
    candidates.fill(row(4, 5, 6))
    assert candidates.data["id"].tolist() == [0, 1, 2]
    assert candidates.data["logit"].tolist() == [4, 5, 6]
    assert not candidates.sorted
    assert candidates.selected is None


def test_data_follows_the_pointer_that_xtc_moves():
    """The rows left are not always the first ones."""
    candidates = sampler.Candidates(row(3, 2.9, 0, -1))
    sampler.xtc(1.0, 0.2, seed=1).apply(candidates)
    assert candidates.data["id"].tolist() == [1, 2, 3]


def test_writing_to_data_changes_the_candidates():
    """The array is C's memory, so Python may rule a token out."""
    candidates = sampler.Candidates(row(1, 5, 2))
    candidates.data["logit"][1] = -np.inf
    sampler.greedy().apply(candidates)
    assert candidates.selected == 2


def test_shows_its_state():
    """A repr tells how many are left."""
    assert repr(sampler.Candidates(row(1, 2))) == "<Candidates: 2 of 2 tokens, selected None>"


@pytest.mark.parametrize(
    ("logits", "error"),
    [
        (np.zeros(3), TypeError),
        (np.zeros(3, np.float16), TypeError),
        ([1.0, 2.0], TypeError),
        (np.zeros((2, 3), np.float32), ValueError),
        (np.zeros(0, np.float32), ValueError),
    ],
)
def test_refuses_what_is_no_row(logits, error):
    """Another type or shape is never converted behind the caller's back."""
    with pytest.raises(error, match="logits must"):
        sampler.Candidates(logits)


def test_fill_refuses_another_length():
    """The ids belong to one vocabulary."""
    candidates = sampler.Candidates(row(1, 2))
    with pytest.raises(ValueError, match="3 logits does not fit 2"):
        candidates.fill(row(1, 2, 3))


@pytest.mark.parametrize(
    ("logits", "why"),
    [
        ((1, np.nan, 2), "NaN"),
        ((1, np.inf), r"\+inf"),
        ((-np.inf, -np.inf), "ruled out"),
    ],
)
def test_apply_refuses_logits_that_mean_nothing(logits, why):
    """libllama would sort or select at random."""
    with pytest.raises(SamplingError, match=why):
        sampler.greedy().apply(sampler.Candidates(row(*logits)))


def test_apply_takes_only_candidates():
    """A row is not changed in place by mistake."""
    with pytest.raises(TypeError, match="apply takes Candidates"):
        sampler.greedy().apply(row(1, 2))


def test_apply_refuses_tokens_of_another_vocabulary(model):
    """A sampler that looks tokens up would read outside of the vocabulary."""
    grammar = sampler.grammar(model.vocab, 'root ::= "a"')
    for token in (-1, model.vocab.n_tokens, 2**31 - 1):
        candidates = sampler.Candidates(row(1, 2))
        candidates.data["id"][1] = token
        with pytest.raises(ValueError, match=f"token {token}"):
            grammar.apply(candidates)


def test_is_for_one_thread_at_a_time():
    """A second thread that comes in between is told so."""
    candidates = sampler.Candidates(row(1, 2))
    candidates._claim()
    failures = []

    def use() -> None:
        for act in (lambda: candidates.fill(row(1, 2)), lambda: greedy.apply(candidates)):
            try:
                act()
            except BusyError as error:
                failures.append(error)

    greedy = sampler.greedy()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(failures) == 2
