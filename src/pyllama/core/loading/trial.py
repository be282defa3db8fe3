"""Loading a model or a projector in a process that may die, before it is loaded here.

model_rules.py and projector_rules.py refuse nearly every file that ends a process; what is left
shows only when libllama loads it and computes. The verdict is kept for as long as the files stay
the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyllama import _libllama
from pyllama.core import child
from pyllama.core.atomic import write_whole
from pyllama.errors import DecodeError, LibraryError, LlamaError, LoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyllama.core.model import Model

SECONDS = 120  # for any file, and
BYTES_PER_SECOND = 20e6  # for a large one: a slow network disk
LAST_WORDS = 10  # lines of what the process said before its end


@dataclass(frozen=True)
class Verdict:
    """What came of a trial.

    Attributes
    ----------
    message : str
        Why the file cannot be used; empty if it can.
    log : tuple of str
        The last that libllama said.
    final : bool
        Whether it lies in the files: a trial that ran out of memory or time says nothing of them.
    """

    message: str = ""
    log: tuple[str, ...] = ()
    final: bool = True


class _Job(NamedTuple):
    """What is tried: a model or, with its path, a projector beside it."""

    files: list[str]
    vocab_only: bool
    projector: str

    @property
    def paths(self) -> list[str]:
        """All files, the one that is tried first."""
        return [self.projector, *self.files] if self.projector else self.files


_verdicts: dict[str, Verdict] = {}


def require(
    verify: str, files: Sequence[str], *, vocab_only: bool = False, projector: str = ""
) -> None:
    """Raise if a trial is wanted, and what is tried cannot be loaded and compute.

    Parameters
    ----------
    verify
        "trial"; or "check", which is done elsewhere: nothing is tried.
    files
        All files of a model, in order.
    vocab_only
        Whether only the vocabulary is to be loaded.
    projector
        The path of the projector that is tried beside the model; empty to try the model itself.

    Raises
    ------
    LoadError
        If the process died, and of what; or if libllama refused the file there.
    FileNotFoundError, PermissionError
        As the file system says.
    ValueError
        If *verify* is another word, or the model has no files.

    Notes
    -----
    Verdicts are kept in memory and in ``$XDG_CACHE_HOME/pyllama/trials`` (``~/.cache``), by
    device, inode, size and time of change of each file, and by the build of libllama.
    """
    if verify not in ("check", "trial"):
        message = f"verify must be 'check' or 'trial', not {verify!r:.80}"
        raise ValueError(message)
    if verify == "check":
        return
    if not files:
        message = "verify='trial' needs a model that was given by its path, to load it from there"
        raise ValueError(message)
    job = _Job(list(files), vocab_only, projector)
    key = _key(job)
    verdict = _verdicts.get(key) or _read(key)
    if verdict is None:
        verdict = _try(job)
        if verdict.final and _key(job) == key:
            _write(key, verdict)
    if verdict.final:
        _verdicts[key] = verdict
    if verdict.message:
        raise LoadError(f"{job.paths[0]}: {verdict.message}", verdict.log)


def _key(job: _Job) -> str:
    """Name what a verdict is about: these files as they are, and this build."""
    build = Path(_libllama.__file__).stat()
    parts: list[Any] = [_libllama.__file__, build.st_size, build.st_mtime_ns]
    parts += [job.vocab_only, bool(job.projector)]
    for path in job.paths:
        file = Path(path).stat()
        parts.append([file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _folder() -> Path | None:
    """Return where verdicts are kept; None if others could put theirs there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(base) if base.startswith("/") else Path.home() / ".cache"
        folder = cache / "pyllama" / "trials"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):  # nowhere to write, or no home
        return None
    if os.name != "nt" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        return None
    return folder


def _read(key: str) -> Verdict | None:
    """Return the verdict that was kept; None if there is none, or a damaged one."""
    folder = _folder()
    if folder is None:
        return None
    try:
        kept = json.loads((folder / f"{key}.json").read_bytes())
        verdict = Verdict(kept["message"], tuple(kept["log"]))
        texts = [kept["key"], verdict.message, *verdict.log]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return verdict if kept["key"] == key and all(isinstance(text, str) for text in texts) else None


