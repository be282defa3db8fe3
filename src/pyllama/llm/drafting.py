"""What drafts tokens for an `LLM`, made from what its caller named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyllama.core.model import Model
from pyllama.speculative import Drafter, DraftModel, MTPDraft, PromptLookup

if TYPE_CHECKING:
    from pyllama.core.context import Context
    from pyllama.core.params import ContextOptions

    # The file of a smaller model, "lookup", "mtp", or a drafter that is ready.
    Draft = str | os.PathLike[str] | Drafter


def open_drafter(draft: Draft, context: Context) -> Drafter:
    """Make a drafter for a context.

    Parameters
    ----------
    draft
        What to make it of: the file of a smaller model, "lookup", "mtp", or one that is ready.
    context
        Where the text will be generated.

    Returns
    -------
    Drafter
        If it was made of a file, its model is the caller's to close.

    Raises
    ------
    TypeError
        If *draft* is nothing of the kind.
    ValueError
        If it does not fit the model.
    LoadError
        If the smaller model cannot be loaded.
    """
    options: ContextOptions = {
        "n_ctx": context.n_ctx_seq,
        "n_threads": context.n_threads,
        "n_threads_batch": context.n_threads_batch,
    }
    if isinstance(draft, Drafter):
        draft.check(context)
        return draft
    if draft == "lookup":
        return PromptLookup()
    if draft == "mtp":
        head: ContextOptions = {**options, "ctx_type": "mtp"}
        return MTPDraft(context.model.context(**head))
    if not isinstance(draft, (str, os.PathLike)):
        message = f"draft must be a file, 'lookup', 'mtp' or a Drafter, not {draft!r:.80}"
        raise TypeError(message)
    model = Model(draft)
    try:
        drafter = DraftModel(model.context(**options))
        drafter.check(context)
    except BaseException:
        model.close()
        raise
    return drafter
