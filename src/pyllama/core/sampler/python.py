"""Samplers written in Python: functions or objects that C calls like its own.

C gets a sampler whose functions are those at the end of this file. Its context is a handle to a
`_Behind`, which Python owns: the `PythonSampler` holds it as long as C may call. What the Python
code raises is left in `Shared`, where the method that called C finds it.
"""

from __future__ import annotations

import copy
import functools
import inspect
from typing import TYPE_CHECKING, Any

from pyllama.core.library import ffi, lib
from pyllama.core.sampler.base import Sampler
from pyllama.core.sampler.live import LiveCandidates
from pyllama.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from pyllama.core.handle import Call, Handle
    from pyllama.core.sampler.owned import Shared

METHODS = ("apply", "accept", "reset")


class _Behind:
    """The Python side of one C sampler."""

    __slots__ = ("accept", "apply", "born", "c_name", "copied", "name", "reset", "shared", "target")

    shared: Shared

    def __init__(self, target: Any, name: str) -> None:
        self.target = target
        self.name = name
        self.c_name = ffi.new("char[]", name.encode())
        apply, accept, reset = _functions(target)
        self.apply, self.accept, self.reset = apply, accept, reset
        self.copied: Any = None  # of target, for the clone that C will ask for
        self.born: Any = None  # the handle of that clone, until its PythonSampler takes it

    def forget(self) -> None:
        """Let go of the user's object: C does not call again."""
        self.target = self.apply = self.accept = self.reset = None


class PythonSampler(Sampler):
    """A sampler made by `python`."""

    def __init__(
        self,
        pointer: Any,
        kind: str,
        options: Mapping[str, Any],
        *,
        parent: Handle | None = None,
        n_vocab: int | None = None,
    ) -> None:
        super().__init__(pointer, kind, options, parent=parent, n_vocab=n_vocab)
        self._hold(pointer.ctx)

    def _hold(self, handle: Any) -> None:
        """Be the owner of what C's sampler points at."""
        self._behind: _Behind = ffi.from_handle(handle)
        self._handle = handle
        self._interface = _INTERFACE
        self._behind.shared = self._shared
        self._selects = self._behind.apply is not None  # it may; whether it did is seen afterwards

    def _use_call(self, call: Call, shared: Shared) -> None:
        super()._use_call(call, shared)
        self._behind.shared = shared

    def _copy_objects(self) -> None:
        self._behind.copied = _copied(self._behind.target)

    def _twin(self, pointer: Any) -> PythonSampler:
        twin = super()._twin(pointer)
        twin._handle, self._behind.born = self._behind.born, None
        return twin

    def _follow_state(self, other: Sampler) -> None:
        if isinstance(other, PythonSampler):  # C has freed the old one, and put a clone there
            handle, other._behind.born = other._behind.born, None
            self._hold(handle)

    def _plan(self) -> object:
        target = self._behind.target
        if isinstance(target, functools.partial):
            target = target.func
        same = target if inspect.isroutine(target) else type(target)
        return super()._plan(), same


def python(sampler: object, *, name: str | None = None) -> Sampler:
    """Make a sampler of a Python function or object.

    Parameters
    ----------
    sampler
        A function ``f(candidates)`` that changes `LiveCandidates` in place and returns None. Or an
        object that has some of the methods ``apply(candidates)``, ``accept(token)``, ``reset()``,
        ``clone()`` and a ``name``, which is a string or a method.
    name
        What to call it; left out, the name that the object, the function or the class has.

    Returns
    -------
    Sampler

    Raises
    ------
    TypeError
        If it is no such thing.

    Notes
    -----
    It stands anywhere in a chain. Where several samplers select, the last one decides; at the end
    of a chain it must select, with ``candidates.selected = row``. What the Python code raises is
    raised by the method that ran the chain, and the samplers after it have seen nothing of use:
    candidates given to `Sampler.apply` are to be filled again. `SamplingError` is raised for a
    logit that is NaN or +inf, for no candidate left, and for rows or tokens that are not there.
    Where ``accept`` or ``reset`` raises, the other samplers have done theirs.

    A copy of the chain copies the object with its ``clone()``, or else with `copy.deepcopy`;
    functions are shared.

    Beside what the Python code itself needs, a call costs 20 µs with 32,000 candidates and 70 µs
    with 128,000, nearly all of it to check what was left; behind a `top_k` it is 8 µs.

    Calls: llama_sampler_init
    """
    target: Any = sampler
    if isinstance(target, (type, Sampler)) or all(each is None for each in _functions(target)):
        message = (
            f"a Python sampler is a function of candidates, or an object with one of the methods "
            f"{', '.join(METHODS)}, not {target!r:.60}"
        )
        raise TypeError(message)
    return _make(target, _name(target) if name is None else name, {})


