"""Published vulnerabilities of llama.cpp and of what is built on it: each one's input, tried here.

What was a heap overflow or a dead server elsewhere must be an exception, or work. Those about chat
templates, requests and sockets come with the parts of pyllama that have them: docs/reliability.md.
"""

from __future__ import annotations

import ast
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import random_model
from fuzz.calls import PRE, pre_tokenizers
from fuzz.mutate import ARRAY, STRING, File, Tensor, parse

import pyllama
from pyllama import Batch, Model, State, samplers
from pyllama.core import tokenizer
from pyllama.core.files.gguf import read_header
from pyllama.errors import GrammarError, LoadError, TokenizeError, UnsupportedError

ROOT = Path(__file__).parents[1]
SMALL = {"n_embd": 32, "n_head": 2, "n_layer": 1, "n_ff": 32, "n_head_kv": 1, "n_vocab": 400}
U32 = 4  # enum gguf_type, ggml/include/gguf.h
OPTIONS = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1}


def string(text: bytes, length: int | None = None) -> bytes:
    """Return a GGUF string that may lie about its length."""
    return struct.pack("<Q", len(text) if length is None else length) + text


def header(n_tensors: int = 0, n_pairs: int = 0, rest: bytes = b"") -> bytes:
    """Return a GGUF file that may lie about its counts."""
    return struct.pack("<4sIQQ", b"GGUF", 3, n_tensors, n_pairs) + rest


def tensor(shape: tuple[int, ...], offset: int = 0, n_dims: int | None = None) -> bytes:
    """Return the entry of a tensor of f32."""
    n = len(shape) if n_dims is None else n_dims
    return string(b"t") + struct.pack(f"<I{len(shape)}QIQ", n, *shape, 0, offset)


