"""A chain of samplers: a Python sequence, and itself a sampler that runs them in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from pyllama.core.handle import Call
from pyllama.core.library import lib
from pyllama.core.params import flag
from pyllama.core.sampler.base import Sampler
from pyllama.core.sampler.owned import Shared
from pyllama.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self


@dataclass(frozen=True)
class SamplerPerf:
    """What a chain has spent.

    Attributes
    ----------
    t_sample_ms : float
        Time inside native samplers, in milliseconds; 0 with ``no_perf=True``, the default.
    n_sample : int
        Tokens accepted.
    """

    t_sample_ms: float
    n_sample: int


class SamplerChain(Sampler, Sequence[Sampler]):
    """Run samplers one after another; the last one chooses the token.

    Parameters
    ----------
    samplers
        What to `add`, in this order. If one cannot be added, all are given back.
    no_perf
        Whether to leave time unmeasured; left out, the C default.

    Raises
    ------
    TypeError, ValueError, StateError
        As `add`.

    Notes
    -----
    The chain owns its samplers: it alone applies and frees them, and they are closed with it.
    With a sampler that needs a vocabulary the chain is closed when the model is.

    Calls: llama_sampler_chain_init, llama_sampler_chain_default_params, llama_sampler_free
    """

    def __init__(self, samplers: Iterable[Sampler] = (), *, no_perf: bool | None = None) -> None:
        params = lib.llama_sampler_chain_default_params()
        if no_perf is not None:
            params.no_perf = flag("no_perf", no_perf)
        self._start(lib.llama_sampler_chain_init(params), no_perf=bool(params.no_perf))
        try:
            for sampler in samplers:
                self.add(sampler)
        except BaseException:
            while self._samplers:
                self.pop()
            self.close()
            raise

    def _start(self, pointer: Any, *, no_perf: bool) -> None:
        super().__init__(pointer, "chain", {"no_perf": no_perf})
        self._samplers: list[Sampler] = []
        self._all_grammars: tuple[Sampler, ...] = ()

    def add(self, sampler: Sampler) -> None:
        """Take over a sampler, as the last of the chain.

        Parameters
        ----------
        sampler
            From now on this chain's: using it directly raises `StateError` until it is popped.

        Raises
        ------
        TypeError
            If it is no sampler.
        StateError
            If it or this chain belongs to a chain already, or if it is this chain.
        ValueError
            If it was made for another model, or for a vocabulary of another size.

        Calls: llama_sampler_chain_add
        """
        if not isinstance(sampler, Sampler):
            message = f"a chain holds samplers, not {sampler!r:.80}"
            raise TypeError(message)
        if sampler is self:
            message = "a chain cannot hold itself"
            raise StateError(message)
        self._require_free("add")
        sampler._require_free("add")
        with self._call as chain, sampler._call as pointer:
            sampler._require_free("add")  # still: another thread may have been here before
            self._require_fitting(sampler)
            free = sampler._record.free
            sampler._record.free = _leave_it  # if anything fails from here, leak, never free twice
            try:
                lib.llama_sampler_chain_add(chain, pointer)
            except BaseException:
                sampler._record.free = free
                raise
            self._hold(sampler)

    def _require_fitting(self, sampler: Sampler) -> None:
        model, ours = sampler._parent, self._parent
        if model is not None and ours is not None and model is not ours:
            message = f"{sampler!r} was made for another model than the samplers of {self!r}"
            raise ValueError(message)
        n_vocab = sampler._n_vocab
        if n_vocab is not None and self._n_vocab not in {None, n_vocab}:
            message = f"{sampler!r} is for {n_vocab} tokens, the chain is for {self._n_vocab}"
            raise ValueError(message)

    def pop(self, index: int = -1) -> Sampler:
        """Take a sampler out of the chain, in the state that it is in.

        Parameters
        ----------
        index
            Its place; the last one if left out.

        Returns
        -------
        Sampler
            It is free again: yours to use and to close.

        Raises
        ------
        IndexError
            If there is none at that place.
        StateError
            If this chain belongs to another.

        Calls: llama_sampler_chain_remove
        """
        with self._call as chain:
            self._require_free("pop")
            sampler = self[index]
            lib.llama_sampler_chain_remove(chain, range(len(self))[index])
            del self._samplers[index]
            model = sampler._parent
            sampler._owner = None
            sampler._move(
                None if model is None else model._record,
                lib.llama_sampler_free,
                Call(sampler._record, shared=False),
                Shared(),
            )
            self._learn()
        return sampler

    def _hold(self, sampler: Sampler) -> None:
        """Keep the books on *sampler*, which C has in the chain now."""
        sampler._owner = self._record
        sampler._candidates = None
        sampler._move(self._record, _leave_it, self._call, self._shared)
        self._samplers.append(sampler)
        self._learn()

    def _learn(self) -> None:
        """Find out what the samplers together are."""
        samplers = self._samplers
        self._selects = bool(samplers) and samplers[-1]._selects
        self._is_greedy = len(samplers) == 1 and samplers[0]._is_greedy
        self._all_grammars = tuple(g for each in samplers for g in each._grammars)
        self._n_vocab = next((s._n_vocab for s in samplers if s._n_vocab is not None), None)
        model = next((s._parent for s in samplers if s._parent is not None), None)
        if model is not self._parent:
            self._parent = model
            owner = None if model is None else model._record
            self._move(owner, self._record.free, self._call, self._shared)

    @property
    def _grammars(self) -> tuple[Sampler, ...]:
        return self._all_grammars

    def _use_call(self, call: Call, shared: Shared) -> None:
        super()._use_call(call, shared)
        for sampler in self._samplers:
            sampler._use_call(call, shared)

    def _forget_nan(self) -> None:
        for sampler in self._samplers:
            sampler._forget_nan()

    def _copy_objects(self) -> None:
        for sampler in self._samplers:
            sampler._copy_objects()

    def _settle(self) -> None:
        for sampler in self._samplers:
            sampler._settle()

    def _follow_state(self, other: Sampler) -> None:
        if isinstance(other, SamplerChain):
            for ours, theirs in zip(self._samplers, other._samplers, strict=True):
                ours._follow_state(theirs)

    def _plan(self) -> object:
        return super()._plan(), [sampler._plan() for sampler in self._samplers]

    def _twin(self, pointer: Any) -> Self:
        twin = type(self).__new__(type(self))
        twin._start(pointer, **self._options)
        for index, sampler in enumerate(self._samplers):
            twin._hold(sampler._twin(lib.llama_sampler_chain_get(pointer, index)))
        return twin

    @property
    def seed(self) -> int | None:
        """The seed of the last sampler that has one."""
        seeds = (sampler.seed for sampler in reversed(self._samplers))
        return next((seed for seed in seeds if seed is not None), None)

    @property
    def perf(self) -> SamplerPerf:
        """What the chain has spent since it was made or `perf_reset` was called.

        A greedy chain counts its tokens but spends no time in C.

        Calls: llama_perf_sampler
        """
        with self._call:
            data = lib.llama_perf_sampler(self._record.pointer)
            return SamplerPerf(float(data.t_sample_ms), int(data.n_sample))

    def perf_reset(self) -> None:
        """Set what `perf` counts to 0.

        Calls: llama_perf_sampler_reset
        """
        with self._call:
            lib.llama_perf_sampler_reset(self._record.pointer)

    def __len__(self) -> int:
        return len(self._samplers)

    @overload
    def __getitem__(self, index: int) -> Sampler: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sampler]: ...

    def __getitem__(self, index: int | slice) -> Sampler | list[Sampler]:
        return self._samplers[index]

    def __repr__(self) -> str:
        return f"<SamplerChain {self._describe()}>"

    def _describe(self) -> str:
        return "[" + ", ".join(sampler._describe() for sampler in self._samplers) + "]"


def _leave_it(_pointer: Any) -> None:
    """Free nothing: the chain frees the samplers that it owns."""
