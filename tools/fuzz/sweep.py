"""Every single change of some kinds to every seed of a model, in order: nothing is left to chance.

A tensor or a key is left out, a tensor is stored as f16, a number of the metadata becomes another,
and each key that libllama knows is added where there is none.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import numpy as np

from fuzz import files, grow
from fuzz.bench import Bench
from fuzz.mutate import ARRAY, FORMATS, STRING, File, Value

NUMBERS = (0, 1, 3, 2**31)
U32, I32, FLOAT, BOOL = 4, 5, 6, 7  # enum gguf_type
LONGEST = 8  # array that holds a number for each layer, not for each token
PER_LAYER = ([0, 0], [0, 1], [1, 0], [1, 1])  # most seeds have two layers
NEW = (
    *((U32, number) for number in NUMBERS),
    *((FLOAT, number) for number in (0.0, -1.0)),
    (BOOL, 1),
    *((ARRAY, (I32, numbers)) for numbers in PER_LAYER),
)
F32, F16 = 0, 1  # enum ggml_type
Step = tuple[str, str, int, Value]  # seed, what to change, its place there, what it becomes


def make_next(bench: Bench, _: random.Random) -> tuple[bytes, str]:
    """Make the change whose number the input has; behind the last it begins again."""
    seeds = bench.keep("seeds", lambda: files.model_seeds(bench.folder))
    steps = bench.keep("steps", lambda: [*_steps(seeds)])
    seed, how, place, new = steps[bench.index % len(steps)]
    file = seeds[seed].copy()
    note = _change(file, how, place, new)
    return bytes(file.encode()[0]), f"{seed}: {note}"


def _steps(seeds: dict[str, File]) -> Iterator[Step]:
    keys = grow.keys(files.SOURCE)
    for seed, file in seeds.items():
        for place, tensor in enumerate(file.tensors):
            yield seed, "no tensor", place, None
            if tensor.type == F32:
                yield seed, "f16", place, None
        for place, (_, kind, old) in enumerate(file.pairs):
            yield seed, "no key", place, None
            for new in _others(kind, old):
                yield seed, "other value", place, new
        arch = file.architecture
        known = {key for key, _, _ in file.pairs}
        for key in keys:
            if (name := f"{arch}.{key}".encode()) not in known:
                for kind, value in NEW:
                    yield seed, "new key", 0, (name, kind, value)


def _others(kind: int, old: Value) -> list[Value]:
    """Return what a value becomes in turn; a text and a table of the vocabulary stay."""
    if kind == STRING:
        return []
    if kind == ARRAY:
        inner, items = old
        if inner == STRING or len(items) > LONGEST:
            return []
        shorter = [(inner, items[:-1])]
        return shorter + [
            (inner, [*items[:at], new, *items[at + 1 :]])
            for at, item in enumerate(items)
            for new in _others(inner, item)
        ]
    return sorted({_fitting(kind, number) for number in NUMBERS} - {old})


def _change(file: File, how: str, place: int, new: Value) -> str:
    if how == "no tensor":
        return f"no {file.tensors.pop(place).name.decode()}"
    if how == "f16":
        tensor = file.tensors[place]
        tensor.type, tensor.data = F16, np.frombuffer(tensor.data, "<f4").astype("<f2").tobytes()
        return f"{tensor.name.decode()} as f16"
    if how == "new key":
        file.pairs.append(new)
        key, kind, new = new
        return f"new {key.decode()} = {new} (type {kind})"
    key, kind, _ = file.pairs[place]
    if how == "no key":
        del file.pairs[place]
        return f"no {key.decode()}"
    file.pairs[place] = key, kind, new
    return f"{key.decode()} = {new}"


def _fitting(kind: int, number: int) -> int:
    """Return the number, or what its bits are in a type that is too narrow for it."""
    form = FORMATS[kind]
    if form in "fd":
        return number
    data = number.to_bytes(8, "little")[: struct.calcsize(form)]
    return int.from_bytes(data, "little", signed=form.islower())