HUGE = 2**64 - 1
HEADERS = {
    "CVE-2024-21802: more dimensions than ggml has": header(1, 0, tensor((1,) * 9)),
    "CVE-2024-21802: a number of dimensions of which none follow": header(
        1, 0, tensor((1,), n_dims=2**32 - 1)
    ),
    "CVE-2024-21825: an array of strings whose size wraps": header(
        0, 1, string(b"k") + struct.pack("<IIQ", ARRAY, STRING, 2**60 + 1)
    ),
    "CVE-2024-21825: an array of numbers whose size wraps": header(
        0, 1, string(b"k") + struct.pack("<IIQ", ARRAY, U32, 2**62 + 1)
    ),
    "CVE-2024-21836: a number of tensors whose size wraps": header(HUGE // 128 + 2),
    "CVE-2024-23496: a key whose length wraps with its final NUL": header(
        0, 1, string(b"key", HUGE)
    ),
    "CVE-2024-23496: a value whose length wraps": header(
        0, 1, string(b"k") + struct.pack("<I", STRING) + string(b"v", HUGE)
    ),
    "CVE-2024-23605: a number of pairs whose size wraps": header(0, HUGE // 48 + 2),
    "CVE-2024-32878: a file that ends in the first of many keys": header(0, 3, string(b"ke", 9)),
    "CVE-2024-41130: pairs that are said to be there, and are not": header(0, 1),
    "CVE-2025-53630: tensors whose sizes wrap in the sum": header(
        2, 0, tensor((2**61,)) + tensor((2**61,), 2**63)
    ),
    "CVE-2026-27940: a size that wraps only with its padding": header(
        1, 0, tensor((2**62 - 1, 2, 2))
    ),
    "CVE-2026-7482: a tensor that ends behind the file": header(1, 0, tensor((1000,))),
    "CVE-2026-7482: a tensor that begins behind the file": header(1, 0, tensor((1,), 2**40)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder for files."""
    return tmp_path_factory.mktemp("cves")


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, name):
    """By the pre-check, before libllama reads a byte."""
    path = tmp_path / "model.gguf"
    path.write_bytes(HEADERS[name])
    with pytest.raises(LoadError, match="byte"):
        Model(path)


MEASURE = """
import resource, sys
import pyllama
from pyllama.errors import LoadError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        pyllama.Model(path)
    except LoadError:
        continue
    sys.exit("not refused")
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_a_header_that_lies_takes_no_memory(tmp_path):
    """Counts are compared with the file before room is made for what they count."""
    size = 16 << 20
    paths = []
    for index, data in enumerate(HEADERS.values()):
        paths.append(tmp_path / f"{index}.gguf")
        paths[-1].write_bytes(data.ljust(size, b"\0"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * size


def test_a_text_too_long_to_count_is_refused(folder, monkeypatch):
    """CVE-2025-52566: the number of tokens is a signed 32-bit integer."""
    path = random_model.write_llama(folder / "tokens.gguf", **SMALL)
    with Model(path, vocab_only=True) as model:
        monkeypatch.setattr(tokenizer, "INT32_MAX", 1000)
        with pytest.raises((ValueError, TokenizeError)):
            model.vocab.tokenize("a" * 1001)


def test_a_long_token_comes_back_whole(folder):
    """CVE-2025-49847: the length of a piece was cut to 32 bits, and trusted."""
    path = random_model.write_llama(folder / "long.gguf", **SMALL)
    file = parse(path)
    file.pairs = [
        (key, kind, (value[0], [*value[1][:-1], b"y" * 1_000_000]))
        if key == b"tokenizer.ggml.tokens"
        else (key, kind, value)
        for key, kind, value in file.pairs
    ]
    path.write_bytes(file.encode()[0])
    with Model(path, vocab_only=True) as model:
        assert model.vocab.piece(399) == b"y" * 1_000_000
        assert model.vocab.detokenize([399, 399]).count("y") == 2_000_000


@pytest.mark.parametrize("n_discard", [-1, -(2**31), 2**31 - 1, 2**40])
def test_a_shift_by_a_wild_number_is_refused(context, n_discard):
    """CVE-2026-21869: a negative n_discard moved positions out of the memory."""
    context.decode(Batch([1, 2, 3, 4]))
    for call in (
        lambda: context.memory.remove(0, 1, 1 - abs(n_discard)),
        lambda: context.memory.shift(0, 1, delta=-abs(n_discard) - 1),
        lambda: context.memory.shift(0, 1, delta=2**31 + abs(n_discard)),
    ):
        with pytest.raises(ValueError, match=r"range|start|stop|delta|position"):
            call()
    assert context.memory.pos_max(0) == 3


@pytest.mark.parametrize("text", [b"<0x-1>", b"<0x100>", b"<0x>", b"<0xZZ>", b"<0x7FFFFFFF>"])
def test_a_byte_token_outside_a_byte_ends_nothing(folder, text):
    """PLaMo-2, PR 25969: such a token was the index of a write on the heap."""
    path = random_model.write_llama(folder / "plamo.gguf", **SMALL)
    file = parse(path)
    for index, (key, kind, value) in enumerate(file.pairs):
        if key == b"tokenizer.ggml.model":
            file.pairs[index] = (key, kind, b"plamo2")
        if key == b"tokenizer.ggml.tokens":
            tokens = list(value[1])
            tokens[4] = text
            file.pairs[index] = (key, kind, (value[0], tokens))
    path.write_bytes(file.encode()[0])
    done = subprocess.run([sys.executable, "-c", USE_VOCABULARY, path], check=False)
    assert done.returncode == 0


USE_VOCABULARY = """
import sys
import pyllama
try:
    with pyllama.Model(sys.argv[1], vocab_only=True) as model:
        model.vocab.detokenize(model.vocab.tokenize("hello \\u4e2d\\n"))
        model.vocab.piece_table(special=True)
except pyllama.LlamaError:
    pass
"""


def bpe(folder: Path, pre: str) -> Path:
    """Write a small BPE vocabulary with a pre-tokenizer."""
    path = folder / f"{pre}.gguf"
    options = {"pre": pre}
    return random_model.write_llama(path, vocab="bpe", vocab_options=options, **SMALL)


@pytest.mark.parametrize("pre", PRE)
def test_a_long_run_overflows_no_stack(folder, pre):
    """Issue 27783: 30,000 characters ended the process in 10 of 22 pre-tokenizers."""
    with Model(bpe(folder, pre), vocab_only=True) as model:
        for letter in "a1":
            assert model.vocab.tokenize(letter * 40_000, timeout=300).size


@pytest.mark.slow
@pytest.mark.parametrize("pre", PRE)
def test_a_very_long_run_overflows_no_stack(folder, pre):
    """Of every kind of character, and of mixtures; or it is refused."""
    with Model(bpe(folder, pre), vocab_only=True) as model:
        for letters in ("a", " ", "1", "\n", "!", "\u4e2d", "a ", "\u0e01", "\u0301", "A"):
            for n in (100_000, 1_000_000):
                with suppress(TokenizeError):
                    assert model.vocab.tokenize(letters * (n // len(letters))).size


def test_no_pre_tokenizer_is_left_out():
    """Those tried include every one with an expression of its own."""
    known = pre_tokenizers(ROOT / "vendor" / "llama.cpp")
    assert set(PRE) <= known
    assert len(known) > len(PRE) > 50


@pytest.mark.parametrize("open_", ["(", "(a|", '"x" (', "[^(] ("])
def test_a_deep_grammar_is_refused(model, open_):
    """Issue 26600: 30,000 brackets overflowed the stack."""
    with pytest.raises(GrammarError):
        samplers.grammar(model.vocab, f"root ::= {open_ * 100_000}")
    closed = f"root ::= {open_ * 100_000} 'a' {')' * 100_000}"
    with pytest.raises(GrammarError):
        samplers.grammar(model.vocab, closed)


TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")


@pytest.mark.parametrize("n_embd", [64, 128])  # heads of 32 and of 64
@pytest.mark.parametrize("type_k", TYPES)
def test_a_shift_works_with_every_memory_or_is_refused(folder, type_k, n_embd):
    """GHSA-jp78, issue 10380, PR 25636: it was promised, and the next decode ended the process."""
    path = folder / f"shift-{n_embd}.gguf"
    if not path.exists():
        random_model.write_llama(path, **{**SMALL, "n_embd": n_embd})
    with Model(path) as model, model.context(**OPTIONS, type_k=type_k) as context:
        context.decode(Batch([1, 2, 3, 4]))
        context.memory.remove(0, 0, 2)
        start = 4
        try:
            context.memory.shift(0, delta=-2)
            start = 2
        except UnsupportedError:
            assert not context.memory.can_shift
        context.decode(Batch([5], pos=start))
        assert np.isfinite(context.logits()).all()


def test_rpc_is_not_there_unless_asked_for():
    """CVE-2024-42477, -42478, -42479: its server reads and writes any memory by design."""
    if "rpc" in os.environ.get("CMAKE_ARGS", "").lower():
        pytest.skip("this build was asked for it")
    assert not pyllama.core.library.lib.llama_supports_rpc()
    if sys.platform == "linux":
        assert "ggml-rpc" not in Path("/proc/self/maps").read_text()


def test_a_state_is_written_to_its_own_name(tmp_path):
    """Issue 26315: a link in the place of the file was followed, to a file of another."""
    victim, link = tmp_path / "victim", tmp_path / "state"
    victim.write_text("precious")
    link.symlink_to(victim)
    state = State(b"data", fingerprint={}, n_past={})
    state.save(link)
    assert victim.read_text() == "precious"
    assert not link.is_symlink()
    with pytest.raises(ValueError, match="null"):
        state.save(tmp_path / "a\0b")


# Names whose use runs what a file or a peer says, or makes objects that it names.
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "unsafe_load", "full_load"}
METHODS_OF = {"re", "platform"}  # whose compile() and system() are other things


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.name)
def test_nothing_that_is_read_is_run(path):
    """CVE-2024-34359, -2025-32444, -2025-30165 and more: pickle, eval, templates without a cage."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = {alias.name.split(".")[0] for alias in getattr(node, "names", ()) if
                 isinstance(node, (ast.Import, ast.ImportFrom))}  # fmt: skip
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
        assert not names & (MODULES | {"jinja2"}), f"{path}:{node.lineno} imports {names}"
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "id", getattr(function, "attr", ""))
        owner = getattr(getattr(function, "value", None), "id", "")
        assert name not in CALLS or owner in METHODS_OF, f"{path}:{node.lineno} calls {name}()"
        for keyword in node.keywords:
            shell = keyword.arg == "shell" and getattr(keyword.value, "value", True)
            assert not shell, f"{path}:{node.lineno} starts a shell"


def test_a_tensor_behind_the_end_cannot_be_read(tmp_path):
    """CVE-2026-7482: what lay behind it in memory went into the quantised copy."""
    file = File([(b"general.architecture", STRING, b"llama")], [Tensor(b"t", [8], 0, bytes(32))])
    data = bytes(file.encode()[0])
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert read_header(path).tensors[0].n_bytes == 32
    path.write_bytes(data[:-1])
    with pytest.raises(LoadError, match="ends at byte"):
        read_header(path)
