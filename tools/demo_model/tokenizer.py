"""The tokenizer: byte-level BPE that splits digits singly, as llama.cpp's ``qwen2`` does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .chat import BEGIN, CONTROL
from .corpus import documents
from .skills.names import BOYS, GIRLS, kept_name

# The expression that llama.cpp applies for tokenizer.ggml.pre = "qwen2"
# (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2).
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE = "qwen2"


def texts(seed: int, count: int) -> Iterator[str]:
    """Give the text of documents without their control tokens."""
    for parts in itertools.islice(documents(seed), count):
        text = "".join(part for part, _ in parts)
        for control in CONTROL:
            text = text.replace(control, "")
        yield text


def train(n_vocab: int, seed: int, count: int = 30_000) -> Tokenizer:
    """Train on the corpus; all 256 bytes are tokens, the control tokens come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab - len(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    names = (" ".join(f" {name}" for name in (*GIRLS, *BOYS) if not kept_name(name)),)
    tokenizer.train_from_iterator(itertools.chain(texts(seed, count), names), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in CONTROL])
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Read what ``train`` made and ``save`` wrote."""
    return Tokenizer.from_file(str(path))


def begin_id(tokenizer: Tokenizer) -> int:
    """Give the id of the token that begins every text."""
    return int(tokenizer.token_to_id(BEGIN))


def made(path: Path, n_vocab: int, seed: int = 1) -> Tokenizer:
    """Read the tokenizer at ``path``, or train it and write it there."""
    if not path.exists():
        train(n_vocab, seed).save(str(path))
    return load(path)
