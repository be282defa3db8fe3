"""The part of a context that takes a copy of its memory, and puts one back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pyllama.core import log
from pyllama.core.adapted import Adapted
from pyllama.core.batch import int32
from pyllama.core.fingerprint import difference
from pyllama.core.library import ffi, lib
from pyllama.core.params import flag, whole
from pyllama.core.state import State
from pyllama.errors import LibraryAbortError, LibraryError, StateError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MAX_NAME = 64  # longest name of an architecture that is believed


class Saved(Adapted):
    """The part of `Context` that saves and restores."""

    _whole_sequences: bool
    _fingerprint: dict[str, str]

    def state(
        self, seq: int | None = None, *, tokens: ArrayLike = (), partial: bool = False
    ) -> State:
        """Return a copy of what the memory holds.

        Parameters
        ----------
        seq
            One sequence, which can be restored as another one too; None copies the whole context.
        tokens
            What was decoded, to be found again in `State.tokens`; the memory does not know it.
        partial
            Copy only what cannot be cut back: the states of recurrent layers, and sliding windows.
            Such a copy is small and can be restored while the rest of the sequence is still there.

        Returns
        -------
        State

        Raises
        ------
        UnsupportedError
            If the context has no memory, or none that *partial* could be about.
        TypeError, ValueError
            If an argument is out of range.
        MemoryError
            If there is no room for the copy.
        StateError
            If libllama writes less than it promised.

        Notes
        -----
        Logits and adapters are not in it, nor what an encoder saw.

        Calls: llama_state_get_size, llama_state_get_data, llama_state_seq_get_size_ext,
        llama_state_seq_get_data_ext
        """
        seq = self._check_seq(seq)
        held = int32("tokens", tokens, 1)
        if held.size and not 0 <= held.min() <= held.max() < self.n_vocab:
            message = f"tokens go from 0 to {self.n_vocab} (not included), not {held.min()} to "
            raise ValueError(message + str(held.max()))
        if flag("partial", partial):
            self._require_part(seq)
        since = log.mark()
        with self._call as pointer:
            memory = self._require_memory(pointer)
            if seq is None:
                data = bytearray(lib.llama_state_get_size(pointer))
                n_bytes = lib.llama_state_get_data(pointer, ffi.from_buffer(data), len(data))
            else:
                flags = _flags(partial=partial)
                data = bytearray(lib.llama_state_seq_get_size_ext(pointer, seq, flags))
                n_bytes = lib.llama_state_seq_get_data_ext(
                    pointer, ffi.from_buffer(data), len(data), seq, flags
                )
            n_past = self._n_past(memory, seq)
        if n_bytes != len(data) or not data:
            words = "; ".join(log.complaints(since))
            message = f"libllama wrote {n_bytes} bytes of a state of {len(data)}: {words}"
            raise StateError(message, expected=f"{len(data)} bytes", actual=f"{n_bytes} bytes")
        return State(
            data,
            fingerprint=self._fingerprint,
            n_past=n_past,
            seq=seq,
            partial=partial,
            tokens=held,
        )

    def restore(self, state: State, seq: int | None = None) -> None:
        """Put a copy back: the memory then holds what it held when the copy was made.

        Parameters
        ----------
        state
            Of this context, or of another one of the same model with the same kind of memory.
        seq
            The sequence to restore into; None is the one it was copied from. For the state of a
            whole context it must be None.

        Raises
        ------
        TypeError, ValueError
            If *state* is no State, or *seq* is out of range.
        UnsupportedError
            If the context has no memory.
        StateError
            If the state is of another model or another kind of memory: nothing happened. Or if
            libllama does not take it, for want of room: then what was to be replaced is empty.

        Notes
        -----
        The logits of the last `decode` are gone. A partial state goes into a sequence that still
        holds what came before it; what came after is removed.

        Calls: llama_state_set_data, llama_state_seq_set_data_ext, llama_memory_seq_rm,
        llama_memory_clear
        """
        if not isinstance(state, State):
            message = f"a State is needed, not {type(state).__name__}: State.load(path) reads one"
            raise TypeError(message)
        seq = self._check_target(state, seq)
        since = log.mark()
        with self._call as pointer:
            memory = self._require_memory(pointer)
            self._require_fit(state)
            if state.partial:
                self._require_rest(state, memory, seq)
            self._n_outputs = 0
            self._edited(seq)
            taken = False
            try:
                taken = self._set(state, pointer, memory, seq)
            except LibraryAbortError:
                raise
            except LibraryError:  # in the log as well
                pass
            if not taken:
                _empty(memory, seq)
        if not taken:
            what = "the context" if seq is None else f"sequence {seq}"
            words = "; ".join(log.complaints(since)) or "it does not fit"
            message = f"libllama did not take the state, and {what} is empty now: {words}"
            raise StateError(message, expected=f"{state.n_bytes} bytes taken", actual="fewer")

    def _set(self, state: State, pointer: Any, memory: Any, seq: int | None) -> bool:
        """Return whether libllama took all of *state*, and the memory says what it should."""
        data = ffi.from_buffer("uint8_t[]", state.data)
        if not state.partial:  # an empty one would leave what is there (llama-kv-cache.cpp:2179)
            _empty(memory, seq)
        if seq is None:
            taken = lib.llama_state_set_data(pointer, data, state.n_bytes)
            return bool(taken == state.n_bytes and self._n_past(memory, None) == state.n_past)
        taken = lib.llama_state_seq_set_data_ext(
            pointer, data, state.n_bytes, seq, _flags(partial=state.partial)
        )
        end = sum(state.n_past.values())  # of the one sequence, or 0
        if state.partial and not lib.llama_memory_seq_rm(memory, seq, end, -1):
            return False
        found = self._n_past(memory, seq)
        return bool(taken == state.n_bytes and sum(found.values()) == end)

    def _n_past(self, memory: Any, seq: int | None) -> dict[int, int]:
        """Return the position after the last one of each sequence that holds something."""
        seqs = range(len(self._edits)) if seq is None else (seq,)
        ends = {each: int(lib.llama_memory_seq_pos_max(memory, each)) + 1 for each in seqs}
        return {each: end for each, end in ends.items() if end}

    def _check_seq(self, seq: int | None) -> int | None:
        return None if seq is None else int(whole(0, len(self._edits) - 1)("seq", seq))

    def _check_target(self, state: State, seq: int | None) -> int | None:
        if seq is None:
            seq = state.seq
        elif state.seq is None:
            message = f"a state of a whole context cannot go into sequence {seq}: leave seq out"
            raise ValueError(message)
        return self._check_seq(seq)

    def _require_memory(self, pointer: Any) -> Any:
        """Return the ``llama_memory_t``; it is asked for each time because it is only borrowed."""
        memory = lib.llama_get_memory(pointer)
        if memory == ffi.NULL:
            message = "this context has no memory: its model is an encoder alone"
            raise UnsupportedError(message)
        return memory

    def _require_part(self, seq: int | None) -> None:
        if seq is None:
            message = "a partial state is of one sequence: give seq"
            raise ValueError(message)
        if not self._whole_sequences and not self.model.n_swa:
            message = (
                "partial=True is for recurrent states and sliding windows; this model has neither: "
                "its memory can be cut, see Memory.remove"
            )
            raise UnsupportedError(message)

    def _require_fit(self, state: State) -> None:
        """Raise while nothing is lost unless the state is of such a context."""
        found = difference(state.fingerprint, self._fingerprint)
        if found:
            name, there, here = found
            message = (
                f"the state is of another model or kind of memory: {name} was {there} there, and "
                f"is {here} here"
            )
            raise StateError(message, expected=f"{name} {here}", actual=f"{name} {there}")
        highest = max(state.n_past, default=0)
        if state.seq is None and highest >= len(self._edits):
            message = (
                f"the state holds sequence {highest}, but this context has {len(self._edits)}: "
                "make it with a larger n_seq_max"
            )
            raise StateError(message, expected=f"n_seq_max > {highest}", actual="fewer")
        # libllama makes room for a name of this length before it looks further (llama-io.cpp:16).
        first = int.from_bytes(state.data[:4], sys.byteorder)
        if state.seq is None and first > _MAX_NAME:
            message = "the data of this state are not what libllama wrote"
            raise StateError(message, expected="the name of an architecture", actual="no name")

    def _require_rest(self, state: State, memory: Any, seq: int | None) -> None:
        """Raise unless the sequence holds what a partial state continues."""
        wanted = sum(state.n_past.values())
        held = sum(self._n_past(memory, seq).values())
        if held < wanted:
            message = (
                f"the partial state continues {wanted} positions, but sequence {seq} holds {held}: "
                "restore a whole one, or decode again"
            )
            raise StateError(message, expected=f"{wanted} positions", actual=f"{held} positions")


def _flags(*, partial: bool) -> int:
    # LLAMA_STATE_SEQ_FLAGS_ON_DEVICE is not offered: a state changed since then, or one that is
    # not there, ends the process (llama-context.cpp:3238, :3026).
    return int(
        lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY if partial else lib.LLAMA_STATE_SEQ_FLAGS_NONE
    )


def _empty(memory: Any, seq: int | None) -> None:
    """Remove what a failed restore left: cells marked as full, with nothing in them."""
    if seq is None:
        lib.llama_memory_clear(memory, True)  # noqa: FBT003 - the data too
    else:
        lib.llama_memory_seq_rm(memory, seq, -1, -1)
