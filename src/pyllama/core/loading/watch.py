"""A load that can be watched, cancelled and timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.core import log
from pyllama.core.library import ffi, lib
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyllama.core.deadline import Deadline
    from pyllama.core.loading.model_source import Source


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
        if progress is not None and not callable(progress):
            message = f"progress must be a function of the fraction loaded, not {progress!r:.80}"
            raise TypeError(message)
        self.progress = progress
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


def load(source: Source, params: Any, watch: Watch) -> Any:
    """Return a ``llama_model *``, or raise what went wrong.

    Parameters
    ----------
    source
        Where the model comes from.
    params
        A filled ``llama_model_params``.
    watch
        What follows the load.

    Returns
    -------
    cdata
        The model, to be freed by the caller.

    Raises
    ------
    LoadError
        If libllama refuses the model, or the load was cancelled.
    TimeoutError
        If the time was not enough.

    Calls: llama_model_free
    """
    watch.install(params)
    since = log.mark()
    try:
        pointer = source.load(params, watch)
    finally:
        log.drain()
    if pointer != ffi.NULL and watch.stopped:  # told to end when all was done
        lib.llama_model_free(pointer)
    if watch.error is not None:
        raise watch.error
    if watch.cancelled:
        raise LoadError(f"{source.name}: the load was cancelled by its progress callback")
    if pointer == ffi.NULL:
        raise LoadError(f"{source.name}: not loaded", log.complaints(since))
    return pointer
