"""A bitmap: an image or a sound that a projector turns into tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core import bigstack
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.core.media.content import (
    checked,
    content_name,
    file_bytes,
    name_bytes,
    pixels_array,
    samples_array,
)
from pyllama.core.media.image_file import check_inflated, image_kind, image_size
from pyllama.core.media.limits import MediaLimits
from pyllama.core.media.sound_file import sound_length
from pyllama.core.params import flag, whole
from pyllama.errors import StateError, UnsupportedError

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from pyllama.core.media.projector import Projector

LIMITS = MediaLimits()
# The GIF decoder recurses once for each of up to 4096 links of a code (stb_image.h:6654).
_DECODER_STACK = 4 << 20
_side = whole(0, 2**31 - 1)
_sample_rate = whole(1, 2**31 - 1)


class Bitmap(Handle):
    """Make an image of pixels, which are copied.

    Parameters
    ----------
    pixels
        uint8, shape ``(height, width, 3)``, RGB, rows from the top; or an image of Pillow, which
        is converted to that.
    id
        A name for the content, by which it is known again; left out, the SHA-256 of the content.
    mergeable
        Whether it is a frame of a video: models that know videos make one chunk of two such
        bitmaps that follow each other and have one size.
    limits
        What is too large.

    Raises
    ------
    TypeError
        If the pixels are no uint8, or another argument has the wrong type.
    ValueError
        If they have another shape, or are beyond *limits*.

    Notes
    -----
    `from_bytes` and `from_file` decode an encoded image, `from_samples` and `sound_from_bytes`
    make a sound, `placeholder` makes an image without pixels, to count tokens. A bitmap belongs
    to no projector: it can be given to any, and from several threads at once.

    Calls: mtmd_bitmap_init, mtmd_bitmap_free, mtmd_bitmap_set_id, mtmd_bitmap_set_mergeable
    """

    _sample_rate: int | None = None  # of a sound

    def __init__(
        self,
        pixels: ArrayLike,
        *,
        id: str | None = None,  # noqa: A002 - as mtmd.h calls it
        mergeable: bool = False,
        limits: MediaLimits = LIMITS,
    ) -> None:
        array = pixels_array(pixels, checked(limits))
        name = name_bytes(content_name(array) if id is None else id)
        flag("mergeable", mergeable)
        height, width, _ = array.shape
        memory = ffi.from_buffer("unsigned char[]", array)
        self._own(lib.mtmd_bitmap_init(width, height, memory), name)
        lib.mtmd_bitmap_set_mergeable(self.pointer, mergeable)

    def _own(self, pointer: Any, name: bytes | None) -> None:
        super().__init__(pointer, lib.mtmd_bitmap_free, shared=True)
        if name is not None:
            lib.mtmd_bitmap_set_id(pointer, name)

    @classmethod
    def placeholder(
        cls,
        width: int,
        height: int,
        *,
        id: str = "",  # noqa: A002
        limits: MediaLimits = LIMITS,
    ) -> Self:
        """Make an image without pixels: `Projector.tokenize` tells how many tokens it would take.

        Parameters
        ----------
        width, height
            In pixels.
        id
            A name for it.
        limits
            As for `Bitmap`.

        Returns
        -------
        Bitmap
            `Projector.encode` refuses what is made from it.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, or the size is beyond *limits*.

        Calls: mtmd_bitmap_init
        """
        width, height = _side("width", width), _side("height", height)
        checked(limits).check_image(width, height)
        name = name_bytes(id)
        bitmap = cls.__new__(cls)
        bitmap._own(lib.mtmd_bitmap_init(width, height, ffi.NULL), name)
        return bitmap

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002
        limits: MediaLimits = LIMITS,
    ) -> Self:
        """Decode an image.

        Parameters
        ----------
        data
            A PNG, JPEG, GIF (its first frame) or BMP file.
        id
            A name for the content; left out, the SHA-256 of *data*.
        limits
            What is too large. The size that the header promises is looked at before anything is
            decoded.

        Returns
        -------
        Bitmap

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If it is none of these, is damaged, or is beyond *limits*.

        Calls: mtmd_helper_bitmap_init_from_buf
        """
        data = file_bytes(data, checked(limits))
        limits.check_image(*image_size(data))
        check_inflated(data)
        return cls._decoded(data, ffi.NULL, id, image_kind(data))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002
        limits: MediaLimits = LIMITS,
    ) -> Self:
        """Decode an image file; see `from_bytes`.

        Parameters
        ----------
        path
            The file.
        id, limits
            As for `from_bytes`.

        Returns
        -------
        Bitmap

        Raises
        ------
        OSError
            As the file system says.
        TypeError, ValueError
            As for `from_bytes`.
        """
        with Path(path).open("rb") as file:
            data = file.read(checked(limits).max_bytes + 1)
        return cls.from_bytes(data, id=id, limits=limits)

    @classmethod
    def from_samples(
        cls,
        samples: ArrayLike,
        sample_rate: int,
        *,
        id: str | None = None,  # noqa: A002
        limits: MediaLimits = LIMITS,
    ) -> Self:
        """Make a sound of samples, which are copied.

        Parameters
        ----------
        samples
            Floats from -1 to 1, shape ``(n_samples,)``: one channel.
        sample_rate
            Samples a second; `Projector.sample_rate` is what the projector takes.
        id, limits
            As for `Bitmap`.

        Returns
        -------
        Bitmap

        Raises
        ------
        TypeError
            If the samples are not floats, or another argument has the wrong type.
        ValueError
            If they have another shape, are fewer than two, not finite, or beyond *limits*.

        Calls: mtmd_bitmap_init_from_audio
        """
        rate, array = _sample_rate("sample_rate", sample_rate), samples_array(samples)
        checked(limits).check_sound(array.size, rate)
        name = name_bytes(content_name(array) if id is None else id)
        bitmap = cls.__new__(cls)
        memory = ffi.from_buffer("float[]", array)
        bitmap._own(lib.mtmd_bitmap_init_from_audio(array.size, memory), name)
        bitmap._sample_rate = rate
        return bitmap

    @classmethod
    def sound_from_bytes(
        cls,
        data: bytes,
        projector: Projector,
        *,
        id: str | None = None,  # noqa: A002
        limits: MediaLimits = LIMITS,
    ) -> Self:
        """Decode a sound into one channel, in the rate that a projector takes.

        Parameters
        ----------
        data
            A WAV (PCM or float) or FLAC file, of any rate.
        projector
            Whose rate to take.
        id, limits
            As for `from_bytes`; it is the length that the header promises.

        Returns
        -------
        Bitmap

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If it is neither, is damaged, or is beyond *limits*.
        UnsupportedError
            If the projector takes no sound.

        Calls: mtmd_helper_bitmap_init_from_buf
        """
        data = file_bytes(data, checked(limits))
        limits.check_sound(*sound_length(data))
        if not isinstance(projector, Handle) or not hasattr(projector, "sample_rate"):
            message = f"a Projector is needed, whose rate to take, not {projector!r:.80}"
            raise TypeError(message)
        rate = projector.sample_rate
        if rate is None:
            message = "this projector takes no sound"
            raise UnsupportedError(message)
        with projector._call as pointer:
            bitmap = cls._decoded(data, pointer, id, "sound")
        bitmap._sample_rate = rate
        if bitmap.n_samples < 2 or not np.isfinite(bitmap.content()).all():
            message = "the sound holds fewer than two samples, or one that is not finite"
            raise ValueError(message)
        return bitmap

    @classmethod
    def _decoded(cls, data: bytes, projector: Any, id: str | None, kind: str) -> Self:  # noqa: A002
        name = None if id is None else name_bytes(id)  # libllama takes the SHA-256 of the file
        options = lib.mtmd_helper_init_opt_default()
        memory = ffi.from_buffer("unsigned char[]", data)

        def decode() -> Any:
            return lib.mtmd_helper_bitmap_init_from_buf(
                projector,
                memory,
                len(data),
                False,  # noqa: FBT003 - no placeholder
                options,
            )

        pointer = bigstack.call(decode, _DECODER_STACK).bitmap
        if pointer == ffi.NULL:
            message = f"the {kind} cannot be decoded: the data behind its header are damaged"
            raise ValueError(message)
        bitmap = cls.__new__(cls)
        bitmap._own(pointer, name)
        return bitmap

    @property
    def is_sound(self) -> bool:
        """Whether it is a sound; else it is an image."""
        with self._call as pointer:
            return bool(lib.mtmd_bitmap_is_audio(pointer))

    @property
    def is_placeholder(self) -> bool:
        """Whether it has no pixels, and serves to count tokens only."""
        return self.n_bytes == 0

    @property
    def width(self) -> int:
        """Pixels in a row; of a sound, its samples."""
        with self._call as pointer:
            return int(lib.mtmd_bitmap_get_nx(pointer))

    @property
    def height(self) -> int:
        """Rows of pixels; of a sound, 1."""
        with self._call as pointer:
            return int(lib.mtmd_bitmap_get_ny(pointer))

    @property
    def n_samples(self) -> int:
        """Samples of a sound; 0 of an image."""
        return self.width if self.is_sound else 0

    @property
    def sample_rate(self) -> int | None:
        """Samples a second of a sound; None of an image."""
        return self._sample_rate

    @property
    def n_bytes(self) -> int:
        """Memory that the content takes, in bytes."""
        with self._call as pointer:
            return int(lib.mtmd_bitmap_get_n_bytes(pointer))

    @property
    def id(self) -> str:
        """The name of the content, "" if it has none."""
        with self._call as pointer:
            return str(ffi.string(lib.mtmd_bitmap_get_id(pointer)).decode())

    def content(self) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return a copy of the pixels, or of the samples.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3), or of float32, shape (n_samples,)

        Raises
        ------
        StateError
            If it is a placeholder.

        Calls: mtmd_bitmap_get_data
        """
        n_bytes, height, width = self.n_bytes, self.height, self.width
        if not n_bytes:
            message = "a placeholder has no pixels"
            raise StateError(message, expected="an image with pixels", actual="a placeholder")
        with self._call as pointer:
            data = ffi.buffer(lib.mtmd_bitmap_get_data(pointer), n_bytes)[:]
        if self.is_sound:
            return np.frombuffer(data, np.float32).copy()
        return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()

    def __repr__(self) -> str:
        if self.closed:
            return "<Bitmap: closed>"
        what = f"{self.n_samples} samples" if self.is_sound else f"{self.width} x {self.height}"
        return f"<Bitmap: {what}, id={self.id[:12]!r}>"
