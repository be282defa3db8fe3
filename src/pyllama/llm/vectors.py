"""The part of `LLM` that turns texts into vectors and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.embedding import Embedder
from pyllama.llm.loading import Loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pyllama.core.enums import PoolingType


class Vectors(Loading):
    """Embed texts, and rank documents."""

    def embed(
        self,
        texts: str | bytes | Sequence[Any],
        *,
        pooling_type: PoolingType | str | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> NDArray[np.float32]:
        """Return a vector for each text.

        Parameters
        ----------
        texts
            One text, or several; an element may also be token ids.
        pooling_type
            "mean", "cls" or "last"; left out, what the model file says, or else the mean. With
            "none" one text gives a vector for each of its tokens.
        normalize
            Whether to divide each vector by its Euclidean length.
        truncate
            Whether to cut texts that are too long; otherwise they are an error.

        Returns
        -------
        ndarray of float32, shape (n, n_embd), or (n_embd,) for one text

        Raises
        ------
        StateError
            If no model is loaded.
        ContextLengthError
            If a text is too long; nothing was computed.
        UnsupportedError
            If the model gives no such vectors.
        BusyError
            If another call is running.
        """
        one = isinstance(texts, (str, bytes))
        with self._run_alone():
            embedder = self._embedder(pooling_type)
            if one and embedder.pooling_type == 0:
                return embedder.embed_tokens(texts, normalize=normalize, truncate=truncate)
            rows = embedder.embed([texts] if one else texts, normalize=normalize, truncate=truncate)
            return rows[0] if one else rows

    def rerank(
        self, query: str, documents: Sequence[str], *, truncate: bool = False
    ) -> NDArray[np.float32]:
        """Return how well each document answers a query.

        Parameters
        ----------
        query
            What is looked for.
        documents
            Texts.
        truncate
            Whether to cut what is too long; otherwise it is an error.

        Returns
        -------
        ndarray of float32, shape (n,), or (n, n_cls_out) for a classifier of several outputs
            In the order of the documents; larger is better, the scale is the model's.

        Raises
        ------
        UnsupportedError
            If the model is no classifier.
        StateError, ContextLengthError, BusyError
            As `embed`.
        """
        self._require("rerank", "it has no classifier")
        with self._run_alone():
            return self._embedder("rank").rerank(query, documents, truncate=truncate)

    def _embedder(self, pooling_type: PoolingType | str | None) -> Embedder:
        """Return what computes vectors of this kind; it keeps its context for the next call."""
        model, kept = self.model, self._embedders
        if pooling_type not in kept:
            threads = {k: v for k, v in self._options.items() if k.startswith("n_threads")}
            kept[pooling_type] = Embedder(model, pooling_type=pooling_type, **threads)
        return kept[pooling_type]
