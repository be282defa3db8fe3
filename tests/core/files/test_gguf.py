"""GGUF headers: what is read is what was written, and each fault is named with its place."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import random_model

from pyllama.core.files.gguf import read_header
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.library import ffi, lib
from pyllama.errors import LoadError

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def array(kind: int, count: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + payload


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    n_dims = len(shape)
    return text(name) + struct.pack(f"<I{n_dims}QIQ", n_dims, *shape, kind, offset)


PAIRS = [
    pair(b"general.architecture", STRING, text(b"llama")),
    pair(b"llama.block_count", U32, struct.pack("<I", 2)),
    pair(b"epsilon", F32, struct.pack("<f", 0.5)),
    pair(b"flag", BOOL, b"\x01"),
    pair(b"words", ARRAY, array(STRING, 3, text(b"a") + text(b"") + text(b"\xc3\xa9\xff"))),
    pair(b"numbers", ARRAY, array(F32, 2, struct.pack("<2f", 1, 2))),
    pair(b"flags", ARRAY, array(BOOL, 2, b"\x00\x01")),
]  # fmt: skip
TENSORS = [tensor(b"one", (8, 2), 0, 0), tensor(b"two", (32,), 8, 64)]
DATA = bytes(64 + 34)
TOO_SHORT = r"the file (ends|has)|but the shortest GGUF file has 24|cannot be in the \d+ bytes"


def build(
    pairs: list[bytes] = PAIRS,
    tensors: list[bytes] = TENSORS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    data: bytes = DATA,
) -> bytes:
    """Put a GGUF file together by hand; the counts can be made to lie."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + data


