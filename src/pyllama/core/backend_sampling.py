"""The part of a context that runs samplers inside its graph, on the device of the logits."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pyllama.core import log
from pyllama.core.backend_rules import check_chain
from pyllama.core.library import ffi, lib
from pyllama.core.outputs import Outputs
from pyllama.core.params import whole
from pyllama.core.sampler.candidates import ROW, Candidates, check_peak
from pyllama.errors import InvalidBatchError, StateError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pyllama.core.batch import Batch
    from pyllama.core.sampler import SamplerChain

DETACHED = -1  # in place of the sequence of a row, when the chain that sampled it has gone


class BackendSampling(Outputs):
    """The part of `Context` that samples where the logits are.

    A chain is attached to a sequence. Then `decode` runs it as part of the graph, and of each row
    of that sequence only what the chain leaves comes back: the chosen token, and the candidates.
    What libllama cannot run there, and whatever comes after it in the chain, runs on the CPU
    when `sample` is called: samplers written in Python, grammars, and others.

    A batch may ask for one row of such a sequence, or for as many as ``n_outputs_max_per_seq`` of
    the context says. Where that is more than one, penalties run on the CPU.
    """

    _chains: Mapping[int, SamplerChain] = {}  # never changed, always replaced
    _scratch: Candidates | None = None

    def attach_sampler(self, chain: SamplerChain, *, seq: int = 0) -> None:
        """Run a copy of a chain in the graph, for the rows of one sequence.

        Parameters
        ----------
        chain
            What to run. The context takes a copy in its present state; the chain stays yours.
        seq
            The sequence.

        Raises
        ------
        TypeError, ValueError
            If it is no chain, is empty, or was made for another model; or no such sequence is.
        StateError
            If the sequence has a chain already.
        UnsupportedError
            If libllama would choose other tokens than the chain, or die of it; if a sampler in it
            cannot be copied; or if the model makes no logits.
        BusyError
            If another thread uses the chain.

        Notes
        -----
        The next `decode` makes its graph anew. Behind `top_k` and `temp_ext` the rows stand in
        another order than outside: `dist` chooses with the same probabilities, but other tokens.
        `top_p` and `min_p` rule tokens out there (logit -inf) rather than cut them away.

        Calls: llama_set_sampler, llama_get_logits
        """
        seq = int(whole(0, self._limits.n_seq_max - 1)("seq", seq))
        check_chain(chain, self.model)
        if not self._has_memory:
            message = "samplers are attached to models that generate; this one keeps no memory"
            raise UnsupportedError(message)
        since = log.mark()
        with self._call as pointer:
            if seq in self._chains:
                message = f"sequence {seq} has a chain: detach_sampler() it first"
                raise StateError(message, expected="no chain", actual="a chain")
            copied = chain.clone()
            self._settle_rows(pointer)
            if not lib.llama_set_sampler(pointer, seq, copied.pointer):
                copied.close()
                words = "; ".join(log.complaints(since))
                message = f"libllama runs no sampler in the graph of this model: {words}"
                raise UnsupportedError(message)
            self._chains = {**self._chains, seq: copied}

    def detach_sampler(self, seq: int = 0) -> SamplerChain:
        """Stop sampling a sequence in the graph.

        Parameters
        ----------
        seq
            The sequence.

        Returns
        -------
        SamplerChain
            A copy of the chain, in the state that it has come to.

        Raises
        ------
        StateError
            If the sequence has no chain.

        Calls: llama_set_sampler, llama_get_logits
        """
        with self._call as pointer:
            chain = self._chain_of(seq)
            # The copy, as in libllama a chain that ran in a graph runs nowhere else any more.
            copied = chain.clone()
            self._settle_rows(pointer)
            lib.llama_set_sampler(pointer, seq, ffi.NULL)
            self._chains = {each: held for each, held in self._chains.items() if each != seq}
            self._row_seqs = tuple(DETACHED if each == seq else each for each in self._row_seqs)
            chain.close()
        return copied

    @property
    def attached_seqs(self) -> tuple[int, ...]:
        """The sequences that have a chain attached."""
        return tuple(sorted(self._chains))

    def sample(self, row: int = -1, *, accept: bool = True) -> int:
        """Return the token that the attached chain chooses for a row of the last `decode`.

        Parameters
        ----------
        row
            The row, from the end if negative.
        accept
            Whether to `accept` the token as well.

        Returns
        -------
        int
            A token id.

        Raises
        ------
        IndexError
            If there is no such row.
        StateError
            If the row is of a sequence without a chain, or the chain was detached.
        SamplingError, GrammarError
            As `Sampler.sample`.

        Notes
        -----
        Ask for several rows of one sequence in their order. Random numbers go on with each
        `decode`; with ``n_outputs_max_per_seq`` above 1, with each token that is accepted. A NaN
        that a sampler in the graph cut away is not seen.

        Calls: llama_get_sampled_token_ith
        """
        with self._call as pointer:
            row, seq = self._sampled_row(row)
            chain = self._chain_of(seq)
            chain._require_selecting()
            token = int(lib.llama_get_sampled_token_ith(pointer, row - self._n_outputs))
            if token == lib.LLAMA_TOKEN_NULL:
                scratch = self._scratch
                if scratch is None:
                    empty = np.zeros(self._limits.n_vocab, np.float32)
                    scratch = self._scratch = Candidates(empty)
                left = self._left(pointer, row)
                check_peak(float(left["logit"].max()))
                scratch._fill_part(left)
                with chain._call as sampler:
                    token = chain._choose(sampler, scratch)
            else:
                check_peak(float(self._logits_left(pointer, row).max()))
            if accept:
                chain.accept(token)
        return token

    def accept(self, token: int, *, seq: int = 0) -> None:
        """Tell the chain attached to a sequence that *token* comes next.

        Parameters
        ----------
        token
            A token id.
        seq
            The sequence.

        Raises
        ------
        StateError
            If the sequence has no chain.
        ValueError
            If the vocabulary has no such token.
        GrammarError
            As `Sampler.accept`.
        """
        token = int(whole(0, self._limits.n_vocab - 1)("token", token))
        with self._call:
            self._chain_of(seq).accept(token)

    def sampled_token(self, row: int = -1) -> int | None:
        """Return the token that was chosen in the graph.

        Parameters
        ----------
        row
            The row, from the end if negative.

        Returns
        -------
        int or None
            A token id; None if the choice is left to the CPU: see `sample`.

        Raises
        ------
        IndexError
            If there is no such row.
        StateError
            If the row is of a sequence without a chain.

        Calls: llama_get_sampled_token_ith
        """
        with self._call as pointer:
            row, _ = self._sampled_row(row)
            token = int(lib.llama_get_sampled_token_ith(pointer, row - self._n_outputs))
            return None if token == lib.LLAMA_TOKEN_NULL else token

    def sampled_candidates(self, row: int = -1) -> NDArray[Any]:
        """Return a copy of the candidates that the samplers in the graph left.

        Parameters
        ----------
        row
            The row, from the end if negative.

        Returns
        -------
        ndarray, shape (n_candidates,)
            Fields ``id`` (int32), ``logit`` and ``p`` (float32); ``p`` is 0 unless a sampler in
            the graph needed probabilities, as `dist` does.

        Raises
        ------
        IndexError
            If there is no such row.
        StateError
            If the row is of a sequence without a chain.

        Calls: llama_get_sampled_logits_ith, llama_get_sampled_logits_count_ith,
        llama_get_sampled_candidates_ith, llama_get_sampled_candidates_count_ith,
        llama_get_sampled_probs_ith, llama_get_sampled_probs_count_ith
        """
        with self._call as pointer:
            row, _ = self._sampled_row(row)
            return self._left(pointer, row)

    def close(self) -> None:
        """Free the context. Closing twice is allowed.

        Raises
        ------
        BusyError
            If another thread is inside a call.
        BufferError
            If an array lent from it still lives.
        """
        super().close()
        for chain in self._chains.values():  # now that nothing can run them
            chain.close()

    def _find_row_seqs(self, batch: Batch) -> tuple[int | None, ...]:
        """Return for each row of output that *batch* will make whose chain works on it, or None."""
        seqs, counts = batch.seq_id, batch.n_seq_id
        if not self._limits.output_all:
            seqs, counts = seqs[batch.output], counts[batch.output]
        for ids in seqs[counts > 1]:  # which one samples is the order of a C++ hash table
            if not self._chains.keys().isdisjoint(ids.tolist()):
                message = (
                    f"a token with output belongs to the sequences {ids.tolist()}, one of which "
                    "has a chain attached: give it to one sequence, or ask it for no output"
                )
                raise InvalidBatchError(-1, message)
        return tuple(seq if seq in self._chains else None for seq in seqs[:, 0].tolist())

    def _settle_rows(self, pointer: Any) -> None:
        """Have libllama put the rows of the last decode in order before its samplers change.

        It does so when they are first read, and then swaps the rows of what it has now: nothing
        with a sampler too many, too little with one too few (llama-context.cpp:2338).
        """
        lib.llama_get_logits(pointer)

    def _chain_of(self, seq: int) -> SamplerChain:
        seq = int(whole(0, self._limits.n_seq_max - 1)("seq", seq))
        chain = self._chains.get(seq)
        if chain is None:
            message = f"sequence {seq} has no chain: attach_sampler() one, then decode"
            raise StateError(message, expected="a chain", actual="none")
        return chain

    def _sampled_row(self, row: int) -> tuple[int, int]:
        """Return *row*, counted from the first, and the sequence whose chain worked on it."""
        n_outputs, asked = self._n_outputs, operator.index(row)
        if not n_outputs:
            message = "nothing was sampled: no decode() yet, or its batch asked for no output"
            raise StateError(message, expected="a batch with output", actual="none")
        if not -n_outputs <= asked < n_outputs:
            message = f"row {asked} is not there: the last call made {n_outputs}"
            raise IndexError(message)
        row = asked % n_outputs
        seq = self._row_seqs[row] if self._row_seqs else None
        if seq is None:
            message = f"row {row} is of a sequence that no chain was attached to: see logits()"
            raise StateError(message, expected="a chain", actual="none")
        if seq == DETACHED:
            message = f"the chain that sampled row {row} was detached: decode again"
            raise StateError(message, expected="attached", actual="detached")
        return row, seq

    def _left(self, pointer: Any, row: int) -> NDArray[Any]:
        """Return what the graph left of a row; where it did not cut, token *i* is in row *i*."""
        logits, place = self._logits_left(pointer, row), row - self._n_outputs
        left = np.zeros(len(logits), ROW)
        left["logit"] = logits
        if lib.llama_get_sampled_candidates_count_ith(pointer, place) == len(left):
            ids = lib.llama_get_sampled_candidates_ith(pointer, place)
            left["id"] = np.frombuffer(ffi.buffer(ids, 4 * len(left)), np.int32)
        else:
            left["id"] = np.arange(len(left))
        if lib.llama_get_sampled_probs_count_ith(pointer, place) == len(left):
            probs = lib.llama_get_sampled_probs_ith(pointer, place)
            left["p"] = np.frombuffer(ffi.buffer(probs, 4 * len(left)), np.float32)
        return left

    def _logits_left(self, pointer: Any, row: int) -> NDArray[np.float32]:
        """Return C's own logits of what the graph left of a row."""
        place = row - self._n_outputs
        count = lib.llama_get_sampled_logits_count_ith(pointer, place)
        logits = lib.llama_get_sampled_logits_ith(pointer, place)
        return np.frombuffer(ffi.buffer(logits, 4 * count), np.float32)
