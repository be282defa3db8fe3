"""Fuzz the loading and running of model files: mutants of small random models, each in a process.

    python tools/fuzz/gguf.py --count 5000 --seed 1 --save crashes

This process never computes, so that its forks may; one that ends by a signal, runs too long, or
raises what the library does not declare is a finding, saved with what was changed in it. A seed
and an index make the same mutant again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["GGML_NO_BACKTRACE"] = "1"  # else ggml starts a debugger on each abort
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import random_model

import pyllama
from fuzz.mutate import File, mutate, parse
from pyllama.core import model_rules
from pyllama.errors import LibraryError, LlamaError, LoadError

TEXTS = ("Hello world", "", " 3.14\n\n", "\u4e2d\u6587 \u00e9\u0300\U0001f600", "<s>a</s>[CLS]")
MEMORY, CPU_SECONDS, SECONDS = 4 << 30, 20, 60
DECLARED = (LlamaError, ValueError, MemoryError)
# What a child's exit says: a LoadError is a refusal, unless it came of an assertion that libllama
# itself caught; an assertion that only the guard of each call caught is a finding.
RAN, REFUSED, RAISED, ASSERTED, ABORTED, UNDECLARED = range(6)
OUTCOMES = ("ran", "refused", "raised", "asserted", "ABORTED", "UNDECLARED")


def write_seeds(folder: Path) -> dict[str, File]:
    """Write a small model of each kind, and return them taken apart."""
    small = {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_ff": 64}
    llama = {**small, "n_head_kv": 1, "n_vocab": 400}
    paths = {
        "spm": random_model.write_llama(folder / "spm.gguf", **llama),
        "bpe": random_model.write_llama(folder / "bpe.gguf", vocab="bpe", type="q8_0", **llama),
        "moe": random_model.write_llama(
            folder / "moe.gguf", n_expert=4, n_expert_used=2, type="f16", **llama
        ),
        "bert": random_model.write_bert(folder / "bert.gguf", **small),
        "t5": random_model.write_t5(folder / "t5.gguf", **small),
        "mamba": random_model.write_mamba(folder / "mamba.gguf", n_embd=32, n_vocab=300),
        "jamba": random_model.write_jamba(folder / "jamba.gguf", n_vocab=400, **small),
    }
    return {name: parse(path) for name, path in paths.items()}


def use(path: Path) -> None:
    """Do with a model what its file can make go wrong."""
    with pyllama.Model(path) as model:
        tokens = _use_vocab(model.vocab)
        known = [t for t in [*tokens[:6], 0, 1, 2] if t < model.n_vocab]
        for embeddings in (False, True):
            with model.context(
                n_ctx=64, n_batch=32, n_threads=1, n_threads_batch=1, embeddings=embeddings
            ) as context:
                _compute(model, context, known)


def _compute(model: pyllama.Model, context: pyllama.Context, tokens: list[int]) -> None:
    """Encode, decode and decode again, as the kind of model has it."""
    batch = pyllama.Batch(tokens)
    if model.has_encoder:
        context.encode(batch)
    if not model.has_decoder:
        return
    start = model.decoder_start_token
    if start is not None and model.has_encoder:
        batch = pyllama.Batch([start])
    context.decode(batch)
    with contextlib.suppress(pyllama.errors.UnsupportedError):  # it may compute no logits
        token = int(context.logits()[-1].argmax())
        context.decode(pyllama.Batch([token], pos=len(batch)))


def _use_vocab(vocab: pyllama.Vocab) -> list[int]:
    """Tokenize and go back; what a vocabulary cannot do by its own word is no finding."""
    tokens: list[int] = []
    for special in (False, True):
        for text in TEXTS:
            with contextlib.suppress(pyllama.errors.TokenizeError, pyllama.errors.UnsupportedError):
                tokens = vocab.tokenize(text, add_special=special, parse_special=special).tolist()
                vocab.detokenize(tokens)
    with contextlib.suppress(pyllama.errors.UnsupportedError):
        vocab.piece_table(special=True)
    return tokens


def run(path: Path, report: Path) -> int:
    """Use a model in a forked process, and return how that ended; below 0 it is the signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(path, report)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _child(path: Path, report: Path) -> None:
    """Never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = RAN
    try:
        use(path)
    except BaseException as error:  # noqa: BLE001 - all that comes is counted
        os.write(2, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        code = _outcome(error)
    os._exit(code)


def _outcome(error: BaseException) -> int:
    if isinstance(error, LibraryError):
        return ABORTED
    if isinstance(error, LoadError):
        return ASSERTED if re.search(r"\.(?:cpp|c|h):\d+: ", str(error)) else REFUSED
    return RAISED if isinstance(error, DECLARED) else UNDECLARED


def site(code: int, report: Path) -> str:
    """Return where a finding happened, as far as it said so itself."""
    text = report.read_text(errors="replace")
    place = re.findall(r"[\w./-]+\.(?:cpp|c|h):\d+", text)
    how = signal.Signals(-code).name if code < 0 else OUTCOMES[code]
    what = place[-1].rpartition("/")[2] if place else " ".join(text.split())[-160:]
    return f"{how} {what}".strip()


def fuzz(count: int, seed: int, save: Path | None) -> tuple[Counter[str], Counter[str]]:
    """Run *count* mutants, and return how often each outcome and each finding came."""
    outcomes: Counter[str] = Counter()
    sites: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = write_seeds(folder)
        path, report = folder / "mutant.gguf", folder / "report"
        for index in range(count):
            rng = random.Random(f"{seed}:{index}")
            kind = rng.choice([*seeds])
            data, notes = mutate(seeds[kind], rng)
            path.write_bytes(data)
            code = run(path, report)
            outcomes[OUTCOMES[code] if code >= 0 else signal.Signals(-code).name] += 1
            if RAN <= code < ASSERTED:
                continue
            where = site(code, report)
            sites[where] += 1
            if sites[where] <= 3 and code != ASSERTED:
                print(f"{index}: {kind}: {'; '.join(notes)}\n    {where}", flush=True)
                if save is not None:
                    (save / f"{seed}-{index}-{kind}.gguf").write_bytes(data)
    return outcomes, sites


def main() -> int:
    """Parse the command line, fuzz, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="a folder for the first files of each finding")
    parser.add_argument("--no-rules", action="store_true", help="check the structure only")
    options = parser.parse_args()
    if options.save is not None:
        options.save.mkdir(parents=True, exist_ok=True)
    if options.no_rules:
        model_rules.RULES = ()
    since = time.perf_counter()
    outcomes, sites = fuzz(options.count, options.seed, options.save)
    rate = options.count / (time.perf_counter() - since)
    print(f"{options.count} mutants, {rate:.0f} a second:", dict(outcomes))
    for where, n in sites.most_common():
        print(f"{n:6} {where}")
    return 1 if any(name not in OUTCOMES[:ABORTED] for name in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
