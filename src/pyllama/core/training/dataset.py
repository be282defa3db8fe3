"""A text cut into the windows that a model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyllama.core.batch import int32
from pyllama.core.params import MAX_CONTEXT, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class Dataset:
    """Cut a text into the windows that a model learns from: each token predicts the next.

    Parameters
    ----------
    tokens
        Token ids, shape ``(n_tokens,)``; copied.
    n_ctx
        Tokens of a window; the `Training` must have the same.
    stride
        Tokens from the begin of a window to the next; None is *n_ctx*: no overlap.

    Raises
    ------
    TypeError
        If an argument does not hold whole numbers.
    ValueError
        If there are not the ``n_ctx + 1`` tokens that one window needs, or a number is out of
        range.

    Notes
    -----
    ``len(dataset)`` is the number of windows. What is left over at the end is not used.
    """

    def __init__(self, tokens: ArrayLike, n_ctx: int, *, stride: int | None = None) -> None:
        self._tokens = int32("tokens", tokens, 1)
        self._tokens.flags.writeable = False  # their range is checked once, not for each window
        length = whole(1, MAX_CONTEXT)
        self._n_ctx: int = length("n_ctx", n_ctx)
        self._stride: int = self._n_ctx if stride is None else length("stride", stride)
        if self.n_tokens <= self._n_ctx:
            message = (
                f"{self.n_tokens} tokens do not fill one window: n_ctx={n_ctx} needs "
                f"{self._n_ctx + 1}, because the last token of a window predicts one more"
            )
            raise ValueError(message)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the text."""
        return len(self._tokens)

    @property
    def n_ctx(self) -> int:
        """Tokens of a window."""
        return self._n_ctx

    @property
    def stride(self) -> int:
        """Tokens from the begin of a window to the next."""
        return self._stride

    def __len__(self) -> int:
        return (self.n_tokens - self._n_ctx - 1) // self._stride + 1

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the tokens of a window and those they are to predict, int32, read-only views."""
        at = range(0, len(self) * self._stride, self._stride)[index]
        end = at + self._n_ctx
        return self._tokens[at:end], self._tokens[at + 1 : end + 1]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<Dataset of {len(self)} windows of {self.n_ctx} tokens>"
