"""Texts and vocabularies that would end the process, each kind of vocabulary among them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_model
from hypothesis import given
from hypothesis import strategies as st

import pyllama
from pyllama import Vocab
from pyllama.core.enums import VocabType
from pyllama.errors import TokenizeError, UnsupportedError

MODELS = Path(__file__).parents[2] / "vendor" / "llama.cpp" / "models"
HPARAMS = {
    "llama.context_length": 64,
    "llama.embedding_length": 8,
    "llama.block_count": 1,
    "llama.feed_forward_length": 8,
    "llama.attention.head_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
NORMAL, CONTROL, BYTE = 1, 3, 6


@pytest.fixture(scope="module")
def gpt2() -> Iterator[Vocab]:
    """Load a byte-level BPE vocabulary."""
    with pyllama.Model(MODELS / "ggml-vocab-gpt-2.gguf", vocab_only=True) as model:
        yield model.vocab


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Vocab]]:
    """Return a function that makes a vocabulary out of metadata."""
    models = []

    def make(metadata: dict[str, Any], **changes: Any) -> Vocab:
        path = tmp_path / f"{len(models)}.gguf"
        changed = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
        random_model.write(path, "llama", {**HPARAMS, **metadata, **changed}, [])
        models.append(pyllama.Model(path, vocab_only=True))
        return models[-1].vocab

    yield make
    for model in models:
        model.close()


@pytest.fixture(scope="module")
def rwkv(tmp_path_factory) -> Iterator[Vocab]:
    """Make an RWKV vocabulary with a token for each byte and a few more."""
    tokens = {f"\\x{byte:02x}": NORMAL for byte in range(256)} | {"ab": NORMAL, " a": NORMAL}
    yield from opened(tmp_path_factory.mktemp("rwkv"), listed("rwkv", tokens))


@pytest.fixture(scope="module")
def plamo(tmp_path_factory) -> Iterator[Vocab]:
    """Make a PLaMo-2 vocabulary with a token for each byte and a few letters."""
    tokens = {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, "<pad>": CONTROL}
    tokens |= {f"<0x{byte:02X}>": BYTE for byte in range(256)}
    tokens |= dict.fromkeys(["a", "b", "ab", " ", "é"], NORMAL)
    yield from opened(tmp_path_factory.mktemp("plamo"), listed("plamo2", tokens))


@pytest.fixture(scope="module")
def ugm(tmp_path_factory) -> Iterator[Vocab]:
    """Make a T5 vocabulary."""
    yield from opened(tmp_path_factory.mktemp("ugm"), random_model.vocabulary("ugm", 400))


def opened(folder: Path, metadata: dict[str, Any]) -> Iterator[Vocab]:
    """Write a file of this metadata, and yield its vocabulary."""
    path = random_model.write(folder / "vocab.gguf", "llama", {**HPARAMS, **metadata}, [])
    with pyllama.Model(path, vocab_only=True) as model:
        yield model.vocab


def listed(kind: str, tokens: dict[str, int]) -> dict[str, Any]:
    """Return the metadata of a vocabulary of these tokens with these types."""
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": list(tokens.values()),
        "tokenizer.ggml.scores": [0.0] * len(tokens),
    }


def run(code: str) -> str:
    """Run code in a process of its own, which must not die, and return what it prints."""
    code = "import pyllama, threading\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


DIGITS = (
    "7" * 61,
    "1234567890" * 13,
    "x" + "12" * 99 + " 5",
    "\u0663\u0664" + "9" * 200 + "\u0665",
    "3" * 70 + "." + "4" * 71 + "<s>" + "5" * 72 + "a",
)


@pytest.fixture
def superbpe(made) -> Vocab:
    """Make a vocabulary that cuts numbers in threes from the right, with tokens for such."""
    metadata = random_model.vocabulary("bpe", 400, pre="superbpe")
    numbers = {digit * n: f"{digit * (n - 1)} {digit}" for digit in "1234579" for n in (2, 3)}
    tokens = [*metadata["tokenizer.ggml.tokens"][:-30], *numbers]
    tokens += [f"spare{index}x" for index in range(400 - len(tokens))]
    return made(metadata, tokens=tokens, merges=[*numbers.values()])


@pytest.mark.parametrize("text", DIGITS)
@pytest.mark.parametrize("special", [False, True])
def test_parts_of_long_numbers_have_the_tokens_of_the_whole(monkeypatch, superbpe, text, special):
    """libllama takes time that grows with the square of a run of digits; parts do not."""
    options = {"add_special": special, "parse_special": special}
    parts = superbpe.tokenize(text, **options)
    monkeypatch.setattr(superbpe, "_counts_digits", False)
    whole = superbpe.tokenize(text, **options)
    assert parts.tolist() == whole.tolist()


def test_numbers_are_cut_from_the_right(superbpe):
    """So the tests above see a part that ends in the wrong place."""
    assert superbpe.tokenize("7" * 61, add_special=False).size == 1 + 20


def test_a_long_number_is_quick(superbpe):
    """A million digits took 18 hours."""
    assert superbpe.tokenize("1" * 300_000, timeout=300).size


def test_a_long_number_beside_special_numbers_is_refused(made):
    """A special token that ends with a digit may lie across two parts."""
    vocab = made(random_model.vocabulary("bpe", 400, pre="superbpe", special=["<9"]))
    assert vocab.tokenize("1" * 1000).size
    with pytest.raises(TokenizeError, match="3001 digits in a row"):
        vocab.tokenize("1" * 3001)


def test_batch_raises_what_one_text_raises(made):
    """The first error of any thread ends the batch."""
    vocab = made(listed("llama", {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, "a": NORMAL}))
    with pytest.raises(TokenizeError):
        vocab.tokenize_batch(["a", "b"] * 50, n_threads=3)


def test_long_pieces_are_whole(made):
    """A token longer than the buffer is asked for again."""
    word = "x" * 5000
    vocab = made(random_model.vocabulary("spm", 400, special=[word]))
    assert vocab.piece(399, special=True) == word.encode()
    assert vocab.piece_table(special=True)[399] == word.encode()
    assert vocab.detokenize([399] * 3, unparse_special=True) == word * 3


def test_text_too_long_for_c_is_refused(made):
    """The lengths are added up in an int32 by C."""
    vocab = made(random_model.vocabulary("spm", 400, special=["x" * 5000]))
    with pytest.raises(ValueError, match="2500000000 bytes"):
        vocab.detokenize(np.full(500_000, 399))


def test_more_tokens_than_bytes_are_asked_for_again(made):
    """SPM puts a space that was not there behind each control token."""
    tokens = {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, "~": CONTROL, "▁": NORMAL, "a": NORMAL}
    vocab = made(listed("llama", tokens))
    got = vocab.tokenize("~a" * 50, parse_special=True, add_special=False)
    assert got.tolist() == [3, 4, 5] * 50


@given(data=st.binary())
def test_rwkv_takes_any_bytes(data, rwkv):
    """It looks for the longest token that begins at each byte."""
    tokens, spans = rwkv.offsets(data)
    assert b"".join(rwkv.pieces(tokens)) == data
    assert rwkv.detokenize_bytes(tokens) == data
    assert [data[start:stop] for start, stop in spans.tolist()] == rwkv.pieces(tokens)


@given(data=st.one_of(st.binary(), st.text().map(str.encode)))
def test_plamo_takes_any_bytes(data, plamo):
    """Characters without a token become byte tokens; a byte order mark in front is dropped."""
    mark = "\ufeff".encode()
    tokens = plamo.tokenize(data)
    assert b"".join(plamo.pieces(tokens)) == data.removeprefix(mark)
    if data.startswith(mark):
        with pytest.raises(UnsupportedError, match="do not spell"):
            plamo.offsets(data)


@given(data=st.binary())
def test_ugm_takes_any_bytes(data, ugm):
    """It normalizes them, and never fails."""
    assert isinstance(ugm.detokenize(ugm.tokenize(data)), str)


def test_model_without_vocabulary(made):
    """Whatever would end the process says that there is none."""
    vocab = made({"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": 32})
    assert (vocab.type, vocab.bos, vocab.eos) == (VocabType.NONE, None, None)
    assert vocab.eog_tokens == frozenset()
    assert vocab.suppress_tokens.size == 0
    calls = (
        lambda: vocab.tokenize("a"),
        lambda: vocab.offsets("a"),
        lambda: vocab.detokenize([1]),
        lambda: vocab.pieces([1]),
        lambda: vocab.piece(1),
        lambda: vocab.text(1),
        lambda: vocab.score(1),
        lambda: vocab.attr(1),
        lambda: vocab.attrs,
        lambda: vocab.is_control(1),
    )
    for call in calls:
        with pytest.raises(UnsupportedError, match="no vocabulary"):
            call()


def test_vocabulary_without_byte_tokens(made):
    """A character that it lacks is a TokenizeError, and the next text works."""
    vocab = made(listed("llama", {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, "▁": 1, "a": 1}))
    with pytest.raises(TokenizeError, match="lacks tokens"):
        vocab.tokenize("b")
    assert vocab.pieces(vocab.tokenize("a", add_special=False)) == [b" ", b"a"]


def test_missing_special_tokens_are_named_before_c_asserts(made):
    """The file asks for a BOS and an EOS, and its vocabulary has none."""
    letters = dict.fromkeys(["a", "b", "ab"], NORMAL)
    adds = {"add_bos_token": True, "add_eos_token": True}
    vocab = made(listed("gpt2", letters), merges=["a b"], pre="gpt-2", **adds)
    with pytest.raises(UnsupportedError, match="bos, eos"):
        vocab.tokenize("a")
    assert vocab.tokenize("ab", add_special=False).tolist() == [2]
    bert = made(listed("bert", letters))
    with pytest.raises(UnsupportedError, match="bos, sep"):
        bert.tokenize("a")


def test_rwkv_without_byte_tokens_is_refused(made):
    """C would begin the text again for ever."""
    tokens = {"<s>": CONTROL, "\\n": NORMAL, "ab": NORMAL}
    vocab = made(listed("rwkv", tokens))
    with pytest.raises(UnsupportedError, match="would not end"):
        vocab.tokenize("ac")


def test_unknown_character_without_unknown_token(made):
    """The id -1 that libllama gives does not get out."""
    vocab = made(listed("rwkv", {"<": NORMAL, "\\n": NORMAL, "a": NORMAL}))
    assert vocab.tokenize("a\n").tolist() == [2, 1]
    with pytest.raises(TokenizeError, match="not in the vocabulary"):
        vocab.tokenize("ab")


def test_bytes_without_a_token_are_replaced(made):
    """Where BPE has no token for a byte, bytes that are not UTF-8 become U+FFFD."""
    letters = {chr(code): NORMAL for code in range(0x21, 0x7F)}
    vocab = made(
        listed("gpt2", letters),
        merges=["a b"],
        pre="gpt-2",
        add_bos_token=False,
    )
    assert np.array_equal(vocab.tokenize(b"a\xff"), vocab.tokenize("a\ufffd"))


def test_suppress_tokens_are_those_of_the_file(made):
    """As an int32 array."""
    vocab = made(random_model.vocabulary("spm", 400), suppress_tokens=[5, 7])
    assert vocab.suppress_tokens.tolist() == [5, 7]
    assert vocab.suppress_tokens.dtype == np.int32


@pytest.mark.parametrize("name", ["deepseek-llm", "falcon", "qwen2", "bert-bge"])
def test_long_words_on_a_small_stack(name):
    """A thread of 512 KiB tokenizes a word of 100,000 characters of each kind."""
    path = str(MODELS / f"ggml-vocab-{name}.gguf")
    printed = run(f"""
        model = pyllama.Model({path!r}, vocab_only=True)
        sizes = []
        def work():
            for letter in "a 1\\n!中é":
                sizes.append(len(model.vocab.tokenize(letter * 100_000, add_special=False)))
            sizes.append(len(model.vocab.tokenize("a" * 256)))
        threading.stack_size(512 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        print(len(sizes) == 8 and sizes[-1] > 0, threading.stack_size())
    """)
    assert printed == f"True {512 * 1024}\n"


def test_a_million_characters_in_a_row():
    """The stack is as long as the longest word."""
    path = str(MODELS / "ggml-vocab-deepseek-llm.gguf")
    assert (
        run(f"""
        vocab = pyllama.Model({path!r}, vocab_only=True).vocab
        print(vocab.detokenize(vocab.tokenize("!" * 1_000_000)[1:]) == "!" * 1_000_000)
    """)
        == "True\n"
    )


def test_more_in_a_row_than_any_stack_holds(gpt2):
    """A word that could need more than 1 GiB of stack is refused; the same in words is not."""
    with pytest.raises(TokenizeError, match="split the text"):
        gpt2.tokenize("a " + "b" * 3_000_000)
    assert gpt2.tokenize("abc " * 600_000).size > 1_000_000
    assert gpt2.tokenize("中" * 1_000_000).size == 1_000_000


def test_bytes_that_kill_libllama():
    """A code point above U+10FFFF, alone and beside others, in each kind of vocabulary."""
    for name in ("gpt-2", "bert-bge", "llama-spm", "gemma-4"):
        path = str(MODELS / f"ggml-vocab-{name}.gguf")
        printed = run(f"""
            vocab = pyllama.Model({path!r}, vocab_only=True).vocab
            high = b"\\xf4\\x90\\x80\\x80"
            for data in (high, b"\\xff", b"a\\xf7\\xbf\\xbf\\xbf b", b"\\xe4" * 9):
                text = vocab.detokenize(vocab.tokenize(data * 1000), unparse_special=True)
                print(type(text).__name__)
        """)
        assert printed == "str\n" * 4
