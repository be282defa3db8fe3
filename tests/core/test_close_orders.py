"""Every order in which a model and what was made from it can be closed, or dropped.

The six things are one of each kind; each is used again as long as it is open. Under the sanitizers
(``make sanitize``) a pointer that outlives what it points to is a report.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import random_model

from pyllama import Adapter, Batch, Model, SamplerChain, samplers
from pyllama.errors import ClosedError

NAMES = ("model", "context", "sampler", "adapter", "batch", "view")
OPTIONS = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1}
WEIGHTS = {"blk.0.attn_q.weight": (32, 32)}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Write a small model, and an adapter for it."""
    folder = tmp_path_factory.mktemp("orders")
    model = random_model.write_llama(
        folder / "model.gguf", n_embd=32, n_head=2, n_layer=1, n_ff=32, n_vocab=400
    )
    return model, random_model.write_lora(folder / "lora.gguf", WEIGHTS)


@pytest.fixture(params=["not collected", pytest.param("collected", marks=pytest.mark.slow)])
def collecting(request) -> Iterator[None]:
    """Let the garbage collector run often, or not at all."""
    thresholds = gc.get_threshold()
    if request.param == "collected":
        gc.set_threshold(50, 1, 1)
    else:
        gc.disable()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()


def make(paths) -> dict[str, object]:
    """Make one of each; the adapter is in use, the view is lent."""
    model = Model(paths[0])
    context = model.context(**OPTIONS)
    adapter = Adapter(model, paths[1])
    context.set_adapters({adapter: 1.0})
    batch = Batch([1, 2, 3])
    context.decode(batch)
    sampler = SamplerChain([samplers.grammar(model.vocab, "root ::= .*"), samplers.dist(1)])
    view = context.logits_view()
    return dict(zip(NAMES, (model, context, sampler, adapter, batch, view), strict=True))


def use(things: dict[str, object], n_vocab: int = 400) -> None:
    """Raise unless what is there and open works as far as it can."""
    model, context, sampler = (things.get(name) for name in ("model", "context", "sampler"))
    if "view" in things:
        assert np.isfinite(things["view"]).all()
    elif context is not None and not context.closed:
        context.memory.clear()
        context.decode(things.get("batch", Batch([4, 5])))
        assert context.logits().shape == (1, n_vocab)
    if sampler is not None and not sampler.closed:
        assert sampler.sample(np.linspace(0, 1, n_vocab, dtype=np.float32), accept=False) >= 0
    if model is not None and not model.closed:
        assert model.vocab.tokenize("hello").size


@pytest.mark.parametrize("first", NAMES)
def test_closing_in_every_order(paths, collecting, first):
    """Only a view stands in the way of what lent it, and all are closed in the end."""
    others = [name for name in NAMES if name != first]
    for order in itertools.permutations(others):
        things = make(paths)
        waiting = []
        for name in (first, *order):
            if name in ("batch", "view"):
                del things[name]
            elif name in ("context", "model") and "view" in things:
                with pytest.raises(BufferError):
                    things[name].close()
                waiting.append(name)
            else:
                things[name].close()
            use(things)
        for name in waiting:
            things[name].close()
        assert all(thing.closed for thing in things.values()), order
        with pytest.raises(ClosedError):
            things["context"].decode(Batch([1]))


@pytest.mark.parametrize("first", NAMES)
def test_dropping_in_every_order(paths, collecting, first):
    """What is left keeps alive what it needs."""
    others = [name for name in NAMES if name != first]
    for order in itertools.permutations(others):
        things = make(paths)
        for n_left, name in zip(range(5, -1, -1), (first, *order), strict=True):
            del things[name]
            if n_left % 2:
                use(things)
        assert things == {}


def test_all_of_it_in_a_cycle(paths):
    """The collector finds children and parents at once, in whatever order."""
    for order in list(itertools.permutations(NAMES[:4]))[::3]:
        things = make(paths)
        del things["view"]
        for name, other in zip(order, order[1:] + order[:1], strict=True):
            things[name].cycle = things[other]
        del things
        gc.collect()
    assert not any(isinstance(each, Model) for each in gc.garbage)
