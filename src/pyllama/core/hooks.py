"""Functions that see, and may replace, the tensors of a context while it computes.

The eval callback can be given to libllama only when a context is made, so each context gets one
that lasts (bindings/hooks.cpp). It asks a set of names in C, which is empty while nobody watches;
on a match C enters `pyllama_node` below, and that calls the functions. What they raise is kept,
computing is told to stop, and after the call the exception is raised: libllama itself says nothing
then, and returns 0 (ggml-backend.cpp:1845 leaves the rest of the graph uncomputed).
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyllama.core import tensor_data
from pyllama.core.enums import GGMLType
from pyllama.core.library import ffi, lib
from pyllama.core.saved import Saved
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from pyllama.core.batch import Batch

    Hook = Callable[[NDArray[Any], "Node"], "ArrayLike | None"]
    Compute = Callable[[Any, Any, Any, Any], int]
    T = TypeVar("T")

_LAYER = re.compile(r"(?:-|_l)(\d+)(?: \(.*\))?$")  # l_out-3, Kcur-3 (view), cache_k_l3 (view)
_MAX_NAME = 63  # bytes (ggml.h: GGML_MAX_NAME)


@dataclass(frozen=True)
class Node:
    """What is known of a tensor that was just computed.

    Attributes
    ----------
    name : str
        As libllama calls it, such as ``l_out-3``. Several may have the same name.
    op : str
        What computed it: MUL_MAT, ADD, ROPE, ...
    occurrence : int
        How many of this name came before it in the same micro-batch.
    layer : int or None
        The layer that the name speaks of.
    type : GGMLType
        How it is stored.
    dtype : numpy.dtype
        Of the array: float32 for all kinds of floating-point numbers, int32 for indices.
    shape : tuple of int
        Of the array: rows last, ``(n_tokens, n_embd)``; two axes at least.
    micro_batch : int
        The micro-batch (of up to ``n_ubatch`` tokens) of this call, from 0.
    """

    name: str
    op: str
    occurrence: int
    layer: int | None
    type: GGMLType
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    micro_batch: int


class Watch(NamedTuple):
    """What one ``with`` block wants to see."""

    functions: Mapping[str, Hook]
    stop_after: str | None = None
    products: Callable[[Any], None] | None = None  # sees each product of a weight, as it is in C

    def patterns(self) -> list[str]:
        """Return all names and prefixes."""
        return [*self.functions, *([] if self.stop_after is None else [self.stop_after])]


class Trampoline:
    """The eval callback of one context, and what became of the call it is in.

    Parameters
    ----------
    stop
        The ``pyllama_stop *`` of the context.
    """

    def __init__(self, stop: Any) -> None:
        self.watches: list[Watch] = []
        self._stop = stop
        self._handle = ffi.new_handle(weakref.ref(self))  # weakly: cffi's handles make cycles
        enter = ffi.addressof(lib, "pyllama_node")
        made = lib.pyllama_hooks_new(enter, self._handle)
        self.pointer = ffi.gc(made, lib.pyllama_hooks_free)
        self._forget()

    def install(self, params: Any) -> None:
        """Make this the eval callback of the context that *params* will make."""
        params.cb_eval = ffi.addressof(lib, "pyllama_eval")
        params.cb_eval_user_data = self.pointer

    def _forget(self) -> None:
        self._running: tuple[Watch, ...] = ()
        self._error: BaseException | None = None
        self._stopped_in = self._micro_batch = -1
        self._seen: dict[str, int] = {}
        self._plans: dict[str, tuple[list[Hook], bool]] = {}

    def run(self, compute: Callable[[], int]) -> tuple[int, BaseException | None, bool]:
        """Compute while C watches; return the code, what a function raised, whether it stopped."""
        self._forget()
        self._running = tuple(self.watches)
        names = sorted({name for watch in self._running for name in watch.patterns()})
        held = [ffi.new("char[]", name.encode()) for name in names]
        products = any(watch.products is not None for watch in self._running)
        lib.pyllama_hooks_watch(self.pointer, held, len(held), products)
        lib.pyllama_hooks_begin(self.pointer)
        try:
            code = compute()
            return code, self._error, self._stopped_in >= 0
        finally:
            lib.pyllama_hooks_watch(self.pointer, ffi.NULL, 0, False)  # noqa: FBT003 - C
            self._forget()

    def __call__(self, tensor: Any) -> bool:
        """Call the functions that watch *tensor*; False leaves this part of the graph."""
        try:
            return self._error is None and self._visit(tensor)
        except BaseException as error:  # noqa: BLE001 - a C frame is below us
            self._error = error
            self._stop.raised = 1  # False would not keep the next micro-batch from being computed
            return False

    def _visit(self, tensor: Any) -> bool:
        micro_batch = lib.pyllama_hooks_micro_batch(self.pointer)
        if micro_batch == self._stopped_in:  # another part of a graph that was left
            return False
        if micro_batch != self._micro_batch:
            self._micro_batch = micro_batch
            self._seen.clear()
        if tensor.op in _PRODUCTS:
            for watch in self._running:
                if watch.products is not None:
                    watch.products(tensor)
        name = ffi.string(tensor.name).decode("utf-8", "replace")
        occurrence = self._seen.get(name, 0)
        self._seen[name] = occurrence + 1
        functions, stops = self._plan(name)
        if functions:
            node = _describe(tensor, name, occurrence, micro_batch)
            for function in functions:
                values = function(tensor_data.read(tensor), node)
                if values is not None:
                    tensor_data.write(tensor, values)
        if stops:
            self._stopped_in = micro_batch
        return not stops

    def _plan(self, name: str) -> tuple[list[Hook], bool]:
        """Return the functions for a name, outer ``with`` blocks first, and whether to stop."""
        plan = self._plans.get(name)
        if plan is None:
            functions = [
                function
                for watch in self._running
                for pattern, function in watch.functions.items()
                if _matches(pattern, name)
            ]
            last = (watch.stop_after for watch in self._running)
            plan = functions, any(each is not None and _matches(each, name) for each in last)
            self._plans[name] = plan
        return plan


_PRODUCTS = (lib.GGML_OP_MUL_MAT, lib.GGML_OP_MUL_MAT_ID)


@ffi.def_extern()
def pyllama_node(tensor: Any, user_data: Any) -> bool:
    """See ``ggml_backend_sched_eval_callback``: False leaves this split of the graph."""
    return bool(ffi.from_handle(user_data)()(tensor))


class Hooked(Saved):
    """The part of `Context` that lets functions look in while it computes."""

    _trampoline: Trampoline | None
    _watched: Trampoline | None = None  # the same while somebody watches: decode() looks at it
    _encoded: frozenset[int] | None
    _edits: list[int]
    _stop: Any

    def hooks(
        self, functions: Mapping[str, Hook], *, stop_after: str | None = None
    ) -> AbstractContextManager[None]:
        """Call functions at named tensors, as long as a ``with`` block lasts.

        Parameters
        ----------
        functions
            For each name of a tensor, such as ``l_out-3``, a function ``f(array, node)``. A name
            that ends in ``*`` stands for all that begin so. The array is a copy, in numpy's order;
            *node* is a `Node`. None leaves the tensor as it is; an array of the same shape
            replaces it, and what is computed later follows from that.
        stop_after
            Compute no further than the first tensor of this name (a trailing ``*`` works too).
            The call then makes no output, and the memory is taken back to where it was.

        Returns
        -------
        context manager
            Blocks may be nested; the functions of the outer ones are called first.

        Raises
        ------
        UnsupportedError
            If the context was made with ``hooks=False``.
        TypeError, ValueError
            If a name or a function is none.
        BusyError
            If it is entered from a function, or while another thread computes.

        Notes
        -----
        What a function raises comes out of `decode` or `encode`: there are no outputs then, and
        the memory is as before (empty for the sequences of the batch if it is recurrent). A
        function cannot use the context itself: that raises BusyError. Functions are called once
        for each micro-batch, and some names come several times in one. The last layer has rows
        for the tokens with output only. Rows are in the order in which libllama computes: that of
        the batch, or by sequence if it holds several and the memory is not ``kv_unified``. Each
        tensor that is watched costs about 20 us and its copy; others, some ns.
        """
        _require_trampoline(self._trampoline)
        if not isinstance(functions, Mapping):
            message = f"functions must be a mapping of name to function, not {functions!r}"
            raise TypeError(message)
        for name, function in functions.items():
            _check_name(name)
            if not callable(function):
                message = f"functions[{name!r}] must be callable, not {function!r}"
                raise TypeError(message)
        if stop_after is not None:
            _check_name(stop_after)
        return self._watching(Watch(dict(functions), stop_after), None)

    def observe(
        self, *names: str, stop_after: str | None = None
    ) -> AbstractContextManager[list[tuple[Node, NDArray[Any]]]]:
        """Keep copies of named tensors, as long as a ``with`` block lasts.

        Parameters
        ----------
        *names
            As for `hooks`.
        stop_after
            As for `hooks`.

        Returns
        -------
        context manager
            It gives a list, to which a pair of `Node` and array is added for each tensor.

        Raises
        ------
        UnsupportedError, TypeError, ValueError, BusyError
            As for `hooks`.
        """
        _require_trampoline(self._trampoline)
        for name in names if stop_after is None else (*names, stop_after):
            _check_name(name)
        seen: list[tuple[Node, NDArray[Any]]] = []

        def keep(array: NDArray[Any], node: Node) -> None:
            seen.append((node, array))

        # A tensor that two of the names fit is kept once.
        functions = {
            name: keep
            for name in dict.fromkeys(names)
            if not any(other != name and _covers(other, name) for other in names)
        }
        return self._watching(Watch(functions, stop_after), seen)

    @contextmanager
    def _watching(self, watch: Watch, given: T) -> Iterator[T]:
        trampoline = _require_trampoline(self._trampoline)
        with self._call:  # a list that a call is working through does not change
            trampoline.watches.append(watch)
            self._watched = trampoline
        try:
            yield given
        finally:
            trampoline.watches = [each for each in trampoline.watches if each is not watch]
            if not trampoline.watches:
                self._watched = None

    def _with_hooks(self, function: Compute, batch: Batch) -> Compute:
        """Return *function* such that what the hooks raise comes out of it."""
        trampoline = _require_trampoline(self._watched)

        def compute(pointer: Any, struct: Any, limits: Any, report: Any) -> int:
            code, error, stopped = trampoline.run(lambda: function(pointer, struct, limits, report))
            if error is None and (code or not stopped):
                return code
            if function is lib.pyllama_encode:
                self._encoded = None
            else:
                self._roll_back(batch, lib.llama_get_memory(pointer))
            report.n_outputs = 0
            if error is not None:
                self._stop.raised = 0
                try:
                    raise error
                finally:
                    del error  # it holds this frame
            return 0

        return compute

    def _roll_back(self, batch: Batch, memory: Any) -> None:
        """Remove from the memory what a failed call may have stored of *batch*."""
        if memory == ffi.NULL:
            return
        first: dict[int, int] = {}
        for ids, n, pos in zip(batch.seq_id, batch.n_seq_id, batch.pos.ravel(), strict=False):
            for seq in ids[:n].tolist():
                first.setdefault(seq, int(pos))
        for seq, start in first.items():
            self._edits[seq] += 1
            lib.llama_memory_seq_rm(memory, seq, -1 if self._whole_sequences else start, -1)


def _require_trampoline(trampoline: Trampoline | None) -> Trampoline:
    if trampoline is None:
        message = "this context was made with hooks=False; make one without, to see its tensors"
        raise UnsupportedError(message)
    return trampoline


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        message = f"the name of a tensor must be text, not {name!r}"
        raise TypeError(message)
    if not name or "\0" in name or "*" in name[:-1] or len(name.rstrip("*").encode()) > _MAX_NAME:
        message = f"{name!r} names no tensor: 1 to {_MAX_NAME} bytes, and a star at the end only"
        raise ValueError(message)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _covers(pattern: str, other: str) -> bool:
    """Return whether a pattern fits all that another one fits."""
    return pattern.endswith("*") and other.rstrip("*").startswith(pattern[:-1])


def _describe(tensor: Any, name: str, occurrence: int, micro_batch: int) -> Node:
    found = _LAYER.search(name)
    kind = GGMLType(tensor.type)
    return Node(
        name=name,
        op=ffi.string(lib.ggml_op_desc(tensor)).decode(),
        occurrence=occurrence,
        layer=None if found is None else int(found[1]),
        type=kind,
        dtype=tensor_data.dtype_of(kind),
        shape=tensor_data.shape_of(tensor),
        micro_batch=micro_batch,
    )
