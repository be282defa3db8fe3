"""The options of a projector, each checked before C sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from pyllama.core.enums import FlashAttnType
from pyllama.core.library import ffi, lib
from pyllama.core.params import MAX_THREADS, flag, one_of, whole

if TYPE_CHECKING:
    from pyllama.core.params import Check

# C counts pixels in an int: tokens times the area of a patch (tools/mtmd/clip-model.h:192).
MAX_IMAGE_TOKENS = 1 << 20


class ProjectorOptions(TypedDict, total=False):
    """The options of `Projector`, as ``mtmd_context_params`` names them.

    Attributes
    ----------
    use_gpu : bool
        Compute on a GPU where the build has one.
    n_threads : int
        Threads for encoding. Left out: the CPUs this process may use.
    flash_attn_type : FlashAttnType or str
        auto, disabled, enabled.
    warmup : bool
        Lay out the graph once while loading, which finds out whether flash attention works.
    image_min_tokens, image_max_tokens : int
        Bounds for the tokens of an image, in models that take images of any size; left out, what
        the file says.
    batch_max_tokens : int
        Most tokens of the images that `Projector.encode_all` computes together.
    media_marker : str
        What stands for a bitmap in a text; left out, ``<__media__>``.
    """

    use_gpu: bool | None
    n_threads: int | None
    flash_attn_type: FlashAttnType | str | None
    warmup: bool | None
    image_min_tokens: int | None
    image_max_tokens: int | None
    batch_max_tokens: int | None
    media_marker: str | None


PROJECTOR_CHECKS: dict[str, Check] = {
    "use_gpu": flag,
    "n_threads": whole(1, MAX_THREADS),
    "flash_attn_type": one_of(FlashAttnType),
    "warmup": flag,
    "image_min_tokens": whole(1, MAX_IMAGE_TOKENS),
    "image_max_tokens": whole(1, MAX_IMAGE_TOKENS),
    "batch_max_tokens": whole(1, 2**31 - 1),
}


def media_marker(marker: str | None) -> str:
    """Return the marker to use.

    Parameters
    ----------
    marker
        What was asked for; None is libllama's own.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        If it is no text that C can hold.

    Calls: mtmd_default_marker
    """
    if marker is None:
        return str(ffi.string(lib.mtmd_default_marker()).decode())
    if not isinstance(marker, str):
        message = f"media_marker must be a string, not {marker!r:.80}"
        raise TypeError(message)
    if not marker or "\0" in marker:
        message = f"media_marker={marker!r} must be text, and hold no NUL"
        raise ValueError(message)
    return marker
