"""The objects that calls are made on and with: good ones, closed ones, those of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import random_model

import pyllama
from pyllama import samplers
from pyllama.core.handle import Handle

SMALL = {"n_ctx": 256, "n_batch": 64, "n_ubatch": 64, "n_threads": 1, "n_threads_batch": 1}
LORA = {"blk.0.attn_q.weight": (64, 64)}
N_VOCAB = {"tiny": 512, "other": 384}


def write_files(directory: Path) -> None:
    """Write every file that a world needs."""
    for kind, n_vocab in N_VOCAB.items():
        random_model.write_llama(directory / f"{kind}.gguf", n_vocab=n_vocab)
        random_model.write_projector(directory / "projector.gguf")
        random_model.write_lora(directory / f"{kind}-lora.gguf", LORA)
    fim = {f"tokenizer.ggml.fim_{part}_token_id": 300 for part in ("pre", "suf", "mid")}
    random_model.write_llama(directory / "infill.gguf", metadata=fim)
    random_model.write_bert(directory / "ranker.gguf", pooling=4, n_labels=1)


class World:
    """What one process makes, once it is needed.

    Parameters
    ----------
    directory
        Where the files lie.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._models: dict[str, pyllama.Model] = {}
        self._projectors: dict[str, pyllama.Projector] = {}

    def path(self, kind: str = "tiny") -> Path:
        """Return the file of a model."""
        return self.directory / f"{kind}.gguf"

    def model(self, kind: str = "tiny") -> pyllama.Model:
        """Return a model that the calls share; a new one if a call closed it."""
        model = self._models.get(kind)
        if model is None or model.closed:
            model = self._models[kind] = pyllama.Model(self.path(kind))
        return model

    def trainable(self, kind: str = "tiny") -> pyllama.Model:
        """Load a model whose weights can be written."""
        return pyllama.Model(self.path(kind), load_mode="none")

    def vocab(self, kind: str = "tiny") -> pyllama.Vocab:
        """Return its vocabulary."""
        return self.model(kind).vocab

    def context(self, kind: str = "tiny", **options: Any) -> pyllama.Context:
        """Make a context in which tokens were decoded."""
        context = self.model(kind).context(**{**SMALL, **options})
        context.decode(pyllama.Batch([1, 2, 3]))
        return context

    def empty(self, kind: str = "tiny") -> pyllama.Context:
        """Make a context in which nothing was decoded."""
        return self.model(kind).context(**SMALL)

    def projector(self, kind: str = "tiny") -> pyllama.Projector:
        """Load a projector for images; the same one until it is closed."""
        projector = self._projectors.get(kind)
        if projector is None or projector.closed:
            projector = pyllama.Projector(self.model(kind), self.path("projector"), n_threads=1)
            self._projectors[kind] = projector
        return projector

    def chunks(self, kind: str = "tiny") -> pyllama.Chunks:
        """Cut a prompt with an image into chunks."""
        image = pyllama.Bitmap(np.full((32, 32, 3), 128, np.uint8))
        return self.projector(kind).tokenize(["a", image])

    def importance(self) -> pyllama.ImportanceMatrix:
        """Make an importance matrix of one weight."""
        return pyllama.ImportanceMatrix(
            {"blk.0.attn_q.weight": np.ones((1, 64))}, {"blk.0.attn_q.weight": [10]}
        )

    def imatrix_file(self) -> Path:
        """Write one."""
        path = self.directory / "tiny.imatrix"
        if not path.exists():
            self.importance().save(path)
        return path

    def sampling(self, kind: str = "tiny") -> pyllama.Context:
        """Make a context that has sampled in its graph."""
        context = self.model(kind).context(**SMALL)
        context.attach_sampler(pyllama.SamplerChain([samplers.greedy()]))
        context.decode(pyllama.Batch([1, 2, 3]))
        return context

    def adapter(self, kind: str = "tiny") -> pyllama.Adapter:
        """Load a LoRA adapter."""
        return pyllama.Adapter(self.model(kind), self.path(f"{kind}-lora"))

    def row(self, kind: str = "tiny") -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a row of logits."""
        return np.linspace(-1, 1, N_VOCAB[kind], dtype=np.float32)

    def chain(self, kind: str = "tiny") -> pyllama.SamplerChain:
        """Make a chain that has a sampler of the model's vocabulary."""
        first = samplers.logit_bias(N_VOCAB[kind], {1: 1.0})
        return pyllama.SamplerChain([first, samplers.dist(1)])

    def state(self, kind: str = "tiny") -> pyllama.State:
        """Take the state of a context."""
        with self.context(kind) as context:
            return context.state()

    def like_of(self, type_: type, kind: str = "tiny") -> Any:
        """Make an object of a type; a context if it is none of ours."""
        makers = {
            pyllama.Model: self.model,
            pyllama.Vocab: self.vocab,
            pyllama.Adapter: self.adapter,
            pyllama.SamplerChain: self.chain,
            pyllama.State: self.state,
            pyllama.Memory: lambda kind: self.context(kind).memory,
            pyllama.Candidates: lambda kind: pyllama.Candidates(self.row(kind)),
            pyllama.ThreadPool: lambda _kind: pyllama.ThreadPool(1),
            pyllama.Sampler: lambda kind: samplers.mirostat(
                N_VOCAB[kind], tau=5.0, eta=0.1, seed=1
            ),
            pyllama.Metadata: lambda kind: pyllama.Metadata(self.model(kind)),
            pyllama.Training: self.training,
            pyllama.LLM: self.llm,
            pyllama.Embedder: lambda kind: pyllama.Embedder(
                self.model(kind), n_batch=64, n_seq_max=4, n_threads=1, n_threads_batch=1
            ),
            pyllama.Projector: self.projector,
            pyllama.Chunks: self.chunks,
            pyllama.Chunk: lambda kind: self.chunks(kind)[0],
            pyllama.Bitmap: lambda _kind: pyllama.Bitmap(np.zeros((32, 32, 3), np.uint8)),
        }
        return makers.get(type_, self.context)(kind)

    def llm(self, kind: str = "tiny") -> pyllama.LLM:
        """Load a model for applications."""
        path = self.path({"infill": "infill", "ranker": "ranker"}.get(kind, kind))
        return pyllama.LLM(path, n_ctx=256, n_threads=1, n_threads_batch=1)

    def ranker(self, kind: str = "tiny") -> pyllama.Embedder:
        """Load a classifier."""
        if "ranker" not in self._models or self._models["ranker"].closed:
            self._models["ranker"] = pyllama.Model(self.path("ranker"))
        return pyllama.Embedder(self._models["ranker"], n_threads=1, n_threads_batch=1)

    def training(self, kind: str = "tiny") -> pyllama.Training:
        """Begin to train a model."""
        return pyllama.Training(self.trainable(kind), n_ctx=256)

    def other(self, usual: Any) -> Any:
        """Make an object of the same type that belongs to another model."""
        return self.like_of(type(usual), "other")

    def closed(self, usual: Any) -> Any:
        """Make an object of the same type whose C object is gone."""
        made = self.like_of(type(usual))
        names = ("_model", "_context", "_owner", "_chunks", "model")
        for owner in (made, *(getattr(made, name, None) for name in names)):
            if isinstance(owner, (Handle, pyllama.Training, pyllama.Embedder)):
                owner.close()
            elif isinstance(owner, pyllama.LLM):
                owner.unload()
        return made

    def prove(self) -> None:
        """Raise unless a model and a context still work."""
        with self.context() as context:
            if not np.isfinite(context.logits()).all():
                message = "the logits are not finite"
                raise ValueError(message)
