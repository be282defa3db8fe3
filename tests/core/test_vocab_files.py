"""The vocabularies that come with llama.cpp: its own expected tokens, and what ours promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pyllama
from pyllama import Vocab
from pyllama.core.enums import TokenAttr, VocabType
from pyllama.errors import UnsupportedError

MODELS = Path(__file__).parents[2] / "vendor" / "llama.cpp" / "models"
FILES = sorted(MODELS.glob("ggml-vocab-*.gguf"))
NAMES = [file.stem.removeprefix("ggml-vocab-") for file in FILES]
EXPECTED = [name for name in NAMES if (MODELS / f"ggml-vocab-{name}.gguf.inp").exists()]
NORMALIZING = ["bert-bge", "nomic-bert-moe"]
SPELLING = [name for name in NAMES if name not in NORMALIZING]
# The file does not ask for spaces to be tidied up, so that detokenize gives the text back.
UNTIDIED = ["qwen2", "deepseek-llm", "deepseek-coder", "llama-spm", "phi-3"]

ROUND_TRIP = ["gpt-2", "qwen2", "deepseek-llm", "llama-bpe", "llama-spm", "gemma-4"]
BYTE_TOKENS = ["gpt-2", "qwen2", "llama-bpe", "llama-spm", "gemma-4"]  # for each of the 256
TEXTS = st.one_of(st.text(), st.text("ab é中🦙\u2581 \n\t'.,1\0"), st.text("<|imstar_end>/s "))


def separated(file: Path) -> list[str]:
    """Return the texts of an .inp file; the separator stands on a line of its own."""
    texts = file.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    return texts if texts[-1] else texts[:-1]


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], Vocab]]:
    """Return a function that loads the vocabulary of a file, once."""
    loaded: dict[str, pyllama.Model] = {}

    def vocab(name: str) -> Vocab:
        if name not in loaded:
            loaded[name] = pyllama.Model(MODELS / f"ggml-vocab-{name}.gguf", vocab_only=True)
        return loaded[name].vocab

    yield vocab
    for model in loaded.values():
        model.close()


def spelled(vocab: Vocab, data: bytes) -> bytes:
    """Return what the pieces of a text spell, by the rule in the docstring of `Vocab`."""
    if vocab.type == VocabType.SPM and data:
        return b" " + data.replace("\u2581".encode(), b" ")
    if (
        vocab.type == VocabType.BPE
        and vocab.text(vocab.tokenize(" a", add_special=False)[0])[0] == "\u2581"
    ):
        return data.replace("\u2581".encode(), b" ")
    return data


@pytest.mark.parametrize("name", EXPECTED)
def test_tokens_are_those_of_llama_cpp(load, name):
    """Each text of the .inp file gives the tokens on its line of the .out file."""
    base = MODELS / f"ggml-vocab-{name}.gguf"
    texts = separated(base.with_suffix(".gguf.inp"))
    lines = base.with_suffix(".gguf.out").read_text().splitlines()
    assert len(texts) == len(lines) > 40
    got = [load(name).tokenize(text, add_special=False).tolist() for text in texts]
    assert got == [[int(token) for token in line.split()] for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_batch_is_the_same_as_one_by_one(load, name):
    """Threads change nothing, and the order is kept."""
    vocab = load(name)
    texts = separated(MODELS / "ggml-vocab-gpt-2.gguf.inp") * 3
    batch = vocab.tokenize_batch(texts, n_threads=4)
    assert len(batch) == len(texts)
    for tokens, text in zip(batch, texts, strict=True):
        assert np.array_equal(tokens, vocab.tokenize(text))


@pytest.mark.parametrize("name", SPELLING)
def test_pieces_spell_the_text(load, name):
    """Joined, they are the text, as the docstring of `Vocab` says."""
    vocab = load(name)
    for text in separated(MODELS / "ggml-vocab-gpt-2.gguf.inp"):
        tokens = vocab.tokenize(text, add_special=False)
        assert b"".join(vocab.pieces(tokens)) == spelled(vocab, text.encode())


@pytest.mark.parametrize("name", SPELLING)
def test_offsets_cut_the_pieces_out_of_the_text(load, name):
    """Each span of the text is the token's piece, but for the space that SPM puts in front."""
    vocab = load(name)
    for text in separated(MODELS / "ggml-vocab-gpt-2.gguf.inp"):
        data = text.encode()
        tokens, spans = vocab.offsets(text)
        assert np.array_equal(tokens, vocab.tokenize(text))
        assert spans.dtype == np.int32
        cut = [data[start:stop] for start, stop in spans.tolist()]
        assert b"".join(cut) == data
        pieces = vocab.pieces(tokens)
        first = int(vocab.add_bos)
        if vocab.type == VocabType.SPM and len(pieces) > first:
            assert pieces[first][:1] == b" "
            pieces[first] = pieces[first][1:]
        assert cut == pieces


