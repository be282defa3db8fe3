"""The targets that are files: models of every architecture, adapters, projectors."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np

import pyllama
from fuzz import grow, seeds
from fuzz.bench import ONE_THREAD, RAN, Bench
from fuzz.mutate import File, mutate, parse
from pyllama import Batch, Bitmap, Projector
from pyllama.errors import TokenizeError, UnsupportedError

SOURCE = Path(__file__).resolve().parents[2] / "vendor" / "llama.cpp"
TEXTS = ("Hello world", "", " 3.14\n\n", "\u4e2d\u6587 \u00e9\u0300\U0001f600", "<s>a</s>[CLS]")
GROWN_SHARE = 0.5  # of the mutants, if there are grown seeds


def make_model(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change a seed: a written one, or one grown to another architecture."""
    written = bench.keep("written", lambda: _written(bench.folder))
    grown = bench.keep("grown", lambda: _grown(bench.folder))
    pool = grown if grown and rng.random() < GROWN_SHARE else written
    kind = rng.choice([*pool])
    data, notes = mutate(pool[kind], rng)
    return data, f"{kind}: {'; '.join(notes)}"


def _written(folder: Path) -> dict[str, File]:
    """Write the seeds that random_model has, unless a worker before did."""
    files = {}
    for name, write in seeds.WRITERS.items():
        path = folder / f"seed-{name}.gguf"
        files[name] = parse(path if path.exists() else write(path))
    return files


def _grown(folder: Path) -> dict[str, File]:
    """Read what `grow` made, if it did."""
    return {path.stem: parse(path) for path in sorted((folder / "grown").glob("*.gguf"))}


def model_seeds(folder: Path) -> dict[str, File]:
    """Return all of both, by their names."""
    return {**_written(folder), **_grown(folder)}


def grow_seeds(folder: Path) -> int:
    """Make a seed of every architecture that grows, and return how many there are."""
    return len(grow.grow_all(folder / "grown", grow.architectures(SOURCE)))


def use_model(bench: Bench, data: bytes) -> str:
    """Do with a model what its file can make go wrong."""
    path = bench.folder / "mutant.gguf"
    path.write_bytes(data)
    with pyllama.Model(path) as model:
        tokens = _use_vocab(model.vocab)
        known = [t for t in [*tokens[:6], 0, 1, 2] if t < model.n_vocab]
        for embeddings in (False, True):
            options = {"n_ctx": 64, "n_batch": 32, "n_ubatch": 32, **ONE_THREAD}
            with model.context(embeddings=embeddings, **options) as context:
                _compute(model, context, known)
    return RAN


def _compute(model: pyllama.Model, context: pyllama.Context, tokens: list[int]) -> None:
    """Encode, decode and decode again, as the kind of model has it."""
    batch = Batch(tokens)
    if model.has_encoder:
        context.encode(batch)
    if not model.has_decoder:
        return
    start = model.decoder_start_token
    if start is not None and model.has_encoder:
        batch = Batch([start])
    context.decode(batch)
    with contextlib.suppress(UnsupportedError):  # it may compute no logits
        token = int(context.logits()[-1].argmax())
        context.decode(Batch([token], pos=len(batch)))


def _use_vocab(vocab: pyllama.Vocab) -> list[int]:
    """Tokenize and go back; what a vocabulary cannot do by its own word is no finding."""
    tokens: list[int] = []
    for special in (False, True):
        for text in TEXTS:
            with contextlib.suppress(TokenizeError, UnsupportedError):
                tokens = vocab.tokenize(text, add_special=special, parse_special=special).tolist()
                vocab.detokenize(tokens)
    with contextlib.suppress(UnsupportedError):
        vocab.piece_table(special=True)
    return tokens


def make_lora(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change an adapter of the llama seed."""
    path = bench.folder / "seed-lora.gguf"
    file = bench.keep("lora", lambda: parse(path if path.exists() else seeds.write_lora(path)))
    data, notes = mutate(file, rng)
    return data, "; ".join(notes)


def use_lora(bench: Bench, data: bytes) -> str:
    """Load an adapter into a model that stays, and decode with it."""
    model = bench.model("seed-spm", seeds.write_spm)
    path = bench.folder / "mutant.gguf"
    path.write_bytes(data)
    with pyllama.Adapter(model, path) as adapter:
        _ = dict(adapter.metadata), adapter.alora_invocation_tokens
        with model.context(n_ctx=64, **ONE_THREAD) as context:
            context.set_adapters({adapter: 1.0})
            context.decode(Batch([1, 2, 3]))
            context.set_adapters({})
    return RAN


def make_projector(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change a projector of images or of sounds."""
    pool = bench.keep("projectors", lambda: _projectors(bench.folder))
    kind = rng.choice([*pool])
    data, notes = mutate(pool[kind], rng)
    return kind.encode() + b"\0" + data, f"{kind}: {'; '.join(notes)}"


def _projectors(folder: Path) -> dict[str, File]:
    files = {}
    for name, write in seeds.PROJECTORS.items():
        path = folder / f"seed-{name}.gguf"
        files[name] = parse(path if path.exists() else write(path))
    return files


def use_projector(bench: Bench, data: bytes) -> str:
    """Load it beside a model that stays, and decode an image or a sound with it."""
    kind, _, data = data.partition(b"\0")
    write = seeds.write_mrope if kind == b"qwen2vl_merger" else seeds.write_spm
    model = bench.model(f"seed-{write.__name__}", write)
    path = bench.folder / "mutant.gguf"
    path.write_bytes(data)
    with Projector(model, path, n_threads=1) as projector:
        if projector.supports_audio:
            medium = Bitmap.from_samples(np.zeros(16000, np.float32), projector.sample_rate)
        else:
            medium = Bitmap(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
        chunks = projector.tokenize(["see ", medium, "?"])
        with model.context(n_ctx=512, **ONE_THREAD) as context:
            projector.decode(context, chunks)
    return RAN
