"""Where a model comes from: files, or one open file. Each is checked before C reads it."""

from __future__ import annotations

import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import LazyMode, LoadMode
from pyllama.core.files.gguf import Header, parse_header
from pyllama.core.files.model_rules import check_rules
from pyllama.core.library import ffi, lib
from pyllama.core.loading import trial
from pyllama.core.loading.model_file import read_model, read_parts
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pyllama.core.files.file_kind import FilePath
    from pyllama.core.loading.kv_overrides import KvOverrides
    from pyllama.core.loading.watch import Watch

SAMPLE_BYTES = 64  # of each tensor, to tell a model from a finetuned one without reading it whole
MAPPED_ALIGNMENT = 32  # of tensors in a mapped file: llama-model-loader.cpp:689
LAZY_BYTES = 4 << 30  # lazy_mode "auto" maps tensors above this: llama-model-loader.cpp:1101


class Source(ABC):
    """Where a model comes from.

    Attributes
    ----------
    name : str
        What messages call it.
    files : list of str
        Its files, where it has any that can be opened by name.
    """

    name: str
    files: list[str]

    @abstractmethod
    def read(self) -> list[Header]:
        """Read and check the headers, one for each file."""

    def require_loadable(self, headers: Sequence[Header], params: Any) -> None:  # noqa: B027
        """Raise if the options do not fit this kind of source."""

    @abstractmethod
    def load(self, params: Any, watch: Watch) -> Any:
        """Return what libllama makes of it: a ``llama_model *``, or NULL."""

    @abstractmethod
    def samples(self, headers: Sequence[Header]) -> Iterator[bytes]:
        """Yield a few bytes from the middle of each tensor."""


class Files(Source):
    """A file, a split model named by its first file, or all files of a split model, in order."""

    def __init__(self, given: FilePath | Sequence[FilePath]) -> None:
        self._parts = None if isinstance(given, (str, bytes, os.PathLike)) else list(given)
        if self._parts == []:
            message = "a model needs at least one file, not an empty sequence of paths"
            raise ValueError(message)
        first: Any = given if self._parts is None else self._parts[0]
        self.name = os.fsdecode(first)
        self.files = [self.name]

    def read(self) -> list[Header]:
        """Read the headers of all files."""
        headers = read_model(self.name) if self._parts is None else read_parts(self._parts)
        self.files = [header.path for header in headers]
        return headers

    def load(self, params: Any, watch: Watch) -> Any:  # noqa: ARG002 - C calls it
        """Load the files."""
        if self._parts is None:
            return lib.llama_model_load_from_file(os.fsencode(self.name), params)
        paths = [ffi.new("char[]", os.fsencode(path)) for path in self.files]
        return lib.llama_model_load_from_splits(paths, len(paths), params)

    def samples(self, headers: Sequence[Header]) -> Iterator[bytes]:
        """Read a few bytes of each tensor."""
        for header in headers:
            with open(header.path, "rb", buffering=0) as file:  # noqa: PTH123 - bytes of a name
                yield from _middles(file, header)


