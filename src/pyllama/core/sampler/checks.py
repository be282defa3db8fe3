"""What the functions that make samplers ask of their arguments, vocabularies included."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from pyllama.core.enums import VocabType
from pyllama.core.library import lib
from pyllama.core.params import real, whole
from pyllama.core.sampler.base import INT32_MAX, Sampler
from pyllama.core.vocab import Vocab
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

S = TypeVar("S", bound=Sampler)

MAX_SEED = lib.LLAMA_DEFAULT_SEED - 1  # the default itself means: draw one, and tell nobody

count = whole(0, INT32_MAX)
vocab_size = whole(1, INT32_MAX)
last_n = whole(0, 1 << 24)  # libllama allocates and clears so many numbers
finite = real()
from_zero = real(0)
share = real(0, 1)


def drawn(seed: int | None) -> int:
    """Return *seed*, or a random one, so that it is always known which one is used."""
    if seed is None:  # not `secrets`, which takes 4 ms to import
        return int.from_bytes(os.urandom(8), "little") % (MAX_SEED + 1)
    return int(whole(0, MAX_SEED)("seed", seed))


def require_vocab(vocab: Vocab, kind: str) -> None:
    """Raise unless *vocab* is one that has tokens: libllama would end the process."""
    if not isinstance(vocab, Vocab):
        message = f"vocab must be a Vocab, as model.vocab is, not {vocab!r:.80}"
        raise TypeError(message)
    if vocab.type is VocabType.NONE:
        message = f"this model has no vocabulary, which a {kind} sampler needs"
        raise UnsupportedError(message)


def for_vocab(
    cls: type[S], vocab: Vocab, kind: str, options: Mapping[str, Any], make: Callable[[Any], Any]
) -> S:
    """Return a sampler of what *make* makes of the C vocabulary, to be closed with its model."""
    require_vocab(vocab, kind)
    with vocab._model._call as model:
        pointer = make(lib.llama_model_get_vocab(model))
        return cls(pointer, kind, options, parent=vocab._model, n_vocab=vocab.n_tokens)
