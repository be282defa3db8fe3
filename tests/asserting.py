"""What comes of an assertion in one function of libllama, many times, in a process of its own.

The process has an extension that asserts on demand (see core/test_aborts_injected.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from decoding import PROMPT, SMALL, prefill
from repeating import repeat

from pyllama import Batch, Model, SamplerChain, samplers
from pyllama.errors import LibraryAbortError, StateError

ROW = np.linspace(-1, 1, 512, dtype=np.float32)


@contextmanager
def failing(function: str) -> Iterator[None]:
    """Let an assertion fail in each call to *function* meanwhile, and see what that raises."""
    os.environ["PYLLAMA_ASSERT_IN"] = function
    try:
        with pytest.raises(LibraryAbortError, match=f"guard.hpp:[0-9]+: injected into {function}"):
            yield
    finally:
        del os.environ["PYLLAMA_ASSERT_IN"]


def refused(call: Callable[[], object]) -> None:
    """See that what the assertion failed in can only be closed."""
    with pytest.raises(StateError, match="can only be closed") as raised:
        call()
    assert isinstance(raised.value.__cause__, LibraryAbortError)


def decode(path: str) -> None:
    """Lose a context, and go on with the model."""
    with Model(path) as model:
        with model.context(**SMALL) as context:
            with failing("pyllama_decode"):
                context.decode(Batch(PROMPT))
            refused(lambda: context.decode(Batch(PROMPT)))
        with model.context(**SMALL) as context:
            assert np.isfinite(prefill(context)).all()


def tokenize(path: str) -> None:
    """Lose a model, and load it anew."""
    with Model(path) as model:
        with failing("llama_tokenize"):
            model.vocab.tokenize("text")
        refused(lambda: model.context(**SMALL))
    with Model(path) as model:
        assert len(model.vocab.tokenize("text"))


def sample(path: str) -> None:
    """Lose a chain, and sample with another one."""
    with SamplerChain([samplers.dist(1)]) as chain:
        with failing("llama_sampler_apply"):
            chain.sample(ROW)
        refused(lambda: chain.sample(ROW))
    with SamplerChain([samplers.dist(1)]) as chain:
        assert 0 <= chain.sample(ROW) < len(ROW)


def load(path: str) -> None:
    """Lose nothing: there is no object yet. The same file loads afterwards."""
    with failing("llama_model_load_from_file"):
        Model(path)
    with Model(path) as model, model.context(**SMALL) as context:
        assert np.isfinite(prefill(context)).all()


ACTIONS = {action.__name__: action for action in (decode, tokenize, sample, load)}


def grown(name: str, path: str) -> int:
    """Fail many times in one way, and return by how many bytes the process grew."""
    return repeat(lambda: ACTIONS[name](path))