@pytest.fixture
def save(tmp_path: Path):
    """Return a function that writes bytes to a new file, and returns its path."""

    def write(content: bytes, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model.write_llama(tmp_path_factory.mktemp("gguf") / "llama.gguf")


def test_every_kind_of_value_is_decoded(save):
    """Numbers, truth values, text (also not UTF-8) and arrays come back as Python has them."""
    metadata = read_header(save(build())).metadata
    assert metadata["general.architecture"] == "llama"
    assert (metadata["llama.block_count"], metadata["epsilon"], metadata["flag"]) == (2, 0.5, True)
    assert metadata["words"] == ["a", "", "é\udcff"]
    np.testing.assert_array_equal(metadata["numbers"], np.array([1, 2], np.float32), strict=True)
    np.testing.assert_array_equal(metadata["flags"], [False, True], strict=True)
    assert len(metadata) == 7
    assert "absent" not in metadata


def test_a_file_with_only_a_header_is_read(save):
    """Vocabulary files have no tensors, and no padding after the metadata."""
    header = read_header(save(b"GGUF" + struct.pack("<IQQ", 2, 0, 1) + PAIRS[0]))
    assert (header.version, header.tensors) == (2, ())
    assert dict(header.metadata) == {"general.architecture": "llama"}


def test_what_is_read_agrees_with_gguf_py(llama):
    """The reference reader sees the same metadata, and the same tensors at the same places."""
    theirs, ours = gguf.GGUFReader(llama), read_header(llama)
    fields = {k: v.contents() for k, v in theirs.fields.items() if not k.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, value in fields.items():
        np.testing.assert_array_equal(ours.metadata[key], value)
    assert [(t.name, t.shape, t.type, t.offset, t.n_bytes) for t in ours.tensors] == [
        (t.name, tuple(map(int, t.shape)), int(t.tensor_type), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]


def test_storage_types_are_those_of_ggml():
    """A wrong size would misplace the end of a tensor; a removed type has none."""
    theirs = {
        number: (
            ffi.string(lib.ggml_type_name(number)).decode(),
            lib.ggml_blck_size(number),
            lib.ggml_type_size(number),
        )
        for number in range(lib.GGML_TYPE_COUNT)
        if lib.ggml_type_name(number) != ffi.NULL and lib.ggml_blck_size(number)
    }
    assert theirs == TENSOR_TYPES


def test_every_vocabulary_of_llama_cpp_is_accepted():
    """The real headers in the submodule are all well-formed."""
    folder = Path(gguf.__file__).parents[2] / "models"
    paths = sorted(folder.glob("ggml-vocab-*.gguf"))
    assert len(paths) > 10
    for path in paths:
        read_header(path)


def test_a_header_is_read_across_pieces(save):
    """A header of several MiB, which is read piece by piece, loses nothing at the seams."""
    words = [b"x" * (n % 300) for n in range(20000)]
    many = pair(b"many", ARRAY, array(STRING, len(words), b"".join(map(text, words))))
    header = read_header(save(build([many, *PAIRS])))
    assert header.metadata["many"] == [word.decode() for word in words]
    assert header.metadata["flag"] is True


def test_every_truncation_is_noticed(save):
    """Wherever a file is cut, the error says that it ends too early."""
    whole = build()
    read_header(save(whole))
    for size in range(1, len(whole)):
        path = save(whole[:size])
        with pytest.raises(LoadError, match=TOO_SHORT):
            read_header(path)


def test_a_truncated_model_says_which_tensor_is_cut(save, llama):
    """The message has the tensor, where it would end, and how long the file is."""
    content = llama.read_bytes()
    path = save(content[:-1000])
    with pytest.raises(LoadError) as caught:
        read_header(path)
    size = len(content)
    expected = f"tensor 'output.weight' ends at byte {size}, but the file has {size - 1000} bytes"
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


BIG = 1 << 63
LENGTH_2_60 = struct.pack("<Q", 1 << 60)
FAULTS = {
    "magic": (build(magic=b"GGUX"), r"it begins with b'GGUX'"),
    "version 0": (build(version=0), r"byte 4: GGUF version 0 is not known"),
    "version 1": (build(version=1), r"byte 4: GGUF version 1 is no longer read"),
    "version 4": (build(version=4), r"byte 4: GGUF version 4 is not known"),
    "big-endian": (build(version=3 << 24), r"byte 4: the file was written for big-endian"),
    "tensor count": (build(n_tensors=BIG), rf"byte 8: {BIG} tensors cannot be in the \d+ bytes"),
    "pair count": (build(n_pairs=BIG), rf"byte 16: {BIG} metadata pairs cannot be in the \d+"),
    "one pair too many": (build(PAIRS[:1], [], n_pairs=2, data=b""), r"byte \d+: metadata key 1 "),
    "key length": (build([LENGTH_2_60 + bytes(60)]), rf"byte 32: metadata key 0 takes {1 << 60} "),
    "empty key": (build([pair(b"", U8, b"1")]), r"byte 24: metadata key 0 is empty"),
    "same key twice": (build(PAIRS + PAIRS[:1]), r"metadata key 'general.architecture' appears tw"),
    "value type": (build([pair(b"k", 13, bytes(8))]), r"byte 33: the value of 'k' has the type 13"),
    "nested array": (
        build([pair(b"k", ARRAY, array(ARRAY, 1, bytes(30)))]),
        r"byte 33: the value of 'k' has the type 9, which GGUF does not have",
    ),
    "text length": (
        build([pair(b"k", STRING, LENGTH_2_60 + bytes(60))]),
        rf"byte 37: text 0 of the value of 'k' takes {(1 << 60) + 8} bytes",
    ),
    "array length": (
        build([pair(b"k", ARRAY, array(U64, BIG, bytes(60)))]),
        rf"byte 49: the value of 'k' has {BIG} elements",
    ),
    "text in array": (
        build([pair(b"k", ARRAY, array(STRING, 2, text(b"ab") + LENGTH_2_60))]),
        rf"byte 59: text 1 of the value of 'k' takes {(1 << 60) + 8} bytes",
    ),
    "alignment type": (
        build([pair(b"general.alignment", U64, struct.pack("<Q", 64))]),
        r"byte 53: general.alignment is 64, not a power of two \(u32\)",
    ),
    "alignment": (
        build([pair(b"general.alignment", U32, struct.pack("<I", 48))]),
        r"general.alignment is 48, not a power of two",
    ),
    "alignment 8": (
        build([pair(b"general.alignment", U32, struct.pack("<I", 8))]),
        r"general.alignment is 8, not a power of two \(u32\) from 32",
    ),
    "tensor name": (
        build([], [tensor(b"n" * 64, (1,), 0, 0)]),
        r"byte 24: the name of tensor 0 is longer than 63 bytes",
    ),
    "same tensor twice": (build([], [TENSORS[0]] * 2), r"tensor 'one' appears twice"),
    "dimensions": (
        build([], [tensor(b"one", (1, 1, 1, 1, 1), 0, 0)]),
        r"byte 35: tensor 'one' has 5 dimensions",
    ),
    "negative shape": (
        build([], [tensor(b"one", (BIG,), 0, 0)]),
        rf"byte 35: tensor 'one' has the impossible shape \({BIG},\)",
    ),
    "shape overflow": (
        build([], [tensor(b"one", (1 << 32, 1 << 31), 0, 0)]),
        r"tensor 'one' has the impossible shape",
    ),
    "shape overflow undone": (
        build([], [tensor(b"one", (1 << 32, 1 << 31, 0), 0, 0)]),
        r"tensor 'one' has the impossible shape",
    ),
    "tensor type": (
        build([], [tensor(b"one", (8,), 43, 0)]),
        r"byte 47: tensor 'one' has the type 43, which ggml does not have",
    ),
    "removed tensor type": (
        build([], [tensor(b"one", (32,), 4, 0)]),
        r"tensor 'one' has the type 4, which ggml does not have",
    ),
    "row and block": (
        build([], [tensor(b"one", (8,), 8, 0)]),
        r"tensor 'one' has rows of 8, but q8_0 has blocks of 32",
    ),
    "misaligned offset": (
        build([], [TENSORS[0], tensor(b"two", (32,), 8, 65)]),
        r"tensor 'two' has the offset 65, not a multiple of the alignment 32",
    ),
    "gap": (
        build([], [TENSORS[0], tensor(b"two", (32,), 8, 96)]),
        r"tensor 'two' has the offset 96, but the tensors before it end at 64",
    ),
    "overlap": (
        build([], [TENSORS[0], tensor(b"two", (32,), 8, 32)]),
        r"tensor 'two' has the offset 32, but the tensors before it end at 64",
    ),
    "past the end": (
        build([], [tensor(b"one", (8, 1 << 40), 0, 0)]),
        rf"tensor 'one' ends at byte {96 + (1 << 45)}, but the file has \d+ bytes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(save, fault):
    """Each broken header is refused with the file, the byte and the reason."""
    content, message = FAULTS[fault]
    path = save(content)
    with pytest.raises(LoadError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def accepted_by_ggml(path: Path) -> bool:
    """Ask ggml's own reader, which looks at the header alone."""
    parameters = ffi.new("struct gguf_init_params *", {"no_alloc": True, "ctx": ffi.NULL})
    context = lib.gguf_init_from_file(str(path).encode(), parameters[0])
    lib.gguf_free(context)
    return bool(context)


def test_damaged_headers_raise_nothing_but_load_errors(save):
    """Of 1,000 files with random bytes changed, ggml can read each that is not refused."""
    whole, rng, refused = build(), random.Random(0), 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            value = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            damaged[rng.randrange(len(damaged))] = value
        path = save(bytes(damaged))
        try:
            dict(read_header(path).metadata)
        except LoadError:
            refused += 1
        else:
            assert accepted_by_ggml(path)
    assert 200 < refused < 1000
