"""What prompts left in the memory, kept for later prompts that begin the same."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

from pyllama.core.batch import int32
from pyllama.core.deadline import Deadline
from pyllama.core.params import whole
from pyllama.core.state import State
from pyllama.errors import LlamaError, StateError
from pyllama.prefill import held_of, n_shared, prefill, reusable

if TYPE_CHECKING:
    from pyllama.core.context import Context
    from pyllama.prefill import Held

logger = logging.getLogger("pyllama")

SUFFIX = ".state"
WORTH = 32  # tokens: fewer are decoded again as fast as a copy of them is put back


@dataclass(eq=False)
class Entry:
    """One saved sequence, and under what it was computed.

    Attributes
    ----------
    key : str
        A digest of what the caller gave.
    state : State
    """

    key: str
    state: State

    @cached_property
    def tokens(self) -> list[int]:
        """What the sequence held."""
        return self.state.tokens.tolist()  # type: ignore[no-any-return]

    @property
    def n_bytes(self) -> int:
        """What it takes, about."""
        return self.state.n_bytes + self.state.tokens.nbytes

    def n_shared(self, ids: list[int]) -> int:
        """Return how many tokens it and a prompt begin with alike.

        Parameters
        ----------
        ids
            The prompt.

        Returns
        -------
        int
        """
        return n_shared(self.tokens, ids, min(len(self.tokens), len(ids)))


class PromptCache:
    """Keep what several prompts left in a memory, and go on from the one that helps most.

    Parameters
    ----------
    max_bytes
        What the copies may take, together; the ones unused for longest go first.
    directory
        Where to keep them on disk as well, for the next process. It should belong to the user
        alone: a state is trusted as a model file is.

    Raises
    ------
    TypeError, ValueError
        If *max_bytes* is no number of bytes.
    OSError
        If *directory* cannot be made or read.

    Notes
    -----
    A copy is taken when a prompt is about to overwrite much of what another left, and, where the
    memory cannot be cut back (recurrent models, sliding windows), at the end of each prompt.
    For one context at a time.
    """

    def __init__(
        self, *, max_bytes: int = 1 << 28, directory: str | os.PathLike[str] | None = None
    ) -> None:
        self._max_bytes = whole(0, 2**63 - 1)("max_bytes", max_bytes)
        self._entries: list[Entry] = []  # used last stands last
        self._directory = None if directory is None else Path(directory)
        if self._directory is not None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._read()

    @property
    def n_bytes(self) -> int:
        """What the copies take now."""
        return sum(entry.n_bytes for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def prefill(
        self,
        context: Context,
        ids: list[int],
        seq: int,
        deadline: Deadline | None = None,
        *,
        key: str = "",
    ) -> tuple[Held, int]:
        """Decode what neither the memory nor a copy holds of a prompt.

        Parameters
        ----------
        context, ids, seq, deadline
            As for `prefill.prefill`.
        key
            What besides the model the memory depends on: adapters and the like. Only copies with
            the same key are used.

        Returns
        -------
        held : Held
            What the sequence holds now.
        n_reused : int
            How many tokens did not have to be decoded.

        Raises
        ------
        DecodeError, TimeoutError
            As `Context.decode`.
        """
        if not isinstance(key, str):
            message = f"key must be a string, not {key!r:.60}"
            raise TypeError(message)
        if not isinstance(deadline, (Deadline, NoneType)):
            message = f"deadline must be a Deadline or None, not {deadline!r:.60}"
            raise TypeError(message)
        ids = int32("ids", ids, 1).tolist()
        key = digest(key.encode())
        held = held_of(context, seq)
        live = reusable(context, ids, seq, held)
        if live < len(held.tokens) and context._whole_sequences:
            live = 0  # it cannot go back
        best, n_best = self._best(context, ids, key)
        # What is held was computed with this key: changing adapters would have counted as an edit.
        if held.edits == context._edits[seq] and len(held.tokens) - live >= WORTH:
            self._keep(context, seq, held.tokens, key)
        if best is not None and n_best >= live + WORTH:
            self._put_back(context, seq, held, best)
        n_before = len(ids) - 1
        if not can_be_cut(context) and 0 < n_before != reusable(context, ids, seq, held):
            _, n_reused = prefill(context, ids[:-1], seq, deadline)
            if n_before - n_reused >= WORTH:
                self._keep(context, seq, ids[:-1], key)
            held, _ = prefill(context, ids, seq, deadline)
            return held, n_reused
        return prefill(context, ids, seq, deadline)

    def clear(self) -> None:
        """Drop every copy, on disk too."""
        for entry in self._entries:
            self._forget(entry)
        self._entries.clear()

    def _best(self, context: Context, ids: list[int], key: str) -> tuple[Entry | None, int]:
        """Return the copy that saves most, and how many tokens of the prompt it holds."""
        best, n_best = None, 0
        for entry in self._entries:
            n = entry.n_shared(ids)
            if n < len(entry.tokens) and not can_be_cut(context):
                continue  # it could not go back to where the two part
            if entry.key == key and n > n_best and entry.state.fingerprint == context._fingerprint:
                best, n_best = entry, n
        return best, n_best

    def _put_back(self, context: Context, seq: int, held: Held, entry: Entry) -> None:
        """Make the memory hold what *entry* does, or nothing of use if that fails."""
        try:
            context.restore(entry.state, seq)
        except StateError as error:  # no room for it: it is decoded again
            logger.warning("a saved prompt could not be put back: %s", error)
            return
        held.tokens[:] = entry.tokens
        held.edits = context._edits[seq]
        self._entries.remove(entry)
        self._entries.append(entry)

    def _keep(self, context: Context, seq: int, tokens: list[int], key: str) -> None:
        """Take a copy, in the place of those that hold no more than it does."""
        cut = can_be_cut(context)
        for entry in self._entries.copy():
            if entry.key != key or entry.state.fingerprint != context._fingerprint:
                continue
            n = entry.n_shared(tokens)
            if n == len(tokens) and (cut or n == len(entry.tokens)):
                return  # there is one that holds as much
            if cut and n == len(entry.tokens):
                self._entries.remove(entry)
                self._forget(entry)
        entry = Entry(key, context.state(seq, tokens=tokens))
        if entry.n_bytes > self._max_bytes:
            return
        self._entries.append(entry)
        self._write(entry)
        while self.n_bytes > self._max_bytes:
            self._forget(self._entries.pop(0))

    def _path(self, entry: Entry) -> Path | None:
        """Return the file of *entry*, which is named after its key and its tokens."""
        if self._directory is None:
            return None
        return self._directory / f"{entry.key}-{digest(entry.state.tokens.tobytes())}{SUFFIX}"

    def _write(self, entry: Entry) -> None:
        path = self._path(entry)
        if path is not None:
            try:
                entry.state.save(path)
            except OSError as error:  # a full disk: it is in memory still
                logger.warning("a prompt was not saved on disk: %s", error)

    def _forget(self, entry: Entry) -> None:
        path = self._path(entry)
        if path is not None:
            path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Read what an earlier process left, the newest as far as they fit."""
        paths = sorted(
            self._directory.glob(f"*{SUFFIX}"),  # type: ignore[union-attr]
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for path in paths:
            key = path.name.partition("-")[0]
            try:
                entry = Entry(key, State.load(path))
            except (OSError, LlamaError) as error:
                logger.warning("%s is left out: %s", path.name, error)
                continue
            if self.n_bytes + entry.n_bytes > self._max_bytes:
                break
            self._entries.insert(0, entry)


def can_be_cut(context: Context) -> bool:
    """Tell whether a sequence can go back to any of its positions.

    Parameters
    ----------
    context
        Whose memory it is.

    Returns
    -------
    bool
        False for recurrent states and sliding windows.
    """
    model = context.model
    return not (model.is_recurrent or model.is_hybrid or model.n_swa)


def digest(data: bytes) -> str:
    """Return a short name for *data*.

    Parameters
    ----------
    data
        Anything.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    return hashlib.sha256(data).hexdigest()[:32]
