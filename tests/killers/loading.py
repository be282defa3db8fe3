"""L: files and options that a model is loaded with."""

from __future__ import annotations

import math
import os
import struct

import numpy as np
import random_model

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch, Model
from pyllama.errors import LoadError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case

row("L1", "no path", TypeError, lambda w: Model(None))
row("L1", "a number as path", TypeError, lambda w: Model(5))
row("L1", "an empty path", FileNotFoundError, lambda w: Model(""))
row("L1", "a NUL in the path", ValueError, lambda w: Model("a\0b"))
row("L1", "half a surrogate pair in the path", FileNotFoundError, lambda w: Model("\udc80"))
row("L2", "no such file", FileNotFoundError, lambda w: Model(w.directory / "none.gguf"))
row("L2", "a directory", IsADirectoryError, lambda w: Model(w.directory))
row("L2", "an empty file", LoadError, lambda w: Model(w.file(b"")))
row("L2", "/dev/zero", LoadError, lambda w: Model("/dev/zero"))
row("L2", "text", LoadError, lambda w: Model(__file__))


@case("L2", "a pipe without a writer", LoadError)
def _(w: World) -> None:
    path = w.directory / "pipe"
    os.mkfifo(path)
    try:
        Model(path)
    finally:
        path.unlink()


@case("L2", "a file cut short anywhere", LoadError)
def _(w: World) -> None:
    whole = w.path().read_bytes()
    cuts = (1, 4, 23, 24, 100, 5000, len(whole) // 2, len(whole) - 1)
    raised_by(*(lambda cut=cut: Model(w.file(whole[:cut])) for cut in cuts))


def broken(what: str, kind: str = "llama", **metadata: object) -> None:
    """Add a file whose metadata is wrong."""

    def load(w: World) -> None:
        path = w.file(b"")
        changed = {key.replace("__", "."): value for key, value in metadata.items()}
        random_model.write_llama(path, arch=kind, metadata=changed)
        use(path)

    row("L3", f"a file with {what}", LoadError, load)


def use(path: object) -> None:
    """Load a file and do what would end the process if it can be done at all."""
    with Model(path) as model:
        model.vocab.tokenize("hello world\n\0")
        model.vocab.piece_table()
        with model.context(n_ctx=256, n_threads=2, n_threads_batch=2) as context:
            if model.has_encoder:
                context.encode(Batch([1, 2, 3]))
            if model.has_decoder:
                context.decode(Batch([1, 2, 3]))


TOKENS = random_model.vocabulary("spm", 512)["tokenizer.ggml.tokens"]

broken("no blocks", llama__block_count=0)
broken("600 blocks", llama__block_count=600)
broken("more blocks than there are", llama__block_count=100)
broken("a negative epsilon", llama__attention__layer_norm_rms_epsilon=-1.0)
broken("an epsilon of NaN", llama__attention__layer_norm_rms_epsilon=math.nan)
broken("5000 experts", llama__expert_count=5000)
broken("more experts used than there are", llama__expert_count=2, llama__expert_used_count=5)
broken("more prediction layers than blocks", llama__nextn_predict_layers=7)
broken("an unknown kind of rope scaling", llama__rope__scaling__type="bogus")
broken("an odd rope dimension", llama__rope__dimension_count=9)
broken("no heads", llama__attention__head_count=0)
broken("heads that do not divide", llama__attention__head_count_kv=3)
broken("no key length", llama__attention__key_length=0)
broken("a wrong width", llama__embedding_length=7)
broken("an unknown tokenizer", tokenizer__ggml__model="bogus")
broken("two tokens alike", tokenizer__ggml__tokens=[*TOKENS[:-1], TOKENS[-2]])
broken("one token too many", tokenizer__ggml__tokens=[*TOKENS, "another"])
broken("too few scores", tokenizer__ggml__scores=[0.0] * 10)
broken("too few token types", tokenizer__ggml__token_type=[1] * 10)
broken("an unknown architecture", kind="bogus")


def retyped(tensor: str, number: int, kind: str = "tiny") -> None:
    """Add a file in which a tensor is said to be of another type of the same size."""

    def load(w: World) -> None:
        data, name = bytearray(w.path(kind).read_bytes()), tensor.encode()
        place = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
        n_dims = struct.unpack_from("<I", data, place)[0]
        struct.pack_into("<I", data, place + 4 + 8 * n_dims, number)
        use(w.file(bytes(data)))

    row("L3", f"a file with {tensor} of type {number}", LoadError, load)


I32, F16, I16 = 26, 1, 25
retyped("blk.0.attn_norm.weight", I32)
retyped("blk.0.attn_q.weight", I32)
retyped("token_embd.weight", I32)
retyped("output.weight", I32)
retyped("blk.0.attn_q.bias", I32, "bert")
retyped("token_types.weight", I32, "bert")
retyped("blk.0.ssm_a", I32, "mamba")
retyped("blk.0.ssm_conv1d.weight", I32, "mamba")


@case("L3", "a T5 without its position bias", LoadError)
def _(w: World) -> None:
    data = w.path("t5").read_bytes()
    use(w.file(data.replace(b"dec.blk.0.attn_rel_b", b"dec.blk.0.attn_rel_x")))


@case("L3", "special tokens that are not in the vocabulary", None)
def _(w: World) -> None:
    for name in ("bos", "eos", "unknown"):
        path = w.file(b"")
        random_model.write_llama(path, metadata={f"tokenizer.ggml.{name}_token_id": 99999})
        use(path)


@case("L3", "damaged headers", None)
def _(w: World) -> None:
    whole = w.path().read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, 16_000, rng.integers(1, 4)).tolist():
            data[place] ^= 1 << int(rng.integers(8))
        path = w.file(bytes(data))
        try:
            use(path)
        except (LoadError, UnsupportedError, ValueError, MemoryError, RuntimeError):
            pass
        except Exception as error:
            if not type(error).__module__.startswith("pyllama"):
                raise
        path.unlink()


