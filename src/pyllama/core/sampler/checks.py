"""What the functions that make samplers ask of their arguments, vocabularies included."""

from __future__ import annotations

import math
import numbers
import os
from typing import TYPE_CHECKING, Any, TypeVar

from pyllama.core.enums import VocabType
from pyllama.core.library import lib
from pyllama.core.params import whole
from pyllama.core.sampler.base import INT32_MAX, Sampler
from pyllama.core.vocab import Vocab
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

S = TypeVar("S", bound=Sampler)

FLOAT32_MAX = 3.4028234e38
MAX_SEED = lib.LLAMA_DEFAULT_SEED - 1  # the default itself means: draw one, and tell nobody

count = whole(0, INT32_MAX)
vocab_size = whole(1, INT32_MAX)
last_n = whole(0, 1 << 24)  # libllama allocates and clears so many numbers


def real(name: str, value: float, low: float = -FLOAT32_MAX, high: float = FLOAT32_MAX) -> float:
    """Return *value* as a float from *low* to *high*, both allowed, that C's float can hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        message = f"{name} must be a number, not {value!r}"
        raise TypeError(message)
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        bounds = f"at least {low}" if high == FLOAT32_MAX else f"from {low} to {high}"
        message = f"{name}={value} is out of range: it must be finite and {bounds}"
        raise ValueError(message)
    return number


def strings(name: str, values: Iterable[str]) -> list[str]:
    """Return *values* as a list, if they are strings and not one string."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        message = f"{name} must be a sequence of strings, not {values!r:.60}"
        raise TypeError(message)
    checked = list(values)
    for value in checked:
        if not isinstance(value, str):
            message = f"{name} must hold strings, not {value!r}"
            raise TypeError(message)
    return checked


def drawn(seed: int | None) -> int:
    """Return *seed*, or a random one, so that it is always known which one is used."""
    if seed is None:  # not `secrets`, which takes 4 ms to import
        return int.from_bytes(os.urandom(8), "little") % (MAX_SEED + 1)
    return int(whole(0, MAX_SEED)("seed", seed))


def require_vocab(vocab: Vocab, kind: str) -> None:
    """Raise unless *vocab* is one that has tokens: libllama would end the process."""
    if not isinstance(vocab, Vocab):
        message = f"vocab must be a Vocab, as model.vocab is, not {vocab!r}"
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
