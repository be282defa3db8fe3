"""What the vocabulary of a model file must fulfil, or libllama ends or hangs while it loads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pyllama.core.files.gguf import Header
from pyllama.errors import LoadError

TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPE = "tokenizer.ggml.token_type"
BYTE = 6  # enum llama_token_type, include/llama.h
_ESCAPES = {ord("t"): ord("\t"), ord("n"): ord("\n"), ord("r"): ord("\r")}


def _check_tokens(headers: Sequence[Header]) -> None:
    """Refuse tokens that are spelt alike: src/llama-vocab.cpp:2544 asserts that none are."""
    first = headers[0]
    texts = _tokens(first)
    if not texts and TOKENS in first.metadata and _model(first) == "test":
        raise LoadError(f"{first.path}: {TOKENS} is empty")  # src/llama-vocab.cpp:3645 divides
    if any("\0" in text for text in texts):  # C ends them there
        texts = [text.partition("\0")[0] for text in texts]
    if len(set(texts)) == len(texts):
        return
    seen: dict[str, int] = {}
    for index, text in enumerate(texts):
        # libllama gives each empty token a name of its own
        other = seen.setdefault(text or f"[EMPTY_{index}]", index)
        if other != index:
            raise LoadError(
                f"{first.path}: {TOKENS} has {text[:40]!r} twice, as token {other} and as token "
                f"{index}; all must differ"
            )


def _check_byte_tokens(headers: Sequence[Header]) -> None:
    """Refuse byte tokens in a WordPiece vocabulary, which has none: src/llama-vocab.cpp:3207."""
    first = headers[0]
    types = first.metadata.get(TOKEN_TYPE) if _model(first) == "bert" else None
    if isinstance(types, np.ndarray) and (types == BYTE).any():
        index = int(np.flatnonzero(types == BYTE)[0])
        raise LoadError(
            f"{first.path}: {TOKEN_TYPE}[{index}] is {BYTE} (byte), but a bert vocabulary has no "
            "byte tokens"
        )


def _check_line_feed(headers: Sequence[Header]) -> None:
    """Refuse an RWKV vocabulary that libllama looks for a line feed in, for ever."""
    first = headers[0]
    if _model(first) != "rwkv":
        return
    possible = (text for text in _tokens(first) if text.startswith(("\n", "\\")))
    begin = {text: data for text in possible if (data := _unescape(text)).startswith(b"\n")}
    if begin and b"\n" not in begin.values():
        raise LoadError(  # src/llama-vocab.cpp:1341 and :2570
            f"{first.path}: {TOKENS} has {min(begin)[:40]!r}, which begins with a line feed, but "
            "no token that is one"
        )


def _check_whitespace(headers: Sequence[Header]) -> None:
    """Refuse words of spaces, of which src/llama-vocab.cpp:4183 asserts that there are none."""
    first = headers[0]
    pre = first.metadata.get("tokenizer.ggml.pre")
    if pre == "whitespace" and _model(first) != "whitespace":
        raise LoadError(
            f"{first.path}: tokenizer.ggml.pre is 'whitespace', but tokenizer.ggml.model is "
            f"{_model(first)[:40]!r}, not 'whitespace' as well"
        )


def _unescape(text: str) -> bytes:
    """Return the bytes that libllama reads in the text of an RWKV token, however odd it is."""
    characters, data = iter(text.encode("utf-8", "surrogateescape")), bytearray()
    for character in characters:
        if character != ord("\\"):
            data.append(character)
            continue
        escaped = next(characters, None)
        if escaped == ord("x"):
            high, low = next(characters, None), next(characters, None)
            if high is not None and low is not None:
                data.append((16 * _digit(high) + _digit(low)) % 256)
        elif escaped is not None:
            data.append(_ESCAPES.get(escaped, escaped))
    return bytes(data)


def _digit(character: int) -> int:
    """Return the worth of a hexadecimal digit, as src/llama-vocab.cpp:1269 counts any character."""
    return character - (ord("a") - 10 if ord("a") <= character < 128 else ord("0"))


def _tokens(header: Header) -> list[str]:
    value = header.metadata.get(TOKENS)
    return value if isinstance(value, list) else []


def _model(header: Header) -> str:
    return str(header.metadata.get("tokenizer.ggml.model"))


VOCAB_RULES: tuple[Callable[[Sequence[Header]], None], ...] = (
    _check_tokens,
    _check_byte_tokens,
    _check_line_feed,
    _check_whitespace,
)
