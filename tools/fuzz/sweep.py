"""Every single change of some kinds to every seed of a model, in order: nothing is left to chance.

A tensor or a key is left out, a tensor is stored as f16, a number of the metadata becomes another.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import numpy as np

from fuzz import files
from fuzz.bench import Bench
from fuzz.mutate import ARRAY, FORMATS, STRING, File

NUMBERS = (0, 1, 3, 2**31)
F32, F16 = 0, 1  # enum ggml_type
Step = tuple[str, str, int, int]  # seed, what to change, its place there, the new number if any


def make_next(bench: Bench, _: random.Random) -> tuple[bytes, str]:
    """Make the change whose number the input has; behind the last it begins again."""
    seeds = bench.keep("seeds", lambda: files.model_seeds(bench.folder))
    steps = bench.keep("steps", lambda: [*_steps(seeds)])
    seed, how, place, number = steps[bench.index % len(steps)]
    file = seeds[seed].copy()
    note = _change(file, how, place, number)
    return bytes(file.encode()[0]), f"{seed}: {note}"


def _steps(seeds: dict[str, File]) -> Iterator[Step]:
    for seed, file in seeds.items():
        for place, tensor in enumerate(file.tensors):
            yield seed, "no tensor", place, 0
            if tensor.type == F32:
                yield seed, "f16", place, 0
        for place, (_, kind, old) in enumerate(file.pairs):
            yield seed, "no key", place, 0
            if kind not in (STRING, ARRAY):
                for number in sorted({_fitting(kind, number) for number in NUMBERS} - {old}):
                    yield seed, "number", place, number


def _change(file: File, how: str, place: int, number: int) -> str:
    if how == "no tensor":
        return f"no {file.tensors.pop(place).name.decode()}"
    if how == "f16":
        tensor = file.tensors[place]
        tensor.type, tensor.data = F16, np.frombuffer(tensor.data, "<f4").astype("<f2").tobytes()
        return f"{tensor.name.decode()} as f16"
    key, kind, _ = file.pairs[place]
    if how == "no key":
        del file.pairs[place]
        return f"no {key.decode()}"
    file.pairs[place] = key, kind, number
    return f"{key.decode()} = {number}"


def _fitting(kind: int, number: int) -> int:
    """Return the number, or what its bits are in a type that is too narrow for it."""
    form = FORMATS[kind]
    if form in "fd":
        return number
    data = number.to_bytes(8, "little")[: struct.calcsize(form)]
    return int.from_bytes(data, "little", signed=form.islower())
