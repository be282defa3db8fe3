"""Writing documents that a grammar allows, with libllama's grammar sampler and random logits."""

from __future__ import annotations

import numpy as np

from pyllama import Candidates, Sampler, Vocab, samplers

MAX_TOKENS = 600
CALM = 40  # tokens, after which what ends things becomes likelier


def write(vocab: Vocab, grammar: str | Sampler, seed: int) -> str:
    """Write one document; the longer it gets, the more it wants to end."""
    rng = np.random.default_rng(seed)
    sampler = samplers.grammar(vocab, grammar) if isinstance(grammar, str) else grammar
    pieces = vocab.piece_table(special=False)
    ends = np.array([ending(each) for each in pieces], np.float32)
    ends[list(vocab.eog_tokens)] = 2.0
    opens = np.array([1.0 if set(each) & set(b"[{,\\ \n") else 0.0 for each in pieces], np.float32)
    broken = np.array([not is_text(each) for each in pieces])  # libllama lets \xf8 through
    candidates = Candidates(np.zeros(vocab.n_tokens, np.float32))
    text = b""
    for step in range(MAX_TOKENS):
        logits = rng.normal(0, 2, vocab.n_tokens).astype(np.float32)
        if step > CALM:
            logits += (ends - opens) * min(30.0, 0.5 * (step - CALM))
        logits[broken] = -np.inf
        candidates.fill(logits)
        sampler.apply(candidates)
        token = int(candidates.data["id"][candidates.data["logit"].argmax()])
        if token in vocab.eog_tokens:
            return text.decode()
        sampler.accept(token)
        text += pieces[token]
    raise AssertionError(f"no end in {MAX_TOKENS} tokens: {text[:200]!r}")


def is_text(piece: bytes) -> bool:
    """Return whether a token is whole characters."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def ending(piece: bytes) -> float:
    """Return how much a token is wanted in a text that is long enough."""
    if piece in (b'"', b"}", b"]"):
        return 1.5
    return float(piece.isdigit() or piece in (b"@", b"-"))