def _write(key: str, verdict: Verdict) -> None:
    folder = _folder()
    if folder is not None:
        text = json.dumps({"key": key, **asdict(verdict)})
        with suppress(OSError):  # it is only a cache
            write_whole(folder / f"{key}.json", [text.encode()])


def _try(job: _Job) -> Verdict:
    """Do the job in another process, and say what came of it."""
    import subprocess  # noqa: PLC0415 - 10 ms, and cached verdicts do not need it

    seconds = SECONDS + sum(Path(each).stat().st_size for each in job.paths) / BYTES_PER_SECOND
    try:
        done = subprocess.run(
            child.command("pyllama.core.loading.trial.serve", json.dumps(job)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(f"a trial load did not end within {seconds:.0f} s", final=False)
    said = done.stderr.decode("utf-8", "replace").splitlines()[-LAST_WORDS:]
    if done.returncode == 0:
        kept = json.loads(done.stdout)
        return Verdict(kept["message"], tuple(kept["log"]), kept["final"])
    if done.returncode > 0:
        ended = f"ended with exit code {done.returncode}"
    else:
        ended = f"was ended by signal {-done.returncode} ({signal.strsignal(-done.returncode)})"
    # SIGKILL is what the system does when memory runs out.
    final = done.returncode < 0 and done.returncode != -getattr(signal, "SIGKILL", 9)
    return Verdict(f"a process that loaded it on trial {ended}", tuple(said), final)


def serve(text: str) -> None:
    """Be that process: load, compute, and write what came of it to stdout."""
    child.leave_no_core()
    job = _Job(*json.loads(text))
    try:
        _do(job)
        verdict = Verdict()
    except LoadError as error:
        verdict = Verdict(str(error).removeprefix(f"{job.paths[0]}: "))
    except (LibraryError, DecodeError) as error:
        verdict = Verdict(f"it loads, but cannot be computed: {error}")
    except LlamaError:  # a plain refusal does no harm: the caller gets it too
        verdict = Verdict()
    except (OSError, MemoryError) as error:
        verdict = Verdict(f"a trial load failed: {error!r}", final=False)
    os.write(1, json.dumps(asdict(verdict)).encode())


def _do(job: _Job) -> None:
    """Load a model on the CPU and, unless only its vocabulary is wanted, compute."""
    from pyllama.core.model import Model  # noqa: PLC0415 - Model imports this file

    # Beside a projector the weights lie where they are mapped: nothing reads them.
    repack = not job.projector
    with Model(job.files, devices=(), vocab_only=job.vocab_only, use_extra_bufts=repack) as model:
        if job.projector:
            _encode(model, job.projector)
        elif not job.vocab_only:
            _decode(model)


def _decode(model: Model) -> None:
    """Decode two tokens."""
    from pyllama.core.batch import Batch  # noqa: PLC0415 - Model imports this file

    with model.context(n_ctx=256, n_batch=2, n_ubatch=2) as context:
        batch = Batch([0, min(1, model.n_vocab - 1)])
        if model.has_encoder or not context._has_memory:
            context.encode(batch)
        if model.has_decoder and context._has_memory:
            context.decode(batch)


def _encode(model: Model, path: str) -> None:
    """Encode a small image, and a second of silence, as far as a projector takes them."""
    from pyllama.core.media.bitmap import Bitmap  # noqa: PLC0415 - Projector imports this file
    from pyllama.core.media.projector import Projector  # noqa: PLC0415

    with Projector(model, path, use_gpu=False) as projector:
        media = []
        if projector.supports_vision:
            media.append(Bitmap(np.zeros((64, 64, 3), np.uint8)))
        if rate := projector.sample_rate:
            media.append(Bitmap.from_samples(np.zeros(rate), rate))
        for chunk in projector.tokenize(media):
            if chunk.kind != "text":
                projector.encode(chunk)
