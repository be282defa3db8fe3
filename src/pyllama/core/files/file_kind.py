"""What a file is, judged by the file system and its first bytes, before anything parses it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from pyllama.errors import LoadError

FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

HEADER_BYTES = 24  # magic, version, two counts

_FOREIGN = (  # first bytes, and what the file is that has them
    (b"PK\x03\x04", "a zip archive, probably a PyTorch checkpoint; convert it to GGUF first"),
    (b"\x80\x02", "a Python pickle, probably a PyTorch checkpoint; convert it to GGUF first"),
    (b"\x80\x04", "a Python pickle; convert the model in it to GGUF first"),
    (b"\x89HDF", "an HDF5 file, probably of Keras; convert it to GGUF first"),
    (b"lmgg", "a GGML file from before GGUF (2023), which llama.cpp no longer reads"),
    (b"fmgg", "a GGMF file from before GGUF (2023), which llama.cpp no longer reads"),
    (b"tjgg", "a GGJT file from before GGUF (2023), which llama.cpp no longer reads"),
    (b"algg", "a GGLA adapter from before GGUF (2023), which llama.cpp no longer reads"),
    (b"nsgg", "a saved llama.cpp session, not a model"),
    (b"qsgg", "a saved llama.cpp sequence state, not a model"),
    (b"version https://git-lfs", "a git-lfs pointer; fetch the file itself with 'git lfs pull'"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"\0\0\0\0", "zeros where a GGUF file has its magic; the download is probably incomplete"),
)


def open_regular(path: FilePath) -> BinaryIO:
    """Open a file for reading bytes, if it is a regular one that is not empty.

    Parameters
    ----------
    path : str, bytes or os.PathLike

    Returns
    -------
    BinaryIO

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the system names them.
    LoadError
        If it is a pipe, a device or a socket (it is not opened, which could wait for ever), or
        is empty.
    """
    name = os.fsdecode(path)
    status = os.stat(name)  # noqa: PTH116 - Path("") would be the current directory
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a directory; give the .gguf file in it", name)
    if not stat.S_ISREG(status.st_mode):
        raise LoadError(
            f"{name} is {_kind(status.st_mode)}, and a model is read at many places at once; "
            "copy it to a regular file"
        )
    if status.st_size == 0:
        raise LoadError(f"{name} is empty (0 bytes); download or copy it again")
    return Path(name).open("rb")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_start(path: str, start: bytes) -> None:
    """Refuse a file that does not begin as GGUF does.

    Parameters
    ----------
    path : str
        For the message.
    start : bytes
        The first bytes of the file, 24 at least if it has so many.

    Raises
    ------
    LoadError
        With what the file is instead, if the bytes tell.
    """
    if b"GGUF".startswith(start[:4]):
        if len(start) < HEADER_BYTES:
            raise LoadError(
                f"{path} has {len(start)} bytes, but the shortest GGUF file has {HEADER_BYTES}; "
                "the download is probably incomplete"
            )
        return
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            raise LoadError(f"{path} is not a GGUF file: it is {what}")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start[7:9] == b"\0{":  # the length of its JSON header, and the header
        what = "a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "a web page; the download address was probably wrong or needs a login"
    elif text.startswith(b"{"):
        what = "JSON text, perhaps the error message of a download"
    else:
        raise LoadError(f"{path} is not a GGUF file: it begins with {start[:4]!r}, not b'GGUF'")
    raise LoadError(f"{path} is not a GGUF file: it is {what}")
