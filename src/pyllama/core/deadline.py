"""A moment by which a call has to return: what ``timeout=`` means everywhere."""

from __future__ import annotations

import threading

from pyllama.core.library import lib
from pyllama.core.params import real

_number = real(0)


def seconds(timeout: float) -> float:
    """Return *timeout* if it is a number of seconds that the system can wait.

    Raises
    ------
    TypeError, ValueError
        If it is not.
    """
    value = float(_number("timeout", timeout))
    if value > threading.TIMEOUT_MAX:
        message = f"timeout={timeout} is more than the system can wait"
        raise ValueError(message)
    return value


class Deadline:
    """A moment on libllama's clock, *timeout* seconds from now.

    Parameters
    ----------
    timeout
        Seconds, 0 or more.

    Raises
    ------
    TypeError, ValueError
        If it is no number of seconds.

    Calls: ggml_time_us
    """

    __slots__ = ("at", "seconds")

    def __init__(self, timeout: float) -> None:
        self.seconds = seconds(timeout)
        self.at = int(lib.ggml_time_us()) + int(self.seconds * 1e6)

    @classmethod
    def after(cls, timeout: float | None) -> Deadline | None:
        """Return the deadline that an argument asks for; None if it asks for none."""
        return None if timeout is None else cls(timeout)

    @property
    def left(self) -> float:
        """Seconds until then; 0 if it has passed."""
        return max(0, self.at - int(lib.ggml_time_us())) / 1e6

    def require(self, what: str) -> None:
        """Raise TimeoutError if it has passed, so that *what* is not begun."""
        if int(lib.ggml_time_us()) >= self.at:
            raise self.error(f"{what} was not begun")

    def error(self, what: str) -> TimeoutError:
        """Return the error that says *what* became of the call."""
        return TimeoutError(f"{self.seconds:g} s have passed: {what}; give it more time, or less")
