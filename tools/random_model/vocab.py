"""Vocabularies of any size, as the ``tokenizer.*`` metadata of a GGUF file.

The words mean nothing, but each is reached by merging shorter ones, as in a trained vocabulary.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # enum llama_token_type, include/llama.h
PRINTABLE = string.ascii_letters + string.digits + string.punctuation
SPACE = "\u2581"  # how SPM, WPM and UGM vocabularies write the beginning of a word


def vocabulary(kind: str, n_vocab: int, *, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Return the metadata of a random vocabulary.

    Parameters
    ----------
    kind : str
        ``spm`` (llama), ``bpe`` (gpt2), ``wpm`` (bert), ``ugm`` (t5) or ``none``.
    n_vocab : int
        How many tokens, special ones included.
    seed : int
    **options
        special : sequence of str, more control tokens, the last ids.
        add_bos : bool, for ``spm`` and ``bpe``.
        pre : str, the pre-tokenizer of ``bpe``.
        n_merges : int, for ``bpe``; more than there are merged tokens makes spare ones.

    Returns
    -------
    dict
    """
    if kind == "none":
        return {"tokenizer.ggml.model": "no_vocab"}
    return KINDS[kind](n_vocab, seed, **options)


def spm(
    n_vocab: int, seed: int, *, special: Sequence[str] = (), add_bos: bool = True
) -> dict[str, Any]:
    """Make three specials, all bytes, and pieces whose score falls with their number."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    pieces = _words([SPACE, *PRINTABLE], n_vocab - len(first) - len(special), seed)
    return {
        **_tokens("llama", first, types, pieces, special),
        "tokenizer.ggml.scores": [0.0] * len(first) + _falling(len(pieces) + len(special)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": add_bos,
    }


def bpe(
    n_vocab: int,
    seed: int,
    *,
    special: Sequence[str] = (),
    add_bos: bool = False,
    pre: str = "default",
    n_merges: int | None = None,
) -> dict[str, Any]:
    """Make all bytes in GPT-2's spelling, merged tokens, and one token for begin and end."""
    special = ["<|endoftext|>", *special]
    merges: list[str] = []
    pieces = _words(_byte_letters(), n_vocab - len(special), seed, merges)
    wanted = len(merges) if n_merges is None else n_merges
    for token in pieces[256:]:
        merges += [f"{token[:cut]} {token[cut:]}" for cut in range(1, len(token))]
    merges = list(dict.fromkeys(merges))
    if wanted > len(merges):
        raise ValueError(f"{wanted} merges asked for, but {n_vocab} tokens have {len(merges)}")
    end = n_vocab - len(special)
    return {
        **_tokens("gpt2", [], [], pieces, special),
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": merges[:wanted],
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_bos_token": add_bos,
    }


def wpm(n_vocab: int, seed: int) -> dict[str, Any]:
    """Make the specials of BERT, and lower-case pieces at and after the beginning of a word."""
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    types = [CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    base = [*(SPACE + letter for letter in letters), *letters]
    names = ("padding", "unknown", "bos", "seperator", "mask")  # llama.cpp spells it like this
    return {
        **_tokens("bert", first, types, _words(base, n_vocab - len(first), seed), []),
        "tokenizer.ggml.token_type_count": 2,
        **{f"tokenizer.ggml.{name}_token_id": index for index, name in enumerate(names)},
        "tokenizer.ggml.eos_token_id": 3,
    }


def ugm(n_vocab: int, seed: int) -> dict[str, Any]:
    """Make the specials of T5, and pieces with log-probabilities."""
    first = ["<pad>", "</s>", "<unk>"]
    types = [CONTROL, CONTROL, UNKNOWN]
    pieces = _words([SPACE, *PRINTABLE], n_vocab - len(first), seed)
    return {
        **_tokens("t5", first, types, pieces, []),
        "tokenizer.ggml.scores": [0.0] * 3 + [-2 - 0.01 * n for n in range(len(pieces))],
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "spm": spm,
    "bpe": bpe,
    "wpm": wpm,
    "ugm": ugm,
}


def _tokens(
    model: str, first: list[str], types: list[int], pieces: list[str], special: Sequence[str]
) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": [*first, *pieces, *special],
        "tokenizer.ggml.token_type": [
            *types,
            *[NORMAL] * len(pieces),
            *[CONTROL] * len(special),
        ],
    }


def _falling(n: int) -> list[float]:
    return [-float(index) for index in range(n)]


def _words(
    base: Iterable[str], n_words: int, seed: int, merges: list[str] | None = None
) -> list[str]:
    """Grow *base* to *n_words* different words by joining two of them; note each join."""
    words = list(base)
    if n_words < len(words):
        raise ValueError(f"{n_words} words asked for, but there are {len(words)} to begin with")
    known = set(words)
    rng = np.random.default_rng(seed)
    while len(words) < n_words:
        # the earlier a word, the oftener it is joined, so that most words stay short
        picks = (len(words) * rng.random((256, 2)) ** 2).astype(int).tolist()
        for left, right in picks:
            joined = words[left] + words[right]
            if joined in known or len(joined) > 12 or words[right].startswith(SPACE):
                continue
            known.add(joined)
            words.append(joined)
            if merges is not None:
                merges.append(f"{words[left]} {words[right]}")
            if len(words) == n_words:
                break
    return words


def _byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte; printable ones for themselves."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]
