"""Every exception that pyllama defines, and the tables that turn return codes into them.

::

    LlamaError
      LoadError              a constructor gave NULL; .log holds libllama's last error lines
      LibraryError           a C++ exception left libllama; the object is still usable
        LibraryAbortError    an assertion failed inside libllama; the object can only be closed
      DecodeError            llama_decode failed; .code
        NoSlotError              1  no room in the memory; unchanged, retry with less
        AbortedError             2  stopped by abort()
        InvalidBatchError       -1  libllama refused the batch; unchanged
                               < -1  the base class itself: computing failed
      TokenizeError          text that this vocabulary cannot tokenize
      SamplingError          no token can be chosen from these logits
      GrammarError           a grammar that does not parse
      TemplateError          a chat template that does not render
      StateError             a call that does not fit the object's state; .expected .actual
      AdapterError           an adapter that does not fit the model
      QuantizeError          a model file that was not quantised; .log as for LoadError
      ClosedError            used after close() (also a ValueError, as for files)
      BusyError              used by a second thread, or closed during a call
      UnsupportedError       this build, or this model, cannot
      RequestError           engine and server
        ContextLengthError
        QueueFullError
        ModelNotFoundError

A wrong argument is a TypeError, ValueError or IndexError, raised before C is called; an array
that is lent out makes `decode` and `close` raise BufferError; a ``timeout`` that was too short is a
TimeoutError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class LlamaError(Exception):
    """The base of every exception that pyllama defines."""


class LoadError(LlamaError):
    """A file or object could not be loaded or created.

    Parameters
    ----------
    message
        What happened.
    log
        libllama's own error lines, oldest first.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message, *log]))
        self.log = tuple(log)


class LibraryError(LlamaError):
    """A C++ exception left a function of libllama; the objects involved are still usable."""


class LibraryAbortError(LibraryError):
    """An assertion failed inside libllama; the object that was called can only be closed."""


class DecodeError(LlamaError):
    """`Context.decode` or `Context.encode` failed.

    Parameters
    ----------
    code
        What the C function returned.
    message
        What happened and what to do.
    """

    hint = "computing the batch failed; the tokens it had stored are removed again"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)  # both, so that it can be pickled
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


class NoSlotError(DecodeError):
    """The memory has no room for the batch and is unchanged; retry with a smaller batch."""

    hint = "no room in the memory for this batch: remove a sequence, or decode fewer tokens"


class AbortedError(DecodeError):
    """Another thread called `Context.abort`; the memory is as it was before the call."""

    hint = "the call was stopped by abort()"


class InvalidBatchError(DecodeError):
    """libllama refused the batch; the memory is unchanged."""

    hint = "libllama refused the batch"


class TokenizeError(LlamaError):
    """The vocabulary cannot represent the text."""


class SamplingError(LlamaError):
    """No token can be chosen: the logits are NaN, or every token is ruled out."""


class GrammarError(LlamaError):
    """A grammar does not parse, or cannot accept a token."""


class TemplateError(LlamaError):
    """A chat template does not render."""


class StateError(LlamaError):
    """A call does not fit the state that the object is in.

    Parameters
    ----------
    message
        What happened and what to do.
    expected, actual
        The two states, where they have names.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class AdapterError(LlamaError):
    """An adapter does not fit the model."""


class QuantizeError(LlamaError):
    """A model file was not quantised: libllama refused, its process died, or it was cancelled.

    Parameters
    ----------
    message
        What happened.
    log
        libllama's own warnings and errors, oldest first.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message, *log]))
        self.log = tuple(log)


class ClosedError(LlamaError, ValueError):
    """The object was used after it was closed."""


class BusyError(LlamaError):
    """The object is in use by another thread, or by the call that this one was made from."""


class UnsupportedError(LlamaError):
    """What was asked cannot be done by this build of libllama, or by this model."""


class RequestError(LlamaError):
    """A request to the engine or the server cannot be served."""


class ContextLengthError(RequestError):
    """The tokens do not fit into the context."""


class QueueFullError(RequestError):
    """Too many requests are waiting."""


class ModelNotFoundError(RequestError):
    """No model of that name is known."""


DECODE_ERRORS: dict[int, type[DecodeError]] = {
    1: NoSlotError,
    2: AbortedError,
    -1: InvalidBatchError,
}


def decode_error(code: int, log: Sequence[str] = ()) -> DecodeError:
    """Return the error that *code*, returned by ``llama_decode``, stands for.

    Parameters
    ----------
    code
        A value other than 0.
    log
        What libllama said of it.

    Returns
    -------
    DecodeError
        Below -1 the base class: the failure is not one that a caller can mend (llama.h).
    """
    kind = DECODE_ERRORS.get(code, DecodeError)
    return kind(code, "\n  ".join([f"{kind.hint} (llama_decode returned {code})", *log]))
