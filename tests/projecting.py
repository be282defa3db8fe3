"""Prompts for projectors of each kind, and what a model says to them."""

from __future__ import annotations

import media
import numpy as np
from decoding import SMALL

import pyllama
from pyllama import Bitmap, Projector

KINDS = ("janus_pro", "gemma3", "qwen2vl_merger", "ultravox")


def medium(kind: str, seed: int = 0) -> Bitmap:
    """Return something random that a projector takes."""
    if kind == "ultravox":
        samples = np.random.default_rng(seed).normal(size=32000)
        return Bitmap.from_samples(samples / 4, 16000)
    return Bitmap(media.noise(seed=seed))


def prompt(projector: Projector, kind: str, seed: int = 0) -> pyllama.Chunks:
    """Return the chunks of a short prompt with something random in it."""
    return projector.tokenize("what is <__media__> here?", [medium(kind, seed)])


def logits(projector: Projector, chunks: pyllama.Chunks, **options: int) -> np.ndarray:
    """Return the logits after a prompt."""
    with projector.model.context(**{**SMALL, **options}) as context:
        assert projector.decode(context, chunks) == chunks.n_pos
        return context.logits()[-1]
