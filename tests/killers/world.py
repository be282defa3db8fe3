"""What a case may use: models of every kind, contexts, and the proof that all still works."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import random_model

from pyllama import Batch, Context, Model, Vocab

WRITERS: dict[str, Callable[[Path], Path]] = {
    "tiny": random_model.write_llama,
    "bpe": lambda path: random_model.write_llama(path, vocab="bpe"),
    "no_vocab": lambda path: random_model.write_llama(path, vocab="none"),
    "long_word": lambda path: random_model.write_llama(
        path, vocab_options={"special": ["a" * 40 + "!"]}
    ),
    "head_32": lambda path: random_model.write_llama(path, n_embd=64, n_head=2),
    "head_64": lambda path: random_model.write_llama(path, n_embd=128, n_head=2),
    "slow": lambda path: random_model.write_llama(path, n_embd=256, n_layer=4, n_ff=1024),
    "m_rope": lambda path: random_model.write_llama(
        path, arch="qwen2vl", metadata={"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
    ),
    "mmproj": random_model.write_projector,
    "mmproj_gemma3": lambda path: random_model.write_projector(path, type="gemma3"),
    "mmproj_mrope": lambda path: random_model.write_projector(path, type="qwen2vl_merger"),
    "mmproj_audio": random_model.write_audio_projector,
    "mmproj_nan": lambda path: random_model.write_projector(
        path, metadata={"clip.vision.image_mean": [float("nan")] * 3}
    ),
    "diffusion": lambda path: random_model.write_llama(path, arch="llada"),
    "bert": random_model.write_bert,
    "t5": random_model.write_t5,
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
    "mtp": random_model.write_mtp,
}


class World:
    """The files and models of one process, and the contexts of one case.

    Parameters
    ----------
    directory
        Where the files are written, or lie already.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._models: dict[str, Model] = {}
        self._made: list[Model | Context] = []
        self._n_files = 0

    def path(self, kind: str = "tiny") -> Path:
        """Return a file of one of the `WRITERS`, not to be changed."""
        path = self.directory / f"{kind}.gguf"
        if not path.exists():
            part = path.with_suffix(".part")
            WRITERS[kind](part)
            part.rename(path)
        return path

    def file(self, data: bytes | None = None) -> Path:
        """Return a new file with these bytes, or with those of the tiny model."""
        self._n_files += 1
        path = self.directory / f"case-{self._n_files}.gguf"
        if data is None:
            shutil.copy(self.path(), path)
        else:
            path.write_bytes(data)
        return path

    def model(self, kind: str = "tiny") -> Model:
        """Return a model that the cases share; it is not to be closed."""
        if kind not in self._models:
            self._models[kind] = Model(self.path(kind))
        return self._models[kind]

    def vocab(self, kind: str = "tiny") -> Vocab:
        """Return the vocabulary of a shared model."""
        return self.model(kind).vocab

    def open(self, kind: str = "tiny", **options: Any) -> Model:
        """Load a model for this case alone."""
        model = Model(self.path(kind), **options)
        self._made.append(model)
        return model

    def context(self, kind: str | Model = "tiny", **options: Any) -> Context:
        """Make a context for this case, of a shared model or the one given."""
        model = self.model(kind) if isinstance(kind, str) else kind
        options = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, **options}
        context = model.context(**options)
        self._made.append(context)
        return context

    def held(self, **options: Any) -> Context:
        """Make a context that holds tokens in the positions 0 to 2 of sequence 0, with logits."""
        context = self.context(**options)
        context.decode(Batch([1, 2, 3]))
        return context

    def row(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return logits for the tiny model's vocabulary, of which the last is the largest."""
        return np.linspace(-1, 1, self.model().n_vocab, dtype=np.float32)

    def prove(self) -> None:
        """Raise unless what the case used, and the process, still work; then tidy up."""
        gc.collect()
        made, self._made = self._made, []
        for each in made:
            if isinstance(each, Context) and not each.closed:
                compute(each)
        for each in reversed(made):
            each.close()
        with self.model().context(n_ctx=256, n_threads=1, n_threads_batch=1) as context:
            compute(context)


def compute(context: Context) -> None:
    """Raise unless a context still computes something finite."""
    for seq in context.attached_seqs:
        context.detach_sampler(seq)
    if context.memory.pos_max(0) is not None:
        context.memory.clear()
    if context.model.has_encoder:
        context.encode(Batch([1, 2]))
    if context.model.has_decoder:
        context.decode(Batch([1, 2]))
    has_logits = context.model.architecture != "bert"
    if has_logits and not np.isfinite(context.logits()).all():
        message = "the logits are not finite"
        raise ValueError(message)


def at_once(*actions: Callable[[], object], expected: tuple[type[BaseException], ...] = ()) -> None:
    """Run each action in a thread of its own; raise the first exception that is not *expected*."""
    failures: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except expected:
            pass
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def raised_by(*actions: Callable[[], object]) -> None:
    """Raise what the first action raises, if all of them raise the same kind of error."""
    errors: list[BaseException] = []
    for action in actions:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - compared below
            errors.append(error)
        else:
            message = f"action {len(errors)} of {len(actions)} raised nothing"
            raise AssertionError(message)
    if len({type(error) for error in errors}) > 1:
        message = f"the errors differ: {errors!r}"
        raise AssertionError(message)
    raise errors[0]