def sampler(definition: Callable[..., Any]) -> Callable[..., Sampler]:
    """Make a function or class a kind of sampler, as a decorator.

    Parameters
    ----------
    definition
        A function ``f(candidates, *, option=...)``, or a class whose objects `python` takes.

    Returns
    -------
    callable
        Called with the options, or with what the class is made from, it returns a new `Sampler`.

    Raises
    ------
    TypeError
        If it is neither; and when called, if the options do not fit.
    """
    if not callable(definition):
        message = f"sampler decorates a function or a class, not {definition!r:.60}"
        raise TypeError(message)
    is_class = isinstance(definition, type)
    signature = None if is_class else inspect.signature(definition)

    @functools.wraps(definition, updated=())
    def make(*args: Any, **options: Any) -> Sampler:
        if signature is None:
            return python(definition(*args, **options))
        if args:
            message = f"the options of {definition.__name__} are given by name, not {args!r:.60}"
            raise TypeError(message)
        signature.bind(None, **options)
        target = functools.partial(definition, **options) if options else definition
        return _make(target, _name(target), options)

    return make


def _make(target: Any, name: str, options: Mapping[str, Any]) -> Sampler:
    if not isinstance(name, str) or "\0" in name:
        message = f"the name of a sampler is a string without NUL, not {name!r:.60}"
        raise TypeError(message)
    handle = ffi.new_handle(_Behind(target, name))
    pointer = lib.llama_sampler_init(_INTERFACE, handle)
    made = PythonSampler(pointer, "python", {"name": name, **options})
    made._handle = handle  # pointer.ctx is the same address, and owns nothing
    return made


def _functions(target: Any) -> list[Any]:
    """Return what C calls for each of `METHODS`, None for what *target* has not."""
    found = [getattr(target, name, None) for name in METHODS]
    apply, accept, reset = (each if callable(each) else None for each in found)
    return [apply or (target if callable(target) else None), accept, reset]


def _name(target: Any) -> str:
    named = getattr(target, "name", None)
    if named is not None:
        return named() if callable(named) else named  # type: ignore[no-any-return]
    inner = target.func if isinstance(target, functools.partial) else target
    return str(getattr(inner, "__name__", type(inner).__name__))


def _copied(target: Any) -> Any:
    """Return an independent copy of a user's object."""
    if callable(getattr(target, "clone", None)):
        twin = target.clone()
        if twin is target or type(twin) is not type(target):
            message = f"{type(target).__name__}.clone() must return a new one, not {twin!r:.60}"
            raise TypeError(message)
        return twin
    try:
        return copy.deepcopy(target)
    except Exception as error:
        message = (
            f"this {type(target).__name__} cannot be copied ({error}): give it a method clone()"
        )
        raise UnsupportedError(message) from error


def _keep(_kind: object, error: BaseException, traceback: TracebackType) -> None:
    """Leave what a function below raised for the method that called C."""
    ffi.from_handle(traceback.tb_frame.f_locals["smpl"].ctx).shared.errors.append(error)


@ffi.def_extern(onerror=_keep)
def pyllama_sampler_apply(smpl: Any, _cur_p: Any) -> None:
    """See ``llama_sampler_i.apply``."""
    behind = ffi.from_handle(smpl.ctx)
    shared = behind.shared
    if behind.apply is None or shared.errors:  # what an earlier one left is not worth looking at
        return
    live = LiveCandidates(shared.candidates)
    try:
        answer = behind.apply(live)
        if answer is not None:
            message = f"the Python sampler {behind.name!r} must change its argument in place and "
            raise TypeError(message + f"return None, not {answer!r:.60}")
        live._finish(shared.candidates, behind.name)
    except BaseException:
        shared.candidates._spoil()
        raise
    finally:
        live._end()


@ffi.def_extern(onerror=_keep)
def pyllama_sampler_accept(smpl: Any, token: int) -> None:
    """See ``llama_sampler_i.accept``."""
    behind = ffi.from_handle(smpl.ctx)
    if behind.accept is not None:
        behind.accept(token)


@ffi.def_extern(onerror=_keep)
def pyllama_sampler_reset(smpl: Any) -> None:
    """See ``llama_sampler_i.reset``."""
    behind = ffi.from_handle(smpl.ctx)
    if behind.reset is not None:
        behind.reset()


@ffi.def_extern()
def pyllama_sampler_name(smpl: Any) -> Any:
    """See ``llama_sampler_i.name``; the string lives as long as the sampler."""
    return ffi.from_handle(smpl.ctx).c_name


@ffi.def_extern(onerror=_keep)
def pyllama_sampler_clone(smpl: Any) -> Any:
    """See ``llama_sampler_i.clone``: the copy was made before C was called."""
    behind = ffi.from_handle(smpl.ctx)
    copied, behind.copied = behind.copied, None
    behind.born = ffi.new_handle(_Behind(copied, behind.name))
    return lib.llama_sampler_init(_INTERFACE, behind.born)


@ffi.def_extern()
def pyllama_sampler_free(smpl: Any, from_handle: Any = ffi.from_handle) -> None:
    """See ``llama_sampler_i.free``; at interpreter exit module globals may be gone."""
    from_handle(smpl.ctx).forget()


# One for all, as llama_sampler_copy compares addresses. Each PythonSampler keeps it as well: at
# interpreter exit this name may be gone before the last sampler is.
_INTERFACE = ffi.new("struct llama_sampler_i *")
for _name_of in ("name", "accept", "apply", "reset", "clone", "free"):
    setattr(_INTERFACE, _name_of, getattr(lib, f"pyllama_sampler_{_name_of}"))
