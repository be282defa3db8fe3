"""State files: written whole or not at all, and read only as they were written."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoding import PROMPT, SMALL, go_on, prefill

from pyllama.core.state import State
from pyllama.errors import StateError


def names(folder):
    """Return the names in a folder."""
    return [each.name for each in folder.iterdir()]


def test_a_file_brings_everything_back(context, tmp_path):
    """Data, tokens and positions."""
    prefill(context, seq=2)
    state = context.state(2, tokens=PROMPT)
    expected = go_on(context, 2)
    state.save(tmp_path / "state")
    loaded = State.load(tmp_path / "state")
    assert loaded.tokens.tolist() == list(PROMPT)
    assert loaded.tokens.dtype == np.int32
    assert (loaded.seq, loaded.partial, dict(loaded.n_past)) == (2, False, {2: 6})
    assert loaded.data == state.data
    assert loaded.fingerprint == state.fingerprint
    context.memory.clear()
    context.restore(loaded)
    assert np.array_equal(go_on(context, 2), expected)
    assert names(tmp_path) == ["state"]


def test_bytes_are_those_of_the_file(context, tmp_path):
    """To keep a state where there is no file system."""
    prefill(context)
    state = context.state(tokens=PROMPT)
    state.save(tmp_path / "state")
    data = (tmp_path / "state").read_bytes()
    assert state.to_bytes() == data
    assert State.from_bytes(bytearray(data)).to_bytes() == data


def test_a_state_cannot_be_changed(context):
    """Neither what libllama wrote nor the tokens."""
    prefill(context)
    state = context.state(tokens=PROMPT)
    with pytest.raises(TypeError):
        state.data[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        state.tokens[0] = 1
    with pytest.raises(TypeError):
        state.n_past[0] = 9
    assert "n_past={0: 6}" in repr(state)


@pytest.fixture
def small(model):
    """Make a context and the bytes of a small state of it."""
    with model.context(**SMALL) as context:
        prefill(context, [1, 2])
        data = context.state(0, tokens=[1, 2]).to_bytes()
        yield context, data


def test_every_truncation_is_refused(small, tmp_path):
    """At each single byte of the file, without a call into libllama."""
    context, data = small
    expected = go_on(context)
    path = tmp_path / "state"
    for length in range(len(data)):
        with pytest.raises(StateError):
            State.from_bytes(data[:length])
        if length % 7 == 0:
            path.write_bytes(data[:length])
            with pytest.raises(StateError, match="state"):
                State.load(path)
    for longer in (data + b"\0", data + data):
        with pytest.raises(StateError, match="but says it has"):
            State.from_bytes(longer)
    context.restore(State.from_bytes(data))
    assert np.array_equal(go_on(context), expected)


def test_every_changed_byte_is_refused(small):
    """2,000 random ones, then the context goes on as before."""
    context, data = small
    expected = go_on(context)
    rng = np.random.default_rng(0)
    for at, change in zip(
        rng.integers(0, len(data), 2000), rng.integers(1, 256, 2000), strict=True
    ):
        changed = bytearray(data)
        changed[at] ^= change
        with pytest.raises(StateError):
            State.from_bytes(changed)
    context.restore(State.from_bytes(data))
    assert np.array_equal(go_on(context), expected)


def seal(body: bytes) -> bytes:
    """Return a file with a checksum that fits."""
    head = struct.pack("<8sIQ", b"pyllama\0", 1, 52 + len(body))
    return head + hashlib.sha256(head + body).digest() + body


def sealed(about: object, tokens: bytes = b"", data: bytes = b"") -> bytes:
    """Return a file of any content."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return seal(struct.pack("<QQQ", len(text), len(tokens), len(data)) + text + tokens + data)


GOOD = {"fingerprint": {}, "n_past": [], "seq": None, "partial": False}
FORGED = {
    "no data": sealed(GOOD),
    "nothing": seal(b""),
    "lengths only": seal(bytes(24)),
    "lengths too long": seal(struct.pack("<QQQ", 1 << 63, 1 << 63, 0)),
    "no JSON": sealed(b"{"),
    "deep JSON": sealed(b"[" * 100_000),
    "no mapping": sealed([]),
    "keys missing": sealed({}),
    "fingerprint of numbers": sealed({**GOOD, "fingerprint": {"a": 1}}, data=b"1"),
    "fingerprint a list": sealed({**GOOD, "fingerprint": []}, data=b"1"),
    "negative n_past": sealed({**GOOD, "n_past": [[0, -1]]}, data=b"1"),
    "n_past of nothing": sealed({**GOOD, "n_past": [[None, 1]]}, data=b"1"),
    "another sequence": sealed({**GOOD, "n_past": [[3, 1]], "seq": 2}, data=b"1"),
    "huge sequence": sealed({**GOOD, "seq": 1 << 40}, data=b"1"),
    "partial whole": sealed({**GOOD, "partial": True}, data=b"1"),
    "partial a number": sealed({**GOOD, "partial": 1, "seq": 0}, data=b"1"),
    "odd tokens": sealed(GOOD, tokens=b"123", data=b"1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_are_refused(name):
    """A checksum that fits proves nothing about the content."""
    with pytest.raises(StateError):
        State.from_bytes(FORGED[name])


FOREIGN = [b"", b"p", b"GGUF", b"qsgg" + bytes(60), b"\0" * 100, b"pyllama\0" + b"\xff" * 100]


@pytest.mark.parametrize("data", FOREIGN, ids=repr)
def test_foreign_files_are_refused(tmp_path, data):
    """With what they begin with."""
    path = tmp_path / "foreign"
    path.write_bytes(data)
    with pytest.raises(StateError, match="foreign"):
        State.load(path)
    with pytest.raises(StateError):
        State.from_bytes(data)


def test_what_is_no_file_is_refused(tmp_path):
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(StateError, match="regular"):
            State.load(path)
    with pytest.raises(FileNotFoundError):
        State.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        State.load(tmp_path)
    with pytest.raises(TypeError):
        State.load(None)


def test_a_full_disk_keeps_the_old_file(context, tmp_path):
    """The new one is written beside it, and removed again."""
    prefill(context)
    old, new = tmp_path / "old", tmp_path / "new"
    context.state(0).save(old)
    before = old.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from pyllama.core.state import State\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "state = State.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        state.save(path)\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
    )
    command = [sys.executable, "-c", code, old, new]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["27", "27"]
    assert old.read_bytes() == before
    assert names(tmp_path) == ["old"]


def test_devices_and_folders_are_not_written_to(context, tmp_path):
    """Renaming would put a file where the device was."""
    state = context.state(0)
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    for path in ("/dev/full", "/dev/null", link):
        with pytest.raises(OSError, match="not a regular file"):
            state.save(path)
    with pytest.raises(IsADirectoryError):
        state.save(tmp_path)
    with pytest.raises(FileNotFoundError):
        state.save(tmp_path / "nothing" / "state")
    assert names(tmp_path) == ["link"]
    assert not Path("/dev/full").is_file()


def test_a_link_is_replaced_not_followed(context, tmp_path):
    """Nobody can lead a save to another file."""
    target, link, loose = tmp_path / "target", tmp_path / "link", tmp_path / "loose"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    loose.symlink_to(tmp_path / "absent")
    for path in (link, loose):
        context.state(0).save(path)
        assert not path.is_symlink()
        assert State.load(path).seq == 0
    assert target.read_bytes() == b"precious"
    assert not (tmp_path / "absent").exists()
