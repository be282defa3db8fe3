"""Pixels, samples, files and names in the form in which C takes them, or an exception."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.media.limits import MediaLimits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked(limits: MediaLimits) -> MediaLimits:
    """Return *limits*; TypeError if they are none."""
    if not isinstance(limits, MediaLimits):
        message = f"limits must be MediaLimits, not {limits!r:.80}"
        raise TypeError(message)
    return limits


def file_bytes(data: bytes, limits: MediaLimits) -> bytes:
    """Return the bytes of a file, which nobody can change meanwhile."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        message = f"data must be the bytes of a file, not {type(data).__name__}"
        raise TypeError(message)
    limits.check_bytes(memoryview(data).nbytes)
    return bytes(data)


def pixels_array(pixels: Any, limits: MediaLimits) -> NDArray[np.uint8]:
    """Return pixels as C wants them; the size of a Pillow image is known before it is decoded."""
    if hasattr(pixels, "convert") and hasattr(pixels, "size"):
        limits.check_image(*pixels.size)
        pixels = pixels.convert("RGB")
    array = np.asarray(pixels)
    if array.dtype != np.uint8:
        message = f"pixels must be uint8, 0 to 255, not {array.dtype}"
        raise TypeError(message)
    if array.ndim != 3 or array.shape[2] != 3:
        message = f"pixels must have the shape (height, width, 3), not {array.shape}"
        raise ValueError(message)
    limits.check_image(array.shape[1], array.shape[0])
    return np.ascontiguousarray(array)


def name_bytes(name: str) -> bytes:
    """Return the name of a bitmap as C wants it."""
    if not isinstance(name, str):
        message = f"id must be a string, not {name!r:.80}"
        raise TypeError(message)
    if "\0" in name:
        message = f"id={name!r} holds a NUL, where C would end it"
        raise ValueError(message)
    return name.encode()


def samples_array(samples: ArrayLike) -> NDArray[np.float32]:
    """Return the samples of one channel as C wants them."""
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        message = f"samples must be floats from -1 to 1, not {array.dtype}"
        raise TypeError(message)
    # libllama asserts that there is more than one (tools/mtmd/mtmd.cpp, add_media).
    if array.ndim != 1 or array.size < 2:
        message = f"samples must have the shape (n_samples,), 2 or more, not {array.shape}"
        raise ValueError(message)
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, refused below
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        message = "samples hold a value that is not finite"
        raise ValueError(message)
    return array


def content_name(content: NDArray[Any]) -> str:
    """Return the name of a bitmap that was given none: the SHA-256 of shape and values."""
    digest = hashlib.sha256(repr(content.shape).encode())
    digest.update(content.data)
    return digest.hexdigest()
