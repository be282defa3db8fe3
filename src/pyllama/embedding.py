"""Embeddings of many texts, and scores of documents for a query: as many as fit in each batch."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core.batch import Batch, int32
from pyllama.core.enums import PoolingType, VocabType, member
from pyllama.core.model import Model
from pyllama.core.params import flag, whole
from pyllama.errors import BusyError, ContextLengthError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from pyllama.core.context import Context

N_BATCH = 2048
# In a pack each token attends to all others, if only to rule them out: on a CPU 2,048 at once cost
# 1.4 times as much as 256.
N_PACK = 256
N_SEQ_MAX = 64
MAX_BATCH = 1 << 20
MAX_SEQ = 256  # LLAMA_MAX_SEQ
# Where a template for rerank prompts has query and document (common/arg.cpp knows the same two).
SLOTS = ("{query}", "{document}")


class Embedder:
    """Turn texts into vectors with one model.

    Parameters
    ----------
    model
        An embedding model, a classifier, or one that generates text.
    pooling_type
        How the vectors of a text's tokens become one: "mean", "cls" (the first), "last", "rank"
        (the classifier's scores), or "none" (they stay apart). Left out, what the model file says;
        for a model that generates text, the mean.
    n_batch
        Most tokens of one text, and of all texts computed at once; a GPU likes more. Left out, one
        text may have the model's trained context, at most 2048, and several together 256.
    n_seq_max
        Most texts computed at once, 1 to 256.
    **options
        Further options of `Context`.

    Raises
    ------
    UnsupportedError
        If the model is an encoder-decoder, has no vocabulary, or no classifier for "rank".
    TypeError, ValueError
        If an option is wrong.

    Notes
    -----
    Close it, or use it as a context manager: it holds a context of its own.
    """

    def __init__(
        self,
        model: Model,
        *,
        pooling_type: PoolingType | str | None = None,
        n_batch: int | None = None,
        n_seq_max: int = N_SEQ_MAX,
        **options: Any,
    ) -> None:
        if not isinstance(model, Model):
            message = f"an Embedder is made from a Model, not from {model!r:.60}"
            raise TypeError(message)
        if model.has_encoder and model.has_decoder:
            message = "an encoder-decoder gives no embeddings"
            raise UnsupportedError(message)
        if model.vocab.type is VocabType.NONE:
            message = "this model has no vocabulary, so it takes no texts"
            raise UnsupportedError(message)
        most = min(model.n_ctx_train or N_BATCH, N_BATCH)
        self._n_pack = min(most, N_PACK) if n_batch is None else n_batch
        n_batch = whole(1, MAX_BATCH)("n_batch", most if n_batch is None else n_batch)
        n_seq_max = min(whole(1, MAX_SEQ)("n_seq_max", n_seq_max), n_batch)
        # libllama plans for as many tokens in each sequence, and mean pooling asserts what that
        # makes of other numbers (llama-context.cpp, graph_reserve).
        n_tokens = -(-n_batch // n_seq_max) * n_seq_max
        self._running = threading.Lock()
        self.model = model
        self.context: Context = model.context(
            n_ctx=n_tokens,
            n_batch=n_tokens,
            n_ubatch=n_tokens,  # a text has to be whole in one pass where attention is not causal
            n_seq_max=n_seq_max,
            kv_unified=True,
            embeddings=True,
            pooling_type=_pooling(model, pooling_type),
            **options,
        )
        trained = model.n_ctx_train if not self.context._has_memory else 0
        self._n_text = min(n_batch, trained or n_batch)

    @property
    def pooling_type(self) -> PoolingType:
        """How the vectors of a text's tokens become one."""
        return self.context.pooling_type

    @property
    def n_text(self) -> int:
        """Most tokens of one text."""
        return self._n_text

    @property
    def n_embd(self) -> int:
        """Width of a vector; with "rank" the number of the classifier's scores."""
        rank = self.pooling_type is PoolingType.RANK
        return self.model.n_cls_out if rank else self.model.n_embd_out

    def embed(
        self,
        texts: Sequence[str | bytes | ArrayLike],
        *,
        normalize: bool = True,
        truncate: bool = False,
    ) -> NDArray[np.float32]:
        """Return a vector for each text.

        Parameters
        ----------
        texts
            Texts, of which nothing is parsed for special tokens, or token ids.
        normalize
            Whether to divide each vector by its Euclidean length.
        truncate
            Whether to cut texts that are too long; otherwise they are an error.

        Returns
        -------
        ndarray of float32, shape (n, n_embd)

        Raises
        ------
        ContextLengthError
            If a text is longer than `n_text` tokens; nothing was computed.
        ValueError
            If a text holds no token.
        UnsupportedError
            If the vectors are not pooled: see `embed_tokens`.
        BusyError
            If another thread is in a call.
        TypeError
            If *texts* is one text.
        """
        if self.pooling_type is PoolingType.NONE:
            message = "with pooling_type='none' a text has a vector for each token: embed_tokens()"
            raise UnsupportedError(message)
        normalize = flag("normalize", normalize)
        ids = self._all_ids(texts, truncate=flag("truncate", truncate))
        rows = np.empty((len(ids), self.n_embd), np.float32)
        with self._alone():
            for members in self._packs(ids):
                self._compute([ids[i] for i in members])
                for seq, i in enumerate(members):
                    rows[i] = self.context.embedding(seq)
        return unit(rows) if normalize else rows

    def embed_tokens(
        self, text: str | bytes | ArrayLike, *, normalize: bool = True, truncate: bool = False
    ) -> NDArray[np.float32]:
        """Return a vector for each token of a text.

        Parameters
        ----------
        text
            As for `embed`.
        normalize, truncate
            As for `embed`.

        Returns
        -------
        ndarray of float32, shape (n_tokens, n_embd)

        Raises
        ------
        UnsupportedError
            If the vectors are pooled: make the Embedder with ``pooling_type="none"``.
        ContextLengthError, ValueError, BusyError
            As for `embed`.
        """
        if self.pooling_type is not PoolingType.NONE:
            name = self.pooling_type.name.lower()
            message = f"with pooling_type={name!r} a text has one vector: embed()"
            raise UnsupportedError(message)
        normalize = flag("normalize", normalize)
        ids = self._all_ids([text], truncate=flag("truncate", truncate))
        with self._alone():
            self._compute(ids)
            rows = self.context.embeddings()
        return unit(rows) if normalize else rows

    def rerank(
        self, query: str, documents: Sequence[str], *, truncate: bool = False
    ) -> NDArray[np.float32]:
        """Return how well each document answers a query.

        Parameters
        ----------
        query
            What is looked for.
        documents
            Texts. Of all of it nothing is parsed for special tokens.
        truncate
            As for `embed`; query and document together count.

        Returns
        -------
        ndarray of float32, shape (n,), or (n, n_cls_out) for a classifier of several outputs
            The classifier's own numbers: larger is better, the scale is the model's.

        Raises
        ------
        UnsupportedError
            If the pooling type is not "rank".
        ContextLengthError
            If query and document are too long; nothing was computed.
        """
        if self.pooling_type is not PoolingType.RANK:
            message = "to rerank, the Embedder needs pooling_type='rank' and a classifier"
            raise UnsupportedError(message)
        pairs = [self._pair(query, each) for each in _several("documents", documents)]
        scores = self.embed(pairs, normalize=False, truncate=truncate)
        return scores[:, 0] if self.n_embd == 1 else scores

    def _pair(self, query: str, document: str) -> list[int]:
        """Return the tokens of one question to the classifier."""
        vocab = self.model.vocab
        template = self.model.chat_template("rerank")
        if template is not None and all(slot in template for slot in SLOTS):
            return self._filled(template, {SLOTS[0]: query, SLOTS[1]: document})
        end = vocab.eos if vocab.eos is not None else vocab.sep
        parts = [
            [vocab.bos] if vocab.add_bos else [],
            vocab.tokenize(query, add_special=False).tolist(),
            [end] if vocab.add_eos else [],
            [vocab.sep] if vocab.add_sep else [],
            vocab.tokenize(document, add_special=False).tolist(),
            [end] if vocab.add_eos else [],
        ]
        return [token for part in parts for token in part if token is not None]

    def _filled(self, template: str, texts: dict[str, str]) -> list[int]:
        """Return the tokens of *template*; special ones come from it only, not from the texts."""
        vocab = self.model.vocab
        ids = [vocab.bos] if vocab.add_bos and vocab.bos is not None else []
        while template:
            slot = min(texts, key=lambda each: template.find(each) % (len(template) + 1))
            before, found, template = template.partition(slot)
            ids += vocab.tokenize(before, add_special=False, parse_special=True).tolist()
            if found:
                ids += vocab.tokenize(texts[slot], add_special=False).tolist()
        return ids

    def _all_ids(
        self, texts: Sequence[str | bytes | ArrayLike], *, truncate: bool
    ) -> list[list[int]]:
        """Return the tokens of each text; raise if one of them cannot be computed."""
        vocab = self.model.vocab
        kept = []
        for i, text in enumerate(_several("texts", texts)):
            tokens = vocab.tokenize(text) if isinstance(text, (str, bytes)) else text
            ids = int32(f"texts[{i}]", tokens, 1).tolist()
            if not ids:
                message = f"texts[{i}] holds no tokens"
                raise ValueError(message)
            if len(ids) > self.n_text and not truncate:
                message = (
                    f"texts[{i}] has {len(ids)} tokens, and {self.n_text} fit: cut it with "
                    "truncate=True, or make an Embedder with a larger n_batch"
                )
                raise ContextLengthError(message)
            kept.append(ids[: self.n_text])
        return kept

    def _packs(self, ids: list[list[int]]) -> Iterator[list[int]]:
        """Yield which texts are computed together: so many tokens and texts at most."""
        pack: list[int] = []
        n_tokens = 0
        for i in sorted(range(len(ids)), key=lambda each: len(ids[each])):
            full = len(pack) == self.context.n_seq_max
            if pack and (full or n_tokens + len(ids[i]) > self._n_pack):
                yield pack
                pack, n_tokens = [], 0
            pack.append(i)
            n_tokens += len(ids[i])
        if pack:
            yield pack

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out until what was computed has been read."""
        if not self._running.acquire(blocking=False):
            message = "this Embedder is in use by another thread: wait for it, or give each its own"
            raise BusyError(message)
        try:
            yield
        finally:
            self._running.release()

    def _compute(self, texts: list[list[int]]) -> None:
        """Run some texts through the model, each in a sequence of its own."""
        lengths = [len(text) for text in texts]
        batch = Batch(
            np.concatenate([np.asarray(text, np.int32) for text in texts]),
            pos=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
            seq_id=np.repeat(np.arange(len(texts), dtype=np.int32), lengths),
            output="all",
        )
        if self.context._has_memory:
            self.context.memory.clear()
            self.context.decode(batch)
        else:
            self.context.encode(batch)

    def close(self) -> None:
        """Free the context; the model stays."""
        self.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row by its Euclidean length; a row of zeros stays.

    Parameters
    ----------
    rows
        Shape ``(n, n_embd)``.

    Returns
    -------
    ndarray of float32, shape (n, n_embd)
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    return (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _pooling(model: Model, asked: PoolingType | str | None) -> PoolingType:
    """Return the pooling type asked for, or what suits the model."""
    if asked is not None and asked != PoolingType.UNSPECIFIED:
        return member(PoolingType, asked, "pooling_type")
    said = model.metadata.get(f"{model.architecture}.pooling_type")
    if said is None:
        return PoolingType.MEAN
    return PoolingType(int(said))


def _several(name: str, texts: Sequence[Any]) -> list[Any]:
    if isinstance(texts, (str, bytes)):
        message = f"{name} must be several texts, not one: [text]"
        raise TypeError(message)
    if not isinstance(texts, Iterable):
        message = f"{name} must be several texts, not {texts!r:.60}"
        raise TypeError(message)
    return list(texts)