@pytest.mark.parametrize("name", NORMALIZING)
def test_normalizing_vocabularies_have_no_offsets(load, name):
    """They change the text before they tokenize it."""
    with pytest.raises(UnsupportedError, match="normalizes text"):
        load(name).offsets("Hello")


@pytest.mark.parametrize("name", ROUND_TRIP)
@settings(max_examples=150)
@given(text=TEXTS)
@example(text="\u2581 \u2581\u2581a\u2581")
@example(text="")
def test_any_text_is_spelled_and_placed(load, name, text):
    """Pieces and offsets hold for whatever characters there are, special ones as mere text."""
    vocab = load(name)
    data = text.encode()
    tokens, spans = vocab.offsets(text, add_special=False)
    assert b"".join(vocab.pieces(tokens)) == spelled(vocab, data)
    assert b"".join(data[start:stop] for start, stop in spans.tolist()) == data
    assert (spans[1:, 0] == spans[:-1, 1]).all()


@pytest.mark.parametrize("name", UNTIDIED)
@settings(max_examples=150)
@given(text=TEXTS)
def test_text_comes_back(load, name, text):
    """Detokenizing gives the text where the file asks for no tidying; SPM keeps no U+2581."""
    vocab = load(name)
    expected = text.replace("\u2581", " ") if vocab.type == VocabType.SPM else text
    assert vocab.detokenize(vocab.tokenize(text, add_special=False)) == expected


@pytest.mark.parametrize("name", BYTE_TOKENS)
@settings(max_examples=150)
@given(data=st.binary(max_size=64))
@example(data=b"\xf4\x90\x80\x80")
@example(data=b"a\xff\xfe b\xc3")
@example(data=b"\xed\xa0\x80\xc0\x80\0")
def test_bytes_that_are_not_utf8_are_kept(load, name, data):
    """They become byte tokens, so that the pieces spell them."""
    vocab = load(name)
    tokens, spans = vocab.offsets(data)
    inner = tokens[int(vocab.add_bos) :]
    assert b"".join(vocab.pieces(inner)) == spelled(vocab, data)
    assert b"".join(data[start:stop] for start, stop in spans.tolist()) == data


def test_bytes_without_a_token_are_replaced(load):
    """The one that DeepSeek has is kept, the one that no UTF-8 text can have is U+FFFD."""
    vocab = load("deepseek-llm")
    pieces = vocab.pieces(vocab.tokenize(b"a\xe4b\xff", add_special=False))
    assert b"".join(pieces) == b"a\xe4b\xef\xbf\xbd"


def test_invalid_bytes_leave_their_neighbours_alone(load):
    """Words before and behind get their own tokens, special ones and BOS included."""
    vocab = load("llama-spm")
    tokens = vocab.tokenize(b"hello\xff world</s>", parse_special=True).tolist()
    assert tokens[0] == vocab.bos
    assert [vocab.text(token) for token in tokens[1:]] == [
        "\u2581hello",
        "<0xFF>",
        "\u2581world",
        "</s>",
    ]


