"""Tokens with hidden states, positions of images, and llama_batch_ext: the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gguf
import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Batch, Context
from pyllama.core.library import ffi, lib
from pyllama.errors import InvalidBatchError, LoadError, UnsupportedError

TOKENS = [5, 300, 7, 41]
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[pyllama.Model]:
    """Load a draft head that predicts from tokens and hidden states."""
    path = random_model.write_mtp(tmp_path_factory.mktemp("mtp") / "mtp.gguf")
    with pyllama.Model(path, load_mtp=True) as model:
        yield model


@pytest.fixture
def ahead(head) -> Iterator[Context]:
    """Make a context that runs the head."""
    with head.context(ctx_type="mtp", exact=True, n_seq_max=2, **OPTIONS) as context:
        yield context


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Iterator[pyllama.Model]:
    """Load a model that takes four positions for each embedding, as of an image."""
    path = random_model.write_llama(
        tmp_path_factory.mktemp("images") / "vl.gguf",
        arch="qwen2vl",
        metadata={"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]},
    )
    with pyllama.Model(path) as model:
        yield model


def states(n: int = len(TOKENS), width: int = 64) -> np.ndarray:
    """Return hidden states, a row for each token."""
    return np.random.default_rng(7).standard_normal((n, width)).astype(np.float32)


def decoded(context: Context, batch: Batch) -> np.ndarray:
    """Return the logits of a batch, decoded from the start."""
    context.memory.clear()
    context.decode(batch)
    return context.logits()


def processed(context: Context, batch: Batch) -> np.ndarray:
    """Return the logits of the same batch, handed over token by token as llama_batch_ext."""
    context.memory.clear()
    batch_ext = ffi.gc(lib.llama_batch_ext_init(context.pointer), lib.llama_batch_ext_free)
    for i in range(batch.n_tokens):
        embd = ffi.new("struct llama_embd *")
        if batch.embd is not None:
            row = ffi.from_buffer("float[]", np.ascontiguousarray(batch.embd[i]))
            embd.data, embd.n_rows, embd.n_embd = row, 1, len(row)
        if batch.token is None:
            index = lib.llama_batch_ext_add_embd(batch_ext, batch.seq_id[i, 0], embd[0])
        else:
            index = lib.llama_batch_ext_add_token(batch_ext, batch.seq_id[i, 0], batch.token[i])
            assert batch.embd is None or lib.llama_batch_ext_set_embd_token(batch_ext, i, embd[0])
        assert index == i
        for seq in batch.seq_id[i, 1 : batch.n_seq_id[i]]:
            assert lib.llama_batch_ext_add_seq(batch_ext, i, seq)
        pos = np.resize(batch.pos.reshape(-1, batch.n_tokens)[:, i], 4).tolist()
        assert lib.llama_batch_ext_set_pos(batch_ext, i, pos)
        assert lib.llama_batch_ext_set_output_logits(batch_ext, i, bool(batch.output[i]))
    code = lib.llama_process(context.pointer, lib.LLAMA_PROCESS_TYPE_DECODE, batch_ext)
    assert code == 0
    n_rows = int(batch.output.sum())
    buffer = ffi.buffer(lib.llama_get_logits(context.pointer), 4 * n_rows * context.n_vocab)
    return np.frombuffer(buffer, np.float32).reshape(n_rows, -1).copy()


def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the RMS norm of each row."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def reference(path: str, token: int, state: np.ndarray) -> np.ndarray:
    """Return the head's logits for one token alone, which attends to itself, in float64."""
    data = {t.name: t.data.astype(np.float64) for t in gguf.GGUFReader(path).tensors}
    w: Callable[[str], np.ndarray] = lambda name: data[f"blk.1.{name}.weight"]  # noqa: E731
    both = [
        norm(data["token_embd.weight"][token], w("nextn.enorm")),
        norm(state.astype(np.float64), w("nextn.hnorm")),
    ]
    x = w("nextn.eh_proj") @ np.concatenate(both)
    y = norm(x, w("attn_norm"))
    gate = (w("attn_q") @ y).reshape(4, 2, 16)[:, 1]  # each head's query, then its gate
    value = np.repeat((w("attn_v") @ y).reshape(2, 16), 2, axis=0)  # two heads share one
    x = x + w("attn_output") @ (value * sigmoid(gate)).ravel()
    y = norm(x, w("post_attention_norm"))
    inner = w("ffn_gate") @ y
    x = x + w("ffn_down") @ (inner * sigmoid(inner) * (w("ffn_up") @ y))
    return data["output.weight"] @ norm(x, data["output_norm.weight"])


def test_a_token_and_its_hidden_state_give_the_logits_of_the_formula(head, ahead):
    """Both count: another token, or another state, gives others."""
    for token, state in zip(TOKENS, states(), strict=True):
        logits = decoded(ahead, Batch([token], embd=[state]))[0]
        assert np.abs(logits - reference(head.path, token, state)).max() < 1e-4
    first = decoded(ahead, Batch([5], embd=states(1)))
    assert np.abs(first - decoded(ahead, Batch([6], embd=states(1)))).max() > 1
    assert np.abs(first - decoded(ahead, Batch([5], embd=-states(1)))).max() > 1


