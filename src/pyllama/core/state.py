r"""A saved state: what some sequences of a context held, and the file that keeps it.

The file is pyllama's own: libllama's would end the process if it is cut short, and says it was
written when the disk is full (src/llama-context.cpp:3370)::

    8 bytes   b"pyllama\0"
    4, 8      version, length of the whole file (little-endian, as all numbers)
    32        SHA-256 of the 20 bytes before and of all that follows
    8, 8, 8   lengths of the description, of the tokens and of the data
    ...       the description (JSON), the tokens (int32), the data (as libllama gives them)
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.atomic import write_whole
from pyllama.core.batch import int32
from pyllama.core.params import flag, pairs, whole
from pyllama.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Buffer, Self

MAGIC = b"pyllama\0"
VERSION = 1
_HEAD = struct.Struct("<8sIQ")
_LENGTHS = struct.Struct("<QQQ")
_START = _HEAD.size + 32  # of the lengths
_seq = whole(0, 2**31 - 1)
_count = whole(1, 2**31 - 1)


class State:
    """What sequences of a context held; `Context.state` makes it, `Context.restore` takes it.

    Parameters
    ----------
    data
        What libllama wrote.
    fingerprint
        What the model and the memory must be like.
    n_past
        For each sequence that held something, the position after its last.
    seq
        Of which sequence it is; None for a whole context.
    partial
        Whether it holds only what cannot be cut: states, and sliding windows.
    tokens
        The tokens that the caller says were decoded, for the caller's own use.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind.

    Notes
    -----
    It is a copy and depends on no context. The checksum guards against accidents, not against
    an enemy: a file from a stranger deserves the trust that a model from a stranger does.
    """

    def __init__(
        self,
        data: Buffer,
        *,
        fingerprint: Mapping[str, str],
        n_past: Mapping[int, int],
        seq: int | None = None,
        partial: bool = False,
        tokens: ArrayLike = (),
    ) -> None:
        self.data = memoryview(data).toreadonly().cast("B")
        if not self.data:
            message = "a state without data is none: also an empty memory has some"
            raise ValueError(message)
        named = pairs("fingerprint", fingerprint).items()
        if not all(isinstance(text, str) for pair in named for text in pair):
            message = f"a fingerprint is a mapping of str to str, not {fingerprint!r:.80}"
            raise TypeError(message)
        self.fingerprint: Mapping[str, str] = MappingProxyType(dict(fingerprint))
        self.n_past: Mapping[int, int] = MappingProxyType(
            {_seq("seq", each): _count("n_past", n) for each, n in pairs("n_past", n_past).items()}
        )
        self.seq: int | None = None if seq is None else _seq("seq", seq)
        if self.seq is not None and set(self.n_past) - {self.seq}:
            message = f"a state of sequence {seq} says what {sorted(self.n_past)} hold"
            raise ValueError(message)
        self.partial = flag("partial", partial)
        if self.partial and self.seq is None:
            message = "a partial state is of one sequence: give seq"
            raise ValueError(message)
        self.tokens = int32("tokens", tokens, 1)
        self.tokens.flags.writeable = False

    @property
    def n_bytes(self) -> int:
        """Length of what libllama wrote."""
        return self.data.nbytes

    def to_bytes(self) -> bytes:
        """Return what `save` would write.

        Returns
        -------
        bytes
        """
        return b"".join(self._parts())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, whole or not at all.

        Parameters
        ----------
        path
            Where; an older file is replaced once the new one is on the disk. A symbolic link is
            replaced, not followed.

        Raises
        ------
        OSError
            If it cannot be written; the older file is then as it was.
        """
        write_whole(path, self._parts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        State

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
            As the file system says.
        StateError
            If it is no such file, is cut short, or was changed.
        """
        path = os.fspath(path)
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path("") would be the current directory
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe could wait for ever
            message = f"{path} is no regular file"
            raise StateError(message, expected="a file", actual="a device, pipe or socket")
        with Path(path).open("rb") as file:
            head = file.read(_START)
            n_bytes = os.fstat(file.fileno()).st_size
            _check_head(path, head, n_bytes)
            return cls._parse(path, head, file.read(n_bytes - _START))

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Return the state that `to_bytes` made *data* from.

        Parameters
        ----------
        data
            Bytes, or another buffer of them; it is not copied.

        Returns
        -------
        State

        Raises
        ------
        StateError
            If they are no state, are cut short, or were changed.
        """
        view = memoryview(data).toreadonly().cast("B")
        head = bytes(view[:_START])
        _check_head("the state", head, view.nbytes)
        return cls._parse("the state", head, view[_START:])

    def _parts(self) -> list[Buffer]:
        about = json.dumps(
            {
                "fingerprint": dict(self.fingerprint),
                "n_past": sorted(self.n_past.items()),
                "seq": self.seq,
                "partial": self.partial,
            }
        ).encode()
        tokens = self.tokens.astype("<i4").tobytes()
        lengths = _LENGTHS.pack(len(about), len(tokens), self.n_bytes)
        body: list[Buffer] = [lengths, about, tokens, self.data]
        n_bytes = _START + len(lengths) + len(about) + len(tokens) + self.n_bytes
        head = _HEAD.pack(MAGIC, VERSION, n_bytes)
        return [head, _digest(head, *body), *body]

    @classmethod
    def _parse(cls, name: str, head: bytes, body: Buffer) -> Self:
        """Return the state in *body*, which follows a *head* that was checked."""
        view = memoryview(body)
        if _digest(head[: _HEAD.size], view) != head[_HEAD.size :]:
            message = f"{name} was changed since it was saved: its checksum is another"
            raise StateError(message, expected="its SHA-256", actual="another")
        try:
            n_about, n_tokens, n_data = _LENGTHS.unpack_from(view)
            if _START + _LENGTHS.size + n_about + n_tokens + n_data != _START + view.nbytes:
                raise ValueError("its lengths do not add up")
            rest = view[_LENGTHS.size :]
            about: dict[str, Any] = json.loads(bytes(rest[:n_about]))
            return cls(
                rest[n_about + n_tokens :],
                fingerprint=about["fingerprint"],
                n_past=dict(about["n_past"]),
                seq=about["seq"],
                partial=about["partial"],
                tokens=np.frombuffer(rest[n_about : n_about + n_tokens], "<i4"),
            )
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError, struct.error) as e:
            message = f"{name} has a checksum that fits, but is no state that pyllama saves: {e}"
            raise StateError(message, expected="a state", actual="something else") from e

    def __repr__(self) -> str:
        whose = "a context" if self.seq is None else f"sequence {self.seq}"
        return f"<State of {whose}: n_past={dict(self.n_past)}, {self.n_bytes} bytes>"


def _check_head(name: str, head: bytes, n_bytes: int) -> None:
    """Refuse what does not begin as a state, or is not as long as it says."""
    if not (MAGIC.startswith(head[:8]) and head):
        message = f"{name} is no state saved by pyllama: it begins with {head[:8]!r}"
        raise StateError(message, expected=repr(MAGIC), actual=repr(head[:8]))
    if len(head) < _START:
        message = f"{name} is cut short: it has {n_bytes} bytes, not even the {_START} of the head"
        raise StateError(message, expected=f"{_START} bytes", actual=f"{n_bytes} bytes")
    _, version, expected = _HEAD.unpack_from(head)
    if version != VERSION:
        message = f"{name} has version {version}; this pyllama reads version {VERSION}: save again"
        raise StateError(message, expected=f"version {VERSION}", actual=f"version {version}")
    if n_bytes != expected:
        message = f"{name} has {n_bytes} bytes, but says it has {expected}: it was cut or changed"
        raise StateError(message, expected=f"{expected} bytes", actual=f"{n_bytes} bytes")


def _digest(*parts: Buffer) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