@pytest.mark.parametrize("name", NORMALIZING)
@settings(max_examples=100)
@given(data=st.binary(max_size=64))
@example(data=b"\xf4\x90\x80\x80")
def test_normalizing_vocabularies_see_the_replacement_character(load, name, data):
    """What is not UTF-8 is U+FFFD to them."""
    vocab = load(name)
    replaced = data.decode("utf-8", "replace")
    assert np.array_equal(vocab.tokenize(data), vocab.tokenize(replaced))


@pytest.mark.parametrize("name", NAMES)
def test_tables_agree_with_single_calls(load, name):
    """What is read in one go is what each token says of itself."""
    vocab = load(name)
    some = np.unique(np.linspace(0, len(vocab) - 1, 300).astype(int)).tolist()
    for token in some:
        assert vocab.piece_table(special=True)[token] == vocab.piece(token, special=True)
        assert vocab.piece_table()[token] == vocab.piece(token)
        assert vocab.attrs[token] == vocab.attr(token)
        assert vocab.scores[token] == vocab.score(token)
        assert (token in vocab.eog_tokens) == vocab.is_eog(token)
        assert bool(vocab.attrs[token] & TokenAttr.CONTROL) == vocab.is_control(token)


def test_special_tokens_are_those_of_the_file(load):
    """What is not there is None."""
    vocab = load("deepseek-coder")
    assert (vocab.bos, vocab.eos, vocab.eot, vocab.nl) == (32013, 32014, 32014, 185)
    assert (vocab.fim_pre, vocab.fim_suf, vocab.fim_mid) == (32016, 32015, 32017)
    assert (vocab.fim_pad, vocab.fim_rep, vocab.fim_sep, vocab.sep, vocab.mask) == (None,) * 5
    assert (vocab.add_bos, vocab.add_eos, vocab.add_sep) == (True, False, False)
    assert vocab.eog_tokens == {32014}
    assert len(vocab) == vocab.n_tokens == 32256


def test_special_tokens_of_bert(load):
    """CLS is BOS, and each text ends with SEP."""
    vocab = load("bert-bge")
    assert vocab.type == VocabType.WPM
    assert (vocab.bos, vocab.sep, vocab.mask, vocab.pad) == (101, 102, 103, 0)
    assert vocab.tokenize("hello").tolist()[::2] == [101, 102]


def test_special_text_is_parsed_only_when_asked(load):
    """A user cannot write a control token, a template can."""
    vocab = load("qwen2")
    assert vocab.tokenize("<|im_end|>", parse_special=True).tolist() == [151645]
    assert 151645 not in vocab.tokenize("<|im_end|>")


def test_offsets_around_special_tokens(load):
    """They have the span of their own text; SPM's space in front of the rest has none."""
    for name, text in (("qwen2", "é<|im_start|> a<|im_end|>"), ("llama-spm", "<s>é <s></s> a  b")):
        vocab = load(name)
        data = text.encode()
        tokens, spans = vocab.offsets(text, parse_special=True)
        cut = [data[start:stop] for start, stop in spans.tolist()]
        assert b"".join(cut) == data
        for token, part in zip(tokens, cut, strict=True):
            assert vocab.piece(token, special=True) in (part, b" " + part) or token == vocab.bos


def test_offsets_skip_the_space_that_a_special_token_swallows(load):
    """Phi-3's control tokens take the white space behind them out of the text."""
    vocab = load("phi-3")
    text = "<|user|> \n hello<|end|>  "
    tokens, spans = vocab.offsets(text, add_special=False, parse_special=True)
    cut = [text[start:stop] for start, stop in spans.tolist()]
    assert (cut[0], cut[-1]) == ("<|user|>", "<|end|>")
    assert "".join(cut[1:-1]) == "hello"
    assert vocab.text(tokens[0]) == "<|user|>"
