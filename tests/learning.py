"""A text to learn, trainings on one thread, and what a model says after one."""

from __future__ import annotations

import numpy as np
import pytest

import pyllama
from pyllama import Batch, Training

N_CTX = 256


PHRASE = np.random.default_rng(0).integers(3, 512, 24)


TEXT = np.tile(PHRASE, 60).astype(np.int32)


def train(model: pyllama.Model, **options: object) -> Training:
    """Return a training that computes on one thread."""
    return Training(model, **{"n_ctx": N_CTX, "n_threads": 1, **options})


def logits(model: pyllama.Model) -> np.ndarray:
    """Return what a new context of the model says after a few tokens."""
    with model.context(exact=True, n_ctx=256, n_threads=1, n_threads_batch=1) as context:
        context.decode(Batch(PHRASE))
        return context.logits()


def refusal(error: type[Exception], model: pyllama.Model, **options: object) -> str:
    """Return the words with which a training is refused; the model is as it was."""
    before = model.n_ctx_train
    with pytest.raises(error) as refused:
        train(model, **options)
    assert model.n_ctx_train == before
    return str(refused.value)
