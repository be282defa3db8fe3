"""The worker process of sandbox.py, which starts it with one end of a socket.

It does what may end a process: it runs code that others wrote as templates, in an engine that
follows them wherever they go. It holds nothing but the library.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from typing import IO

from pyllama.core import sandbox
from pyllama.core.chat_template import run
from pyllama.errors import LibraryError


def main(fileno: str) -> None:
    """Answer requests until the other side closes the channel."""
    channel = socket.socket(fileno=int(fileno))
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        limit(sandbox.ROOM)
        sandbox.send(channel, b"")
        while (request := sandbox.receive(channel)) is not None:
            operation, seconds, data = request.split(b" ", 2)
            # Should the parent be gone when the time is over, the system ends this process.
            signal.setitimer(signal.ITIMER_REAL, float(seconds) + 1)
            sandbox.send(channel, answer(operation.decode(), data, said))
            signal.setitimer(signal.ITIMER_REAL, 0)


def answer(operation: str, data: bytes, said: IO[bytes]) -> bytes:
    """Return the kind of answer, what was said meanwhile, and the answer."""
    try:
        kind, body = sandbox.OK, run(operation, data)
    except LibraryError as error:
        kind, body = sandbox.REFUSED, str(error).encode("utf-8", "replace")
    except MemoryError:
        kind, body = sandbox.REFUSED, f"it takes more than {sandbox.ROOM >> 20} MiB".encode()
    if len(body) > sandbox.MAX_REPLY:
        kind, body = sandbox.REFUSED, f"it makes more than {sandbox.MAX_REPLY >> 20} MiB".encode()
    said.seek(0)
    words = said.read().replace(b"\0", b"")
    said.seek(0)
    said.truncate()
    return kind + words + b"\0" + body


def limit(room: int) -> None:
    """Let this process take *room* bytes more than it has, and leave no core file behind."""
    import resource  # noqa: PLC0415 - not on every system

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