class OpenFile(Source):
    """An open file; the GGUF data begin where it stands, and may lie inside a larger file."""

    def __init__(self, file: BinaryIO) -> None:
        if isinstance(file, io.TextIOBase) or not file.readable():
            message = f"a model is read from a file opened with 'rb', not from {file!r:.80}"
            raise TypeError(message)
        try:
            self._descriptor = file.fileno()
        except io.UnsupportedOperation as error:
            message = f"{file!r} is no file of the system: libllama cannot read from it"
            raise TypeError(message) from error
        if file.writable():
            file.flush()
        self._start = file.tell()
        self._file = file  # keeps the descriptor open
        name = getattr(file, "name", None)
        self.name = name if isinstance(name, str) else f"the file with descriptor {name}"
        self.files = []

    def read(self) -> list[Header]:
        """Read the header where the file stands."""
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"{self.name} is no regular file; a model is read at many places")
        with self._borrowed() as file:
            header = parse_header(self.name, file, max(0, status.st_size - self._start))
        if header.count("split.count") > 1:
            raise LoadError(
                f"{self.name} is part {header.count('split.no') + 1} of a split model; load it by "
                "the paths of all its parts"
            )
        tensors = (replace(each, offset=each.offset + self._start) for each in header.tensors)
        return [replace(header, tensors=tuple(tensors))]

    def require_loadable(self, headers: Sequence[Header], params: Any) -> None:
        """Raise if the file would be mapped where its tensors cannot be."""
        tensors = headers[0].tensors
        if not tensors or tensors[0].offset % MAPPED_ALIGNMENT == 0:
            return
        lazy = params.lazy_mode == LazyMode.ON or (
            params.lazy_mode == LazyMode.AUTO and max(each.n_bytes for each in tensors) > LAZY_BYTES
        )
        if lazy or params.load_mode in (LoadMode.AUTO, LoadMode.MMAP, LoadMode.MMAP_MLOCK):
            wanted = "load_mode='none', lazy_mode='off'" if lazy else "load_mode='none'"
            message = (
                f"{self.name}: the tensors begin at byte {tensors[0].offset}, which is no multiple "
                f"of {MAPPED_ALIGNMENT}, so they cannot be mapped: take {wanted}"
            )
            raise ValueError(message)

    def load(self, params: Any, watch: Watch) -> Any:  # noqa: ARG002 - C calls it
        """Load from the open file."""
        with self._borrowed() as file:
            return lib.llama_model_load_from_file_ptr(file, params)

    def samples(self, headers: Sequence[Header]) -> Iterator[bytes]:
        """Read a few bytes of each tensor."""
        with self._borrowed() as file:
            yield from _middles(file, headers[0])

    @contextmanager
    def _borrowed(self) -> Iterator[BinaryIO]:
        """Lend a second descriptor, which stands where the data begin.

        It shares its position with the first, so that is put back: the caller's file object has
        read ahead, and counts on it.
        """
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            with os.fdopen(os.dup(self._descriptor), "rb", buffering=0) as file:
                file.seek(self._start)
                yield file
        finally:
            os.lseek(self._descriptor, position, os.SEEK_SET)


def _middles(file: BinaryIO, header: Header) -> Iterator[bytes]:
    for tensor in header.tensors:
        file.seek(tensor.offset + tensor.n_bytes // 2)
        yield file.read(min(SAMPLE_BYTES, tensor.n_bytes // 2))


def checked(origin: Source, overrides: KvOverrides, params: Any, verify: str) -> list[Header]:
    """Read the headers of a model, and raise unless it can be given to libllama.

    Parameters
    ----------
    origin
        Where the model comes from.
    overrides
        Metadata to replace; their C struct goes into *params*.
    params
        A filled ``llama_model_params``.
    verify
        "check" or "trial".

    Returns
    -------
    list of Header

    Raises
    ------
    LoadError
        If libllama would end the process, or has ended it in a trial.
    TypeError, ValueError
        If an option does not fit the model.
    """
    headers = overrides.apply(origin.read())
    params.kv_overrides = overrides.struct
    check_rules(headers)
    origin.require_loadable(headers, params)
    trial.require(verify, origin.files, vocab_only=bool(params.vocab_only))
    return headers


def source_of(given: object) -> Source:
    """Return where a model comes from.

    Parameters
    ----------
    given
        A path, a sequence of paths, or an open file; a `Source` is returned as it is.

    Returns
    -------
    Source

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, (str, bytes, os.PathLike)):
        return Files(given)
    if hasattr(given, "fileno") and hasattr(given, "readable"):
        return OpenFile(given)  # type: ignore[arg-type]
    if isinstance(given, Sequence) and all(
        isinstance(each, (str, bytes, os.PathLike)) for each in given
    ):
        return Files(given)
    message = (
        f"a model comes from a path, a sequence of paths or an open file, not from {given!r:.80}"
    )
    raise TypeError(message)
