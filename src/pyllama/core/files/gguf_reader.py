"""Steps through the bytes of a GGUF header, and says which ones are at fault."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pyllama.errors import LoadError

if TYPE_CHECKING:
    from typing import BinaryIO

_unpack_u32 = struct.Struct("<I").unpack_from
_unpack_u64 = struct.Struct("<Q").unpack_from


class Reader:
    """Steps through a header, and reads the file no further than that needs.

    Parameters
    ----------
    path
        What the data are called in messages.
    file
        Stands where they begin.
    size
        Their length in bytes.
    """

    def __init__(self, path: str, file: BinaryIO, size: int) -> None:
        self.path = path
        self.file = file
        self.size = size
        self.data = bytearray()
        self.position = 0
        self._fill(min(self.size, 1 << 20))

    def error(self, offset: int, what: str) -> LoadError:
        """Return the error that says what is wrong at a byte."""
        return LoadError(f"{self.path}, byte {offset}: {what}")

    def _fill(self, end: int) -> None:
        """Have the first *end* bytes of the file in `data`; doubling keeps this linear."""
        if end > len(self.data):
            wanted = min(self.size, max(end, 2 * len(self.data)))
            self.data += self.file.read(wanted - len(self.data))
            if end > len(self.data):
                raise self.error(len(self.data), "the file became shorter while it was read")

    def take(self, n_bytes: int, what: str) -> int:
        """Step over *n_bytes* bytes, and return where they begin."""
        start, end = self.position, self.position + n_bytes
        if end > self.size:
            raise self.error(
                start,
                f"{what} takes {n_bytes} bytes, but the file ends after {self.size - start} more; "
                "the download is probably incomplete, or the file damaged",
            )
        self._fill(end)
        self.position = end
        return start

    def u32(self, what: str) -> int:
        """Read a whole number of 4 bytes."""
        start = self.take(4, what)
        return int(_unpack_u32(self.data, start)[0])

    def u64(self, what: str) -> int:
        """Read a whole number of 8 bytes."""
        start = self.take(8, what)
        return int(_unpack_u64(self.data, start)[0])

    def string(self, what: str) -> str:
        """Read a text; bytes that are not UTF-8 become surrogate escapes."""
        n_bytes = self.u64(f"the length of {what}")
        start = self.take(n_bytes, what)
        return self.data[start : start + n_bytes].decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        """Step over *count* strings; this loop is where the time of a header goes."""
        data, start, position, ready = self.data, self.position, self.position, len(self.data) - 8
        for index in range(count):
            if position > ready:
                self.position = start
                self.take(position - start, f"text {index - 1} of {what}")
                self.take(8, f"the length of text {index} of {what}")
                ready = len(data) - 8
            start = position
            position += 8 + _unpack_u64(data, position)[0]
        self.position = start
        self.take(position - start, f"text {count - 1} of {what}")
