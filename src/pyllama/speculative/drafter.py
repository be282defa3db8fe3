"""What every drafter can do: the protocol between those that guess tokens and the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pyllama.core.params import whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pyllama.core.context import Context
    from pyllama.core.deadline import Deadline


n_wanted = whole(1, 2**16)  # how many tokens to guess


class Drafter(ABC):
    """Guess how a text goes on. Subclass it and write `draft`; the rest does nothing by itself.

    Notes
    -----
    For one run at a time. A wrong guess costs time and never changes the text.
    """

    def check(self, context: Context) -> None:  # noqa: B027 - optional
        """Raise if it cannot guess for a context; nothing was decoded then.

        Parameters
        ----------
        context
            Where the text is generated.

        Raises
        ------
        ValueError, UnsupportedError
            If the two do not fit together.
        """

    def watching(
        self,
        context: Context,  # noqa: ARG002 - for those that look, as the next
        start: int | None,  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Look at what a context computes, as long as a ``with`` block lasts.

        Parameters
        ----------
        context
            Where the text is generated.
        start
            The position of the first token decoded in the block; None for the prompt.

        Returns
        -------
        context manager
        """
        return nullcontext()

    def begin(self, ids: Sequence[int], deadline: Deadline | None = None) -> None:  # noqa: B027 - optional
        """Take note of a prompt; it has just been decoded.

        Parameters
        ----------
        ids
            Its tokens, not to be changed.
        deadline
            When all of the run must have ended.
        """

    @abstractmethod
    def draft(self, ids: Sequence[int], n: int) -> Sequence[int]:
        """Guess the next tokens.

        Parameters
        ----------
        ids
            All tokens so far, not to be changed. After tokens were dropped to make room
            (``n_keep``) they are fewer than the last time.
        n
            How many to guess at most, 1 or more.

        Returns
        -------
        sequence of int
            The guesses, in the order of the text; none if there is no good one.
        """

    def abort(self) -> None:  # noqa: B027 - optional
        """Stop the `begin` or `draft` that another thread is in, which raises AbortedError."""


def require(kind: type, name: str, value: Any) -> None:
    """Raise unless an argument is of a class.

    Parameters
    ----------
    kind
        The class.
    name
        Of the argument.
    value
        What was given.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(value, kind):
        message = f"{name} must be a {kind.__name__}, not {value!r:.80}"
        raise TypeError(message)
