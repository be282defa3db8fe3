"""One sampler: what every kind of them can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyllama.core import bigstack
from pyllama.core.library import ffi, lib
from pyllama.core.params import whole
from pyllama.core.sampler.candidates import Candidates, check_peak, check_row, likeliest
from pyllama.core.sampler.owned import Owned
from pyllama.errors import (
    GrammarError,
    LibraryAbortError,
    LibraryError,
    LoadError,
    SamplingError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from typing_extensions import Self

    from pyllama.core.handle import Handle
    from pyllama.core.sampler.candidates import Row

    T = TypeVar("T")

INT32_MAX = 2**31 - 1
PARSE_STACK = 16 << 20  # a grammar as deep as gbnf.py lets through recurses over about 1 MiB

# The kinds that set llama_token_data_array.selected (src/llama-sampler.cpp); infill does not.
SELECTING = frozenset({"greedy", "dist", "mirostat", "mirostat_v2", "adaptive_p"})


class Sampler(Owned):
    """One sampler. The functions of `pyllama.core.sampler` make it.

    Parameters
    ----------
    pointer
        The C object.
    kind
        The name of that function.
    options
        What it was given.
    parent
        The model whose vocabulary it uses, and with which it is closed.
    n_vocab
        Number of tokens it was made for; None if it takes any.

    Notes
    -----
    For one thread at a time.

    Calls: llama_sampler_free
    """

    def __init__(
        self,
        pointer: Any,
        kind: str,
        options: Mapping[str, Any],
        *,
        parent: Handle | None = None,
        n_vocab: int | None = None,
    ) -> None:
        if pointer == ffi.NULL:
            message = f"libllama made no {kind} sampler"
            raise LoadError(message)
        super().__init__(pointer, lib.llama_sampler_free, parent)
        self._record.kind = f"{kind} sampler"
        self._kind = kind
        self._options = options
        self._n_vocab = n_vocab
        self._selects = kind in SELECTING
        self._is_greedy = kind == "greedy"
        self._candidates: Candidates | None = None

    @property
    def _grammars(self) -> tuple[Sampler, ...]:
        """The grammars that a token must be shown to before it is accepted."""
        return ()

    @property
    def name(self) -> str:
        """What libllama calls it; what does nothing, as ``temp(1.0)`` does, begins with "?".

        Calls: llama_sampler_name
        """
        with self._call:
            return str(ffi.string(lib.llama_sampler_name(self._record.pointer)).decode())

    @property
    def seed(self) -> int | None:
        """The seed of its random numbers, given or drawn; None if it uses none."""
        seed: int | None = self._options.get("seed")
        return seed

    @property
    def n_vocab(self) -> int | None:
        """Number of tokens it was made for; None if it takes any."""
        return self._n_vocab

    def apply(self, candidates: Candidates) -> None:
        """Change, sort, cut or mark candidates, in place.

        Parameters
        ----------
        candidates
            What is left to choose from.

        Raises
        ------
        TypeError
            If they are no `Candidates`.
        SamplingError
            If a logit is NaN or +inf, or all are -inf.
        ValueError
            If the candidates hold a token that is not in the sampler's vocabulary.
        StateError
            If the sampler belongs to a chain.
        BusyError
            If another thread uses the sampler or the candidates.

        Calls: llama_sampler_apply
        """
        if not isinstance(candidates, Candidates):
            message = f"apply takes Candidates, not {candidates!r:.60}: Candidates(row) makes them"
            raise TypeError(message)
        candidates._claim()
        try:
            with self._call as pointer:
                self._require_free("apply")
                candidates._check(self._n_vocab)
                self._apply(pointer, candidates)
        finally:
            candidates._lock.release()

    def sample(self, logits: Row, *, accept: bool = True) -> int:
        """Choose the next token.

        Parameters
        ----------
        logits
            The row that predicts it: float32, shape ``(n_vocab,)``. It is not changed.
        accept
            Whether to `accept` the token as well.

        Returns
        -------
        int
            A token id.

        Raises
        ------
        TypeError, ValueError
            If *logits* is no such row, or of another vocabulary.
        SamplingError
            If a logit is NaN or +inf, no token is left, or the last sampler of the chain is not
            one that chooses.
        GrammarError
            If a grammar allows none of the tokens that are left, or needs more than 3 seconds.
        StateError
            If the sampler belongs to a chain.

        Notes
        -----
        Greedy alone is numpy's argmax: about 4 µs for 32,000 tokens. After an error the grammar
        stands where it stood; a mirostat in the chain begins anew, for what it measured is NaN.

        Calls: llama_sampler_apply, llama_sampler_accept
        """
        self._require_selecting()
        check_row(logits)
        if self._n_vocab is not None and len(logits) != self._n_vocab:
            message = f"{len(logits)} logits, but the sampler was made for {self._n_vocab} tokens"
            raise ValueError(message)
        with self._call as pointer:
            if self._owner is not None:
                self._require_free("sample")
            if self._is_greedy:
                token = likeliest(logits)
            else:
                check_peak(float(logits.max()))
                token = self._draw(pointer, logits)
            if accept:
                self._accept(pointer, token)
        return token

    def _require_selecting(self) -> None:
        if not self._selects:
            message = (
                f"{self!r} does not choose a token: the last sampler must be one of "
                f"{', '.join(sorted(SELECTING))}, or written in Python"
            )
            raise SamplingError(message)

    def _draw(self, pointer: Any, logits: Row) -> int:
        """Apply the sampler to *logits* and return the token it selected."""
        candidates = self._candidates
        if candidates is None or candidates.n_vocab != len(logits):
            candidates = self._candidates = Candidates(logits)
        else:
            candidates._fill(logits)
        return self._choose(pointer, candidates)

    def _choose(self, pointer: Any, candidates: Candidates) -> int:
        """Apply the sampler to *candidates* and return the token it selected."""
        self._apply(pointer, candidates)
        token = candidates._chosen()
        if token is not None:
            return token
        self._forget_nan()
        if candidates.selected is None:
            message = f"{self!r} selected no token: a sampler that chooses belongs at the end"
            raise SamplingError(message)
        if self._grammars:
            message = "the grammar allows none of the tokens that the other samplers left"
            raise GrammarError(message)
        message = f"{self!r} ruled out every token, or its numbers overflowed"
        raise SamplingError(message)

    def _apply(self, pointer: Any, candidates: Candidates) -> None:
        shared = self._shared
        shared.errors.clear()
        shared.candidates = candidates
        lib.llama_sampler_apply(pointer, candidates._struct)
        shared.candidates = None
        if shared.errors:
            self._forget_nan()
            shared.raise_first()

    def accept(self, token: int) -> None:
        """Tell the sampler that *token* comes next: grammars, penalties and the like go on.

        Parameters
        ----------
        token
            A token id.

        Raises
        ------
        TypeError, ValueError
            If the vocabulary has no such token.
        GrammarError
            If a grammar does not allow it; the sampler is unchanged. Only where that shows late,
            as when *token* triggers a lazy grammar or takes too long to read, the grammar begins
            anew, and samplers before it have counted the token.
        StateError
            If the sampler belongs to a chain.

        Calls: llama_sampler_accept
        """
        highest = INT32_MAX - 1 if self._n_vocab is None else self._n_vocab - 1
        token = whole(0, highest)("token", token)
        with self._call as pointer:
            self._require_free("accept")
            self._accept(pointer, token)

    def _accept(self, pointer: Any, token: int) -> None:
        self._shared.errors.clear()
        if not self._grammars:
            lib.llama_sampler_accept(pointer, token)
            self._shared.raise_first()
            return
        n_stack = max([grammar._prepare(token) for grammar in self._grammars])
        try:
            on_stack(n_stack, lambda: lib.llama_sampler_accept(pointer, token))
        except LibraryAbortError:
            raise
        except (LibraryError, GrammarError) as error:  # no way to go on, or too many
            for grammar in self._grammars:
                grammar._begin_anew()
            message = f"the grammar cannot go on with token {token}, and begins anew: {error}"
            raise GrammarError(message) from error
        self._shared.raise_first()

    def _prepare(self, token: int) -> int:  # noqa: ARG002 - for grammars
        """Raise if a grammar does not allow *token*; return the stack that accepting it takes."""
        return 0

    def reset(self) -> None:
        """Forget what was accepted; random numbers begin again from the seed.

        Calls: llama_sampler_reset
        """
        with self._call:
            self._shared.errors.clear()
            self._begin_anew()
            self._shared.raise_first()

    def _begin_anew(self) -> None:
        pointer, grammars = self._record.pointer, self._grammars
        # grammars are parsed again
        on_stack(PARSE_STACK if grammars else 0, lambda: lib.llama_sampler_reset(pointer))
        for grammar in grammars:
            grammar._forget_text()

    def _forget_text(self) -> None:
        """Forget what this object, apart from C, remembers of accepted tokens."""

    def _forget_nan(self) -> None:
        """Start mirostat again: its target is NaN after a draw from nothing, and would stay so."""
        if self._kind in {"mirostat", "mirostat_v2"}:
            self._begin_anew()

    def clone(self) -> Self:
        """Return an independent copy in the same state, also of a sampler inside a chain.

        Returns
        -------
        Sampler

        Raises
        ------
        UnsupportedError
            If a sampler written in Python holds what cannot be copied.

        Notes
        -----
        The random numbers of ``adaptive_p`` begin again from the seed, and it does not count a
        token that was sampled but not yet accepted (src/llama-sampler.cpp:3832).

        Calls: llama_sampler_clone
        """
        with self._call:
            self._copy_objects()
            twin = self._twin(lib.llama_sampler_clone(self._record.pointer))
            twin._settle()
            return twin

    def _copy_objects(self) -> None:
        """Copy what C cannot: the Python objects of samplers written in Python."""

    def _twin(self, pointer: Any) -> Self:
        """Return a sampler like this one that owns *pointer*."""
        return type(self)(
            pointer, self._kind, self._options, parent=self._parent, n_vocab=self._n_vocab
        )

    def _settle(self) -> None:
        """Clear what a cloned adaptive_p waits for: the probabilities it points into stay behind.

        An accepted token that is not the one waited for does that (src/llama-sampler.cpp:3803).
        """
        if self._kind == "adaptive_p":
            lib.llama_sampler_accept(self._record.pointer, INT32_MAX)

    def copy_from(self, other: Sampler) -> None:
        """Take over the state of a sampler that was made with the same options.

        Parameters
        ----------
        other
            A `clone` of this one, for example, taken before some tokens that are now withdrawn.

        Raises
        ------
        ValueError
            If kinds, options or the order in a chain differ.
        UnsupportedError
            If a sampler written in Python holds what cannot be copied.
        StateError
            If this sampler belongs to a chain.

        Calls: llama_sampler_copy
        """
        if other is self:
            return
        if not isinstance(other, Sampler) or self._plan() != other._plan():
            message = f"{other!r} has other kinds or options than {self!r}"
            raise ValueError(message)
        with self._call as pointer, other._call:
            self._require_free("copy_from")
            other._copy_objects()
            lib.llama_sampler_copy(other._record.pointer, pointer)
            self._settle()
            self._follow_state(other)

    def _plan(self) -> object:
        """Return what two samplers must have in common to exchange states."""
        return self._kind, self._options, self._n_vocab, self._parent

    def _follow_state(self, other: Sampler) -> None:
        """Take over what *other*, apart from C, remembers of accepted tokens."""

    def _describe(self) -> str:
        options = (f"{name}={value!r:.40}" for name, value in self._options.items())
        return f"{self._kind}({', '.join(options)})"

    def __repr__(self) -> str:
        return f"<Sampler {self._describe()}>"


def on_stack(n_bytes: int, function: Callable[[], T]) -> T:
    """Call *function* on a stack of *n_bytes*, or on this one if that is 0."""
    return bigstack.call(function, n_bytes) if n_bytes else function()
