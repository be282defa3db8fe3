"""A GGUF file taken apart, changed at random, and put together again: well-formed, and wrong."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import random_model  # noqa: F401 - finds gguf-py
from gguf import GGML_QUANT_SIZES, GGUFReader

ALIGNMENT = 32
STRING, ARRAY = 8, 9  # enum gguf_type, ggml/include/gguf.h
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "b", 10: "Q", 11: "q",
           12: "d"}  # fmt: skip
TYPES = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}

NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 512, 513, 4096,
           65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e-5, math.inf, -math.inf, math.nan)
WORDS = ("", "llama", "gpt2", "bert", "t5", "t5encoder", "rwkv", "plamo2", "no_vocab", "none",
         "test", "default", "llama-bpe", "qwen2", "gemma", "mamba", "jamba", "falcon", "none",
         "linear", "yarn", "longrope", "mean", "phi3", "jina-bert-v2", "a\0b", "\n", "<0x0A>",
         "</s>", "\udcff\udcfe", "x" * 300)  # fmt: skip
# Keys that no seed has: what is optional is read too.
KEYS = ("nextn_predict_layers", "expert_count", "expert_used_count", "expert_group_count",
        "expert_group_used_count", "rope.scaling.type", "rope.scaling.factor", "rope.freq_base",
        "rope.dimension_count", "rope.dimension_sections", "attention.key_length",
        "attention.value_length", "attention.sliding_window", "attention.head_count_kv",
        "attention.causal", "attention.scale", "attention.max_alibi_bias", "pooling_type",
        "attention.clamp_kqv", "logit_scale", "embedding_length_out", "use_parallel_residual",
        "rope.scaling.original_context_length", "attention.layer_norm_epsilon",
        "decoder_block_count", "decoder_start_token_id", "vocab_size")  # fmt: skip
TOKENIZER_KEYS = ("add_bos_token", "add_eos_token", "add_sep_token", "bos_token_id",
                  "eos_token_id", "unknown_token_id", "seperator_token_id", "padding_token_id",
                  "mask_token_id", "add_space_prefix", "remove_extra_whitespaces", "pre",
                  "precompiled_charsmap", "suppress_tokens", "token_type_count", "eot_token_id",
                  "scores", "merges", "token_type")  # fmt: skip

Value = Any  # a number, bytes, or for an array (type, list of them)


@dataclass
class Tensor:
    """A tensor as the file has it."""

    name: bytes
    shape: list[int]
    type: int
    data: bytes

    def fit(self) -> None:
        """Cut or repeat the data to the size that shape and type ask for, if that is sane."""
        block, n_bytes = TYPES.get(self.type, (1, 4))
        size = math.prod(self.shape) // block * n_bytes
        if size < 1 << 24:
            self.data = (self.data * (size // max(len(self.data), 1) + 1))[:size].ljust(size, b"\0")


@dataclass
class File:
    """What a GGUF file holds."""

    pairs: list[tuple[bytes, int, Value]]
    tensors: list[Tensor]
    notes: list[str] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        """What `general.architecture` says, or nothing."""
        for key, kind, value in self.pairs:
            if key == b"general.architecture" and kind == STRING:
                return bytes(value).decode("utf-8", "replace")
        return ""

    def copy(self) -> File:
        """Return one that can be changed."""
        tensors = [Tensor(t.name, list(t.shape), t.type, t.data) for t in self.tensors]
        return File(list(self.pairs), tensors)

    def encode(self) -> tuple[bytearray, int]:
        """Return the bytes of the file, and how many of them are its header."""
        out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.pairs)))
        for key, kind, value in self.pairs:
            out += _string(key) + struct.pack("<I", kind) + _value(kind, value)
        offset = 0
        for tensor in self.tensors:
            shape = [n % 2**64 for n in tensor.shape]
            out += _string(tensor.name) + struct.pack("<I", len(shape))
            out += struct.pack(f"<{len(shape)}QIQ", *shape, tensor.type, offset)
            offset += -(-len(tensor.data) // ALIGNMENT) * ALIGNMENT
        header = len(out)
        for tensor in self.tensors:
            out += bytes(-len(out) % ALIGNMENT) + tensor.data
        return out + bytes(-len(out) % ALIGNMENT), header


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(kind: int, value: Value) -> bytes:
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, i) for i in items)
    return _string(value) if kind == STRING else struct.pack(f"<{FORMATS[kind]}", value)


def parse(path: Path) -> File:
    """Take a file of random_model apart."""
    reader = GGUFReader(path)
    pairs = []
    for key, entry in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        kinds = [int(kind) for kind in entry.types]
        parts = [entry.parts[index] for index in entry.data]
        items = [part.tobytes() if kinds[-1] == STRING else part.item() for part in parts]
        value = (kinds[1] if len(kinds) > 1 else 0, items) if kinds[0] == ARRAY else items[0]
        pairs.append((key.encode(), kinds[0], value))
    tensors = [
        Tensor(t.name.encode(), [int(n) for n in t.shape], int(t.tensor_type), t.data.tobytes())
        for t in reader.tensors
    ]
    return File(pairs, tensors)


def _number(kind: int, old: Value, rng: random.Random) -> Value:
    """Return another number that fits the type."""
    if kind in (6, 12):
        return rng.choice([*FLOATS, old * 2 if isinstance(old, float) else 2.0])
    if kind == 7:
        return int(not old)
    bits = struct.calcsize(FORMATS[kind]) * 8
    near = int(old) if isinstance(old, (int, float)) and math.isfinite(old) else 0
    chosen = rng.choice([*NUMBERS, near + 1, near - 1, near * 2, near // 2, rng.getrandbits(bits)])
    chosen %= 1 << bits
    return chosen - (1 << bits) if FORMATS[kind].islower() and chosen >> (bits - 1) else chosen


def _any(kind: int, old: Value, rng: random.Random) -> Value:
    if kind == STRING:
        return rng.choice(WORDS).encode("utf-8", "surrogateescape")
    return _number(kind, old, rng)


def change_scalar(file: File, rng: random.Random) -> str:
    """Give a key another value of its type."""
    index = rng.choice([i for i, pair in enumerate(file.pairs) if pair[1] != ARRAY])
    key, kind, old = file.pairs[index]
    new = _any(kind, old, rng)
    file.pairs[index] = (key, kind, new)
    return f"{key.decode()} = {new!r}"


def change_kind(file: File, rng: random.Random) -> str:
    """Give a key a value of another type."""
    index = rng.randrange(len(file.pairs))
    key, _, old = file.pairs[index]
    kind = rng.choice([*FORMATS, STRING, ARRAY])
    if kind == ARRAY:
        inner = rng.choice([*FORMATS, STRING])
        new = (inner, [_any(inner, 1, rng) for _ in range(rng.choice([0, 1, 2, 3, 4, 8]))])
    else:
        new = _any(kind, old, rng)
    file.pairs[index] = (key, kind, new)
    return f"{key.decode()} as type {kind}"


def change_array(file: File, rng: random.Random) -> str:
    """Change, copy, cut or append elements of an array."""
    arrays = [i for i, pair in enumerate(file.pairs) if pair[1] == ARRAY and pair[2][1]]
    if not arrays:
        return change_scalar(file, rng)
    index = rng.choice(arrays)
    key, kind, (inner, items) = file.pairs[index]
    items = list(items)
    at, other = rng.randrange(len(items)), rng.randrange(len(items))
    how = rng.choice(("change", "copy", "delete", "append", "cut", "shuffle"))
    if how == "change":
        items[at] = _any(inner, items[at], rng)
    elif how == "copy":
        items[at] = items[other]
    elif how == "delete":
        del items[at]
    elif how == "append":
        items.append(_any(inner, items[at], rng))
    elif how == "cut":
        del items[at:]
    else:
        rng.shuffle(items)
    file.pairs[index] = (key, kind, (inner, items))
    return f"{how} {key.decode()}[{at}] (of {len(items)})"


def add_key(file: File, rng: random.Random) -> str:
    """Set a key that the seed may not have."""
    if rng.random() < 0.6:
        key = f"{file.architecture}.{rng.choice(KEYS)}".encode()
    else:
        key = b"tokenizer.ggml." + rng.choice(TOKENIZER_KEYS).encode()
    kind = rng.choice((4, 4, 4, 6, 6, 7, 7, STRING, ARRAY))
    new: Value = _any(kind, 1, rng) if kind != ARRAY else (5, [1, 2, 3, 4])
    file.pairs = [pair for pair in file.pairs if pair[0] != key]
    file.pairs.append((key, kind, new))
    return f"new {key.decode('utf-8', 'replace')} = {new!r}"


def delete_key(file: File, rng: random.Random) -> str:
    """Leave a key out."""
    key, _, _ = file.pairs.pop(rng.randrange(len(file.pairs)))
    return f"no {key.decode()}"


def change_tensor(file: File, rng: random.Random) -> str:
    """Give a tensor another type, shape or name, or leave it out."""
    if not file.tensors:
        return change_scalar(file, rng)
    tensor = rng.choice(file.tensors)
    name = tensor.name.decode()
    how = rng.choice(("type", "type", "type", "shape", "shape", "name", "delete", "values"))
    if how == "type":
        row = tensor.shape[0] if tensor.shape else 1
        tensor.type = rng.choice([kind for kind, (block, _) in TYPES.items() if row % block == 0])
    elif how == "shape":
        at = rng.randrange(len(tensor.shape) + 1)
        if at == len(tensor.shape):
            tensor.shape.append(rng.choice((0, 1, 2)))
        else:
            tensor.shape[at] = max(0, _number(10, tensor.shape[at], rng))
    elif how == "name":
        tensor.name = rng.choice([*(t.name for t in file.tensors), b"output_norm.weight", b"x"])
    elif how == "delete":
        file.tensors.remove(tensor)
    else:
        tensor.data = rng.choice((b"\xff", b"\0", b"\x7f\xc0", b"\0\0\x80\x7f")) * len(tensor.data)
    tensor.fit()
    return f"{how} of {name}: {tensor.name!r} {tensor.shape} type {tensor.type}"


MUTATIONS: dict[Callable[[File, random.Random], str], int] = {
    change_scalar: 6,
    change_array: 6,
    change_tensor: 6,
    add_key: 4,
    change_kind: 2,
    delete_key: 2,
}


def mutate(file: File, rng: random.Random) -> tuple[bytes, list[str]]:
    """Return the bytes of *file* with one to three changes, and what they are."""
    copy = file.copy()
    chosen = rng.choices([*MUTATIONS], [*MUTATIONS.values()], k=rng.choice((1, 1, 2, 3)))
    notes = [change(copy, rng) for change in chosen]
    data, header = copy.encode()
    if rng.random() < 0.1:  # below the structure: single bytes of the header
        for _ in range(rng.choice((1, 1, 4))):
            at = rng.randrange(header)
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << rng.randrange(8)))
            notes.append(f"byte {at} = {data[at]}")
    return bytes(data), notes
