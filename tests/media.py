"""Small images and sounds as files, written by hand: what decoders get in the tests."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def noise(height: int = 40, width: int = 60, seed: int = 0) -> NDArray[np.uint8]:
    """Return an image of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: NDArray[np.uint8], *, size: tuple[int, int] | None = None, extra: int = 0) -> bytes:
    """Return a PNG, whose header may promise another size and whose data go on for *extra*."""
    height, width = pixels.shape[:2]
    promised = size or (width, height)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels) + bytes(extra)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">II5B", *promised, 8, 2, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def bmp(pixels: NDArray[np.uint8], *, size: tuple[int, int] | None = None) -> bytes:
    """Return a BMP of 24 bits a pixel, whose header may promise another size."""
    height, width = pixels.shape[:2]
    row = -(-3 * width // 4) * 4
    data = b"".join(line.tobytes().ljust(row, b"\0") for line in pixels[::-1, :, ::-1])
    header = struct.pack("<IiiHHIIiiII", 40, *(size or (width, height)), 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIII", b"BM", 54 + len(data), 0, 54) + header + data


def gif(width: int = 1, height: int = 1) -> bytes:
    """Return a GIF whose only pixel has the second of two colours; a larger one ends early."""
    palette, image = bytes([0, 0, 0, 255, 128, 7]), struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0)
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    return head + palette + image + bytes([2, 2, 0x4C, 1, 0, 0x3B])


def jpeg(width: int = 8, height: int = 8) -> bytes:
    """Return a JPEG with one grey block of eight by eight pixels; a larger one ends early."""
    parts = (
        (0xDB, bytes([0]) + bytes([1] * 64)),
        (0xC0, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)),
        (0xC4, bytes([0x00, 1, *[0] * 15, 0])),
        (0xC4, bytes([0x10, 1, *[0] * 15, 0])),
        (0xDA, bytes([1, 1, 0, 0, 63, 0])),
    )
    segments = (struct.pack(">BBH", 0xFF, code, len(data) + 2) + data for code, data in parts)
    return b"\xff\xd8" + b"".join(segments) + b"\x3f\xff\xd9"


def wav(samples: NDArray[Any], rate: int = 16000, *, n_bytes: int | None = None) -> bytes:
    """Return a WAV with one channel, whose header may promise another length."""
    size = samples.itemsize
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    kind = 1 if samples.dtype.kind == "i" else 3
    form = struct.pack("<HHIIHH", kind, 1, rate, size * rate, size, 8 * size)
    promised = len(data) if n_bytes is None else n_bytes
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", promised) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flac(n_samples: int, rate: int = 16000) -> bytes:
    """Return the head of a FLAC file that promises so many samples."""
    packed = rate << 44 | 15 << 36 | n_samples
    info = struct.pack(">HH6xQ16x", 4096, 4096, packed)
    return b"fLaC" + struct.pack(">I", 0x80 << 24 | len(info)) + info + bytes(64)
