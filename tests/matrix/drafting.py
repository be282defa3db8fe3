"""Speculative decoding: what its callables are usually given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import random_model

import pyllama
from pyllama.speculative import Drafter, DraftModel, MTPDraft, PromptLookup

if TYPE_CHECKING:
    from matrix.world import World

Maker = Callable[["World"], Any]


class Repeating(Drafter):
    """Draft the last token again."""

    def draft(self, ids, n):
        """Guess."""
        return list(ids[-1:]) * n


def head(w: World) -> pyllama.Context:
    """Make a context of a head that predicts further."""
    path = w.path("head")
    if not path.exists():
        random_model.write_mtp(path)
    model = pyllama.Model(path, load_mtp=True)
    return model.context(ctx_type="mtp", n_ctx=256, n_threads=1, n_threads_batch=1)


OBJECTS: dict[str, Maker] = {
    "DraftModel": lambda w: DraftModel(w.context()),
    "Drafter": lambda w: Repeating(),
    "MTPDraft": lambda w: MTPDraft(head(w)),
    "PromptLookup": lambda w: PromptLookup(),
}
FIVE: dict[str, Maker] = {"ids": lambda w: [1, 2, 3, 1, 2]}

SPECIAL: dict[str, dict[str, Maker]] = {
    "speculative.MTPDraft": {"context": head},
    "speculative.tokens": {"draft": lambda w: PromptLookup(), "max_tokens": lambda w: 2},
    **{
        f"speculative.{name}.{method}": {**FIVE, **more}
        for name in OBJECTS
        for method, more in {"begin": {}, "draft": {"n": lambda w: 2}}.items()
    },
    **{f"speculative.{name}.watching": {"start": lambda w: 0} for name in OBJECTS},
}
REFUSED = {
    "speculative.Drafter",  # abstract
    "speculative.MTPDraft.check",  # the head of another model
}
VALUES = tuple(OBJECTS)  # nothing closes them
