"""Samplers that make particular tokens likelier or less likely."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyllama.core.library import ffi, lib
from pyllama.core.params import pairs, real, strings, whole
from pyllama.core.sampler.base import Sampler
from pyllama.core.sampler.checks import (
    count,
    finite,
    for_vocab,
    from_zero,
    last_n,
    vocab_size,
)
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from pyllama.core.vocab import Vocab

MAX_BREAKER = 40  # bytes; libllama cuts a longer one (src/llama-sampler.cpp:3667)


def penalties(
    n_vocab: int,
    *,
    penalty_last_n: int,
    penalty_repeat: float = 1.0,
    penalty_freq: float = 0.0,
    penalty_present: float = 0.0,
) -> Sampler:
    """Make tokens less likely that were accepted lately.

    Parameters
    ----------
    n_vocab
        Number of tokens in the vocabulary.
    penalty_last_n
        How many accepted tokens to look back, at most 2**24; 0 switches it off.
    penalty_repeat
        Divides the logit if it is positive, else multiplies it; above 0, and 1 does nothing.
    penalty_freq
        Subtracted once for each time the token occurs.
    penalty_present
        Subtracted once if the token occurs.

    Returns
    -------
    Sampler

    Notes
    -----
    Put it after `top_k` or `top_p`: on a whole vocabulary it is slow.

    Calls: llama_sampler_init_penalties
    """
    options = {
        "n_vocab": vocab_size("n_vocab", n_vocab),
        "penalty_last_n": last_n("penalty_last_n", penalty_last_n),
        "penalty_repeat": real(1e-6)("penalty_repeat", penalty_repeat),
        "penalty_freq": finite("penalty_freq", penalty_freq),
        "penalty_present": finite("penalty_present", penalty_present),
    }
    pointer = lib.llama_sampler_init_penalties(*options.values())
    return Sampler(pointer, "penalties", options, n_vocab=int(options["n_vocab"]))


def dry(
    vocab: Vocab,
    *,
    dry_multiplier: float,
    dry_base: float,
    dry_allowed_length: int,
    dry_penalty_last_n: int,
    seq_breakers: Iterable[str] = (),
) -> Sampler:
    """Make tokens less likely that would go on repeating a sequence (DRY).

    Parameters
    ----------
    vocab
        The vocabulary of the tokens.
    dry_multiplier
        Size of the penalty; 0 switches it off.
    dry_base
        The penalty is ``dry_multiplier * dry_base ** (length - dry_allowed_length)``; at least 1.
    dry_allowed_length
        How long a repetition costs nothing, in tokens.
    dry_penalty_last_n
        How many accepted tokens to look back, at most 2**24; 0 switches it off.
    seq_breakers
        Strings of 1 to 40 bytes that end a sequence.

    Returns
    -------
    Sampler

    Raises
    ------
    UnsupportedError
        If the model has no vocabulary.

    Notes
    -----
    Making it reads the whole vocabulary once for each breaker, which takes some milliseconds.

    Calls: llama_sampler_init_dry
    """
    options = {
        "dry_multiplier": from_zero("dry_multiplier", dry_multiplier),
        "dry_base": real(1)("dry_base", dry_base),
        "dry_allowed_length": count("dry_allowed_length", dry_allowed_length),
        "dry_penalty_last_n": last_n("dry_penalty_last_n", dry_penalty_last_n),
    }
    breakers = _breakers(seq_breakers)
    texts = [ffi.new("char[]", text) for text in breakers]
    array = ffi.new("const char *[]", texts)

    def make(pointer: Any) -> Any:
        return lib.llama_sampler_init_dry(pointer, *options.values(), array, len(texts))

    return for_vocab(Sampler, vocab, "dry", {**options, "seq_breakers": breakers}, make)


def _breakers(seq_breakers: Iterable[str]) -> list[bytes]:
    texts = [text.encode() for text in strings("seq_breakers", seq_breakers)]
    for text in texts:
        if not 1 <= len(text) <= MAX_BREAKER or 0 in text:
            message = f"a sequence breaker has 1 to {MAX_BREAKER} bytes and no NUL, not {text!r}"
            raise ValueError(message)
    return texts


def logit_bias(n_vocab: int, bias: Mapping[int, float]) -> Sampler:
    """Add a number to the logits of some tokens.

    Parameters
    ----------
    n_vocab
        Number of tokens in the vocabulary.
    bias
        For each token id what to add, nats; ``-math.inf`` rules a token out.

    Returns
    -------
    Sampler

    Raises
    ------
    ValueError
        If a token is not in the vocabulary, or a number is NaN or +inf.

    Notes
    -----
    Put it first: it finds a token at once as long as no sampler moved the candidates.

    Calls: llama_sampler_init_logit_bias
    """
    n_vocab = vocab_size("n_vocab", n_vocab)
    token = whole(0, n_vocab - 1)
    biases = {
        token("token", key): value if value == -math.inf else finite("bias", value)
        for key, value in pairs("bias", bias).items()
    }
    array = ffi.new("llama_logit_bias[]", list(biases.items()))
    pointer = lib.llama_sampler_init_logit_bias(n_vocab, len(biases), array)
    return Sampler(pointer, "logit_bias", {"n_vocab": n_vocab, "bias": biases}, n_vocab=n_vocab)


def infill(vocab: Vocab) -> Sampler:
    """Prefer whole words, and the end of text where it is likely, to fill a gap in code.

    Parameters
    ----------
    vocab
        The vocabulary of the tokens.

    Returns
    -------
    Sampler

    Raises
    ------
    UnsupportedError
        If the vocabulary has neither an end-of-turn nor an end-of-text token.

    Notes
    -----
    Put it after `top_k` and `top_p`: it compares all candidates with each other, so a whole
    vocabulary takes minutes.

    Calls: llama_sampler_init_infill, llama_vocab_eot, llama_vocab_eos
    """

    def make(pointer: Any) -> Any:
        # it falls back on them with an assertion (src/llama-sampler.cpp:4222)
        if max(lib.llama_vocab_eot(pointer), lib.llama_vocab_eos(pointer)) < 0:
            message = "infill needs an end-of-turn or end-of-text token; this vocabulary has none"
            raise UnsupportedError(message)
        return lib.llama_sampler_init_infill(pointer)

    return for_vocab(Sampler, vocab, "infill", {}, make)
