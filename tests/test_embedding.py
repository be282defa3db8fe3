"""`Embedder`: packed like single, every pooling type, limits, and rerank."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.embedding import Embedder, unit
from pyllama.errors import BusyError, ContextLengthError, UnsupportedError

TEXTS = ["hello world", "a b c", "x", "one two three four", "hello", "world of words"]
POOLING = {"mean": 1, "cls": 2, "last": 3}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Load an encoder with random weights."""
    path = random_model.write_bert(tmp_path_factory.mktemp("models") / "bert.gguf")
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture
def classifier(tmp_path):
    """Return a function that loads an encoder with a classifier of so many outputs."""
    models = []

    def load(n_labels):
        path = tmp_path / f"{n_labels}.gguf"
        random_model.write_bert(path, pooling=4, n_labels=n_labels)
        models.append(pyllama.Model(path))
        return models[-1]

    yield load
    for model in models:
        model.close()


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("kind", ["bert", "model"])
def test_packed_is_as_single(kind, pooling, request):
    """Texts in one batch do not see each other; the rows are in the order of the texts."""
    source = request.getfixturevalue(kind)
    options = {"pooling_type": pooling, "n_threads": 1, "flash_attn_type": "disabled"}
    with Embedder(source, **options) as embedder:
        packed = embedder.embed(TEXTS)
        single = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert packed.shape == (len(TEXTS), source.n_embd)
    assert packed.dtype == np.float32
    assert np.abs(packed - single).max() < 1e-4
    if (kind, pooling) != ("model", "cls"):  # there every text begins with the same token
        assert np.abs(packed[0] - packed[2]).max() > 1e-2


@pytest.mark.parametrize("pooling", POOLING)
def test_pooling_is_of_the_tokens(bert, pooling):
    """The mean, the first and the last of what embed_tokens gives."""
    options = {"n_threads": 1, "flash_attn_type": "disabled"}
    with Embedder(bert, pooling_type="none", **options) as embedder:
        rows = embedder.embed_tokens(TEXTS[3], normalize=False)
    expected = {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[pooling]
    with Embedder(bert, pooling_type=pooling, **options) as embedder:
        assert np.abs(embedder.embed([TEXTS[3]], normalize=False)[0] - expected).max() < 1e-4


@pytest.mark.parametrize("pooling", POOLING)
def test_the_file_says_how_to_pool(tmp_path, pooling):
    """Unless the caller does."""
    path = random_model.write_bert(tmp_path / "bert.gguf", pooling=POOLING[pooling])
    with pyllama.Model(path) as model:
        with Embedder(model) as embedder:
            assert embedder.pooling_type.name.lower() == pooling
        with Embedder(model, pooling_type="none") as embedder:
            assert embedder.pooling_type.name == "NONE"


def test_normalized_rows_have_length_one(bert):
    """And not otherwise; a row of zeros is left alone."""
    with Embedder(bert) as embedder:
        assert np.linalg.norm(embedder.embed(TEXTS), axis=1) == pytest.approx(1, abs=1e-5)
        assert not np.allclose(
            np.linalg.norm(embedder.embed(TEXTS, normalize=False), axis=1), 1, atol=0.1
        )
    assert unit(np.zeros((2, 3), np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_more_texts_than_fit_in_a_batch(bert):
    """Are computed in several, in order."""
    texts = [text + " x" * (i % 9) for i, text in enumerate(TEXTS * 40)]
    with Embedder(bert, n_seq_max=7, flash_attn_type="disabled") as embedder:
        rows = embedder.embed(texts)
        assert np.abs(rows[123] - embedder.embed([texts[123]])[0]).max() < 1e-4


def test_a_text_too_long_is_an_error_or_cut(bert):
    """The model knows 64 positions; nothing ends the process."""
    long = "word " * 200
    with Embedder(bert) as embedder:
        assert embedder.n_text == 64
        with pytest.raises(ContextLengthError, match=r"texts\[1\] has \d+ tokens, and 64 fit"):
            embedder.embed(["a", long])
        cut = embedder.embed(["a", long], truncate=True)
        ids = bert.vocab.tokenize(long)[:64]
        assert np.abs(cut[1] - embedder.embed([ids])[0]).max() < 1e-3


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ("one text", TypeError),
        (3, TypeError),
        ([[]], ValueError),
        ([None], TypeError),
        ([[10**9]], ValueError),
    ],
    ids=str,
)
def test_wrong_texts_are_refused(bert, texts, error):
    """With a Python error; afterwards it works."""
    with Embedder(bert) as embedder:
        with pytest.raises((error, pyllama.LlamaError)):
            embedder.embed(texts)
        assert embedder.embed(["a"]).shape == (1, 64)


def test_no_texts(bert):
    """Give no rows."""
    with Embedder(bert) as embedder:
        assert embedder.embed([]).shape == (0, 64)


def test_the_wrong_method_says_which(bert):
    """For each pooling type one of them is right."""
    with Embedder(bert) as embedder, pytest.raises(UnsupportedError, match=r"embed\(\)"):
        embedder.embed_tokens("a")
    with Embedder(bert, pooling_type="none") as embedder:
        with pytest.raises(UnsupportedError, match=r"embed_tokens\(\)"):
            embedder.embed(["a"])
        with pytest.raises(UnsupportedError, match="rank"):
            embedder.rerank("a", ["b"])


@pytest.mark.parametrize("n_labels", [1, 3])
def test_rerank_scores_each_document(classifier, n_labels):
    """As wide as the classifier; a document's score does not depend on the others."""
    with Embedder(classifier(n_labels), flash_attn_type="disabled") as embedder:
        scores = embedder.rerank("a question", TEXTS)
        alone = embedder.rerank("a question", [TEXTS[3]])
    assert scores.shape == ((len(TEXTS),) if n_labels == 1 else (len(TEXTS), n_labels))
    assert np.abs(scores[3] - alone[0]).max() < 1e-4
    assert np.ptp(scores) > 1e-3


def test_rerank_prompts_come_from_the_template(classifier, tmp_path):
    """Special tokens are those of the template only, whatever the texts hold."""
    path = random_model.write_bert(
        tmp_path / "template.gguf",
        pooling=4,
        n_labels=1,
        metadata={"tokenizer.chat_template.rerank": "[CLS]q {query}[SEP]{document}[SEP]"},
    )
    with pyllama.Model(path) as model, Embedder(model) as embedder:
        vocab = model.vocab
        ids = embedder._pair("what [SEP] {document}", "a [CLS] b")
        assert ids.count(vocab.sep) == 2
        assert ids.count(vocab.bos) == 2  # the vocabulary's own, and the template's
        assert embedder.rerank("what", ["a", "b c"]).shape == (2,)


def test_rank_needs_a_classifier(bert):
    """Without one libllama would give numbers that mean nothing."""
    with pytest.raises(UnsupportedError, match="classifier"):
        Embedder(bert, pooling_type="rank")


def test_an_encoder_decoder_is_refused(tmp_path):
    """It embeds nothing."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    with pyllama.Model(path) as model, pytest.raises(UnsupportedError, match="encoder-decoder"):
        Embedder(model)


def test_one_thread_at_a_time(bert):
    """A second one would read what the first computed."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(_array, _node):
        inside.set()
        go_on.wait(30)

    with Embedder(bert) as embedder, embedder.context.hooks({"ffn_out-0": wait}):
        first = threading.Thread(target=embedder.embed, args=(["a"],))
        first.start()
        assert inside.wait(30)
        with pytest.raises(BusyError, match="this Embedder is in use"):
            embedder.embed(["b"])
        go_on.set()
        first.join()
