"""L: arrays and pointers that a model is loaded with, and Q: what is written of it."""

from __future__ import annotations

import dataclasses
import io
import math
import os

import numpy as np
import random_model
from gguf_arrays import arrays_of

from killers.table import Table
from killers.world import World, compute, raised_by
from pyllama import Batch, Model, devices, estimate_memory
from pyllama.core.files.gguf import read_header
from pyllama.core.library import ffi
from pyllama.errors import LoadError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case


def build(w: World, **changes: object) -> Model:
    """Build the tiny model from arrays, with changed metadata."""
    metadata, tensors = arrays_of(w.path())
    return Model.from_arrays({**metadata, **changes}, tensors)


row("L1", "no paths", ValueError, lambda w: Model([]))
row("L1", "no path among paths", TypeError, lambda w: Model([w.path(), None]))
row("L1", "a file in memory", TypeError, lambda w: Model(io.BytesIO(w.path().read_bytes())))
row("L1", "the same file twice", LoadError, lambda w: Model([w.path(), w.path()]))


@case("L1", "a closed file", ValueError)
def _(w: World) -> None:
    file = w.path().open("rb")
    file.close()
    Model(file)


@case("L2", "an open pipe", OSError)
def _(w: World) -> None:
    read, write = os.pipe()
    try:
        with os.fdopen(read, "rb") as file:
            Model(file)
    finally:
        os.close(write)


@case("L2", "a file opened to write alone", TypeError)
def _(w: World) -> None:
    with (w.directory / "new").open("wb") as file:
        Model(file)


@case("L2", "an open file at its end, or past it", LoadError)
def _(w: World) -> None:
    with w.path().open("rb") as file:
        file.seek(0, 2)
        raised_by(lambda: Model(file), lambda: file.seek(10**9) and Model(file))


@case("L7", "a device with a wild pointer", ValueError)
def _(w: World) -> None:
    cpu = next(each for each in devices() if each.name == "CPU")
    wild = dataclasses.replace(cpu, _pointer=ffi.cast("ggml_backend_dev_t", 0x1234))
    null = dataclasses.replace(cpu, _pointer=ffi.NULL)
    numbered = [dataclasses.replace(cpu, index=index) for index in (-1, 99, 2**40)]
    raised_by(*(lambda each=each: w.open(devices=[each]) for each in (wild, null, *numbered)))


@case("L7", "a device twice", ValueError)
def _(w: World) -> None:
    cpu = next(each for each in devices() if each.name == "CPU")
    w.open(devices=[cpu, cpu])


row("L7", "no devices", None, lambda w: compute(w.context(w.open(devices=()))))
row("L7", "100,000 devices", ValueError, lambda w: w.open(devices=devices() * 100_000))
row("L7", "no sequence of devices", TypeError, lambda w: w.open(devices=devices()[0]))

for n in (1, 2, 16):
    row("L8", f"{n} shares", None, lambda w, n=n: compute(w.context(w.open(tensor_split=[1] * n))))
for shares in ([], [0.0], [math.nan], [-1], [math.inf], [1e39], [1] * 17, [1] * 100_000, ["1"]):
    text = f"{len(shares)} times {shares[:1]}"
    row("L8", f"shares {text}", ValueError, lambda w, s=shares: w.open(tensor_split=s))


def override(what: str, error: type[Exception] | None, **values: object) -> None:
    """Add a load with changed metadata."""

    def load(w: World) -> None:
        changed = {key.replace("__", "."): value for key, value in values.items()}
        compute(w.context(w.open(kv_overrides=changed)))

    row("L9", what, error, load)


override("an override", None, llama__context_length=100)
override("an override with 127 bytes", None, general__name="x" * 127)
override("an override with 128 bytes", ValueError, general__name="x" * 128)
override("an override with a million bytes", ValueError, general__name="x" * 10**6)
override("an override of a key of 128 bytes", ValueError, **{"x" * 128: 1})
override("an override of a key that is not there", ValueError, llama__bogus=1)
override("an override of an array", ValueError, tokenizer__ggml__tokens=1)
override("an override of another type", TypeError, llama__block_count="2")
override("an override that does not fit", ValueError, llama__block_count=-1)
override("an override by no blocks", LoadError, llama__block_count=0)
override("an override by 600 blocks", LoadError, llama__block_count=600)
override("an override by an epsilon of -1", LoadError, **{
    "llama.attention.layer_norm_rms_epsilon": -1.0
})  # fmt: skip
override("an override by a width of 0", LoadError, llama__embedding_length=0)
override("an override by no heads", LoadError, llama__attention__head_count=0)
override("an override of the layout", ValueError, general__alignment=1)
override("an override by an unknown architecture", LoadError, general__architecture="bogus")
override("an override by another architecture", LoadError, general__architecture="mamba")
override("an override of the tokenizer", LoadError, tokenizer__ggml__model="bogus")
override("an override of the first token", None, tokenizer__ggml__bos_token_id=99999)


