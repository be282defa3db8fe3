"""The prompt cache: what it saves, that it never gives wrong text, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.generate import Report, generate, tokens
from pyllama.prefill import n_shared
from pyllama.prompt_cache import PromptCache


@pytest.fixture(scope="module", params=["llama", "mamba", "jamba"])
def source(request, tmp_path_factory):
    """Load a model with each kind of memory: one that can be cut, and two that cannot."""
    write = getattr(random_model, f"write_{request.param}")
    path = write(tmp_path_factory.mktemp("models") / "model.gguf")
    with pyllama.Model(path) as model:
        yield model


def prompt(model, n, seed):
    """Return a prompt of random tokens."""
    rng = np.random.default_rng(seed)
    return rng.integers(3, model.n_vocab, n).tolist()


def run(context, ids, cache=None, key="", n=6):
    """Generate greedily; return the tokens and how many of the prompt were reused."""
    report = Report()
    options = {}
    if cache is not None:

        def decode_prompt(context, ids, seq, deadline):
            return cache.prefill(context, ids, seq, deadline, key=key)

        options["decode_prompt"] = decode_prompt
    made = list(tokens(context, ids, max_tokens=n, ignore_eog=True, report=report, **options))
    return made, report.n_reused


def cold(model, ids, n=6):
    """Generate in a context that has seen nothing."""
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        return run(context, ids, n=n)[0]


def test_prompts_in_turn_are_each_found_again(source):
    """Three long prompts, over and over: from the second time on most of each is there."""
    prompts = [prompt(source, 150, seed) for seed in range(3)]
    expected = [cold(source, ids) for ids in prompts]
    cache = PromptCache()
    with source.context(n_ctx=512, n_threads=1, exact=True) as context:
        for again in range(3):
            for ids, wanted in zip(prompts, expected, strict=True):
                made, n_reused = run(context, ids, cache)
                assert made == wanted
                assert (n_reused >= 149) == (again > 0)


def test_a_common_beginning_is_shared(source):
    """A conversation that goes on in two ways."""
    begin = prompt(source, 200, 1)
    one, other = begin + prompt(source, 50, 2), begin + prompt(source, 50, 3)
    cache = PromptCache()
    with source.context(n_ctx=512, n_threads=1, exact=True) as context:
        run(context, begin, cache)
        for ids in (one, other, one):
            made, n_reused = run(context, ids, cache)
            assert made == cold(source, ids)
            assert n_reused >= 199


def test_the_longest_common_beginning_wins(model):
    """Of several copies the one that saves most."""
    begin = prompt(model, 100, 1)
    middle = begin + prompt(model, 100, 2)
    cache = PromptCache()
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        for ids in (begin + prompt(model, 60, 9), middle + prompt(model, 60, 8)):
            run(context, ids, cache)
            run(context, prompt(model, 60, 7), cache)
        made, n_reused = run(context, middle + prompt(model, 40, 6), cache)
        assert n_reused == 200
        assert made == cold(model, middle + prompt(model, 40, 6))


def test_another_key_is_another_memory(model):
    """Copies made under one key help no prompt under another."""
    ids, other = prompt(model, 150, 1), prompt(model, 150, 2)
    cache = PromptCache()
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        run(context, ids, cache, key="a")
        run(context, other, cache, key="a")
        context.memory.clear()
        assert run(context, ids, cache, key="b")[1] == 0
        context.memory.clear()
        assert run(context, ids, cache, key="a")[1] == 149


def test_another_model_is_another_memory(model, tmp_path):
    """A copy of one model is never given to another."""
    ids = prompt(model, 150, 1)
    cache = PromptCache()
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        run(context, ids, cache)
        run(context, prompt(model, 150, 2), cache)
    path = random_model.write_llama(tmp_path / "other.gguf", seed=9)
    with pyllama.Model(path) as other, other.context(n_ctx=512, n_threads=1) as context:
        assert run(context, ids, cache)[1] == 0


def test_the_budget_holds(model):
    """The copies unused for longest go; one that is too large is not kept."""
    cache = PromptCache(max_bytes=400_000)
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        for seed in range(8):
            run(context, prompt(model, 150, seed), cache)
            assert cache.n_bytes <= 400_000
        assert 0 < len(cache) < 8
        assert run(context, prompt(model, 150, 6), cache)[1] == 149
        assert run(context, prompt(model, 150, 0), cache)[1] == 0
    none = PromptCache(max_bytes=0)
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        for seed in (1, 2, 1):
            assert run(context, prompt(model, 100, seed), none)[1] == 0
    assert len(none) == 0


def test_a_directory_keeps_copies_for_the_next_process(model, tmp_path):
    """A damaged file there is left out; clear() empties it."""
    directory = tmp_path / "cache"
    ids = prompt(model, 150, 1)
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        cache = PromptCache(directory=directory)
        for seed in (1, 2, 3):
            run(context, prompt(model, 150, seed), cache)
    files = sorted(directory.iterdir())
    assert len(files) == len(cache) == 2
    assert directory.stat().st_mode & 0o077 == 0
    (directory / "junk.state").write_bytes(b"not a state")
    again = PromptCache(directory=directory)
    assert len(again) == 2
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        made, n_reused = run(context, ids, again)
        assert (made, n_reused) == (cold(model, ids), 149)
    again.clear()
    assert [path.name for path in directory.iterdir()] == ["junk.state"]


def test_a_loop_without_the_cache_in_between(model):
    """Whatever else decodes in the context, the text is right."""
    ids, other = prompt(model, 150, 1), prompt(model, 150, 2)
    cache = PromptCache()
    with model.context(n_ctx=512, n_threads=1, exact=True) as context:
        run(context, ids, cache)
        run(context, other)
        context.memory.remove(0, 100)
        made, _ = run(context, ids, cache)
        assert made == cold(model, ids)
        generate(context, other, max_tokens=3)
        assert run(context, ids, cache)[0] == cold(model, ids)


def test_how_many_tokens_are_shared():
    """From none to all of the shorter."""
    others = [1, 2, 3, 4], [1, 2], [2], []
    assert [n_shared([1, 2, 3], each, min(3, len(each))) for each in others] == [3, 2, 0, 0]


@pytest.mark.parametrize("max_bytes", [-1, 1.5, "many"])
def test_a_wrong_budget_is_refused(max_bytes):
    """With its name."""
    with pytest.raises((TypeError, ValueError), match="max_bytes"):
        PromptCache(max_bytes=max_bytes)
