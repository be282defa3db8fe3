"""A load that can be watched, cancelled and timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.core import log
from pyllama.core.library import ffi, lib
from pyllama.core.params import function
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.deadline import Deadline


class Watch:
    """Follows one load, and says after each tensor whether it goes on.

    Parameters
    ----------
    progress
        Called with the fraction loaded. If it returns False, or raises, the load ends.
    deadline
        When the load ends by itself.

    Raises
    ------
    TypeError
        If *progress* cannot be called.
    """

    def __init__(
        self, progress: Callable[[float], object] | None, deadline: Deadline | None = None
    ) -> None:
        self.progress: Callable[[float], object] | None = function("progress", progress)
        self.deadline = deadline
        self.error: BaseException | None = None
        self.cancelled = False
        self.user_data = ffi.new_handle(self)  # valid while this object lives

    def __call__(self, fraction: float) -> bool:
        """Return whether the load goes on."""
        if self.stopped:
            return False
        try:
            if self.deadline is not None:
                self.deadline.require("the rest of the model")
            if self.progress is not None:
                self.cancelled = self.progress(fraction) is False
        except BaseException as error:  # noqa: BLE001 - a C frame is below us
            self.error = error
        return not self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the load was told to end."""
        return self.cancelled or self.error is not None

    def install(self, params: Any) -> None:
        """Have C call this, if there is anything to watch for."""
        if self.progress is not None or self.deadline is not None:
            params.progress_callback = lib.pyllama_progress
            params.progress_callback_user_data = self.user_data


@ffi.def_extern()
def pyllama_progress(progress: float, user_data: Any) -> bool:
    """See ``llama_progress_callback``: False stops the load."""
    return bool(ffi.from_handle(user_data)(progress))


def load(
    name: str, params: Any, watch: Watch, make: Callable[[], Any], free: Callable[[Any], None]
) -> Any:
    """Return what *make* loads, or raise what went wrong.

    Parameters
    ----------
    name
        What is loaded, for messages.
    params
        The C struct of options that *make* gives to libllama.
    watch
        What follows the load.
    make
        Returns the pointer that libllama gives.
    free
        What frees it.

    Returns
    -------
    cdata
        The pointer, to be freed by the caller.

    Raises
    ------
    LoadError
        If libllama refuses the file, or the load was cancelled.
    TimeoutError
        If the time was not enough.
    """
    watch.install(params)
    since = log.mark()
    try:
        pointer = make()
    finally:
        log.drain()
    if pointer != ffi.NULL and watch.stopped:  # told to end when all was done
        free(pointer)
    if watch.error is not None:
        raise watch.error
    if watch.cancelled:
        raise LoadError(f"{name}: the load was cancelled by its progress callback")
    if pointer == ffi.NULL:
        raise LoadError(f"{name}: not loaded", log.complaints(since))
    return pointer
