"""Drafts from the text itself: what followed when its last tokens stood there before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.core.params import whole
from pyllama.speculative.drafter import Drafter, n_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyllama.core.deadline import Deadline


class PromptLookup(Drafter):
    """Guess that the text goes on as it did after the same tokens before.

    Parameters
    ----------
    n_min, n_max
        How many of the last tokens must be the same: *n_max* are tried first, then fewer.

    Raises
    ------
    TypeError, ValueError
        If they are no such numbers.

    Notes
    -----
    Needs no model and takes microseconds. It helps where texts repeat: summaries, edits, code,
    answers that quote the prompt.
    """

    def __init__(self, n_min: int = 2, n_max: int = 4) -> None:
        self._n_max = whole(1, 2**15)("n_max", n_max)
        self._n_min = whole(1, self._n_max)("n_min", n_min)
        self._forget()

    def _forget(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}  # tokens -> where the text went on, the last
        self._n_seen = 0

    def begin(self, ids: Sequence[int], deadline: Deadline | None = None) -> None:  # noqa: ARG002
        """Forget the text before; see `Drafter.begin`.

        Parameters
        ----------
        ids, deadline
            As for `Drafter.begin`.
        """
        self._forget()

    def draft(self, ids: Sequence[int], n: int) -> list[int]:
        """Guess the next tokens; see `Drafter.draft`.

        Parameters
        ----------
        ids, n
            As for `Drafter.draft`.

        Returns
        -------
        list of int
        """
        n, n_ids = n_wanted("n", n), len(ids)
        if n_ids <= self._n_seen:  # tokens were dropped
            self._forget()
        lengths = range(self._n_max, self._n_min - 1, -1)
        for end in range(self._n_seen + 1, n_ids):
            for length in lengths:
                if length <= end:
                    self._seen[tuple(ids[end - length : end])] = end
        self._n_seen = n_ids - 1
        for length in lengths:
            start = self._seen.get(tuple(ids[n_ids - length :])) if length <= n_ids else None
            if start is not None:
                period = n_ids - start  # it may be short: then it repeats
                return [ids[start + i % period] for i in range(n)]
        return []