@case("L4", "a file that was read whole and is then cut short", None)
def _(w: World) -> None:
    path = w.file()
    with Model(path, load_mode="none") as model:
        os.truncate(path, 0)
        w.context(model).decode(Batch([1, 2, 3]))
        w.prove()


for option, values in {
    "load_mode": (99, -2, "bogus"),
    "split_mode": (99, "bogus"),
    "lazy_mode": (99, "bogus"),
    "main_gpu": (99, -1, 2**31),
    "n_gpu_layers": (-1, 2**31, 2**64),
}.items():
    for value in values:
        row(
            "L6" if option in ("main_gpu", "n_gpu_layers") else "L5",
            f"{option}={value!r}",
            ValueError,
            lambda w, option=option, value=value: w.open(**{option: value}),
        )
row("L5", "load_mode=True", TypeError, lambda w: w.open(load_mode=True))
row("L6", "n_gpu_layers=1.5", TypeError, lambda w: w.open(n_gpu_layers=1.5))
row("L6", "an option that is not there", TypeError, lambda w: w.open(gpu_layers=1))


def stop(error: BaseException) -> object:
    raise error


row(
    "L11",
    "a callback that raises",
    ZeroDivisionError,
    lambda w: Model(w.path(), progress=lambda f: 1 // 0),
)
row(
    "L11",
    "a callback that raises KeyboardInterrupt",
    KeyboardInterrupt,
    lambda w: Model(w.path(), progress=lambda f: stop(KeyboardInterrupt())),
)
row(
    "L11",
    "a callback that raises SystemExit",
    SystemExit,
    lambda w: Model(w.path(), progress=lambda f: stop(SystemExit(1))),
)
row(
    "L11", "a callback that cancels", LoadError, lambda w: Model(w.path(), progress=lambda f: False)
)
row("L11", "a callback that is none", TypeError, lambda w: Model(w.path(), progress=5))


@case("L11", "a callback that closes and loads other models", None)
def _(w: World) -> None:
    other = w.open()
    context = w.held(kind=other)

    def progress(fraction: float) -> None:
        context.close()
        other.close()
        Model(w.path()).close()

    Model(w.path(), progress=progress).close()


@case("L11", "a callback that uses the model being loaded", AttributeError)
def _(w: World) -> None:
    class Early(Model):
        def __init__(self) -> None:
            super().__init__(w.path(), progress=lambda f: self.close())

    Early()


@case("L12", "a context of a vocabulary alone", UnsupportedError)
def _(w: World) -> None:
    model = w.open(vocab_only=True)
    raised_by(model.context, lambda: w.context(model), lambda: model.context(exact=True))
