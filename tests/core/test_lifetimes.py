"""Models, contexts, samplers and views closed, dropped and left behind in every order."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

import pyllama
from pyllama import Batch, Context, Model, SamplerChain, ThreadPool, generate, samplers
from pyllama.errors import ClosedError

OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}


class Everything:
    """One of each, all belonging to one model."""

    def __init__(self, path) -> None:
        self.model = Model(path)
        self.context = self.model.context(**OPTIONS)
        self.context.decode(Batch([1, 2, 3]))
        self.other = self.model.context(**OPTIONS)
        self.chain = SamplerChain(
            [samplers.grammar(self.model.vocab, "root ::= .*"), samplers.dist(1)]
        )
        self.view = self.context.logits_view()[0]

    def use(self) -> None:
        """Raise unless what is still open works."""
        if not self.context.closed and not hasattr(self, "view"):
            tokens = generate.tokens(self.context, [1, 2], max_tokens=3, ignore_eog=True)
            assert len(list(tokens)) == 3
        if not self.chain.closed:
            assert self.chain.sample(np.linspace(0, 1, 512, dtype=np.float32), accept=False) >= 0
        if not self.model.closed:
            assert self.model.vocab.tokenize("hello").size


@pytest.mark.parametrize("order", list(itertools.permutations("model context chain view".split())))
def test_closing_works_in_every_order(tiny_path, order):
    """Only the view stands in the way of its context; what is closed stays closed."""
    all_of_it = Everything(tiny_path)
    vocab, expected = all_of_it.model.vocab, all_of_it.view.copy()
    for name in order:
        if name == "view":
            assert np.array_equal(all_of_it.view, expected)
            del all_of_it.view
            continue
        handle = getattr(all_of_it, name)
        if name != "chain" and hasattr(all_of_it, "view"):
            with pytest.raises(BufferError, match="1 view of this Context"):
                handle.close()
            assert not handle.closed
            continue
        handle.close()
        handle.close()
        all_of_it.use()
    for name in ("context", "chain", "model"):
        getattr(all_of_it, name).close()
    assert all_of_it.other.closed
    with pytest.raises(ClosedError):
        vocab.tokenize("hello")


@pytest.mark.parametrize("order", list(itertools.permutations("model context chain view".split())))
def test_dropping_names_works_in_every_order(tiny_path, order):
    """What is left keeps alive what it needs, and nothing else does."""
    all_of_it = Everything(tiny_path)
    expected = all_of_it.view.copy()
    del all_of_it.other
    alive = weakref.ref(all_of_it.model)
    for name in order:
        assert alive() is not None
        delattr(all_of_it, name)
        if hasattr(all_of_it, "view"):
            assert np.array_equal(all_of_it.view, expected)
        if hasattr(all_of_it, "chain"):
            all_of_it.chain.sample(np.linspace(0, 1, 512, dtype=np.float32), accept=False)
        if hasattr(all_of_it, "context"):
            assert all_of_it.context.logits().shape == (1, 512)
    assert alive() is None


def test_everything_in_one_cycle_is_collected(tiny_path):
    """Also with a generator that was left half-way, and a pool."""
    references = []
    for _ in range(5):
        all_of_it = Everything(tiny_path)
        del all_of_it.view
        all_of_it.pool = ThreadPool(1)
        all_of_it.context.attach_threadpool(all_of_it.pool)
        all_of_it.run = generate.stream(all_of_it.context, "hello", ignore_eog=True)
        next(all_of_it.run)
        for handle in ("model", "context", "chain", "pool"):
            getattr(all_of_it, handle).cycle = all_of_it
            references.append(weakref.ref(getattr(all_of_it, handle)))
    del all_of_it
    gc.collect()
    assert [reference() for reference in references] == [None] * 20


def test_a_context_is_freed_when_its_name_goes_not_when_the_model_closes(model):
    """The model does not hold it."""
    before = len(model._record.children)
    context = model.context(**OPTIONS)
    assert len(model._record.children) == before + 1
    del context
    assert len(model._record.children) == before


def test_a_vocabulary_keeps_its_model_but_is_not_kept(tiny_path):
    """A reference from the model to it would be a cycle."""
    model = Model(tiny_path)
    vocab = model.vocab
    assert model.vocab is vocab
    alive = weakref.ref(vocab)
    del model
    assert vocab.tokenize("hello").size
    del vocab
    assert alive() is None


def test_a_failed_constructor_frees_what_it_made(tiny_path):
    """Whether the C object was there already or not."""

    class Failing(Context):
        def __init__(self, model: Model) -> None:
            super().__init__(model, **OPTIONS)
            raise ZeroDivisionError

    with Model(tiny_path) as model:
        for wrong in ({"n_ctx": -1}, {"bogus": 1}, {"type_k": "q8_0"}):
            with pytest.raises((ValueError, TypeError)):
                model.context(**wrong)
        with pytest.raises(ZeroDivisionError):
            Failing(model)
        gc.collect()
        assert model._record.children == set()


def test_a_failed_chain_gives_its_samplers_back():
    """They are free and usable again."""
    sampler = samplers.dist(1)
    with pytest.raises(TypeError):
        SamplerChain([sampler, None])
    assert 0 <= sampler.sample(np.zeros(4, np.float32)) < 4
    sampler.close()


def test_a_sampler_inside_a_chain_lives_and_dies_with_it():
    """Taken out, it lives on."""
    chain = SamplerChain([samplers.temp(0.5), samplers.dist(1)])
    temp, dist = chain
    chain.pop(0)
    chain.close()
    assert dist.closed
    assert not temp.closed
    temp.close()


def test_an_embedding_outlives_its_context(model):
    """All but the views are copies."""
    with model.context(**OPTIONS, embeddings=True) as context:
        context.decode(Batch([1, 2, 3]))
        rows, logits = context.embeddings(), context.logits()
        expected = rows.copy(), logits.copy()
    gc.collect()
    assert np.array_equal(rows, expected[0])
    assert np.array_equal(logits, expected[1])


EXITS = {
    "everything in globals": "",
    "a cycle": "cycle = [model, context, chain, run]; cycle.append(cycle); model.cycle = cycle",
    "a view": "view = context.logits_view()",
    "a pool attached": "pool = ThreadPool(1); context.attach_threadpool(pool)",
    "a half-finished stream": "next(run); next(run)",
    "a name in another module": "import sys; sys.keep = context; sys.modules['keep'] = model",
    "a thread that decodes": """
        def work():
            other = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
            while True:
                other.memory.clear()
                other.decode(Batch([1] * 200))
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        """,
    "a thread that loads": """
        def work():
            while True:
                Model(sys.argv[1]).close()
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        """,
    "an exit function that uses them": """
        def last():
            context.memory.clear()
            context.decode(Batch([1, 2, 3]))
            model.close()
        atexit.register(last)
        """,
    "a finalizer that closes them": """
        class Keeper:
            def __init__(self):
                self.model, self.context = model, context
            def __del__(self):
                self.context.close()
                self.model.close()
        keeper = Keeper()
        """,
    "an exception": "sys.excepthook = lambda *error: None; raise KeyError",
}


@pytest.mark.parametrize("name", EXITS)
def test_the_interpreter_ends_well_with_everything_open(tiny_path, name):
    """The exit code is right, and nothing is printed."""
    code = """
        import atexit, sys, threading, time
        from pyllama import *
        model = Model(sys.argv[1])
        context = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
        context.decode(Batch([1, 2, 3]))
        chain = SamplerChain([samplers.grammar(model.vocab, 'root ::= .*'), samplers.dist(1)])
        vocab, memory = model.vocab, context.memory
        other = model.context(n_ctx=256, n_threads=1, n_threads_batch=1)
        run = generate.stream(other, "hello", sampler=chain, ignore_eog=True)
    """
    code = textwrap.dedent(code) + textwrap.dedent(EXITS[name])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (int(name == "an exception"), "", "")


def test_the_public_names_that_own_something_are_all_handles():
    """So that what is tested of handles holds for them."""
    owners = (Model, Context, SamplerChain, pyllama.Sampler, ThreadPool)
    assert all(issubclass(owner, pyllama.core.handle.Handle) for owner in owners)
