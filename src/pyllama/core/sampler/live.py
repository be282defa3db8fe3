"""The candidates as a sampler written in Python sees them, while it is called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.params import flag, whole
from pyllama.core.sampler.candidates import Candidates
from pyllama.errors import SamplingError, StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_index = whole(-(2**31), 2**31 - 1)


class LiveCandidates:
    """Hold the tokens that a sampler written in Python may choose from.

    Parameters
    ----------
    candidates
        Where C has them.

    Raises
    ------
    TypeError
        If they are no `Candidates`.

    Notes
    -----
    It lives as long as the call that it is an argument of: afterwards everything but ``repr``
    raises StateError. An array taken from `data` stays readable, but the next sampler changes what
    it holds: copy what is to be kept.
    """

    __slots__ = ("_data", "_n_vocab", "_selected", "_size", "_sorted", "_was_sorted")

    def __init__(self, candidates: Candidates) -> None:
        if not isinstance(candidates, Candidates):
            message = f"LiveCandidates are made of Candidates, not of {candidates!r:.60}"
            raise TypeError(message)
        self._data: NDArray[Any] | None = candidates.data
        self._n_vocab = candidates.n_vocab
        self._size = candidates.size
        self._selected = candidates.selected
        self._was_sorted = candidates.sorted
        self._sorted: bool | None = None  # not said yet

    @property
    def data(self) -> NDArray[Any]:
        """The tokens left: fields ``id`` (int32), ``logit`` and ``p`` (float32), shape ``(size,)``.

        C's own memory: write to it, or put the rows in another order. ``p`` is 0 until a sampler
        needed it.
        """
        return self._all()[: self._size]

    @property
    def n_vocab(self) -> int:
        """Number of tokens before any sampler took some away."""
        self._all()
        return self._n_vocab

    @property
    def size(self) -> int:
        """Number of tokens left; setting it keeps the first so many rows."""
        self._all()
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = int(whole(0, len(self._all()))("size", size))

    @property
    def selected(self) -> int | None:
        """The row of `data` that is chosen, or None."""
        self._all()
        return self._selected

    @selected.setter
    def selected(self, row: int | None) -> None:
        self._all()
        self._selected = None if row is None else int(_index("selected", row))

    @property
    def sorted(self) -> bool:
        """Whether the rows stand in order of their logits, the largest first.

        It need not be set to False: an order that no longer holds is noticed.
        """
        self._all()
        return self._was_sorted if self._sorted is None else self._sorted

    @sorted.setter  # noqa: A003 - the name in C
    def sorted(self, value: bool) -> None:
        self._all()
        self._sorted = flag("sorted", value)

    def _all(self) -> NDArray[Any]:
        if self._data is None:
            message = "these candidates were those of a call that has ended: copy what you keep"
            raise StateError(message, expected="inside the call", actual="after it")
        return self._data

    def _finish(self, candidates: Candidates, name: str) -> None:
        """Hand back to C what the sampler *name* left; raise if C cannot work with it."""
        rows = self.data
        fault = self._fault(rows)
        if fault:
            message = f"the Python sampler {name!r} {fault}"
            raise SamplingError(message)
        is_sorted = self.sorted
        if is_sorted:
            logits = rows["logit"]
            is_sorted = bool((logits[:-1] >= logits[1:]).all())
            if self._sorted and not is_sorted:
                message = f"the Python sampler {name!r} said sorted=True of rows that are not"
                raise SamplingError(message)
        struct = candidates._struct
        struct.size = self._size
        struct.selected = -1 if self._selected is None else self._selected
        struct.sorted = is_sorted

    def _fault(self, rows: NDArray[Any]) -> str:
        if not len(rows):
            return "left no candidate"
        peak = float(rows["logit"].max())
        if not math.isfinite(peak):
            if math.isnan(peak):
                return "left a logit that is NaN"
            return "left a logit of +inf" if peak > 0 else "ruled out every token"
        ids = rows["id"]
        if int(ids.view(np.uint32).max()) >= self._n_vocab:  # negative ones are large there
            wrong = ids[(ids < 0) | (ids >= self._n_vocab)][0]
            return f"left token {wrong}, but the vocabulary has {self._n_vocab}"
        if self._selected is not None and not 0 <= self._selected < self._size:
            return f"selected row {self._selected} of {self._size}"
        return ""

    def _end(self) -> None:
        self._data = None

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.data[key]
        except OverflowError as error:  # numpy's word for an index beyond all that are possible
            raise IndexError(str(error)) from None

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            self.data[key] = value
        except OverflowError as error:
            message = f"row {key!r:.40} cannot hold {value!r:.80}: {error}"
            raise ValueError(message) from None

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        if self._data is None:
            return "<LiveCandidates: the call has ended>"
        return (
            f"<LiveCandidates: {self._size} of {self._n_vocab} tokens, selected {self._selected}>"
        )