def test_later_tokens_attend_to_earlier_ones(ahead):
    """In one batch, or one after the other, they see the same memory."""
    whole = decoded(ahead, Batch(TOKENS, embd=states(), output="all"))
    ahead.memory.clear()
    for i, token in enumerate(TOKENS):
        ahead.decode(Batch([token], embd=states()[i : i + 1], pos=i))
        assert np.abs(ahead.logits()[0] - whole[i]).max() < 1e-4
    alone = decoded(ahead, Batch(TOKENS[-1:], embd=states()[-1:]))
    assert np.abs(alone[0] - whole[-1]).max() > 0.1


def test_batch_ext_gives_the_same_numbers(ahead, context, images):
    """For tokens, shared tokens, both, and positions of images, to the bit."""
    grid = np.array([[3, 3, 3, 3], [3, 3, 4, 4], [3, 4, 3, 4], [0, 0, 0, 0]])
    with images.context(exact=True, **OPTIONS) as vision:
        for each, batch in (
            (context, Batch(TOKENS)),
            (context, Batch(TOKENS, pos=3, seq_id=1, output="all")),
            (ahead, Batch(TOKENS, embd=states(), output="all")),
            (vision, Batch(TOKENS, output=[True, False, False, True])),
            (vision, Batch(embd=states(), pos=grid, output="all")),
        ):
            assert np.array_equal(decoded(each, batch), processed(each, batch))
    with context.model.context(kv_unified=True, n_seq_max=3, **OPTIONS) as shared:
        batch = Batch(TOKENS, seq_id=[[0, 1, 2], [0, 1, 2], [0], [2]], pos=[0, 1, 2, 2])
        assert np.array_equal(decoded(shared, batch), processed(shared, batch))


def test_the_positions_of_an_image_count(images):
    """Another grid of the same embeddings gives other logits."""
    rows = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]])
    columns = rows[[0, 2, 1, 3]]
    with images.context(exact=True, **OPTIONS) as context:
        outcomes = [
            decoded(context, Batch(embd=states(), pos=pos)) for pos in (rows, columns, rows)
        ]
    assert np.array_equal(outcomes[0], outcomes[2])
    assert np.abs(outcomes[0] - outcomes[1]).max() > 0.01


def test_batch_ext_takes_no_state(context):
    """What llama.h calls the state embedding is not written yet: it is always refused."""
    batch_ext = ffi.gc(lib.llama_batch_ext_init(context.pointer), lib.llama_batch_ext_free)
    assert lib.llama_batch_ext_add_token(batch_ext, 0, 5) == 0
    embd = ffi.new("struct llama_embd *")
    embd.data, embd.n_rows, embd.n_embd = ffi.from_buffer("float[]", states(1)), 1, 64
    assert not lib.llama_batch_ext_set_embd_state(batch_ext, 0, embd[0])


@pytest.mark.parametrize(
    ("match", "batch"),
    [
        ("give tokens and embd", Batch(TOKENS)),
        ("give tokens and embd", Batch(embd=states())),
        ("63 columns, but this model takes 64", Batch(TOKENS, embd=states(width=63))),
        (r"token\[1\] is 512", Batch([1, 512], embd=states(2))),
        (r"token\[0\] is -1", Batch([-1], embd=states(1))),
        ("sequence 2", Batch([1], embd=states(1), seq_id=2)),
        (r"pos\[0\] is -1", Batch([1], embd=states(1), pos=[-1])),
    ],
)
def test_a_batch_that_does_not_fit_the_head_is_refused(ahead, match, batch):
    """And nothing is lost: the context decodes what fits."""
    with pytest.raises(InvalidBatchError, match=match):
        ahead.decode(batch)
    assert np.isfinite(decoded(ahead, Batch(TOKENS, embd=states()))).all()


def test_a_state_that_is_not_finite_is_refused(ahead):
    """Also if it was written into the batch later."""
    batch = Batch(TOKENS, embd=states())
    batch.embd[2, 3] = np.nan
    with pytest.raises(InvalidBatchError, match="not finite"):
        ahead.decode(batch)


def test_a_plain_context_takes_either(context):
    """libllama would leave the tokens aside, or the embeddings, without a word."""
    with pytest.raises(InvalidBatchError, match="ctx_type='mtp'"):
        context.decode(Batch(TOKENS, embd=states()))
    assert np.isfinite(decoded(context, Batch(embd=states()))).all()


def test_rows_must_match_tokens():
    """Each token has its own."""
    with pytest.raises(ValueError, match="4 tokens, but 3 rows"):
        Batch(TOKENS, embd=states(3))
    assert repr(Batch(TOKENS, embd=states())) == "<Batch of 4 tokens, 1 with output>"


def test_a_drafter_for_another_model_makes_no_context(model, monkeypatch):
    """It reads several layers of that model, in rows that llama.h does not measure."""
    monkeypatch.setattr("pyllama.core.limits.DRAFTS", frozenset(["llama"]))
    with pytest.raises(UnsupportedError, match="a llama model drafts for another one"):
        model.context()


def test_a_head_alone_makes_no_plain_context(head):
    """The layers of its model are missing, and libllama would follow a NULL to them."""
    with pytest.raises(UnsupportedError, match="without its model"):
        head.context(**OPTIONS)


def test_the_head_must_be_loaded(head):
    """Its layer is left in the file unless one asks for it."""
    with pyllama.Model(head.path) as model, pytest.raises(LoadError, match="nextn"):
        model.context(ctx_type="mtp", **OPTIONS)
