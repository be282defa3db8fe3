"""The memory of a context: what its sequences hold, and how to cut, copy and move it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.core.library import lib
from pyllama.core.params import flag, whole
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from pyllama.core.context import Context

_position = whole(0, 2**31 - 1)
_MAX_POS = 2**31 - 2  # libllama's open end is 2**31 - 1, not included


class Memory:
    """The keys and values (or states) of a context; `Context.memory` gives it.

    Parameters
    ----------
    context
        Whose memory it is.

    Notes
    -----
    Ranges of positions are half-open; None is an open end. Sequences are numbered from 0 to
    ``n_seq_max`` (not included). A context for an encoder alone has no memory: what would change
    it raises UnsupportedError. After the context is closed every call raises `ClosedError`.

    Calls: llama_get_memory
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def _seq(self, seq: int) -> int:
        # libllama accepts ids up to 256 where sequences share a stream, and loses their cells.
        return int(whole(0, self._context._limits.n_seq_max - 1)("seq", seq))

    def _range(self, start: int | None, stop: int | None) -> tuple[int, int]:
        first = 0 if start is None else _position("start", start)
        last = -1 if stop is None else _position("stop", stop)
        if stop is not None and last < first:
            message = f"the range {first} to {last} ends before it begins"
            raise ValueError(message)
        return first, last

    def _require_parts(self, doing: str) -> None:
        """Raise where the memory is a state: it has no parts (llama-memory-recurrent.cpp:161)."""
        if self._context._whole_sequences:
            message = f"a recurrent memory cannot {doing}; only whole sequences can be removed"
            raise UnsupportedError(message)

    def clear(self, *, data: bool = True) -> None:
        """Remove everything.

        Parameters
        ----------
        data
            Also set the buffers to zero.

        Calls: llama_memory_clear
        """
        with self._context._call as pointer:
            lib.llama_memory_clear(self._context._require_memory(pointer), flag("data", data))
            self._context._edited()

    def remove(self, seq: int, start: int | None = None, stop: int | None = None) -> None:
        """Remove the positions *start* to *stop* of a sequence.

        Parameters
        ----------
        seq
            The sequence.
        start, stop
            Half-open; None is the beginning, or the end.

        Raises
        ------
        UnsupportedError
            If this kind of memory cannot be cut there; nothing happened.

        Calls: llama_memory_seq_rm
        """
        seq = self._seq(seq)
        first, last = self._range(start, stop)
        if last == first:
            return
        with self._context._call as pointer:
            memory = self._context._require_memory(pointer)
            end = int(lib.llama_memory_seq_pos_max(memory, seq))
            everything = first == 0 and (last < 0 or last > end)
            if not everything:
                self._require_tail(seq, first, last, end)
            if not lib.llama_memory_seq_rm(memory, seq, -1 if everything else first, last):
                message = f"this memory cannot remove {start} to {stop} of sequence {seq}"
                raise UnsupportedError(message)
            self._context._edited(seq)

    def _require_tail(self, seq: int, first: int, last: int, end: int) -> None:
        """Raise unless a recurrent memory has the snapshots to go back to *first*."""
        context = self._context
        if not context._whole_sequences or first > end:
            return
        # libllama answers yes up to n_rs_seq, and takes an older state for the snapshot that the
        # last batch was too short to make (llama-memory-recurrent.cpp:199).
        n_back, edit = (context._snapshots or {}).get(seq, (0, -1))
        if edit != context._edits[seq]:  # one step back is all: a second is refused
            n_back = 0
        if (0 <= last <= end) or end - first >= min(n_back, context.n_rs_seq):
            self._require_parts(f"remove the positions from {first}")

    def copy(
        self, source: int, target: int, start: int | None = None, stop: int | None = None
    ) -> None:
        """Let *target* share the positions *start* to *stop* of *source*.

        Parameters
        ----------
        source, target
            Sequences.
        start, stop
            Half-open; None is the beginning, or the end.

        Raises
        ------
        UnsupportedError
            If only whole sequences can be copied: with ``kv_unified=False``, or in a recurrent
            memory.

        Calls: llama_memory_seq_cp
        """
        source, target = self._seq(source), self._seq(target)
        first, last = self._range(start, stop)
        if source == target or first == last:
            return
        with self._context._call as pointer:
            memory = self._context._require_memory(pointer)
            end = int(lib.llama_memory_seq_pos_max(memory, source))
            everything = first == 0 and (last < 0 or last > end)
            if not everything and not self._one_stream():
                message = (
                    "part of a sequence can only be copied inside one buffer: make the context "
                    "with kv_unified=True"  # llama-kv-cache.cpp:506 asserts it
                )
                raise UnsupportedError(message)
            if not everything:
                self._require_parts("copy part of a sequence")
            if everything:
                first = last = -1
            lib.llama_memory_seq_cp(memory, source, target, first, last)
            self._context._edited(target)

    def keep(self, seq: int) -> None:
        """Remove every sequence but this one.

        Parameters
        ----------
        seq
            The sequence that stays.

        Calls: llama_memory_seq_keep, llama_memory_seq_rm
        """
        seq = self._seq(seq)
        with self._context._call as pointer:
            memory = self._context._require_memory(pointer)
            # Where each sequence has a buffer of its own, libllama's "keep" looks into one buffer
            # only and leaves the others as they are (llama-kv-cache.cpp, seq_keep).
            for other in set(range(self._context._limits.n_seq_max)) - {seq}:
                lib.llama_memory_seq_rm(memory, other, -1, -1)
            lib.llama_memory_seq_keep(memory, seq)
            self._context._edited()

    def shift(
        self, seq: int, start: int | None = None, stop: int | None = None, *, delta: int
    ) -> None:
        """Add *delta* to the positions *start* to *stop*; the keys are rotated at the next decode.

        Parameters
        ----------
        seq
            The sequence.
        start, stop
            Half-open; None is the beginning, or the end.
        delta
            Positions to move by; below 0 towards the beginning.

        Raises
        ------
        UnsupportedError
            If `can_shift` is False.
        ValueError
            If a position would leave the range 0 to 2**31.

        Calls: llama_memory_seq_add
        """
        seq = self._seq(seq)
        first, last = self._range(start, stop)
        delta = whole(-(2**31) + 1, 2**31 - 1)("delta", delta)
        self._require_shift()
        with self._context._call as pointer:
            memory = self._context._require_memory(pointer)
            low = max(first, int(lib.llama_memory_seq_pos_min(memory, seq)))
            high = int(lib.llama_memory_seq_pos_max(memory, seq))
            if high >= low and (low + delta < 0 or high + delta > _MAX_POS):
                message = f"delta={delta} would move positions {low} to {high} out of range"
                raise ValueError(message)
            lib.llama_memory_seq_add(memory, seq, first, last, delta)
            self._context._edited(seq)

    def divide(
        self, seq: int, start: int | None = None, stop: int | None = None, *, divisor: int
    ) -> None:
        """Divide the positions *start* to *stop* by *divisor*, rounding down.

        Parameters
        ----------
        seq
            The sequence.
        start, stop
            Half-open; None is the beginning, or the end.
        divisor
            2 or more.

        Raises
        ------
        UnsupportedError
            If `can_shift` is False.

        Calls: llama_memory_seq_div
        """
        seq = self._seq(seq)
        first, last = self._range(start, stop)
        divisor = whole(2, 2**31 - 1)("divisor", divisor)
        self._require_shift()
        with self._context._call as pointer:
            memory = self._context._require_memory(pointer)
            lib.llama_memory_seq_div(memory, seq, first, last, divisor)
            self._context._edited(seq)

    def pos_min(self, seq: int) -> int | None:
        """Return the first position that a sequence holds.

        Parameters
        ----------
        seq
            The sequence.

        Returns
        -------
        int or None
            None if it holds nothing.

        Calls: llama_memory_seq_pos_min
        """
        seq = self._seq(seq)
        with self._context._call as pointer:
            pos = lib.llama_memory_seq_pos_min(lib.llama_get_memory(pointer), seq)
        return None if pos < 0 else int(pos)

    def pos_max(self, seq: int) -> int | None:
        """Return the last position that a sequence holds.

        Parameters
        ----------
        seq
            The sequence.

        Returns
        -------
        int or None
            None if it holds nothing.

        Calls: llama_memory_seq_pos_max
        """
        seq = self._seq(seq)
        with self._context._call as pointer:
            pos = lib.llama_memory_seq_pos_max(lib.llama_get_memory(pointer), seq)
        return None if pos < 0 else int(pos)

    @property
    def can_shift(self) -> bool:
        """Whether positions can be moved.

        Not with bf16 keys, nor with quantised keys and a head size that is no multiple of 64; nor
        where all layers of a model for sliding windows have one, or none has.
        """
        context = self._context
        with context._call as pointer:
            if not lib.llama_memory_can_shift(lib.llama_get_memory(pointer)):
                return False
            # Nothing in the graph then reads by how much to move (src/llama-kv-cache.cpp:2013).
            if lib.pyllama_memory_has_bare_cache(pointer):
                return False
        return context._moves_keys and not context._whole_sequences

    def _require_shift(self) -> None:
        if not self.can_shift:
            kind = "a recurrent memory" if self._context._whole_sequences else "this memory"
            message = f"{kind} cannot move positions; see Memory.can_shift for those that can"
            raise UnsupportedError(message)

    def _one_stream(self) -> bool:
        return self._context._unified or self._context._limits.n_seq_max == 1
