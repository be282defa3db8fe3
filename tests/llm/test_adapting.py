"""Adapters per call, vectors, and the prompt cache of `LLM`."""

from __future__ import annotations

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.errors import UnsupportedError
from pyllama.llm import LLM

PROMPT = list(range(10, 150))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a model and two adapters for it."""
    directory = tmp_path_factory.mktemp("models")
    model = random_model.write_llama(directory / "model.gguf")
    weights = {f"blk.{layer}.attn_q.weight": (64, 64) for layer in range(2)}
    adapters = [
        random_model.write_lora(directory / f"lora{seed}.gguf", weights, std=0.5, seed=seed)
        for seed in (1, 2)
    ]
    return model, *adapters


def text_of(files, **options):
    """Generate in an LLM that has seen nothing."""
    with LLM(files[0], n_ctx=512, n_threads=1) as llm:
        return llm.complete(PROMPT, max_tokens=8, temperature=0, ignore_eog=True, **options).tokens


def test_adapters_are_swapped_with_each_call(files):
    """And the cache never mixes what was computed with others."""
    vector = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32) * 3
    settings = [
        {},
        {"lora": {files[1]: 1.0}},
        {"lora": {files[2]: 1.0}},
        {"lora": {files[1]: 1.0, files[2]: 0.5}},
        {"control_vector": vector},
    ]
    expected = [text_of(files, **each) for each in settings]
    assert len(set(expected)) > 2
    with LLM(files[0], n_ctx=512, n_threads=1) as llm:
        for _ in range(2):
            for each, wanted in zip(settings, expected, strict=True):
                for _ in range(2):
                    done = llm.complete(
                        PROMPT, max_tokens=8, temperature=0, ignore_eog=True, **each
                    )
                    assert done.tokens == wanted
                assert done.usage.cached_tokens == len(PROMPT) - 1


def test_a_vector_that_was_written_into_is_another(files):
    """What counts is what it holds at the call."""
    vector = np.zeros((1, 64), np.float32)
    other = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32) * 9
    options = {"max_tokens": 8, "temperature": 0, "ignore_eog": True}
    with LLM(files[0], n_ctx=512, n_threads=1) as llm:
        before = llm.complete(PROMPT, control_vector=vector, **options).tokens
        vector[:] = other
        after = llm.complete(PROMPT, control_vector=vector, **options).tokens
    assert before == text_of(files)
    assert after == text_of(files, control_vector=other) != before


def test_several_prompts_stay_in_the_cache(files):
    """Three in turn are each computed once."""
    prompts = [[int(t) for t in np.random.default_rng(s).integers(3, 500, 200)] for s in range(3)]
    with LLM(files[0], n_ctx=512, n_threads=1) as llm:
        cold = [llm.complete(ids, max_tokens=4, temperature=0) for ids in prompts]
        warm = [llm.complete(ids, max_tokens=4, temperature=0) for ids in prompts]
    assert [each.usage.cached_tokens for each in cold] == [0, 0, 0]
    assert [each.usage.cached_tokens for each in warm] == [199, 199, 199]
    assert [each.tokens for each in warm] == [each.tokens for each in cold]


def test_the_cache_on_disk_serves_the_next_process(files, tmp_path):
    """The same answer, without the work."""
    ids, other = PROMPT, PROMPT[::-1]
    with LLM(files[0], n_ctx=512, cache_directory=tmp_path / "cache") as llm:
        cold = llm.complete(ids, max_tokens=4, temperature=0)
        llm.complete(other, max_tokens=4)
    with LLM(files[0], n_ctx=512, cache_directory=tmp_path / "cache") as llm:
        warm = llm.complete(ids, max_tokens=4, temperature=0)
    assert (warm.tokens, warm.usage.cached_tokens) == (cold.tokens, len(ids) - 1)


def test_texts_become_vectors(files):
    """One text gives one, several give several, and completing goes on."""
    with LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
        rows = llm.embed(["The capital of France", "one two three"])
        assert rows.shape == (2, llm.model.n_embd)
        assert np.abs(llm.embed("one two three") - rows[1]).max() < 1e-3
        assert llm.embed("one two", pooling_type="none").ndim == 2
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
        assert llm.complete("The capital of France is", max_tokens=2, temperature=0).text
        with pytest.raises(UnsupportedError, match="classifier"):
            llm.rerank("a", ["b"])


def test_documents_are_ranked(tmp_path):
    """By a model with a classifier, which completes nothing."""
    path = random_model.write_bert(tmp_path / "rank.gguf", pooling=4, n_labels=1)
    with LLM(path, n_threads=1) as llm:
        assert llm.capabilities == {"embed", "rerank"}
        assert llm.rerank("a question", ["one", "another one"]).shape == (2,)
        with pytest.raises(UnsupportedError, match="complete"):
            llm.complete("a")


def test_infill_puts_the_pieces_in_order(tmp_path):
    """Prefix, suffix, middle, each after its token."""
    path = tmp_path / "fim.gguf"
    random_model.write_llama(
        path,
        metadata={
            "tokenizer.ggml.fim_pre_token_id": 300,
            "tokenizer.ggml.fim_suf_token_id": 301,
            "tokenizer.ggml.fim_mid_token_id": 302,
        },
    )
    seen = []

    def spy(ids, scores):
        seen.append(ids.tolist())
        return scores

    with LLM(path, n_ctx=256, n_threads=1) as llm:
        assert "infill" in llm.capabilities
        llm.infill("ab", "c", max_tokens=1, logits_processor=[spy])
        vocab = llm.model.vocab
        ab, c = (vocab.tokenize(text, add_special=False).tolist() for text in ("ab", "c"))
        assert seen[0] == [vocab.bos, 300, *ab, 301, *c, 302]
