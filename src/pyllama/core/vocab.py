"""A model's vocabulary: text to tokens and back."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from pyllama.core.deadline import Deadline
from pyllama.core.enums import TokenAttr
from pyllama.core.library import ffi, lib
from pyllama.core.offsets import ESCAPED_SPACE, Spelling, align
from pyllama.core.params import MAX_THREADS, flag, whole
from pyllama.core.threads import n_usable_cores
from pyllama.core.tokenizer import INT32_MAX, NORMALIZING, Tokenizer
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

# What the file says is text that was cut out before the rest was tokenized.
_CUT_OUT = TokenAttr.CONTROL | TokenAttr.USER_DEFINED | TokenAttr.UNKNOWN

_n_threads = whole(1, MAX_THREADS)


class Vocab(Tokenizer):
    """The vocabulary of a model; `Model.vocab` gives it.

    Any number of threads may use it at once; `Model.close` raises `BusyError` meanwhile, and every
    call after it raises `ClosedError`. The attributes are those of `TokenFacts`.

    Parameters
    ----------
    model
        Whose vocabulary it is; it stays alive with this object.

    Notes
    -----
    Which text comes back exactly: the pieces of ``tokenize(text, add_special=False)``, joined, are
    the text itself in byte-level vocabularies (most BPE, RWKV), and with one space in front and
    U+2581 turned into spaces in SentencePiece ones (SPM). BERT's (WPM) and T5's (UGM) normalize
    the text. `detokenize` may tidy spaces up where the file asks for it.
    """

    def tokenize(
        self,
        text: str | bytes,
        *,
        add_special: bool = True,
        parse_special: bool = False,
        timeout: float | None = None,
    ) -> NDArray[np.int32]:
        """Turn text into tokens.

        Parameters
        ----------
        text
            Any text, NUL included. Bytes that are not UTF-8 become the vocabulary's byte tokens;
            where it has none, or normalizes text, they become U+FFFD.
        add_special
            Whether the tokens that begin and end a text are added, as the file asks for
            (`add_bos`, `add_eos`, `add_sep`).
        parse_special
            Whether "<|im_end|>" and its like in the text become control tokens. Never for text
            from a user: it could end its own turn.
        timeout
            Seconds to wait; None waits for the end.

        Returns
        -------
        ndarray of int32, shape (n,)

        Raises
        ------
        TypeError, ValueError
            If an argument is none, or the text has 2 GiB or more.
        UnicodeEncodeError
            If a str holds half of a surrogate pair.
        TokenizeError
            If the vocabulary has no tokens for the text, or a word in it is too long.
        UnsupportedError
            If the model has no vocabulary, or asks for a special token that it does not have.
        MemoryError
            If the system grants no stack for a long text.
        TimeoutError
            If the time was not enough. libllama cannot be stopped here: it goes on, on a thread of
            its own, and `Model.close` raises `BusyError` until it has finished.

        Notes
        -----
        BPE texts longer than 256 bytes are tokenized on a thread with a stack as large as the
        longest word could need, at about 50 µs more. A word of more than a million characters is
        refused. SPM takes seconds for a row of 200,000 characters that have no token of their own.

        Calls: llama_tokenize
        """
        return self._tokens_by(
            Deadline.after(timeout),
            _utf8(text),
            add_special=add_special,
            parse_special=parse_special,
        )

    def tokenize_batch(
        self,
        texts: Iterable[str | bytes],
        *,
        add_special: bool = True,
        parse_special: bool = False,
        n_threads: int | None = None,
        timeout: float | None = None,
    ) -> list[NDArray[np.int32]]:
        """Turn many texts into tokens, several at a time.

        Parameters
        ----------
        texts
            The texts.
        add_special, parse_special
            As for `tokenize`.
        n_threads
            Threads to use; left out, one for each usable core.
        timeout
            Seconds to wait for all of them; None waits for the end.

        Returns
        -------
        list of ndarray of int32, shape (n,)
            In the order of the texts.

        Raises
        ------
        TypeError
            If *texts* is one text, or one of them is not a text.
        UnicodeEncodeError, TokenizeError, UnsupportedError, MemoryError, TimeoutError
            As for `tokenize`.

        Calls: llama_tokenize
        """
        deadline = Deadline.after(timeout)
        if isinstance(texts, (str, bytes)):
            message = "texts must be several texts, not one text: use tokenize"
            raise TypeError(message)
        data = [_utf8(text) for text in texts]
        n = n_usable_cores() if n_threads is None else _n_threads("n_threads", n_threads)
        results: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * len(data)
        indices = iter(range(len(data)))  # shared: each thread takes the next

        def work() -> None:
            try:
                for index in indices:
                    results[index] = self._tokens_by(
                        deadline,
                        data[index],
                        add_special=add_special,
                        parse_special=parse_special,
                    )
            finally:
                deque(indices, maxlen=0)  # after an error nobody begins another

        n = min(n, len(data))
        if n <= 1:
            work()
            return results
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 4 ms to import

        with ThreadPoolExecutor(n) as pool:
            futures = [pool.submit(work) for _ in range(n)]
            try:
                for future in futures:
                    future.result()
            finally:
                deque(indices, maxlen=0)  # nor after Ctrl-C
        return results

    def detokenize(
        self, tokens: ArrayLike, *, remove_special: bool = False, unparse_special: bool = False
    ) -> str:
        """Turn tokens into text.

        Parameters
        ----------
        tokens : array_like of int, shape (n,)
            Ids.
        remove_special
            Whether a BOS in front and an EOS at the end are left out, where `tokenize` adds them.
        unparse_special
            Whether control tokens give their text; otherwise they give none.

        Returns
        -------
        str
            With U+FFFD for bytes that are not UTF-8, as when the tokens end inside a character;
            `detokenize_bytes` keeps them.

        Raises
        ------
        IndexError
            If an id is not in the vocabulary.
        UnsupportedError
            If the model has no vocabulary.

        Calls: llama_detokenize
        """
        data = self.detokenize_bytes(
            tokens, remove_special=remove_special, unparse_special=unparse_special
        )
        return data.decode("utf-8", "replace")

    def detokenize_bytes(
        self, tokens: ArrayLike, *, remove_special: bool = False, unparse_special: bool = False
    ) -> bytes:
        """Turn tokens into the bytes of a text.

        Parameters
        ----------
        tokens, remove_special, unparse_special
            As for `detokenize`.

        Returns
        -------
        bytes

        Raises
        ------
        IndexError
            If an id is not in the vocabulary.
        UnsupportedError
            If the model has no vocabulary.
        ValueError
            If the text would have 2 GiB or more.

        Calls: llama_detokenize
        """
        flag("remove_special", remove_special)
        flag("unparse_special", unparse_special)
        self._require_tokens()
        ids = self._ids(tokens)
        # libllama adds the lengths up in an int32 and trusts the sum (src/llama-vocab.cpp:3830).
        room = int(self._piece_sizes[ids].sum())
        if room > INT32_MAX:
            message = f"the text of these tokens has {room} bytes: detokenize fewer at a time"
            raise ValueError(message)
        text = np.empty(room, np.uint8)
        with self._model._call as pointer:
            n = lib.llama_detokenize(
                lib.llama_model_get_vocab(pointer),
                ffi.from_buffer("llama_token[]", ids),
                ids.size,
                ffi.from_buffer("char[]", text),
                room,
                remove_special,
                unparse_special,
            )
        return text[:n].tobytes()

    def offsets(
        self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Turn text into tokens, and say which bytes of it each token stands for.

        Parameters
        ----------
        text, add_special, parse_special
            As for `tokenize`.

        Returns
        -------
        tokens : ndarray of int32, shape (n,)
            What `tokenize` returns.
        spans : ndarray of int32, shape (n, 2)
            Half-open byte ranges in the UTF-8 text. Added tokens have empty ones, as has a token
            that is only the space which SPM puts in front.

        Raises
        ------
        UnsupportedError
            If the vocabulary normalizes text (WPM, UGM), so that tokens have no place in it.
        UnicodeEncodeError, TokenizeError, MemoryError
            As for `tokenize`.

        Calls: llama_tokenize
        """
        if self.type in NORMALIZING:
            message = f"a {self.type.name} vocabulary normalizes text: its tokens have no offsets"
            raise UnsupportedError(message)
        data = _utf8(text)
        tokens = self._tokens(data, add_special=add_special, parse_special=parse_special)
        begin, end = self._n_added if add_special else (0, 0)
        inner = tokens[begin : len(tokens) - end]
        spans = np.zeros((len(tokens), 2), np.int32)
        spans[len(tokens) - end :] = len(data)
        spans[begin : len(tokens) - end] = align(
            data,
            self.pieces(inner, special=True),
            self.attrs[inner] & _CUT_OUT != 0,
            self._spelling,
        )
        return tokens, spans

    @property
    def _spelling(self) -> Spelling:
        def make() -> Spelling:
            def spelled(text: bytes) -> bytes:
                return b"".join(self.pieces(self.tokenize(text, add_special=False)))

            return Spelling(spelled(b"a") == b" a", spelled(ESCAPED_SPACE).endswith(b" "))

        return self._kept("spelling", make)

    @property
    def _piece_sizes(self) -> NDArray[np.int64]:
        table = self.piece_table(special=True)
        return self._kept("sizes", lambda: np.fromiter(map(len, table), np.int64, len(table)))


def _utf8(text: str | bytes) -> bytes:
    """Return the bytes of a text."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        message = f"a text must be str or bytes, not {type(text).__name__}"
        raise TypeError(message)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        error.reason += ": give bytes, or text.encode('utf-8', 'replace')"
        raise