@case("L9", "overrides by random numbers", None)
def _(w: World) -> None:
    header = read_header(w.path())
    keys = [key for key in header.metadata if isinstance(header.metadata[key], int)]
    rng = np.random.default_rng(0)
    for _ in range(100):
        key, value = (
            str(rng.choice(keys)),
            int(rng.choice([0, 1, 3, 7, 100, 513, 2**31, 2**32 - 1])),
        )
        try:
            with Model(w.path(), kv_overrides={key: value}) as model:
                model.vocab.tokenize("hello world")
                with model.context(n_ctx=256, n_threads=1, n_threads_batch=1) as context:
                    context.decode(Batch([1, 2, 3]))
        except Exception as error:
            if not isinstance(error, (ValueError, TypeError, MemoryError)) and not type(
                error
            ).__module__.startswith("pyllama"):
                raise


row(
    "L10",
    "a pattern",
    None,
    lambda w: compute(w.context(w.open(tensor_buft_overrides={"ffn": "CPU"}))),
)
for pattern in ("(", "[", "a{2", "(a*)*b", "(a|a)*b", "(.+)+$", "(?<=a)b", "\\", "*", "a\0b", ""):
    row(
        "L10",
        f"the pattern {pattern!r}",
        ValueError,
        lambda w, pattern=pattern: w.open(tensor_buft_overrides={pattern: "CPU"}),
    )


@case("L10", "5000 patterns", ValueError)
def _(w: World) -> None:
    w.open(tensor_buft_overrides={f"a{n}": "CPU" for n in range(5000)})


@case("L12", "a context of a model without memory", UnsupportedError)
def _(w: World) -> None:
    model = w.open(no_alloc=True)
    raised_by(model.context, lambda: w.context(model), lambda: model.save(w.directory / "no.gguf"))


row(
    "L12",
    "no memory, and a mapped file",
    ValueError,
    lambda w: w.open(no_alloc=True, load_mode="mmap"),
)
row("L12", "an estimate", None, lambda w: estimate_memory(w.path(), n_ctx=512))

row("L13", "no metadata", TypeError, lambda w: Model.from_arrays(None, {}))
row("L13", "nothing at all", LoadError, lambda w: Model.from_arrays({}, {}))
row("L13", "arrays", None, lambda w: compute(w.context(build(w))))
row("L13", "arrays of no model", LoadError, lambda w: build(w, **{"general.architecture": "bogus"}))
row("L13", "arrays of 600 blocks", LoadError, lambda w: build(w, **{"llama.block_count": 600}))
row(
    "L13",
    "a width that is not there",
    LoadError,
    lambda w: build(w, **{"llama.embedding_length": 0}),
)
row("L13", "a tensor that is none", TypeError, lambda w: Model.from_arrays({}, {"a": None}))


@case("L13", "arrays with sizes at random", None)
def _(w: World) -> None:
    metadata, tensors = arrays_of(w.path())
    keys = [key for key, value in metadata.items() if isinstance(value, int) and "llama" in key]
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = {str(rng.choice(keys)): int(rng.choice([0, 1, 3, 100, 513]))}
        try:
            compute(w.context(Model.from_arrays({**metadata, **changed}, tensors)))
        except Exception as error:
            if not isinstance(error, (ValueError, MemoryError)) and not type(
                error
            ).__module__.startswith("pyllama"):
                raise


@case("L13", "a callback that raises while arrays are copied", ZeroDivisionError)
def _(w: World) -> None:
    Model.from_arrays(*arrays_of(w.path()), progress=lambda _: 1 // 0)


@case("Q2", "an architecture that cannot be written", UnsupportedError)
def _(w: World) -> None:
    w.open("t5").save(w.directory / "saved.gguf")


@case("Q2", "a model without an output", UnsupportedError)
def _(w: World) -> None:
    w.open("bert").save(w.directory / "saved.gguf")


@case("Q2", "repacked weights", UnsupportedError)
def _(w: World) -> None:
    path = w.file(b"")
    random_model.write_llama(path, type="q8_0")
    with Model(path) as model:
        model.save(w.directory / "saved.gguf")


@case("Q2", "its own file", ValueError)
def _(w: World) -> None:
    model = w.open()
    model.save(w.path())


for path, error in (
    ("/dev/full", OSError),
    ("/proc/version/x", NotADirectoryError),
    ("a\0b", ValueError),
):
    row("Q2", f"saved to {path!r}", error, lambda w, path=path: w.open().save(path))


@case("Q2", "every kind of file", None)
def _(w: World) -> None:
    for kind in ("tiny", "bpe", "no_vocab", "m_rope", "diffusion", "mamba", "jamba"):
        w.open(kind).save(w.directory / "saved.gguf")
        with Model(w.directory / "saved.gguf") as model:
            compute(w.context(model))
