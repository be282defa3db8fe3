"""What a memory holds of a prompt, and decoding only what it does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pyllama.core.batch import Batch
from pyllama.core.context import Context
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyllama.choose import Decode
    from pyllama.core.deadline import Deadline


@dataclass
class Held:
    """What one sequence of a memory holds.

    Attributes
    ----------
    tokens : list of int
    edits : int
        How often the sequence had been edited when this was true.
    run : int
        How many prompts were decoded into the sequence: which run of a loop it belongs to.
    """

    tokens: list[int] = field(default_factory=list)
    edits: int = -1
    run: int = 0


_held: WeakKeyDictionary[Context, dict[int, Held]] = WeakKeyDictionary()


def prefill(
    context: Context, ids: list[int], seq: int, deadline: Deadline | None = None
) -> tuple[Held, int]:
    """Decode what the memory does not hold of a prompt.

    Parameters
    ----------
    context
        Where to decode.
    ids
        The prompt; it must fit.
    seq
        The sequence of the memory to use.
    deadline
        When it must have ended.

    Returns
    -------
    held : Held
        What the sequence holds now; whoever decodes more adds to its tokens.
    n_reused : int
        How many tokens were there already. The last one is decoded in any case.

    Raises
    ------
    DecodeError, TimeoutError
        As `Context.decode`.
    """
    held = held_of(context, seq)
    reused = reusable(context, ids, seq, held)
    n_past = context.memory.pos_max(seq)
    if n_past is not None and n_past >= reused:
        try:
            context.memory.remove(seq, reused)
        except UnsupportedError:  # a recurrent state cannot go back: begin again
            context.memory.remove(seq)
            reused = 0
    held.run += 1
    del held.tokens[reused:]
    held.edits = context._edits[seq]
    for start, batch in batches(context, ids, reused, seq, output="last"):
        context._decode_by(deadline, batch)
        held.tokens.extend(ids[start : start + batch.n_tokens])
    return held, reused


def held_of(context: Context, seq: int) -> Held:
    """Return what is known of a sequence of a memory.

    Parameters
    ----------
    context
        Whose memory it is.
    seq
        The sequence.

    Returns
    -------
    Held
        The one object for it; it may be out of date, see `Held.edits`.
    """
    return _held.setdefault(context, {}).setdefault(seq, Held())


def reusable(context: Context, ids: list[int], seq: int, held: Held) -> int:
    """Return how many tokens of a prompt the memory holds, and can go on from.

    Parameters
    ----------
    context, ids, seq
        As for `prefill`.
    held
        What is known of the sequence.

    Returns
    -------
    int
        0 if what is known is out of date.
    """
    n_held = len(held.tokens)
    end = context.memory.pos_max(seq)
    if held.edits != context._edits[seq] or end is None or end + 1 != n_held:
        return 0
    # The last token is decoded in any case: its logits are wanted.
    most = min(n_held, len(ids) - 1)
    shared = n_shared(ids, held.tokens, most)
    # A sliding window that has moved on no longer holds what the tokens from there attend to.
    first = context.memory.pos_min(seq) or 0
    return shared if first == 0 or first <= shared - context.model.n_swa else 0


def n_shared(one: list[int], other: list[int], most: int) -> int:
    """Return how many tokens two lists begin with alike.

    Parameters
    ----------
    one, other
        Token ids.
    most
        How many to look at; neither list is shorter.

    Returns
    -------
    int
    """
    low, high = 0, most
    while low < high:  # slices are compared in C
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def one_by_one(
    context: Context,
    held: Held,  # noqa: ARG001 - for those that decode ahead, as the next two
    seq: int,  # noqa: ARG001
    limit: int,  # noqa: ARG001
    deadline: Deadline | None = None,
) -> Decode:
    """Make the function that decodes a token when it is asked for, and no other.

    Parameters
    ----------
    context
        Where to decode.
    held
        What the sequence holds; the loop adds each token just before it is decoded.
    seq
        The sequence.
    limit
        How many tokens will be chosen at most.
    deadline
        When each decode must have ended.

    Returns
    -------
    callable
        Takes the batch to decode, or None if the row is there already, and a function of the row
        that predicts the next token; returns what that returns.
    """
    if deadline is None:
        return context._decode_with_last_row
    return partial(context._decode_with_last_row_by, deadline)


def batches(
    context: Context, ids: list[int], start: int, seq: int, output: str
) -> Iterator[tuple[int, Batch]]:
    """Cut a prompt into batches that the context can take.

    Parameters
    ----------
    context
        Whose limit it is.
    ids
        The prompt.
    start
        The first token to take, and its position.
    seq
        The sequence.
    output
        "all", or "last": of the last batch only.

    Yields
    ------
    start : int
        The position of the first token.
    batch : Batch
    """
    size = int(context._limits.n_tokens)
    for first in range(start, len(ids), size):
        part = ids[first : first + size]
        last = first + size >= len(ids)
        wanted = output if output == "all" or last else "none"
        yield first, Batch(part, pos=first, seq_id=seq, output=wanted)


def shift(context: Context, seq: int, n_keep: int, held: Held) -> int:
    """Make room in a full context: drop some tokens and move those behind them up.

    Parameters
    ----------
    context
        Its memory must be able to shift.
    seq
        The sequence.
    n_keep
        Tokens at the beginning that stay; half of the others go.
    held
        What the sequence holds.

    Returns
    -------
    int
        How many tokens it holds then.
    """
    n_past = len(held.tokens)
    n_discard = (n_past - n_keep) // 2
    context.memory.remove(seq, n_keep, n_keep + n_discard)
    context.memory.shift(seq, n_keep + n_discard, delta=-n_discard)
    # The keys that moved were made in the sight of those dropped: not what a prompt would give,
    # so held.edits stays behind and no later run reuses them.
    del held.tokens[n_keep : n_keep + n_discard]
    return n_past - n_discard
