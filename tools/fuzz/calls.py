"""The targets that are arguments: grammars, text to tokenize, token arrays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import random_model

import pyllama
from fuzz import seeds
from fuzz.bench import ONE_THREAD, RAN, REFUSED, Bench
from fuzz.bits import change_text
from pyllama import Batch, samplers
from pyllama.errors import LlamaError, SamplingError

# Every pre-tokenizer that has an expression of its own (src/llama-vocab.cpp:2140 on), once.
PRE = (
    "default llama-bpe deepseek-llm deepseek-coder deepseek-v3 falcon mpt starcoder gpt-2 gemma4 "
    "jina-v2-code refact command-r qwen2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat "
    "chatglm-bpe viking jais jais-2 tekken smollm codeshell bloom gpt3-finnish exaone exaone-moe "
    "chameleon minerva-7b megrez gpt-4o tiny_aya superbpe trillion granite-docling bailingmoe "
    "seed-coder hunyuan hunyuan-dense joyai-llm kimi-k2 grok-2 afmoe minimax-m2 solar-open youtu "
    "modern-bert sarvam-moe granite-embed-multi-97m granite-embed-multi-311m spark2_5 minicpm5"
).split()
WRITERS = {
    **{
        pre: lambda path, pre=pre: random_model.write_llama(
            path, vocab="bpe", vocab_options={"pre": pre}, **seeds.LLAMA
        )
        for pre in PRE
    },
    **{
        model: lambda path, model=model, pre=pre: random_model.write_llama(
            path,
            vocab="bpe",
            vocab_options={"pre": pre},
            metadata={"tokenizer.ggml.model": model},
            **seeds.LLAMA,
        )
        for model, pre in (("whitespace", "whitespace"), ("hybriddna", "default"))
    },
    "spm": seeds.write_spm,
    "wpm": lambda path: random_model.write_bert(path, **seeds.SMALL),
    "ugm": lambda path: random_model.write_t5(path, **seeds.SMALL),
}
CLASSES = ("a", "1", " ", "\n", "!", "\u4e2d", "\u0e01", "\U0001f600", "\u0301", "'s", "\r", "\t",
           "A", "\u00df", "\u0130", "\ud800", "<s>", "<|endoftext|>", "\0", "\ufffd")  # fmt: skip
WORDS = ("Hello world", "", "it's 3.14", "\u4e2d\u6587", "if (x) {\n\treturn;\n}", "\u2581")


def make_text(_bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Make text of few kinds of characters, or bytes that are no text."""
    name = rng.choice([*WRITERS])
    how = rng.randrange(4)
    if how == 0:
        data = rng.randbytes(rng.choice((1, 4, 20, 300)))
    elif how == 1:  # a long run of one class
        data = (rng.choice(CLASSES) * rng.choice((10, 300, 3000))).encode("utf-8", "surrogatepass")
    elif how == 2:
        letters = rng.choices(CLASSES, k=rng.choice((3, 30, 300)))
        data = "".join(letters).encode("utf-8", "surrogatepass")
    else:
        data = change_text(rng.choice(WORDS), rng, CLASSES)[:4000].encode("utf-8", "surrogatepass")
    return name.encode() + b"\0" + data, f"{name}: {len(data)} bytes"


def use_text(bench: Bench, data: bytes) -> str:
    """Tokenize it, with and without specials, and go back."""
    name, _, text = data.partition(b"\0")
    model = bench.model(f"vocab-{name.decode()}", WRITERS[name.decode()], vocab_only=True)
    for special in (False, True):
        tokens = model.vocab.tokenize(text, add_special=special, parse_special=special)
        model.vocab.detokenize(tokens)
    return RAN


