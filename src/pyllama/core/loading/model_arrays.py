"""A model built from numpy arrays: metadata and tensors in memory, no file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import LazyMode, LoadMode
from pyllama.core.files.gguf import Header, parse_header
from pyllama.core.files.gguf_writer import encode_header, stored_tensor
from pyllama.core.library import ffi, lib
from pyllama.core.loading.model_source import SAMPLE_BYTES, Source
from pyllama.core.params import pairs
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyllama.core.files.gguf_writer import MetadataValue, StoredTensor, TensorValue
    from pyllama.core.loading.watch import Watch

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
# What libllama makes room for although files leave it out, and the number that changes nothing.
NEUTRAL = {".bias": 0, ".scale": 1, ".input_scale": 1, "rope_freqs.weight": 1,
           "rope_factors_long.weight": 1, "rope_factors_short.weight": 1}  # fmt: skip
SHOWN = 5  # names in a message


class Arrays(Source):
    """Metadata and tensors in memory.

    Parameters
    ----------
    metadata
        As a GGUF file has it.
    tensors
        Name and numbers of each.
    """

    def __init__(
        self, metadata: Mapping[str, MetadataValue], tensors: Mapping[str, TensorValue]
    ) -> None:
        self.name = "the model of arrays"
        self.files = []
        self._metadata = dict(pairs("metadata", metadata))
        self._tensors = {
            name: stored_tensor(name, each) for name, each in pairs("tensors", tensors).items()
        }
        self._header = encode_header(self._metadata, self._tensors)

    def read(self) -> list[Header]:
        """Read the header that the arrays make."""
        size = len(self._header) + sum(each.data.nbytes + 2**20 for each in self._tensors.values())
        return [parse_header(self.name, _Padded(self._header), size)]

    def require_loadable(self, headers: Sequence[Header], params: Any) -> None:  # noqa: ARG002
        """Raise for options that libllama would not heed."""
        ignored = {
            "load_mode": params.load_mode not in (LoadMode.AUTO, LoadMode.NONE),
            "lazy_mode": params.lazy_mode == LazyMode.ON,
            "check_tensors": params.check_tensors,
        }
        names = [name for name, given in ignored.items() if given]
        if names:
            message = f"{', '.join(names)}: has no effect on a model of arrays; leave it out"
            raise ValueError(message)

    def load(self, params: Any, watch: Watch) -> Any:
        """Build the model; every tensor asks `pyllama_fill_tensor` for its numbers."""
        tensors = dict(self._tensors)
        if EMBEDDING in tensors:  # a file without an output uses its embeddings for it
            tensors.setdefault(OUTPUT, tensors[EMBEDDING])
        header = encode_header(self._metadata, tensors)
        init = ffi.new("struct gguf_init_params *", {"no_alloc": True})
        gguf = lib.gguf_init_from_buffer(header, len(header), init[0])
        if gguf == ffi.NULL:
            return gguf
        filler = _Filler(tensors, frozenset(self._tensors), watch)
        try:
            pointer = lib.llama_model_init_from_user(
                gguf, lib.pyllama_fill_tensor, filler.user_data, params
            )
        finally:
            lib.gguf_free(gguf)
        nothing = pointer == ffi.NULL or watch.stopped or params.vocab_only or params.no_alloc
        fault = "" if nothing else filler.fault()
        if fault or filler.error is not None:
            lib.llama_model_free(pointer)  # which takes a NULL
            raise filler.error or LoadError(f"{self.name}: {fault}")
        return pointer

    def samples(self, headers: Sequence[Header]) -> Iterator[bytes]:  # noqa: ARG002 - as of files
        """Yield a few bytes from the middle of each tensor."""
        for tensor in self._tensors.values():
            data, middle = tensor.data.reshape(-1).view("u1"), tensor.data.nbytes // 2
            yield data[middle : middle + min(SAMPLE_BYTES, middle)].tobytes()


class _Padded(io.BytesIO):
    """Bytes followed by as many zeros as anyone asks for: the tensors are not read."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        return data.ljust(size or 0, b"\0")


class _Filler:
    """Gives each tensor its numbers, and remembers what is wrong."""

    def __init__(
        self, tensors: Mapping[str, StoredTensor], given: frozenset[str], watch: Watch
    ) -> None:
        self.tensors = tensors
        self.given = given
        self.watch = watch
        self.error: BaseException | None = None
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.misshapen: list[str] = []
        self.user_data = ffi.new_handle(self)

    def __call__(self, tensor: Any) -> None:
        if self.error is not None or self.watch.stopped:
            return
        try:
            self._fill(tensor)
        except BaseException as error:  # noqa: BLE001 - a C frame is below us
            self.error = error

    def _fill(self, tensor: Any) -> None:
        name = ffi.string(tensor.name).decode("utf-8", "surrogateescape")
        shape = _trimmed(tuple(tensor.ne))
        stored = self.tensors.get(name)
        if stored is None:
            self._fill_neutral(tensor, name, shape)
            return
        self.used.add(name)
        if _trimmed(stored.shape) != shape:
            found, wanted = stored.shape[::-1], shape[::-1]
            self.misshapen.append(f"{name} has the shape {found}, not {wanted}")
            return
        data = stored.data
        lib.ggml_backend_tensor_set(tensor, ffi.from_buffer(data), 0, data.nbytes)
        self.watch(len(self.used & self.given) / len(self.given))

    def _fill_neutral(self, tensor: Any, name: str, shape: tuple[int, ...]) -> None:
        neutral = dict(NEUTRAL)
        if not any(each.startswith("cls.") for each in self.tensors):  # no classifier
            neutral["cls."] = 0
        for part, number in neutral.items():
            if (name.endswith(part) or name.startswith(part)) and tensor.type == lib.GGML_TYPE_F32:
                data = ffi.new("float[]", [number] * (lib.ggml_nbytes(tensor) // 4))
                lib.ggml_backend_tensor_set(tensor, data, 0, ffi.sizeof(data))
                return
        self.missing.append(f"{name} {shape[::-1]}")

    def fault(self) -> str:
        """Say what does not fit; nothing if all does."""
        faults = (
            ("missing", self.missing),
            ("with another shape", self.misshapen),
            ("that this architecture does not have", sorted(self.given - self.used)),
        )
        return "; ".join(
            f"{len(names)} tensors {what}: {', '.join(names[:SHOWN])}"
            + (", ..." if len(names) > SHOWN else "")
            for what, names in faults
            if names
        )


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the ones at its end, which ggml fills up with."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


@ffi.def_extern()
def pyllama_fill_tensor(tensor: Any, user_data: Any) -> None:
    """See ``llama_model_set_tensor_data_t``."""
    ffi.from_handle(user_data)(tensor)
