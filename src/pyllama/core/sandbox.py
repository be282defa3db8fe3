"""A process that may end: templates and schemas are read there, in bounded time and memory.

One worker serves the whole process, one request at a time. It is started at the first request,
ended when a request goes wrong, and started again for the next one. It ends by itself when this
process is gone.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pyllama.core import child, deadline
from pyllama.errors import LlamaError, UnsupportedError

if TYPE_CHECKING:
    import socket
    import subprocess

START_SECONDS = 60.0  # to load the library on a busy machine
MAX_REPLY = 64 << 20
ROOM = 1 << 30  # bytes of memory that a request may take, besides the library itself
OK, REFUSED = b"0", b"1"
_HEADER = 8


class Answer(NamedTuple):
    """What came back.

    Attributes
    ----------
    result : object
        What the C function returned, read from JSON.
    said : str
        What it wrote to the standard error stream.
    """

    result: Any
    said: str


def ask(operation: str, request: Any, timeout: float, error: type[LlamaError]) -> Answer:
    """Run an operation of chat_template.py in the worker process.

    Parameters
    ----------
    operation
        Its name.
    request
        What JSON can hold.
    timeout
        Seconds that it may take.
    error
        What to raise if it is refused.

    Returns
    -------
    Answer

    Raises
    ------
    LlamaError
        Of the kind *error*: what the operation refuses, in its own words; or if it took more than
        1 GiB of memory, made more than 64 MiB, or overflowed the stack.
    TimeoutError
        If it took too long.
    UnsupportedError
        If no process can be started.
    """
    seconds = deadline.seconds(timeout)
    try:
        data = json.dumps(request, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise error("the request is nested too deeply") from None
    reply = _worker.ask(f"{operation} {seconds} ".encode() + data, seconds, error)
    kind, said, body = reply[:1], *reply[1:].split(b"\0", 1)
    if kind != OK:
        raise error(body.decode("utf-8", "replace").strip())
    return Answer(json.loads(body), said.decode("utf-8", "replace").strip())


class _Worker:
    """The worker process, as this process sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def forget(self) -> None:
        """Leave the worker to the parent: this is a forked child, and gets one of its own."""
        self._lock = threading.Lock()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.returncode = 0  # not ours to wait for
        self._process = self._channel = None

    def ask(self, request: bytes, seconds: float, error: type[LlamaError]) -> bytes:
        """Return the reply to *request*."""
        with self._lock:
            try:
                channel = self._alive()
                channel.settimeout(seconds)
                send(channel, request)
                reply = receive(channel)
            except TimeoutError:
                self._end()
                message = f"{seconds:g} s have passed without an answer: give it more time, or less"
                raise TimeoutError(message) from None
            except OSError:
                reply = None
            except BaseException:  # Ctrl-C: the answer would come to the next question
                self._end()
                raise
            if reply is None:
                message = (
                    "it overflows the stack, or breaks the library otherwise: the process that "
                    f"read it ended with {self._end(patience=1)}"
                )
                raise error(message)
            return reply

    def _alive(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        return self._channel or self._start()

    def _start(self) -> socket.socket:
        import socket  # noqa: PLC0415 - milliseconds to import, for those who need it
        import subprocess  # noqa: PLC0415

        ours, theirs = socket.socketpair()
        with theirs:
            command = child.command("pyllama.core.sandbox_worker.main", str(theirs.fileno()))
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for this process
                )
            except OSError as error:
                ours.close()
                message = f"chat templates are read in a process of their own: {error}"
                raise UnsupportedError(message) from error
        self._channel = ours
        ours.settimeout(START_SECONDS)
        try:
            ready = receive(ours)
        except OSError:
            ready = None
        if ready is None:
            message = f"the process for chat templates did not start: {sys.executable}"
            self._end()
            raise UnsupportedError(message)
        return ours

    def _end(self, patience: float = 0) -> int | None:
        """End the worker, and return its exit code; one that is ending by itself has one to say."""
        import subprocess  # noqa: PLC0415

        process, channel = self._process, self._channel
        self._process = self._channel = None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        return process.wait()

    def close(self) -> None:
        """End the worker when this process ends."""
        with self._lock:
            self._end()


def send(channel: socket.socket, data: bytes) -> None:
    """Send a message: its length, and the bytes."""
    channel.sendall(len(data).to_bytes(_HEADER, "little") + data)


def receive(channel: socket.socket) -> bytes | None:
    """Receive a message; None if the other side is gone."""
    head = _exactly(channel, _HEADER)
    return None if head is None else _exactly(channel, int.from_bytes(head, "little"))


def _exactly(channel: socket.socket, n_bytes: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < n_bytes:
        part = channel.recv(min(1 << 20, n_bytes - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


_worker = _Worker()
atexit.register(_worker.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_worker.forget)
