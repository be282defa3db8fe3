"""Images and sounds: what their callables are usually given."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import pyllama

if TYPE_CHECKING:
    from matrix.world import World

Maker = Callable[["World"], Any]


def png() -> bytes:
    """Encode a small grey image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * 32) * 32)
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def wav() -> bytes:
    """Encode a tenth of a second of silence."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(3200))
    return out.getvalue()


def bitmap() -> pyllama.Bitmap:
    """Make an image."""
    return pyllama.Bitmap(np.full((32, 32, 3), 128, np.uint8))


def png_file(world: World) -> Any:
    """Write an image."""
    path = world.directory / "image.png"
    path.write_bytes(png())
    return path


OBJECTS: dict[str, Maker] = {
    "Bitmap": lambda w: bitmap(),
    "Chunk": lambda w: w.chunks()[0],
    "Chunks": lambda w: w.chunks(),
    "MediaLimits": lambda w: pyllama.MediaLimits(),
    "Projector": lambda w: w.projector(),
}

SPECIAL: dict[str, dict[str, Maker]] = {
    "Bitmap": {"pixels": lambda w: np.full((32, 32, 3), 128, np.uint8)},
    "Bitmap.from_bytes": {"data": lambda w: png()},
    "Bitmap.from_file": {"path": png_file},
    "Bitmap.from_samples": {
        "samples": lambda w: np.zeros(1600, np.float32),
        "sample_rate": lambda w: 16000,
    },
    "Bitmap.placeholder": {"width": lambda w: 32, "height": lambda w: 32},
    "Bitmap.sound_from_bytes": {"data": lambda w: wav(), "projector": lambda w: w.projector()},
    "Chunk": {"chunks": lambda w: w.chunks(), "index": lambda w: 0},
    "Chunks": {
        "pointer": lambda w: None,
        "projector": lambda w: w.projector(),
        "is_placeholder": lambda w: False,
    },
    "Chunks.__getitem__": {"index": lambda w: 0},
    "MediaLimits.check_bytes": {"n_bytes": lambda w: 1},
    "MediaLimits.check_image": {"width": lambda w: 32, "height": lambda w: 32},
    "MediaLimits.check_sound": {"n_samples": lambda w: 1600, "sample_rate": lambda w: 16000},
    "Projector": {"path": lambda w: w.path("projector")},
    "Projector.capabilities": {"path": lambda w: w.path("projector")},
    "Projector.decode": {
        "context": lambda w: w.empty(),
        "chunks": lambda w: w.chunks(),
    },
    "Projector.encode": {"chunk": lambda w: w.chunks()[1]},
    "Projector.encode_all": {"chunks": lambda w: w.chunks()[1:2]},
    "Projector.tokenize": {"prompt": lambda w: ["a", bitmap()]},
}

REFUSED = {
    "Bitmap.sound_from_bytes",  # the projector takes images
    "Chunks",  # made from a pointer
}

VALUES = ("Chunk", "MediaLimits")
