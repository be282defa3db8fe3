"""The process that quantises: one job on stdin, what libllama says and how it went on stdout.

Lines of JSON: ``{"level": ..., "text": ...}`` for the log, ``{}`` several times a second, and at
the end ``{"error": ...}``, which is empty if all went well.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import Any

from pyllama.core import backend, child, log
from pyllama.core.library import ffi, lib
from pyllama.core.loading.kv_overrides import KvOverrides
from pyllama.core.loading.model_file import check_model
from pyllama.core.quantization.importance import ImportanceMatrix
from pyllama.errors import LlamaError

TICK = 0.1  # seconds


class _Speaker(logging.Handler):
    """Says log lines, and anything else, on what was stdout."""

    def __init__(self) -> None:
        super().__init__()
        self._file = os.fdopen(os.dup(1), "w", encoding="ascii")
        os.dup2(2, 1)  # what C prints is no JSON

    def emit(self, record: logging.LogRecord) -> None:
        self.say(level=record.levelno, text=record.getMessage())

    def say(self, **what: Any) -> None:
        with self.lock:  # type: ignore[union-attr]
            self._file.write(json.dumps(what) + "\n")
            self._file.flush()


def main() -> None:
    """Do the job on stdin."""
    child.leave_no_core()
    job = json.loads(sys.stdin.readline())
    speaker = _Speaker()
    log.logger.addHandler(speaker)
    log.logger.setLevel(logging.INFO)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(speaker, done), daemon=True)
    ticker.start()
    error = _quantize(job)
    done.set()
    ticker.join()
    log.drain()
    speaker.say(error=error)


def _tick(speaker: _Speaker, done: threading.Event) -> None:
    while not done.wait(TICK):
        log.drain()
        speaker.say()


def _end_with_parent() -> None:
    """End this process when the other one is gone, or wants no more."""
    sys.stdin.read()
    os._exit(1)


def _quantize(job: dict[str, Any]) -> str:
    """Return what went wrong; nothing if it went well."""
    backend.init()
    params = lib.llama_model_quantize_default_params()
    for name, value in job["params"].items():
        setattr(params, name, value)
    keep = _fill(params, job)
    source, target = os.fsencode(job["source"]), os.fsencode(job["target"])
    since = log.mark()
    try:
        code = lib.llama_model_quantize(source, target, ffi.addressof(params))
    except LlamaError as error:  # an assertion, on this thread
        return str(error)
    del keep
    if code == 0:
        return ""
    said = log.complaints(since)
    return said[-1] if said else f"llama_model_quantize returned {code}"


def _fill(params: Any, job: dict[str, Any]) -> list[Any]:
    """Put arrays into *params*, each ended as C wants; return what must outlive the call."""
    keep: list[Any] = []

    def text(value: str) -> Any:
        keep.append(ffi.new("char[]", value.encode("utf-8", "surrogateescape")))
        return keep[-1]

    if job["tt_overrides"]:
        patterns = ffi.new("struct llama_model_tensor_override[]", len(job["tt_overrides"]) + 1)
        for entry, (pattern, kind) in zip(patterns, job["tt_overrides"], strict=False):
            entry.pattern, entry.type = text(pattern), kind
        params.tt_overrides = patterns
        keep.append(patterns)
    if job["prune_layers"]:
        layers = ffi.new("int32_t[]", [*job["prune_layers"], -1])
        params.prune_layers = layers
        keep.append(layers)
    if job["kv_overrides"]:
        overrides = KvOverrides(job["kv_overrides"])
        overrides.apply(check_model(job["source"]))
        params.kv_overrides = overrides.struct
        keep.append(overrides)
    if "imatrix" in job:
        matrix = ImportanceMatrix.load(job["imatrix"])
        entries = ffi.new("struct llama_model_imatrix_data[]", len(matrix.sums) + 1)
        for entry, name in zip(entries, matrix.sums, strict=False):
            data = ffi.from_buffer("float[]", matrix.mean(name))
            entry.name, entry.data, entry.size = text(name), data, len(data)
            keep.append(data)
        params.imatrix = entries
        keep.append(entries)
    return keep
