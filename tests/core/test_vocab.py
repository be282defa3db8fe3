"""Vocab: arguments and results, lifetimes and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import pyllama
from pyllama import Vocab
from pyllama.core.enums import VocabType
from pyllama.errors import BusyError, ClosedError

MODELS = Path(__file__).parents[2] / "vendor" / "llama.cpp" / "models"


@pytest.fixture
def spm(model: pyllama.Model) -> Vocab:
    """Return the vocabulary of the tiny model: 512 tokens, SPM."""
    return model.vocab


@pytest.fixture(scope="module")
def gpt2() -> Iterator[Vocab]:
    """Load a byte-level BPE vocabulary."""
    with pyllama.Model(MODELS / "ggml-vocab-gpt-2.gguf", vocab_only=True) as model:
        yield model.vocab


def test_tokens_are_an_int32_array_of_ones_own(spm):
    """Writing into it changes nothing else."""
    tokens = spm.tokenize("ab")
    assert tokens.dtype == np.int32
    tokens[:] = 7
    assert spm.tokenize("ab")[0] == spm.bos


def test_bytes_are_tokenized_as_their_text(spm, gpt2):
    """UTF-8 given as bytes or as str is the same."""
    for vocab in (spm, gpt2):
        assert np.array_equal(vocab.tokenize("né 中\0".encode()), vocab.tokenize("né 中\0"))


def test_nul_does_not_end_the_text(spm, gpt2):
    """The length goes to C beside the pointer."""
    for vocab in (spm, gpt2):
        tokens = vocab.tokenize("a\0b\0", add_special=False)
        assert b"".join(vocab.pieces(tokens)).strip() == b"a\0b\0"


def test_empty_text_has_only_what_is_added(spm, gpt2):
    """SPM adds BOS, GPT-2 nothing."""
    assert spm.tokenize("").tolist() == [spm.bos]
    assert gpt2.tokenize("").tolist() == []
    assert spm.detokenize([]) == ""
    assert spm.offsets("")[1].tolist() == [[0, 0]]


def test_lone_surrogate_says_where_it_is(spm):
    """It is no character, so no text; the message says what to do."""
    with pytest.raises(UnicodeEncodeError, match=r"position 1.*give bytes"):
        spm.tokenize("a\ud800")


@pytest.mark.parametrize("text", [None, 3, ["a"], bytearray(b"a")])
def test_only_str_and_bytes_are_texts(spm, text):
    """Anything else is a TypeError, in a batch too."""
    with pytest.raises(TypeError, match="str or bytes"):
        spm.tokenize(text)
    with pytest.raises(TypeError, match="str or bytes"):
        spm.tokenize_batch(["a", text])


def test_batch_refuses_one_text(spm):
    """Its characters would be taken for texts."""
    with pytest.raises(TypeError, match="one text"):
        spm.tokenize_batch("abc")


@pytest.mark.parametrize("n_threads", [0, -1, 1000])
def test_batch_threads_are_checked(spm, n_threads):
    """From one to 512."""
    with pytest.raises(ValueError, match="n_threads"):
        spm.tokenize_batch(["a"], n_threads=n_threads)


def test_batch_of_nothing(spm):
    """An empty list gives an empty list."""
    assert spm.tokenize_batch([]) == []


@pytest.mark.parametrize("token", [-1, 512, 10**9, 2**31, 2**40])
def test_ids_out_of_range_are_index_errors(spm, token):
    """C would read beside its table: each method refuses first."""
    for method in (spm.text, spm.score, spm.attr, spm.piece, spm.is_control, spm.is_eog):
        with pytest.raises(IndexError, match=str(token)):
            method(token)
    for method in (spm.detokenize, spm.detokenize_bytes, spm.pieces):
        with pytest.raises(IndexError, match=rf"tokens\[1\] is {token}"):
            method([0, token])


@pytest.mark.parametrize("tokens", [[1.0], "12", [[1]], 3, [True], [None]])
def test_ids_must_be_a_row_of_integers(spm, tokens):
    """Nothing is rounded or flattened."""
    with pytest.raises(TypeError, match="integers in one dimension"):
        spm.detokenize(tokens)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_ids_may_be_any_integers(spm, dtype):
    """Also a slice that is not contiguous."""
    tokens = np.array([70, 0, 71, 0], dtype)[::2]
    assert spm.detokenize(tokens) == spm.detokenize([70, 71])


def test_control_tokens_give_their_text_only_when_asked(spm):
    """Pieces and detokenized text leave BOS out."""
    assert spm.piece(spm.bos) == b""
    assert spm.piece(spm.bos, special=True) == b"<s>"
    assert spm.pieces([spm.bos]) == [b""]
    assert spm.pieces([spm.bos], special=True) == [b"<s>"]
    assert spm.detokenize([spm.bos]) == ""
    assert spm.detokenize([spm.bos], unparse_special=True) == "<s>"


def test_remove_special_takes_bos_away(spm):
    """And the space that belongs to it."""
    tokens = spm.tokenize("ab")
    assert spm.detokenize(tokens, remove_special=True) == " ab"
    assert spm.detokenize(tokens[1:]) == "ab"
    kept = spm.detokenize(tokens, remove_special=False, unparse_special=True)
    assert kept == "<s> ab"


def test_lstrip_leaves_spaces_out(gpt2):
    """As many as there are, at most."""
    token = int(gpt2.tokenize(" a", add_special=False)[0])
    assert gpt2.piece(token) == b" a"
    assert gpt2.piece(token, lstrip=5) == b"a"
    with pytest.raises(ValueError, match="lstrip"):
        gpt2.piece(token, lstrip=-1)


def test_half_a_character_is_replaced_in_str_only(gpt2):
    """The bytes are there; the str has U+FFFD."""
    tokens = gpt2.tokenize("🦙")
    assert len(tokens) > 1
    assert gpt2.detokenize(tokens) == "🦙"
    assert "\ufffd" in gpt2.detokenize(tokens[:1])
    assert "🦙".encode().startswith(gpt2.detokenize_bytes(tokens[:1]))


def test_facts_stay_after_close(tiny_path):
    """What was read once needs no model; whatever calls C does."""
    model = pyllama.Model(tiny_path, vocab_only=True)
    vocab = model.vocab
    model.close()
    assert (vocab.n_tokens, vocab.type, vocab.bos) == (512, VocabType.SPM, 1)
    calls = (
        lambda: vocab.tokenize("a"),
        lambda: vocab.tokenize_batch(["a"]),
        lambda: vocab.detokenize([1]),
        lambda: vocab.piece(1),
        lambda: vocab.text(1),
        lambda: vocab.offsets("a"),
        lambda: vocab.suppress_tokens,
        lambda: vocab.eog_tokens,
    )
    for call in calls:
        with pytest.raises(ClosedError):
            call()


def test_vocabulary_keeps_its_model(tiny_path):
    """The model is not freed under it."""
    vocab = pyllama.Model(tiny_path, vocab_only=True).vocab
    assert vocab.detokenize(vocab.tokenize("abc")[1:]) == "abc"


def test_tables_outlive_the_object(tiny_path):
    """Asking the model for its vocabulary again reads nothing again."""
    with pyllama.Model(tiny_path, vocab_only=True) as model:
        assert model.vocab.piece_table() is model.vocab.piece_table()


def test_tables_cannot_be_written(spm):
    """They are shared."""
    for table in (spm.attrs, spm.scores):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_threads_at_once_get_what_one_alone_gets(gpt2):
    """The model is shared."""
    text = "To be, or not to be: that is the question. " * 500
    alone = gpt2.tokenize(text)
    with ThreadPoolExecutor(4) as pool:
        for tokens in pool.map(gpt2.tokenize, [text] * 8):
            assert np.array_equal(tokens, alone)


def test_close_during_a_call_is_refused():
    """The thread that tokenizes goes on."""
    with pyllama.Model(MODELS / "ggml-vocab-gpt-2.gguf", vocab_only=True) as model:
        thread = threading.Thread(target=model.vocab.tokenize, args=("word " * 200_000,))
        thread.start()
        while not model._record.users and thread.is_alive():
            pass
        with pytest.raises(BusyError):
            model.close()
        thread.join()


def test_repr_names_size_and_type(spm):
    """For whoever prints it."""
    assert repr(spm) == "<Vocab of 512 tokens, SPM>"
