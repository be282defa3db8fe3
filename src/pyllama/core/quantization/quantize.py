"""Writing a model with fewer bits a weight.

libllama does it in one call that cannot be stopped, and that ends the process on some files and
options. So it runs in a process of its own (worker.py), which tells how far it is, can be
ended at any time, and writes to a file that takes its name only when it is whole.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pyllama.core import child, log
from pyllama.core.atomic import replacing
from pyllama.core.enums import FType, GGMLType
from pyllama.core.files.gguf import F32, U32, TensorInfo
from pyllama.core.files.tensor_types import TENSOR_TYPES
from pyllama.core.loading.kv_overrides import KvOverrides
from pyllama.core.loading.model_file import SPLIT_NAME, check_model, part_name
from pyllama.core.params import checked, function
from pyllama.core.quantization import options as rules
from pyllama.core.quantization.importance import ImportanceMatrix
from pyllama.core.threads import n_usable_cores
from pyllama.errors import LoadError, QuantizeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Unpack

    from pyllama.core.files.gguf import Header
    from pyllama.core.loading.kv_overrides import Override

_BEGUN = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) ")  # what libllama says of each tensor
_SIZE = re.compile(r"size = .*MiB(?: -> .*\((\w+)\))?$")  # in a dry run, its new type follows


@dataclass(frozen=True)
class Quantized:
    """What came of it.

    Attributes
    ----------
    paths : tuple of Path
        The files; none after a dry run.
    ftype : FType
        What mix it is.
    n_weights : int
        Numbers in all tensors.
    n_bytes_before, n_bytes : int
        Of all tensors, in the source and now.
    types : dict of str to str
        How each tensor is stored now, as ggml calls it.
    """

    paths: tuple[Path, ...]
    ftype: FType
    n_weights: int
    n_bytes_before: int
    n_bytes: int
    types: dict[str, str]

    @property
    def bits_per_weight(self) -> float:
        """Bits for each number, on average."""
        return 8 * self.n_bytes / self.n_weights


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    ftype: FType | str = "q8_0",
    imatrix: ImportanceMatrix | str | os.PathLike[str] | None = None,
    kv_overrides: Mapping[str, Override] | None = None,
    tt_overrides: Mapping[str, GGMLType | str] | None = None,
    prune_layers: Sequence[int] = (),
    progress: Callable[[float], object] | None = None,
    **options: Unpack[rules.QuantizeOptions],
) -> Quantized:
    """Write a model file anew with other tensor types.

    Parameters
    ----------
    source
        A GGUF file; for a split model its first part.
    target
        Where; an older file is replaced once the new one is whole. It may be left out with
        ``dry_run=True``.
    ftype
        The mix of types, such as "q4_k_m".
    imatrix
        Where the bits matter: what `imatrix` gave, or its file. The mixes of the fewest bits need
        it.
    kv_overrides
        Metadata to write with other values; numbers must be stored as u32 or f32.
    tt_overrides
        A type for each pattern: a regular expression that is looked for in the names of the
        tensors. The first one that is found counts.
    prune_layers
        Layers to leave out.
    progress
        Called with the fraction done, 0.0 to 1.0, several times a second. If it returns False the
        work is cancelled; what it raises is raised here.
    **options
        See `QuantizeOptions`.

    Returns
    -------
    Quantized

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, OSError
        As the file system says.
    LoadError
        If the source is broken, or the imatrix is.
    QuantizeError
        If libllama refuses, its process dies, or the work is cancelled. *target* is then as it
        was, and nothing is left behind; ``.log`` holds libllama's words.
    TypeError, ValueError
        If an argument is out of range, does not fit the source, or *target* is the source.

    Notes
    -----
    It runs in another process, which is ended if this call is left by an exception. A tensor
    whose rows do not divide into the blocks of its type gets a larger one; see
    ``Quantized.types``. With ``keep_split`` each part appears whole, one after the other.

    Calls: llama_model_quantize, llama_model_quantize_default_params
    """
    kind = rules.file_type(ftype)
    values = {"nthread": n_usable_cores(), **checked(options, rules.CHECKS), "ftype": int(kind)}
    function("progress", progress)
    headers = check_model(source)
    overrides = _kv_overrides(kv_overrides or {}, headers)
    patterns = rules.tensor_overrides(tt_overrides or {}, kind)
    matrix = _imatrix(imatrix)
    _check_together(values, patterns, kind, matrix, headers)
    job: dict[str, Any] = {
        "source": headers[0].path,
        "params": values,
        "kv_overrides": overrides,
        "tt_overrides": patterns,
        "prune_layers": rules.layers(prune_layers, headers[0]),
    }
    with tempfile.TemporaryDirectory() as folder:
        if matrix is not None:
            job["imatrix"] = str(Path(folder) / "imatrix")
            matrix.save(job["imatrix"])
        if values.get("dry_run"):
            return _result((), kind, headers, _run({**job, "target": ""}, progress))
        kept = [] if isinstance(imatrix, (ImportanceMatrix, type(None))) else [os.fspath(imatrix)]
        paths = _targets(target, headers, kept, keep_split=bool(values.get("keep_split")))
        with _written(paths, job, progress) as written:
            found = {tensor.name: tensor for header in written for tensor in header.tensors}
            done = _result(paths, kind, headers, found)
    return done


def _kv_overrides(values: Mapping[str, Override], headers: list[Header]) -> dict[str, Override]:
    """Return new metadata; libllama writes numbers as u32 or f32 only (llama-quant.cpp)."""
    overrides = KvOverrides(values)
    overrides.apply(headers)
    for key, value in overrides.values.items():
        stored = headers[0].metadata._entries[key].type
        if not isinstance(value, (bool, str)) and stored not in (U32, F32):
            message = (
                f"kv_overrides cannot change {key!r} while quantising: it would be stored as "
                "another type than it has"
            )
            raise ValueError(message)
    return dict(overrides.values)


def _imatrix(
    given: ImportanceMatrix | str | os.PathLike[str] | None,
) -> ImportanceMatrix | None:
    if given is None or isinstance(given, ImportanceMatrix):
        return given
    if isinstance(given, (str, os.PathLike)):
        return ImportanceMatrix.load(given)
    message = f"imatrix must be an ImportanceMatrix or its file, not {given!r:.80}"
    raise TypeError(message)


def _check_together(
    values: dict[str, Any],
    patterns: list[tuple[str, int]],
    ftype: FType,
    imatrix: ImportanceMatrix | None,
    headers: list[Header],
) -> None:
    """Raise for options that contradict each other, or do not fit the source."""
    named: dict[str, list[int]] = {
        name: [values[name]]
        for name in ("output_tensor_type", "token_embedding_type")
        if name in values
    }
    if values.get("only_copy"):
        idle = [*named, *(["tt_overrides"] if patterns else []), *(["imatrix"] if imatrix else [])]
        if idle:
            message = f"only_copy=True leaves the tensors as they are; leave out {', '.join(idle)}"
            raise ValueError(message)
        return
    if imatrix is not None:
        rules.check_imatrix(imatrix, headers)
    if not values.get("dry_run"):
        types = {**named, "tt_overrides": [kind for _, kind in patterns]}
        rules.require_imatrix(ftype, types, imatrix)


def _targets(
    target: str | os.PathLike[str] | None,
    headers: list[Header],
    inputs: list[str],
    *,
    keep_split: bool,
) -> tuple[Path, ...]:
    """Return the files to write, none of which is one to read."""
    if target is None:
        message = "target is missing: only dry_run=True does without"
        raise TypeError(message)
    path = Path(os.path.abspath(os.fspath(target)))  # noqa: PTH100 - resolve() follows a link
    paths = [path]
    if keep_split:
        name, n_parts = SPLIT_NAME.fullmatch(str(path)), len(headers)
        if n_parts == 1 or name is None or (int(name[2]), int(name[3])) != (1, n_parts):
            message = (
                f"keep_split=True needs a source of several files (this one has {n_parts}), and a "
                f"target that ends in -00001-of-{n_parts:05}.gguf"
            )
            raise ValueError(message)
        paths = [Path(part_name(name[1], index, n_parts)) for index in range(1, n_parts + 1)]
    for each in paths:
        for read in (*(header.path for header in headers), *inputs):
            if each.exists() and each.samefile(read):
                message = f"{each} is the same file as {read}, which is read: give another target"
                raise ValueError(message)
    return tuple(paths)


@contextmanager
def _written(
    paths: Sequence[Path], job: dict[str, Any], progress: Callable[[float], object] | None
) -> Iterator[list[Header]]:
    """Have the job done beside *paths*, and lend the headers; after the block they are there."""
    with ExitStack() as stack:
        temporary = [stack.enter_context(replacing(path)) for path in paths]
        if len(paths) == 1:
            first = temporary[0]
            _run({**job, "target": str(first)}, progress)
        else:
            beside = tempfile.TemporaryDirectory(prefix=".pyllama-", dir=paths[0].parent)
            part = Path(stack.enter_context(beside)) / "part"
            _run({**job, "target": str(part)}, progress)
            first = Path(part_name(str(part), 1, len(paths)))
        try:
            headers = check_model(first)
        except LoadError as error:
            message = f"libllama wrote a file that would not load: {error}"
            raise QuantizeError(message) from error
        for header, name in zip(headers, temporary, strict=True):
            if len(paths) > 1:
                Path(header.path).replace(name)
        yield headers


def _run(job: dict[str, Any], progress: Callable[[float], object] | None) -> dict[str, str]:
    """Do the job in another process; return what types a dry run would give the tensors."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            child.command("pyllama.core.quantization.worker.main"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        with process:
            try:
                return _follow(process, job, progress, words)
            finally:
                process.kill()


