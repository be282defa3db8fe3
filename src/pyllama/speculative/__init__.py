"""Speculative decoding: tokens guessed cheaply and checked many at a time, the same text sooner.

`tokens` is the loop. What guesses is a `Drafter`: a smaller model (`DraftModel`), the text itself
(`PromptLookup`), the model's own head for it (`MTPDraft`), or one of the caller's.
"""

from __future__ import annotations

from pyllama.speculative.drafter import Drafter
from pyllama.speculative.lookup import PromptLookup
from pyllama.speculative.loop import tokens
from pyllama.speculative.model import DraftModel
from pyllama.speculative.mtp import MTPDraft

__all__ = ["DraftModel", "Drafter", "MTPDraft", "PromptLookup", "tokens"]
