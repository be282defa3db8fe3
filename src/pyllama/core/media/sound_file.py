"""The length of an encoded sound, read from its header before C decodes it.

The decoder makes room for as many samples as the header promises, in the projector's rate.
"""

from __future__ import annotations

import struct

_RATES = range(1000, 768_001)  # samples a second
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # formats of WAV


def sound_length(data: bytes) -> tuple[int, int]:
    """Return how many samples a channel of an encoded sound promises to have, and their rate.

    Parameters
    ----------
    data
        The file, a WAV (PCM or float) or FLAC.

    Returns
    -------
    tuple of int
        Samples of each channel, and samples a second.

    Raises
    ------
    ValueError
        If it is neither, or the header is damaged.
    """
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            n_samples, rate = _wav(data)
        elif data[:4] == b"fLaC":
            n_samples, rate = _flac(data)
        else:
            message = (
                f"the sound begins with {data[:12]!r}: WAV and FLAC can be read (how long an MP3 "
                "is shows only when it is decoded); decode others elsewhere, and give the samples"
            )
            raise ValueError(message)
    except struct.error as error:
        message = f"the sound ends inside its header, after {len(data)} bytes"
        raise ValueError(message) from error
    if rate not in _RATES or n_samples < 1:
        message = f"the sound says it has {n_samples} samples, {rate} a second"
        raise ValueError(message)
    return n_samples, rate


def _wav(data: bytes) -> tuple[int, int]:
    start, rate, frame = 12, 0, 0
    while True:
        kind, n_bytes = struct.unpack_from("<4sI", data, start)
        start += 8
        if kind == b"fmt " and not frame:
            rate, frame = _wav_format(data, start)
        elif kind == b"data":
            if not frame or n_bytes > len(data) - start:
                message = (
                    f"the WAV sound has {len(data) - start} bytes of samples where its header "
                    f"says {n_bytes}, in frames of {frame}"
                )
                raise ValueError(message)
            return n_bytes // frame, rate
        start += n_bytes + n_bytes % 2


def _wav_format(data: bytes, start: int) -> tuple[int, int]:
    """Return the rate, and the bytes of a sample in all channels."""
    form, n_channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", data, start)
    if form == _EXTENSIBLE:
        (form,) = struct.unpack_from("<H", data, start + 24)
    if form not in (_PCM, _FLOAT) or bits % 8 or not frame or frame != n_channels * bits // 8:
        message = (
            f"the WAV sound has {n_channels} channels of {bits} bits in frames of {frame} bytes, "
            f"format {form}: only whole samples can be read, PCM (1) or float (3)"
        )
        raise ValueError(message)
    return rate, frame


def _flac(data: bytes) -> tuple[int, int]:
    kind = data[4] & 0x7F if len(data) > 4 else 0
    (packed,) = struct.unpack_from(">Q", data, 18)  # rate 20, channels 3, bits 5, samples 36
    if kind:
        message = "the FLAC sound does not begin with its length"
        raise ValueError(message)
    return packed & (1 << 36) - 1, packed >> 44
