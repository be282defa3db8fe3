"""The part of `LLM` that loads and unloads, and lets one call run at a time."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

import numpy as np

from pyllama.core.adapter import Adapter
from pyllama.core.enums import VocabType
from pyllama.core.model import Model
from pyllama.core.params import ModelOptions, flag, pairs, whole
from pyllama.errors import BusyError, StateError, UnsupportedError
from pyllama.llm.drafting import open_drafter
from pyllama.llm.options import LoadOptions
from pyllama.prompt_cache import PromptCache
from pyllama.speculative import DraftModel
from pyllama.speculative.loop import N_DRAFT, room_to_go_back

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from types import TracebackType

    from numpy.typing import ArrayLike
    from typing_extensions import Self, Unpack

    from pyllama.core.context import Context
    from pyllama.embedding import Embedder
    from pyllama.llm.drafting import Draft
    from pyllama.llm.results import Part
    from pyllama.speculative import Drafter
    from pyllama.text.chat import ChatTemplate

    # An adapter, or the file of one, with its scale.
    # Of Adapter, str or path to scale; a narrower key type would refuse a dict of one of them.
    Adapters = Mapping[Any, float]

N_CTX = 4096  # what a context has at most, unless the caller says more: it takes memory


class Loading:
    """A model that can be loaded and unloaded, and its context; for the arguments see `LLM`."""

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        name: str | None = None,
        load: bool = True,
        cache_bytes: int = 1 << 28,
        cache_directory: str | os.PathLike[str] | None = None,
        draft: Draft | None = None,
        n_draft: int = N_DRAFT,
        **options: Unpack[LoadOptions],
    ) -> None:
        self._path = Path(os.fsdecode(model))
        if name is not None and not isinstance(name, str):
            message = f"name must be text, not {name!r:.80}"
            raise TypeError(message)
        self._name = name
        unknown = options.keys() - LoadOptions.__annotations__.keys()
        if unknown:
            message = f"unknown option(s): {', '.join(sorted(unknown))}"
            raise TypeError(message)
        self._options: dict[str, Any] = dict(options)
        self._cache = PromptCache(max_bytes=cache_bytes, directory=cache_directory)
        self._model: Model | None = None
        self._context: Context | None = None
        self._adapters: dict[str, Adapter] = {}
        self._embedders: dict[Any, Embedder] = {}
        self._templates: dict[str | None, ChatTemplate] = {}
        self._vector: bytes | None = None
        self._streams: WeakSet[Generator[Part, None, None]] = WeakSet()
        self._draft = draft
        self._n_draft = whole(1, 2**16)("n_draft", n_draft)
        self._drafter: Drafter | None = None
        self._running = threading.Lock()
        self._cancelled = threading.Event()
        if flag("load", load):
            self.load()

    def load(self) -> None:
        """Load the model and make its context; nothing happens if it is loaded.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        LoadError
            If it cannot be loaded; ``.log`` holds libllama's words.
        MemoryError
            If the context would take more memory than there is.
        """
        if self.is_loaded:
            return
        self.unload()  # what is left where somebody closed the model itself
        model_options = {
            k: v for k, v in self._options.items() if k in ModelOptions.__annotations__
        }
        context_options = {k: v for k, v in self._options.items() if k not in model_options}
        if self._draft == "mtp":
            model_options.setdefault("load_mtp", True)
        model = Model(self._path, **model_options)
        try:
            if context_options.get("n_ctx") is None:
                context_options["n_ctx"] = min(model.n_ctx_train or N_CTX, N_CTX)
            if self._draft is not None and (model.is_recurrent or model.is_hybrid):
                context_options.setdefault("n_rs_seq", self._n_draft)  # to take guesses back
            context = model.context(**context_options)
            if self._draft is not None:
                room_to_go_back(context)
                self._drafter = open_drafter(self._draft, context)
        except BaseException:
            model.close()
            raise
        self._model, self._context = model, context

    def unload(self) -> None:
        """Free the model and its context; nothing happens if it is not loaded.

        Raises
        ------
        BusyError
            If a call is running.
        BufferError
            If an array lent from its memory lives; it stays loaded.
        """
        with self._run_alone():
            if self._model is not None:
                self._model.close()  # first: while an array lent from it lives, nothing is lost
            drafter, self._drafter = self._drafter, None
            if isinstance(drafter, DraftModel) and drafter is not self._draft:
                drafter.context.model.close()
            self._model = self._context = self._vector = None
            for kept in (self._adapters, self._embedders, self._templates):
                kept.clear()

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None and not self._model.closed

    @property
    def name(self) -> str:
        """What the model is called."""
        if self._name is None and self._model is not None:
            self._name = self._model.metadata.get("general.name")
        return self._name or self._path.stem

    @property
    def model(self) -> Model:
        """The model; raises `StateError` if it is not loaded."""
        return self._model or self._refuse()

    @property
    def context(self) -> Context:
        """The context that all calls use; raises `StateError` if the model is not loaded."""
        return self._context or self._refuse()

    def _refuse(self) -> NoReturn:
        message = f"no model is loaded: call load() to load {self._path.name}"
        raise StateError(message, expected="loaded", actual="not loaded")

    @property
    def capabilities(self) -> frozenset[str]:
        """What can be called: of "complete", "chat", "infill", "embed" and "rerank".

        Raises
        ------
        StateError
            If the model is not loaded.
        """
        model, vocab = self.model, self.model.vocab
        able = {
            "complete": self.context._has_memory and not model.has_encoder,
            "chat": model.chat_template() is not None,
            "infill": vocab.fim_pre is not None and vocab.fim_suf is not None,
            "embed": vocab.type is not VocabType.NONE
            and not (model.has_encoder and model.has_decoder),
            "rerank": model.n_cls_out > 0,
        }
        return frozenset(name for name, can in able.items() if can)

    def _require(self, capability: str, why: str) -> None:
        if capability not in self.capabilities:
            message = f"{self.name} cannot {capability}: {why}"
            raise UnsupportedError(message)

    @contextmanager
    def _run_alone(self) -> Iterator[None]:
        """Keep other calls out."""
        if not self._running.acquire(blocking=False):
            message = (
                f"{self.name} is generating: wait for it, close its stream, or cancel() it; one "
                "LLM serves one call at a time"
            )
            raise BusyError(message)
        try:
            yield
        finally:
            self._running.release()

    def cancel(self) -> None:
        """Stop the running call, from any thread; nothing happens if none is running.

        The call ends with the finish reason "cancelled", also within a long prompt.
        """
        if self._running.locked():
            self._cancelled.set()
            self.context.abort()
            if self._drafter is not None:
                self._drafter.abort()

    def _adapt(self, lora: Adapters | None, control_vector: ArrayLike | None) -> None:
        """Set the adapters and the control vector of the next call."""
        context = self.context
        wanted = {self._adapter(each): scale for each, scale in pairs("lora", lora or {}).items()}
        if wanted != context.adapters:
            context.set_adapters(wanted)
        # Compared by what it holds: its owner may have written into it.
        vector = None if control_vector is None else np.asarray(control_vector, np.float32)
        data = None if vector is None else vector.tobytes()
        if data != self._vector:
            context.set_control_vector(vector)
            self._vector = data

    def _cache_key(self) -> str:
        """Return what the memory depends on besides the model."""
        adapters = sorted(
            (each.path, _changed(each.path), scale) for each, scale in self.context.adapters.items()
        )
        return repr((adapters, self._vector))

    def _adapter(self, source: Adapter | str | os.PathLike[str]) -> Adapter:
        """Return an adapter; one given as a file is loaded once."""
        if isinstance(source, Adapter):
            return source
        path = os.path.realpath(source)
        if path not in self._adapters:
            self._adapters[path] = Adapter(self.model, path)
        return self._adapters[path]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in tuple(self._streams):
            with suppress(ValueError):  # another thread is in it
                stream.close()
        self.unload()

    def __repr__(self) -> str:
        state = "loaded" if self.is_loaded else "not loaded"
        return f"<LLM {self.name}: {state}>"


def _changed(path: str) -> int:
    """Return when a file was changed last; 0 if it is gone."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - a str as it was given
    except OSError:
        return 0
