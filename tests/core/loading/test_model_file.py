"""Files that are not models, and models of several files: each refusal says what is wrong."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from random_model import write_llama

from pyllama.core.loading.model_file import check_model
from pyllama.errors import LoadError


@pytest.fixture
def save(tmp_path: Path):
    """Return a function that writes bytes to a new file, and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GGUF", r"has 4 bytes, but the shortest GGUF file has 24"),
        (b"GG", r"has 2 bytes, but the shortest GGUF file has 24"),
        (struct.pack("<Q", 40) + b'{"a":{"dtype":"F32"}}', "a safetensors file"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, probably a PyTorch checkpoint"),
        (b"\x80\x02\x8a\nl\xfc" + bytes(60), "a Python pickle, probably a PyTorch"),
        (b"tjgg\x03\0\0\0" + bytes(60), "a GGJT file from before GGUF"),
        (b"lmgg" + bytes(60), "a GGML file from before GGUF"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n <html lang=en>", "a web page"),
        (b'{"error": "no such model"}', "JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a git-lfs pointer"),
        (b"\x1f\x8b\x08" + bytes(60), "a gzip archive"),
        (bytes(4096), "zeros where"),
        (b"\x7fELF" + bytes(60), r"it begins with b'\\x7fELF', not b'GGUF'"),
    ],
)
def test_other_kinds_of_file_are_recognised(save, content, message):
    """The message says what the file is, so that the next step is clear."""
    path = save(content)
    with pytest.raises(LoadError, match=message):
        check_model(path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    """The system has a name for it; the empty path is missing too."""
    for path in (tmp_path / "absent.gguf", tmp_path / "absent" / "x.gguf", ""):
        with pytest.raises(FileNotFoundError):
            check_model(path)


def test_a_directory_is_an_is_a_directory_error(tmp_path):
    """The message says what to give instead."""
    with pytest.raises(IsADirectoryError, match=r"give the \.gguf file in it"):
        check_model(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    """To open a named pipe would wait for ever."""
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(LoadError, match="is a named pipe"):
        check_model(path)


def test_devices_and_sockets_are_refused(tmp_path, monkeypatch):
    """They are not files that can be mapped."""
    with pytest.raises(LoadError, match="is a device"):
        check_model("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.gguf")
        with pytest.raises(LoadError, match="is a socket"):
            check_model("socket.gguf")


def test_a_file_that_may_not_be_read_is_a_permission_error(save):
    """The system has a name for it."""
    path = save(bytes(64))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read anything
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            check_model(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("n_blocks", [0, 513, 0xFFFFFFFF])
def test_a_block_count_that_libllama_aborts_on_is_refused(tmp_path, n_blocks):
    """An assertion in libllama wants 1 to 512."""
    path = write_llama(tmp_path / "model.gguf", metadata={"llama.block_count": n_blocks})
    with pytest.raises(LoadError, match=rf"llama.block_count is {n_blocks}, not from 1 to 512"):
        check_model(path)


def test_a_block_count_that_is_no_number_is_refused(tmp_path):
    """A text in its place is named as such."""
    path = write_llama(tmp_path / "model.gguf", metadata={"llama.block_count": "two"})
    with pytest.raises(LoadError, match=r"llama\.block_count must be a whole number, not 'two'"):
        check_model(path)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Return the three files of a split model."""
    write_llama(tmp_path / "model.gguf", n_layer=1, split=5)
    paths = sorted(tmp_path.glob("*.gguf"))
    assert [path.name for path in paths] == [f"model-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    return paths


def test_the_parts_of_a_split_model_are_found_by_name(parts):
    """The first part is enough to find and check the rest."""
    headers = check_model(parts[0])
    assert [header.path for header in headers] == [str(path) for path in parts]
    assert sum(len(header.tensors) for header in headers) == 12


def test_a_later_part_names_the_first(parts):
    """Loading begins with the first part; the message says which file that is."""
    with pytest.raises(LoadError, match=r"is part 2 of 3; load .*model-00001-of-00003\.gguf"):
        check_model(parts[1])


def test_a_missing_part_is_a_file_not_found_error(parts):
    """The message has the name of the part that is missing."""
    parts[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"part 2 .*missing: .*model-00002-of-00003\.gguf"):
        check_model(parts[0])


def test_a_truncated_part_is_noticed(parts):
    """Every part is checked against its own size."""
    parts[2].write_bytes(parts[2].read_bytes()[:-100])
    with pytest.raises(LoadError, match=r"model-00003-of-00003.gguf.*download is probably incomp"):
        check_model(parts[0])


def test_a_renamed_first_part_is_refused(parts):
    """Without its number in the name the others cannot be found."""
    renamed = parts[0].rename(parts[0].with_name("best.gguf"))
    with pytest.raises(LoadError, match=r"its name must then end in -00001-of-00003\.gguf"):
        check_model(renamed)


def test_parts_in_the_wrong_order_are_refused(parts):
    """A part says which one it is, whatever its name says."""
    second, third = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(third)
    parts[2].write_bytes(second)
    with pytest.raises(LoadError, match="says it is part 3 of 3, but its name says 2 of 3"):
        check_model(parts[0])
