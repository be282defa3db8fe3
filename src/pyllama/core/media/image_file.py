"""The size of an encoded image, read from its header before C decodes it.

The decoder believes the header and makes room for what it promises; a few bytes can promise
gigabytes. What is not read here with certainty is refused, so that both see the same size.
"""

from __future__ import annotations

import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types of PNG
_FRAMES = (0xC0, 0xC1, 0xC2)  # the JPEG frames that libllama's decoder knows


def image_kind(data: bytes) -> str:
    """Return what an encoded image is: "png", "jpeg", "gif" or "bmp".

    Parameters
    ----------
    data
        The file.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it is none of these.
    """
    for kind, magic in (("png", _PNG), ("jpeg", b"\xff\xd8\xff"), ("gif", b"GIF8"), ("bmp", b"BM")):
        if data.startswith(magic):
            return kind
    message = (
        f"the image begins with {data[:12]!r}: PNG, JPEG, GIF and BMP can be read; decode others "
        "elsewhere (with Pillow, for instance) and give the pixels"
    )
    raise ValueError(message)


def image_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that the header of an encoded image promises.

    Parameters
    ----------
    data
        The file, a PNG, JPEG, GIF or BMP.

    Returns
    -------
    tuple of int
        Width and height in pixels.

    Raises
    ------
    ValueError
        If it is none of these, or the header is damaged.
    """
    kind = image_kind(data)
    try:
        return _READERS[kind](data)
    except struct.error as error:
        message = f"the {kind.upper()} image ends inside its header, after {len(data)} bytes"
        raise ValueError(message) from error


def check_inflated(data: bytes) -> None:
    """Refuse a PNG whose compressed pixels are more than its header promises.

    Parameters
    ----------
    data
        The file. Other kinds are not compressed in a way that could be.

    Raises
    ------
    ValueError
        If they are.
    """
    if image_kind(data) != "png":
        return
    width, height = image_size(data)
    depth, colour, _, _, interlaced = struct.unpack_from(">5B", data, 24)
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        message = f"the PNG image has the colour type {colour} with {depth} bits, which none has"
        raise ValueError(message)
    # A byte for each row, and for each row of the seven passes of an interlaced image.
    row = -(-width * depth * _CHANNELS[colour] // 8) + 1
    room = row * height + (interlaced and 8 * (width + 2 * height))
    stream, inflated = zlib.decompressobj(), 0
    try:
        for part in _png_data(data):
            rest: bytes | memoryview = part
            while rest:
                inflated += len(stream.decompress(rest, 1 << 20))
                if inflated > room:
                    message = f"the PNG image holds more than the {room} bytes of its pixels"
                    raise ValueError(message)
                rest = stream.unconsumed_tail
    except zlib.error as error:
        message = f"the PNG image is damaged: {error}"
        raise ValueError(message) from error


def _png_data(data: bytes) -> list[memoryview]:
    """Return the parts of the compressed pixels."""
    view, parts, start = memoryview(data), [], len(_PNG)
    while start + 8 <= len(data):
        n_bytes, kind = struct.unpack_from(">I4s", data, start)
        if kind == b"IDAT":
            parts.append(view[start + 8 : start + 8 + n_bytes])
        start += n_bytes + 12  # length, kind, checksum
    return parts


def _png(data: bytes) -> tuple[int, int]:
    n_bytes, kind, width, height, *_ = struct.unpack_from(">I4sII5B", data, len(_PNG))
    if (n_bytes, kind) != (13, b"IHDR"):
        message = f"the PNG image begins with {kind!r}, not with its header"
        raise ValueError(message)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    start = 2
    while True:
        mark, code = struct.unpack_from(">BB", data, start)
        if mark != 0xFF:
            message = f"the JPEG image has {mark:#x} at byte {start}, where a marker should be"
            raise ValueError(message)
        if code == 0xFF:  # markers may be filled up with these
            start += 1
            continue
        (n_bytes,) = struct.unpack_from(">H", data, start + 2)
        if code in _FRAMES:
            _, height, width = struct.unpack_from(">BHH", data, start + 4)
            return width, height
        if not (0xE0 <= code <= 0xEF or code in (0xC4, 0xDB, 0xDD, 0xFE)) or n_bytes < 2:
            message = f"the JPEG image has the segment {code:#x} before its size, which none has"
            raise ValueError(message)
        start += 2 + n_bytes


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height turns the image over


_READERS = {"png": _png, "jpeg": _jpeg, "gif": _gif, "bmp": _bmp}
