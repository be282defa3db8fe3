"""The tokens a sampler may choose from, as an array that C sorts, cuts and marks in place."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.library import ffi
from pyllama.errors import BusyError, SamplingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Row = NDArray[np.float32]

FLOAT32 = np.dtype(np.float32)
ROW = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Candidates:
    """Hold every token of a vocabulary with its logit, for `Sampler.apply`.

    Parameters
    ----------
    logits
        A row of logits, float32, shape ``(n_vocab,)``, unnormalised, nats. It is copied.

    Raises
    ------
    TypeError
        If *logits* is not a float32 array.
    ValueError
        If it has more than one dimension, or no element.

    Notes
    -----
    One object serves a whole loop: `fill` it with the next row. It is for one thread at a time.
    """

    __slots__ = ("_ids", "_lock", "_logits", "_memory", "_rows", "_struct", "_words")

    def __init__(self, logits: Row) -> None:
        check_row(logits)
        self._rows = np.zeros(len(logits), ROW)
        self._logits = self._rows["logit"]
        self._words = self._rows.view(np.int32)
        # Samplers sort and cut, so each fill writes all ids again. Copying whole rows of words and
        # then the logits is four times as fast as assigning the two columns of structs.
        fresh = self._rows.copy()
        fresh["id"] = np.arange(len(logits))
        self._ids = fresh.view(np.int32)
        self._memory = ffi.from_buffer("llama_token_data[]", self._rows)
        self._struct = ffi.new("llama_token_data_array *")
        self._lock = threading.Lock()
        self.fill(logits)

    def fill(self, logits: Row) -> None:
        """Start again with a row of logits: every token, unsorted, none selected.

        Parameters
        ----------
        logits
            float32, shape ``(n_vocab,)``, as long as the first one.

        Raises
        ------
        TypeError
            If *logits* is not a float32 array.
        ValueError
            If its shape is another.
        BusyError
            If another thread is applying a sampler to these candidates.

        Notes
        -----
        Takes about 13 µs for 32,000 tokens.
        """
        check_row(logits)
        if len(logits) != len(self._rows):
            message = f"a row of {len(logits)} logits does not fit {len(self._rows)} candidates"
            raise ValueError(message)
        self._claim()
        try:
            self._fill(logits)
        finally:
            self._lock.release()

    def _fill(self, logits: Row) -> None:
        self._words[:] = self._ids
        self._logits[:] = logits
        self._begin(len(logits))

    def _begin(self, size: int) -> None:
        struct = self._struct
        struct.data = self._memory
        struct.size = size
        struct.selected = -1
        struct.sorted = False

    def _fill_part(self, rows: NDArray[Any]) -> None:
        """Start with *rows* alone, no more than there are tokens: others are ruled out already."""
        self._rows[: len(rows)] = rows
        self._begin(len(rows))

    @property
    def n_vocab(self) -> int:
        """Number of tokens before any sampler took some away."""
        return len(self._rows)

    @property
    def size(self) -> int:
        """Number of tokens left."""
        return int(self._struct.size)

    @property
    def selected(self) -> int | None:
        """The row of `data` that a sampler chose, or None."""
        index = int(self._struct.selected)
        return index if 0 <= index < self.size else None

    @property
    def sorted(self) -> bool:
        """Whether the rows stand in order of their logits, the largest first."""
        return bool(self._struct.sorted)

    @property
    def data(self) -> NDArray[Any]:
        """The tokens left: fields ``id`` (int32), ``logit`` and ``p`` (float32), shape ``(size,)``.

        The memory is C's own: writing to it changes the candidates, and the next `fill` or
        `Sampler.apply` changes what it holds. ``p`` is 0 until a sampler needed it.
        """
        # not always at the start: xtc moves the pointer (src/llama-sampler.cpp:2372)
        first = self._struct.data - self._memory
        return self._rows[first : first + self.size]

    def _check(self, n_vocab: int | None) -> None:
        """Raise where libllama would read wild or choose at random (process killers S2, S3, S6)."""
        rows = self.data
        check_peak(float(rows["logit"].max()))
        if n_vocab is None:
            return
        lowest, highest = int(rows["id"].min()), int(rows["id"].max())
        if lowest < 0 or highest >= n_vocab:
            wrong = lowest if lowest < 0 else highest
            message = f"the candidates hold token {wrong}; the sampler's vocabulary has {n_vocab}"
            raise ValueError(message)

    def _chosen(self) -> int | None:
        """Return the token selected, or None if it could not really be chosen.

        Where all are ruled out libllama selects one nevertheless, with the logit -inf or the
        probability NaN. A temperature so near to 0 that logits overflow ends in NaN as well.
        """
        struct = self._struct
        if not 0 <= struct.selected < struct.size:
            return None
        chosen = struct.data[struct.selected]
        possible = math.isfinite(chosen.logit) and math.isfinite(chosen.p)
        return int(chosen.id) if possible else None

    def _spoil(self) -> None:
        """Leave one row that harms nobody: a sampler has failed, and C goes on to the next ones."""
        self._struct.size = 1
        self._struct.selected = -1
        self._struct.sorted = False
        self.data[0] = 0, 0.0, 0.0

    def _claim(self) -> None:
        """Keep the memory to this thread until ``_lock.release()``."""
        if not self._lock.acquire(blocking=False):
            message = "these candidates are in use by another thread"
            raise BusyError(message)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<Candidates: {self.size} of {self.n_vocab} tokens, selected {self.selected}>"


def check_row(logits: Row) -> None:
    """Raise unless *logits* is a row that samplers can read."""
    if not isinstance(logits, np.ndarray) or logits.dtype != FLOAT32:
        kind = getattr(logits, "dtype", type(logits).__name__)
        message = f"logits must be a float32 array, not {kind}: use np.asarray(row, np.float32)"
        raise TypeError(message)
    if logits.ndim != 1 or not len(logits):
        message = f"logits must have the shape (n_vocab,), not {logits.shape}"
        raise ValueError(message)


def likeliest(row: Row) -> int:
    """Return the token with the largest logit.

    Parameters
    ----------
    row
        Logits, float32, shape ``(n_vocab,)``.

    Returns
    -------
    int
        A token id; of equals the first.

    Raises
    ------
    SamplingError
        If a logit is NaN or +inf, or all are -inf.
    """
    token = int(row.argmax())
    check_peak(row.item(token))
    return token


def check_peak(peak: float) -> None:
    """Raise if *peak*, the largest logit, shows that no token can be chosen.

    ``max`` and ``argmax`` of numpy propagate NaN, so the largest tells of any NaN in the row.
    libllama would return an arbitrary token.
    """
    if not math.isfinite(peak):
        why = (
            "a logit is NaN; the model or a processor computed nonsense"
            if math.isnan(peak)
            else "a logit is +inf"
            if peak > 0
            else "every logit is -inf: all tokens are ruled out"
        )
        message = f"no token can be chosen: {why}"
        raise SamplingError(message)