def _follow(
    process: subprocess.Popen[bytes],
    job: dict[str, Any],
    progress: Callable[[float], object] | None,
    words: IO[bytes],
) -> dict[str, str]:
    """Give the process its job, and listen until it is done."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        message = "the process that quantises has no pipes"
        raise QuantizeError(message)
    try:
        stdin.write(json.dumps(job).encode() + b"\n")
        stdin.flush()  # and stays open: the process ends itself when it closes
    except BrokenPipeError:
        pass  # it died; see below
    fraction, name = 0.0, ""
    types: dict[str, str] = {}
    complaints: list[str] = []
    for line in stdout:
        said = json.loads(line)
        if said.get("error"):
            message = f"{job['source']} was not quantised: {said['error']}"
            raise QuantizeError(message, complaints)
        if "text" in said:
            text = said["text"]
            log.logger.log(said["level"], "%s", text)
            if said["level"] >= logging.WARNING:
                complaints = [*complaints[-63:], text]
            if begun := _BEGUN.match(text):
                fraction, name = (int(begun[1]) - 1) / int(begun[2]), begun[3]
            if (size := _SIZE.search(text)) and name:
                types[name] = size[1] or ""
            continue
        done = "error" in said
        if progress is not None and progress(1.0 if done else fraction) is False:
            message = f"quantising {job['source']} was cancelled by its progress callback"
            raise QuantizeError(message)
        if done:
            return types
    code = process.wait()
    words.seek(0)
    last = words.read().decode("utf-8", "replace").splitlines()[-10:]
    message = f"the process that quantised {job['source']} ended with {code}"
    raise QuantizeError(message, [*complaints, *last])


def _result(
    paths: tuple[Path, ...],
    ftype: FType,
    headers: list[Header],
    new: Mapping[str, TensorInfo] | Mapping[str, str],
) -> Quantized:
    before = {tensor.name: tensor for header in headers for tensor in header.tensors}
    types, n_weights, n_bytes = {}, 0, 0
    stored = {kind.name: kind for kind in TENSOR_TYPES.values()}
    for name, found in new.items():
        if isinstance(found, TensorInfo):
            size, kind = math.prod(found.shape), TENSOR_TYPES[found.type]
        else:  # a dry run says the new type, or nothing if it is the old one
            size = math.prod(before[name].shape)
            kind = stored[found] if found else TENSOR_TYPES[before[name].type]
        types[name] = kind.name
        n_weights += size
        n_bytes += size // kind.block * kind.n_bytes
    n_bytes_before = sum(tensor.n_bytes for tensor in before.values())
    return Quantized(paths, ftype, n_weights, n_bytes_before, n_bytes, types)
