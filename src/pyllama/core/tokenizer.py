"""Text to tokens, whatever the text and whatever the vocabulary, without ending the process.

libllama trusts both: a long word overflows the stack, bytes that are not UTF-8 make it throw, and a
vocabulary that lacks what its kind must have makes it assert or never return.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from pyllama.core import bigstack
from pyllama.core.enums import TokenAttr, VocabType
from pyllama.core.library import ffi, lib
from pyllama.core.params import flag
from pyllama.core.token_facts import TokenFacts
from pyllama.errors import LibraryAbortError, LibraryError, TokenizeError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyllama.core.deadline import Deadline
    from pyllama.core.model import Model

INT32_MAX = 2**31 - 1

# A regex match takes 320 bytes of stack a character (measured in 27 pre-tokenizers: gcc 12, -O3).
STACK_PER_CHARACTER = 512
MAX_STACK = 1 << 30
MAX_RUN = MAX_STACK // STACK_PER_CHARACTER // 2  # characters; a match can be two runs
SMALL_TEXT = 256  # bytes; 82 kB of stack, less than the smallest default of a thread (musl: 128)
PYTHON_STACK = 1 << 20  # of a thread that runs the methods below, and C on texts that need no more

NORMALIZING = (VocabType.WPM, VocabType.UGM)
_TAKES_ANY_BYTES = (VocabType.RWKV, VocabType.TEST)
# Before each digit "superbpe" looks ahead over all that follow, to count them in threes from the
# right (src/llama-vocab.cpp:473): 10,000 in a row take 7 s, 60 at a time 30 ms.
MANY_DIGITS, MAX_DIGITS = 60, 3000
_DIGITS = re.compile(b"[0-9]{%d,}" % (MANY_DIGITS + 1))
_INVALID = re.compile("([\udc80-\udcff]+)")  # what "surrogateescape" makes of bytes not UTF-8


class Tokenizer(TokenFacts):
    """The part of `Vocab` that calls ``llama_tokenize``."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        # What add_special puts before and behind a text (src/llama-vocab.cpp:3430).
        adds = self.type in (VocabType.SPM, VocabType.BPE, VocabType.UGM)
        self._n_added: Final = (int(adds and self.add_bos), int(adds and self.add_eos))
        bert = self.type == VocabType.WPM
        wanted = {
            "bos": (bert or self._n_added[0]) and self.bos is None,
            "eos": self._n_added[1] and self.eos is None,
            "sep": bert and self.sep is None,
        }
        pre = model.metadata.get("tokenizer.ggml.pre")
        self._counts_digits: Final = self.type == VocabType.BPE and pre == "superbpe"
        self._missing: Final = ", ".join(name for name, missing in wanted.items() if missing)

    def _tokens_by(
        self, deadline: Deadline | None, data: bytes, *, add_special: bool, parse_special: bool
    ) -> NDArray[np.int32]:
        """Tokenize before a moment; C cannot be stopped, so its thread is left behind then.

        It keeps the model from being closed until C returns, as any other thread does.
        """
        if deadline is None:
            return self._tokens(data, add_special=add_special, parse_special=parse_special)
        deadline.require("tokenizing")
        return bigstack.call(
            lambda: self._tokens(data, add_special=add_special, parse_special=parse_special),
            PYTHON_STACK,
            deadline,
        )

    def _tokens(self, data: bytes, *, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        """Tokenize bytes that may be anything, on a stack that is large enough."""
        flag("add_special", add_special)
        flag("parse_special", parse_special)
        self._require_tokens()
        self._require_fit(data, add_special=add_special)
        if self.type not in _TAKES_ANY_BYTES:
            try:
                data.decode()
            except UnicodeDecodeError:
                return self._invalid(data, add_special=add_special, parse_special=parse_special)
        if self._counts_digits and _DIGITS.search(data):
            return self._digits(data, add_special=add_special, parse_special=parse_special)
        return self._in_one(data, (add_special, parse_special))

    def _in_one(self, data: bytes, options: tuple[bool, bool]) -> NDArray[np.int32]:
        """Tokenize UTF-8 in one call, on a stack that its expressions fit on."""
        if self.type != VocabType.BPE or len(data) <= SMALL_TEXT:
            return self._call(data, *options)
        return bigstack.call(lambda: self._call(data, *options), self._stack_for(data))

    def _call(self, data: bytes, *options: bool) -> NDArray[np.int32]:
        """Call C with room for as many tokens as bytes, and again if it asks for more."""
        tokens = np.empty(len(data) + 2, np.int32)
        n = self._fill(tokens, data, *options)
        if n < -INT32_MAX:
            message = f"the tokens of a text of {len(data)} bytes are too many for libllama"
            raise TokenizeError(message)
        if n < 0:
            tokens = np.empty(-n, np.int32)
            n = self._fill(tokens, data, *options)
        # -1 is what libllama gives where it needs an unknown token and there is none.
        if n and tokens[:n].view(np.uint32).max() >= self.n_tokens:
            message = "the text holds characters that are not in the vocabulary, nor is <unk>"
            raise TokenizeError(message)
        return tokens[:n].copy()

    def _fill(self, tokens: NDArray[np.int32], data: bytes, *options: bool) -> int:
        """Write the tokens of *data*, and return how many they are; below 0 they do not fit."""
        memory = ffi.from_buffer("llama_token[]", tokens)
        try:
            with self._model._call as pointer:
                vocab = lib.llama_model_get_vocab(pointer)
                return lib.llama_tokenize(vocab, data, len(data), memory, tokens.size, *options)
        except LibraryAbortError:
            raise
        except LibraryError as error:
            message = (
                f"libllama cannot tokenize this text ({error}): the vocabulary lacks tokens, "
                "perhaps for bytes, that its kind must have"
            )
            raise TokenizeError(message) from error

    def _invalid(self, data: bytes, *, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        """Tokenize bytes that are not all UTF-8, on which libllama may raise or change them."""
        lone = self._byte_tokens
        text = data.decode("utf-8", "surrogateescape")  # U+DC80 to U+DCFF are what is not UTF-8
        text = text.translate({0xDC00 + b: 0xFFFD for b in range(0x80, 0x100) if b not in lone})
        first, *rest = _INVALID.split(text)
        if not rest:
            return self._tokens(text.encode(), add_special=add_special, parse_special=parse_special)
        lead, led = self._lead
        arrays = [led[:-1]]
        if first:
            arrays = [self._tokens(first.encode(), add_special=False, parse_special=parse_special)]
        for invalid, valid in zip(rest[::2], rest[1::2], strict=True):
            arrays.append(np.array([lone[ord(byte) - 0xDC00] for byte in invalid], np.int32))
            part = lead + valid.encode()
            tokens = self._tokens(part, add_special=False, parse_special=parse_special)
            arrays.append(tokens[len(led) :])
        return self._joined(arrays, add_special=add_special)

    def _digits(self, data: bytes, *, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        """Tokenize long runs of digits in parts that end where a word ends anyway."""
        longest = max(len(run) for run in _DIGITS.findall(data))
        if self._digits_in_specials:
            if longest > MAX_DIGITS:
                message = (
                    f"the text has {longest} digits in a row: this vocabulary takes time that "
                    f"grows with their square, and at most {MAX_DIGITS}; split the text"
                )
                raise TokenizeError(message)
            return self._in_one(data, (add_special, parse_special))
        arrays, start, inner = [], 0, (False, parse_special)
        for run in _DIGITS.finditer(data):
            first = run.end() - (len(run[0]) - 1) // MANY_DIGITS * MANY_DIGITS
            for end in range(first, run.end(), MANY_DIGITS):
                arrays.append(self._in_one(data[start:end], inner))
                start = end
        arrays.append(self._in_one(data[start:], inner))
        return self._joined(arrays, add_special=add_special)

    def _joined(self, arrays: list[NDArray[np.int32]], *, add_special: bool) -> NDArray[np.int32]:
        """Return the tokens of the parts of a text, with those that a whole text gets."""
        if add_special:
            added = self._tokens(b"", add_special=True, parse_special=False)
            begin, _ = self._n_added
            arrays = [added[:begin], *arrays, added[begin:]]
        return np.concatenate(arrays)

    def _require_fit(self, data: bytes, *, add_special: bool) -> None:
        """Raise for what libllama answers with an assertion, an overflow or an endless loop."""
        if len(data) > INT32_MAX:
            message = f"the text has {len(data)} bytes: tokenize less than 2 GiB at a time"
            raise ValueError(message)
        if add_special and self._missing:
            message = (
                f"this model asks for special tokens ({self._missing}) that its vocabulary does "
                "not have: tokenize with add_special=False"
            )
            raise UnsupportedError(message)
        if self.type == VocabType.RWKV and not self._kept("rwkv", self._rwkv_ends):
            message = "this RWKV vocabulary has no tokens for single bytes: libllama would not end"
            raise UnsupportedError(message)

    def _rwkv_ends(self) -> bool:
        """Whether each byte that begins a token is one itself (src/llama-vocab.cpp:1341)."""
        table = set(self.piece_table(special=True))
        return all(piece[:1] in table for piece in table)

    def _stack_for(self, data: bytes) -> int:
        """Return the stack, in bytes, that the longest regex match in a text can take."""
        needed = len(data) * STACK_PER_CHARACTER
        if needed > MAX_STACK:
            needed = MAX_STACK
            # A match is a run of anything but white space, one of white space, or the two together.
            # Only the words of exaone-moe go on over spaces (src/llama-vocab.cpp:525).
            over_spaces = self._model.metadata.get("tokenizer.ggml.pre") == "exaone-moe"
            longest = _longest_run(data, b"\n" if over_spaces else b" \t\n\v\f\r")
            if longest > MAX_RUN:
                message = (
                    f"the text has {longest} characters in a row without white space, or only of "
                    f"it: libllama takes too much stack beyond {MAX_RUN}; split the text"
                )
                raise TokenizeError(message)
        return needed + (1 << 20)

    @property
    def _digits_in_specials(self) -> bool:
        """Whether a special token begins or ends with a digit, and so may lie across two parts."""

        def make() -> bool:
            special = TokenAttr.CONTROL | TokenAttr.USER_DEFINED | TokenAttr.UNKNOWN
            table = self.piece_table(special=True)
            pieces = [table[token] for token in np.flatnonzero(self.attrs & special).tolist()]
            return any(piece[:1].isdigit() or piece[-1:].isdigit() for piece in pieces)

        return self._kept("digits", make)

    @property
    def _byte_tokens(self) -> dict[int, int]:
        """The token of each byte that can stand alone; none where text is normalized anyway."""

        def make() -> dict[int, int]:
            if self.type in NORMALIZING:
                return {}
            plain = np.flatnonzero(self.attrs & (TokenAttr.NORMAL | TokenAttr.BYTE))
            table = self.piece_table(special=True)
            return {table[t][0]: t for t in plain.tolist() if len(table[t]) == 1}

        return self._kept("bytes", make)

    @property
    def _lead(self) -> tuple[bytes, NDArray[np.int32]]:
        """What keeps SPM from adding a space to the text behind it, and the tokens of that."""
        if self.type != VocabType.SPM:
            return b"", np.empty(0, np.int32)
        lead = b"\x01"  # it comes out as its byte token, with that space in front
        tokens = self._kept(
            "lead", lambda: self._tokens(lead, add_special=False, parse_special=False)
        )
        return lead, tokens


def _longest_run(data: bytes, breaks: bytes) -> int:
    """Return the most characters in a row that all are, or all are not, in *breaks*."""
    table = np.zeros(256, np.bool_)
    table[list(breaks)] = True
    text = np.frombuffer(data, np.uint8)
    inside = table[text]
    starts = np.flatnonzero(np.concatenate(([True], inside[1:] != inside[:-1])))
    begins_character = text & 0xC0 != 0x80
    return int(np.add.reduceat(begins_character, starts, dtype=np.int64).max())