GRAMMARS = (
    'root ::= "a" | "b" root',
    "root ::= [a-z]+ [^0-9]* .",
    'root ::= object\nobject ::= "{" (pair ("," pair)*)? "}"\npair ::= [a-z]{1,5} ":" [0-9]{2,}',
    'root ::= (("x" | "y"){2,4} "\\n")* # comment\n',
    'root ::= <[5]> !<[7]> ("\\u4e2d" | "\\x41" | "\\U0001F600")?',
    'root ::= ([a-z]+ " "?)*',
    'root ::= "(" root ")" | "(" root "]" | [a-z]+',
)
TERMINALS = ("(", ")", "|", "*", "+", "?", "{", "}", "{2}", "{0,3}", "{5,3}", "{99999}", "[",
             "]", "^", "-", '"', "\\", "\\x", "\\u12", "::=", "root", "root ::= ", "a ::= b\n", "b",
             "\n", "#", "<", ">", "<[", "!<", ".", " ", "\0", "\u4e2d", "[z-a]", "((((", "))))",
             '""', "a ::= a\n", "x ::= x? y\n", "[^\\n]", "<[400]>", "<s>")  # fmt: skip


def make_grammar(_bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change a grammar, or string its parts together."""
    if rng.random() < 0.2:
        text = "root ::= " + " ".join(rng.choices(TERMINALS, k=rng.randrange(1, 30)))
    else:
        text = change_text(rng.choice(GRAMMARS), rng, TERMINALS)
    return text.encode("utf-8", "surrogatepass"), repr(text[:200])


def use_grammar(bench: Bench, data: bytes) -> str:
    """Parse it, and let it choose tokens for a while."""
    model = bench.model("seed-spm", seeds.write_spm)
    row = bench.keep("row", lambda: np.linspace(0, 1, 400, dtype=np.float32))
    with samplers.SamplerChain(
        [samplers.grammar(model.vocab, data.decode("utf-8", "surrogatepass")), samplers.dist(1)]
    ) as chain:
        try:
            for _ in range(6):
                chain.sample(row)
        except SamplingError:
            return REFUSED
    return RAN


NUMBERS = (0, 1, 2, 3, 5, 31, 32, 33, 63, 64, 255, 256, 399, 400, -1, -2, 2**31 - 1, -(2**31),
           2**31, 2**63, 2**64)  # fmt: skip


def make_batch(_bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Make arguments for a batch: mostly sane, and some numbers at the edges."""

    def number(sane: int) -> int:
        return rng.choice(NUMBERS) if rng.random() < 0.04 else rng.randrange(sane)

    n = rng.choice((0, 1, 2, 3, 8, 31, 32, 33, 64))
    start, seq = number(40), number(4)
    about: dict[str, Any] = {"tokens": [number(400) for _ in range(n)]}
    about["pos"] = rng.choice(
        (start, [start + i for i in range(n)], [number(64) for _ in range(n)])
    )
    about["seq_id"] = rng.choice(
        (seq, [number(4) for _ in range(n)], [[number(4), number(4)] for _ in range(n)])
    )
    about["output"] = rng.choice(
        ("last", "all", "none", [rng.random() < 0.5 for _ in range(n)], [True], "x")
    )
    text = json.dumps(about)
    return text.encode(), text[:300]


OPTIONS = ({"kv_unified": True}, {"kv_unified": False}, {"embeddings": True, "n_outputs_max": 8})


def use_batch(bench: Bench, data: bytes) -> str:
    """Decode it in contexts of different memories, which must go on working."""
    outcome = REFUSED
    for index, (write, options) in enumerate(
        (write, options) for write in (seeds.write_spm, seeds.write_mamba) for options in OPTIONS
    ):
        context = bench.keep(f"context {index}", lambda w=write, o=options: _context(bench, w, o))
        context.memory.clear()
        context.decode(Batch([1, 2, 3]))
        try:
            context.decode(Batch(**json.loads(data)))
            outcome = RAN
        except (LlamaError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, pyllama.errors.LibraryError):
                raise
        context.memory.remove(0) if context.memory.pos_max(0) is not None else None
        context.memory.clear()
        context.decode(Batch([1, 2, 3]))
    return outcome


def _context(bench: Bench, write: Any, options: dict[str, Any]) -> pyllama.Context:
    model = bench.model(f"seed-{write.__name__}", write)
    return model.context(n_ctx=256, n_batch=32, n_ubatch=32, n_seq_max=4, **ONE_THREAD, **options)


def pre_tokenizers(source: Path) -> set[str]:
    """Return the names in libllama's source that may stand in ``tokenizer.ggml.pre``."""
    text = (source / "src" / "llama-vocab.cpp").read_text()
    return {part.split('"')[1] for part in text.split("tokenizer_pre == ")[1:]}
