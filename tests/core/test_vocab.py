"""Vocab and bigstack: arguments, threads, lifetimes, and texts that would end the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Vocab
from pyllama.core import bigstack
from pyllama.core.enums import VocabType
from pyllama.errors import BusyError, ClosedError, TokenizeError, UnsupportedError

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


@pytest.fixture
def spm(model: pyllama.Model) -> Vocab:
    """Return the vocabulary of the tiny model: 512 tokens, SPM."""
    return model.vocab


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


def test_batch_raises_what_one_text_raises(made):
    """The first error of any thread ends the batch."""
    vocab = made(listed("llama", {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, "a": NORMAL}))
    with pytest.raises(TokenizeError):
        vocab.tokenize_batch(["a", "b"] * 50, n_threads=3)


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
    """Each control token in SPM text is followed by a space that was not there."""
    vocab = made(random_model.vocabulary("spm", 400))
    tokens = vocab.tokenize("<s>a" * 50, parse_special=True, add_special=False)
    assert np.count_nonzero(tokens == vocab.bos) == 50
    ugm = made(random_model.vocabulary("ugm", 400))
    assert len(ugm.tokenize("a b" * 50)) > 50


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


def test_missing_bos_is_said_before_c_asserts(made):
    """add_bos without a BOS."""
    vocab = made(random_model.vocabulary("bpe", 300), bos_token_id=2**31, add_bos_token=True)
    if vocab.bos is None:
        with pytest.raises(UnsupportedError, match="bos"):
            vocab.tokenize("a")
    assert vocab.tokenize("a", add_special=False).size == 1


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


def test_repr_names_size_and_type(spm):
    """For whoever prints it."""
    assert repr(spm) == "<Vocab of 512 tokens, SPM>"


@pytest.mark.parametrize("name", ["deepseek-llm", "falcon", "qwen2", "bert-bge"])
def test_long_words_on_a_small_stack(name):
    """A thread of 512 KiB tokenizes a word of 100,000 characters of each kind."""
    path = str(MODELS / f"ggml-vocab-{name}.gguf")
    run(f"""
        model = pyllama.Model({path!r}, vocab_only=True)
        sizes = []
        def work():
            for letter in "a 1\\n!中é":
                sizes.append(len(model.vocab.tokenize(letter * 100_000, add_special=False)))
            sizes.append(len(model.vocab.tokenize("a" * 512)))
        threading.stack_size(512 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(sizes) == 8 and sizes[-1] > 0, sizes
        assert threading.stack_size() == 512 * 1024
    """)


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
        run(f"""
            vocab = pyllama.Model({path!r}, vocab_only=True).vocab
            high = b"\\xf4\\x90\\x80\\x80"
            for data in (high, b"\\xff", b"a\\xf7\\xbf\\xbf\\xbf b", b"\\xe4" * 9):
                vocab.detokenize(vocab.tokenize(data * 1000), unparse_special=True)
        """)


def test_bigstack_gives_the_result():
    """And has the stack it was asked for."""

    def deep(n: int) -> int:
        return 0 if n == 0 else 1 + deep(n - 1)

    assert bigstack.call(lambda: deep(500), 1 << 26) == 500
    assert bigstack.call(lambda: threading.current_thread() is threading.main_thread(), 1) is False


def test_bigstack_raises_what_the_function_raises():
    """In the caller's thread."""
    with pytest.raises(ZeroDivisionError):
        bigstack.call(lambda: 1 // 0, 1 << 20)


def test_bigstack_restores_the_stack_size():
    """threading.stack_size is one setting for all threads."""
    before = threading.stack_size()
    bigstack.call(lambda: None, 1 << 24)
    assert threading.stack_size() == before


def test_bigstack_says_when_there_is_no_stack():
    """The system refuses a stack larger than the address space."""
    before = threading.stack_size()
    with pytest.raises(MemoryError, match="MiB"):
        bigstack.call(lambda: None, 1 << 50)
    assert threading.stack_size() == before


def test_bigstack_sees_the_call_through_on_ctrl_c():
    """The exception of the signal is raised when the call is over."""
    assert (
        run("""
        import _thread, time
        from pyllama.core import bigstack
        ended = []
        def work():
            time.sleep(0.2)
            ended.append(True)
        threading.Timer(0.05, _thread.interrupt_main).start()
        try:
            bigstack.call(work, 1 << 20)
        except KeyboardInterrupt:
            print(ended)
    """)
        == "[True]\n"
    )
