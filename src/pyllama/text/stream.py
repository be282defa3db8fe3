"""The bytes of tokens turned into text that is always whole characters and never past a stop."""

from __future__ import annotations

from codecs import utf_8_decode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextStream:
    """Take pieces of bytes and give back the text that is certain so far.

    Parameters
    ----------
    stop
        Strings that end the text and are not part of it. The one that is complete first counts;
        of two that end together, the longer.

    Raises
    ------
    TypeError
        If *stop* is not a sequence of str.
    ValueError
        If a stop string is empty.

    Notes
    -----
    What comes out does not depend on how the bytes were cut into pieces. Bytes that are not UTF-8
    become U+FFFD. Text that may be the beginning of a stop string is held back until it is not.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = stop_strings(stop)
        self._bytes = b""  # the beginning of a character
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Add the bytes of one token.

        Parameters
        ----------
        piece
            Its bytes, as `Vocab.piece` gives them.

        Returns
        -------
        str
            The text that is now certain; often empty. After a stop string nothing more comes.
        """
        data = self._bytes + piece
        text, used = utf_8_decode(data, "replace")
        self._bytes = data[used:]
        return self._release(text) if self._stop else text

    def finish(self) -> str:
        """End the text: an unfinished character becomes U+FFFD, and nothing is held back.

        Returns
        -------
        str
            The rest of the text.
        """
        text, self._bytes = self._bytes.decode(errors="replace"), b""
        if not self._stop:
            return text
        text = self._release(text)
        if self.stopped_by is None:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        """Return what of the held text and *text* can be given out."""
        if self.stopped_by is not None:
            return ""
        held = self._held + text
        found = [
            (held.find(stop) + len(stop), -len(stop), stop) for stop in self._stop if stop in held
        ]
        if found:
            end, _, self.stopped_by = min(found)
            self._held = ""
            return held[: end - len(self.stopped_by)]
        keep = max(_overlap(held, stop) for stop in self._stop)
        cut = len(held) - keep
        self._held = held[cut:]
        return held[:cut]


def stop_strings(stop: Sequence[str]) -> tuple[str, ...]:
    """Check what shall end a text.

    Parameters
    ----------
    stop
        Strings that are not empty.

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError
        If *stop* is not a sequence of str.
    ValueError
        If a stop string is empty.
    """
    if not isinstance(stop, (list, tuple)) or not all(isinstance(each, str) for each in stop):
        message = f"stop must be a list or tuple of strings, not {stop!r:.80}"
        raise TypeError(message)
    if not all(stop):
        message = "an empty stop string would end every text before it begins"
        raise ValueError(message)
    return tuple(stop)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of *text* that *stop* begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
