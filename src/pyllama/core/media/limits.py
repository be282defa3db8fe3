"""How large an image or a sound may be: looked at before anything decodes or keeps it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pyllama.core.params import whole

_positive = whole(1, 2**31 - 1)
_n_samples = whole(0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """The most that a `Bitmap` may be made of.

    Attributes
    ----------
    max_bytes : int
        Of an encoded file.
    max_side : int
        Pixels of the longer side.
    max_pixels : int
        Width times height; each takes three bytes, and decoding takes about three times that.
    max_aspect : int
        The longer side, divided by the shorter.
    max_seconds : int
        Of sound.

    Raises
    ------
    TypeError, ValueError
        If a limit is no whole number from 1 to 2**31 - 1.
    """

    max_bytes: int = 64 << 20
    max_side: int = 1 << 14
    max_pixels: int = 1 << 26
    max_aspect: int = 200
    max_seconds: int = 3600

    def __post_init__(self) -> None:
        for field in fields(self):
            _positive(field.name, getattr(self, field.name))

    def check_bytes(self, n_bytes: int) -> None:
        """Refuse an encoded file that is empty or too large.

        Parameters
        ----------
        n_bytes
            Its size.

        Raises
        ------
        ValueError
            With the limit.
        """
        if not 0 < n_bytes <= self.max_bytes:
            message = f"the file has {n_bytes} bytes; from 1 to {self.max_bytes} are allowed"
            raise ValueError(message)

    def check_image(self, width: int, height: int) -> None:
        """Refuse an image that has no pixels, too many, or is too narrow.

        Parameters
        ----------
        width, height
            In pixels.

        Raises
        ------
        ValueError
            With the limit.
        """
        short, long = sorted((width, height))
        if short < 1:
            what = "it has no pixels"
        elif long > self.max_side:
            what = f"a side has more than {self.max_side} pixels (max_side)"
        elif width * height > self.max_pixels:
            what = f"it has more than {self.max_pixels} pixels (max_pixels)"
        elif long > short * self.max_aspect:
            what = f"one side is more than {self.max_aspect} times the other (max_aspect)"
        else:
            return
        message = f"an image of {width} x {height} pixels is refused: {what}"
        raise ValueError(message)

    def check_sound(self, n_samples: int, sample_rate: int) -> None:
        """Refuse a sound that is too long.

        Parameters
        ----------
        n_samples
            Of one channel.
        sample_rate
            Samples a second.

        Raises
        ------
        ValueError
            With the limit.
        """
        n_samples = _n_samples("n_samples", n_samples)
        sample_rate = _positive("sample_rate", sample_rate)
        if n_samples > self.max_seconds * sample_rate:
            message = (
                f"a sound of {n_samples / sample_rate:.0f} seconds is refused: "
                f"{self.max_seconds} are allowed (max_seconds)"
            )
            raise ValueError(message)
