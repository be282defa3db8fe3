"""Writing a file so that it is there whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def write_whole(path: str | os.PathLike[str], parts: Iterable[Any]) -> None:
    """Write *parts* to a file beside *path*, bring them to the disk, and give it that name.

    Parameters
    ----------
    path
        As for `replacing`.
    parts
        Bytes, or other buffers, in order.

    Raises
    ------
    OSError
        As for `replacing`.
    """
    with replacing(path) as temporary, temporary.open("r+b") as file:
        for part in parts:
            file.write(part)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend the name of an empty file beside *path*; after the block it takes that name.

    Parameters
    ----------
    path
        Where the file appears. An older file is replaced; a symbolic link is replaced too, not
        followed.

    Yields
    ------
    Path
        The file to write to. If the block raises, it is removed.

    Raises
    ------
    OSError
        If the disk is full, the folder is missing, or *path* is a folder, a device or a pipe. The
        older file is then as it was, and nothing is left behind.
    """
    target = Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 - resolve() follows a link
    with suppress(FileNotFoundError):
        status = target.stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if not stat.S_ISREG(status.st_mode):  # renaming would put a file in the place of a device
            raise OSError(errno.EINVAL, "not a regular file", str(target))
    temporary = target.parent / f".pyllama-{os.urandom(8).hex()}"
    temporary.touch(exist_ok=False)  # never through a link that someone put there
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too, where the system can."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
