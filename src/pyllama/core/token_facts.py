"""What a vocabulary says of its tokens one by one: text, bytes, score, kind, and special roles."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from pyllama.core.enums import TokenAttr, VocabType
from pyllama.core.library import ffi, lib
from pyllama.core.params import flag, whole
from pyllama.core.pieces import read_pieces
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from pyllama.core.model import Model

T = TypeVar("T")

_lstrip = whole(0, 2**31 - 1)


class TokenFacts:
    """The tokens of a model's vocabulary; the base of `Vocab`.

    Parameters
    ----------
    model
        Whose vocabulary it is.

    Attributes
    ----------
    n_tokens : int
        Number of tokens; ids go from 0 to ``n_tokens - 1``.
    type : VocabType
        How text is cut into tokens.
    bos, eos, eot, sep, nl, pad, mask : int or None
        The token that begins a sequence (CLS for BERT), ends one, ends a turn, separates, is a
        newline, fills up, stands for a hidden word. None where the vocabulary has none.
    fim_pre, fim_suf, fim_mid, fim_pad, fim_rep, fim_sep : int or None
        The tokens for filling in the middle of text: before the prefix, the suffix and the middle;
        filler, repository name and file separator.
    add_bos, add_eos, add_sep : bool
        Whether `Vocab.tokenize` adds that token when asked for special tokens.

    Notes
    -----
    Read once, and readable after the model is closed.

    Calls: llama_model_get_vocab, llama_vocab_n_tokens, llama_vocab_type, llama_vocab_bos,
    llama_vocab_eos, llama_vocab_eot, llama_vocab_sep, llama_vocab_nl, llama_vocab_pad,
    llama_vocab_mask, llama_vocab_fim_pre, llama_vocab_fim_suf, llama_vocab_fim_mid,
    llama_vocab_fim_pad, llama_vocab_fim_rep, llama_vocab_fim_sep, llama_vocab_get_add_bos,
    llama_vocab_get_add_eos, llama_vocab_get_add_sep
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        # On the model, because it holds its vocabulary weakly and these are dear to make.
        self._tables: dict[str, Any] = vars(model).setdefault("_vocab_tables", {})
        with model._call as pointer:
            vocab = lib.llama_model_get_vocab(pointer)
            self.n_tokens: Final = int(lib.llama_vocab_n_tokens(vocab))
            self.type: Final = VocabType(lib.llama_vocab_type(vocab))
            self.bos: Final = _or_none(lib.llama_vocab_bos(vocab))
            self.eos: Final = _or_none(lib.llama_vocab_eos(vocab))
            self.eot: Final = _or_none(lib.llama_vocab_eot(vocab))
            self.sep: Final = _or_none(lib.llama_vocab_sep(vocab))
            self.nl: Final = _or_none(lib.llama_vocab_nl(vocab))
            self.pad: Final = _or_none(lib.llama_vocab_pad(vocab))
            self.mask: Final = _or_none(lib.llama_vocab_mask(vocab))
            self.fim_pre: Final = _or_none(lib.llama_vocab_fim_pre(vocab))
            self.fim_suf: Final = _or_none(lib.llama_vocab_fim_suf(vocab))
            self.fim_mid: Final = _or_none(lib.llama_vocab_fim_mid(vocab))
            self.fim_pad: Final = _or_none(lib.llama_vocab_fim_pad(vocab))
            self.fim_rep: Final = _or_none(lib.llama_vocab_fim_rep(vocab))
            self.fim_sep: Final = _or_none(lib.llama_vocab_fim_sep(vocab))
            self.add_bos: Final = bool(lib.llama_vocab_get_add_bos(vocab))
            self.add_eos: Final = bool(lib.llama_vocab_get_add_eos(vocab))
            self.add_sep: Final = bool(lib.llama_vocab_get_add_sep(vocab))

    def __len__(self) -> int:
        return self.n_tokens

    def text(self, token: int) -> str:
        """Return a token as the vocabulary writes it, before its bytes are decoded.

        Parameters
        ----------
        token
            An id.

        Returns
        -------
        str
            For example ``"Ġthe"`` or ``"▁the"``, where `piece` is ``b" the"``.

        Raises
        ------
        IndexError
            If there is no such token.
        UnsupportedError
            If the model has no vocabulary.

        Notes
        -----
        A text that holds a NUL is cut there: the C function returns a C string.

        Calls: llama_vocab_get_text
        """
        text = self._ask(lambda *key: ffi.string(lib.llama_vocab_get_text(*key)), token)
        return str(text.decode("utf-8", "replace"))

    def score(self, token: int) -> float:
        """Return a token's score: a log-probability or a merge rank, as the tokenizer defines it.

        Parameters
        ----------
        token
            An id.

        Returns
        -------
        float
            0.0 where the file holds no scores.

        Raises
        ------
        IndexError, UnsupportedError
            As for `text`.

        Calls: llama_vocab_get_score
        """
        return float(self._ask(lib.llama_vocab_get_score, token))

    def attr(self, token: int) -> TokenAttr:
        """Return what a token is.

        Parameters
        ----------
        token
            An id.

        Returns
        -------
        TokenAttr
            Flags; `attrs` has those of all tokens.

        Raises
        ------
        IndexError, UnsupportedError
            As for `text`.

        Calls: llama_vocab_get_attr
        """
        return TokenAttr(self._ask(lib.llama_vocab_get_attr, token))

    def is_control(self, token: int) -> bool:
        """Return whether a token steers the model instead of standing for text.

        Parameters
        ----------
        token
            An id.

        Returns
        -------
        bool

        Raises
        ------
        IndexError, UnsupportedError
            As for `text`.

        Calls: llama_vocab_is_control
        """
        return bool(self._ask(lib.llama_vocab_is_control, token))

    def is_eog(self, token: int) -> bool:
        """Return whether generation ends with a token; see `eog_tokens`.

        Parameters
        ----------
        token
            An id.

        Returns
        -------
        bool

        Raises
        ------
        IndexError, UnsupportedError
            As for `text`.

        Calls: llama_vocab_is_eog
        """
        return bool(self._ask(lib.llama_vocab_is_eog, token))

    def piece(self, token: int, *, special: bool = False, lstrip: int = 0) -> bytes:
        """Return the bytes of text that a token stands for.

        Parameters
        ----------
        token
            An id.
        special
            Whether a control or unknown token gives its text; otherwise it gives no bytes.
        lstrip
            How many spaces at most to leave out at the front.

        Returns
        -------
        bytes
            Often not whole characters: join pieces before you decode them.

        Raises
        ------
        IndexError, UnsupportedError
            As for `text`.

        Calls: llama_token_to_piece
        """
        self._require_tokens()
        token, lstrip = self._token(token), _lstrip("lstrip", lstrip)
        with self._model._call as pointer:
            special = flag("special", special)
            return read_pieces(pointer, (token,), special=special, lstrip=lstrip)[0]

    def pieces(self, tokens: ArrayLike, *, special: bool = False) -> list[bytes]:
        """Return the bytes that each token stands for; joined, they are the whole text.

        Parameters
        ----------
        tokens : array_like of int, shape (n,)
            Ids.
        special
            As for `piece`.

        Returns
        -------
        list of bytes

        Raises
        ------
        IndexError
            If an id is not in the vocabulary.
        UnsupportedError
            If the model has no vocabulary.

        Notes
        -----
        Unlike `Vocab.detokenize` nothing is left out or tidied up between the tokens.

        Calls: llama_token_to_piece
        """
        table = self.piece_table(special=special)
        return [table[token] for token in self._ids(tokens).tolist()]

    def piece_table(self, *, special: bool = False) -> tuple[bytes, ...]:
        """Return the pieces of all tokens, so that a loop can look one up by its id.

        Parameters
        ----------
        special
            As for `piece`.

        Returns
        -------
        tuple of bytes, length n_tokens

        Raises
        ------
        UnsupportedError
            If the model has no vocabulary.

        Notes
        -----
        Made at the first call, about 0.4 µs a token, and kept with the model.

        Calls: llama_token_to_piece
        """
        if flag("special", special):
            return self._kept("pieces", self._read_pieces)
        return self._kept("plain pieces", self._plain_pieces)

    @property
    def attrs(self) -> NDArray[np.int32]:
        """What every token is: flags of `TokenAttr`; int32 (n_tokens,), read-only."""
        return self._kept("attrs", lambda: self._read_all(lib.llama_vocab_get_attr, np.int32))

    @property
    def scores(self) -> NDArray[np.float32]:
        """The score of every token; float32 (n_tokens,), read-only."""
        return self._kept("scores", lambda: self._read_all(lib.llama_vocab_get_score, np.float32))

    @property
    def eog_tokens(self) -> frozenset[int]:
        """The tokens that end generation: end of sequence, of turn, of message and their like."""
        return self._kept("eog", self._read_eog)

    @property
    def suppress_tokens(self) -> NDArray[np.int32]:
        """The tokens that the file says are never to be generated; int32 (n,)."""
        count = ffi.new("int32_t *")
        with self._model._call as pointer:
            tokens = lib.llama_vocab_get_suppress_tokens(lib.llama_model_get_vocab(pointer), count)
            return np.array(ffi.unpack(tokens, count[0]) if count[0] else [], np.int32)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.n_tokens} tokens, {self.type.name}>"

    def _require_tokens(self) -> None:
        """Raise where there is no vocabulary: libllama asserts that there is one."""
        if self.type == VocabType.NONE or not self.n_tokens:
            message = "this model has no vocabulary (tokenizer.ggml.model): give it token ids"
            raise UnsupportedError(message)

    def _token(self, token: int) -> int:
        """Return one id as an int in range; C reads beside its table otherwise."""
        number = operator.index(token)
        if not 0 <= number < self.n_tokens:
            message = f"token {number} is not in the vocabulary: ids are 0 to {self.n_tokens - 1}"
            raise IndexError(message)
        return number

    def _ids(self, tokens: ArrayLike) -> NDArray[np.int32]:
        """Return ids as a contiguous int32 array, all of them in range."""
        array = np.asarray(tokens)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            message = f"tokens must be integers in one dimension, not {array.dtype} {array.shape}"
            raise TypeError(message)
        if array.size and not (array.min() >= 0 and array.max() < self.n_tokens):
            index = int(np.flatnonzero((array < 0) | (array >= self.n_tokens))[0])
            message = (
                f"tokens[{index}] is {array[index]}, which is not in the vocabulary: ids are 0 to "
                f"{self.n_tokens - 1}"
            )
            raise IndexError(message)
        return np.ascontiguousarray(array, np.int32)

    def _ask(self, function: Callable[[Any, int], Any], token: int) -> Any:
        self._require_tokens()
        token = self._token(token)
        with self._model._call as pointer:
            return function(lib.llama_model_get_vocab(pointer), token)

    def _kept(self, name: str, make: Callable[[], T]) -> T:
        """Return the table *name*, made the first time."""
        table: T | None = self._tables.get(name)
        if table is None:
            table = self._tables[name] = make()
        return table

    def _read_all(self, function: Callable[[Any, int], Any], dtype: Any) -> NDArray[Any]:
        self._require_tokens()
        with self._model._call as pointer:
            vocab = lib.llama_model_get_vocab(pointer)
            values = [function(vocab, token) for token in range(self.n_tokens)]
        array = np.array(values, dtype)
        array.flags.writeable = False
        return array

    def _read_eog(self) -> frozenset[int]:
        with self._model._call as pointer:
            vocab = lib.llama_model_get_vocab(pointer)
            return frozenset(t for t in range(self.n_tokens) if lib.llama_vocab_is_eog(vocab, t))

    def _read_pieces(self) -> tuple[bytes, ...]:
        self._require_tokens()
        with self._model._call as pointer:
            return tuple(read_pieces(pointer, range(self.n_tokens), special=True))

    def _plain_pieces(self) -> tuple[bytes, ...]:
        """Return the pieces without those that are only given when asked for."""
        hidden = np.flatnonzero(self.attrs & (TokenAttr.CONTROL | TokenAttr.UNKNOWN))
        table = list(self.piece_table(special=True))
        for token in hidden.tolist():
            table[token] = b""
        return tuple(table)


def _or_none(token: int) -> int | None:
    return None if token < 0 else int(token)
