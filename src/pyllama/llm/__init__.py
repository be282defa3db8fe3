"""`LLM`: one object for an application that talks to a local model."""

from __future__ import annotations

from pyllama.llm.chatting import Chatting
from pyllama.llm.results import (
    ChatCompletion,
    ChatPart,
    Completion,
    Conversation,
    FinishReason,
    Part,
    Usage,
)
from pyllama.llm.vectors import Vectors

__all__ = [
    "LLM",
    "ChatCompletion",
    "ChatPart",
    "Completion",
    "Conversation",
    "FinishReason",
    "Part",
    "Usage",
]


class LLM(Chatting, Vectors):
    """A local model that completes, chats, calls tools, embeds and ranks.

    Parameters
    ----------
    model
        Path of a GGUF file.
    name
        What to call it; left out, the file's ``general.name``, or else the file name.
    n_ctx : int
        Tokens of prompt and answer together. Left out, what the model was trained for, but at
        most 4096.
    load
        Whether to load it now.
    cache_bytes, cache_directory
        What copies of earlier prompts may take, and where to keep them on disk too; see
        `PromptCache`.
    draft
        What guesses tokens ahead, for the same text sooner: the file of a smaller model, "lookup"
        (the text itself), "mtp" (the model's own head), or a `speculative.Drafter`.
    n_draft
        Most tokens to guess at a time.
    **options
        Further options of `Model` and of `Context`.

    Raises
    ------
    TypeError
        If an option is unknown.
    LoadError
        If the model cannot be loaded.

    Notes
    -----
    One call runs at a time; another thread's gets `BusyError`. Only `cancel` may come from
    another thread.
    """
