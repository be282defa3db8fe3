"""The targets that are saved states: the container, and what libllama wrote inside it."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from typing import NamedTuple

import pyllama
from fuzz import grow, seeds
from fuzz.bench import ONE_THREAD, RAN, REFUSED, Bench
from fuzz.bits import change_bytes
from pyllama import Batch, State
from pyllama.errors import StateError

HEAD, SUM = 20, 32  # bytes of the container before its checksum, and of that
# What is saved and restored: the writer of the model, options of the context, the sequence (None
# is all of them), whether only the part that cannot be cut.
KINDS = {
    "whole": (seeds.write_spm, {}, None, False),
    "one": (seeds.write_spm, {}, 1, False),
    "streams": (seeds.write_spm, {"kv_unified": False}, None, False),
    "q8_0": (seeds.write_wide, {"type_k": "q8_0", "type_v": "q8_0"}, None, False),
    "window": (grow.write_window, {}, 0, True),
    "recurrent": (seeds.write_mamba, {}, None, False),
    "recurrent one": (seeds.write_mamba, {}, 1, False),
    "hybrid": (seeds.write_jamba, {}, None, False),
    "hybrid part": (seeds.write_jamba, {}, 0, True),
}


class Kind(NamedTuple):
    """A context, and a state that it made."""

    context: pyllama.Context
    state: State
    container: bytes


def _kind(bench: Bench, name: str) -> Kind:
    def make() -> Kind:
        write, options, seq, partial = KINDS[name]
        model = bench.model(f"seed-{write.__name__}", write)
        context = model.context(n_ctx=256, n_seq_max=2, **{**ONE_THREAD, **options})
        _fill(context)
        state = context.state(seq, tokens=[1, 2, 3], partial=partial)
        return Kind(context, state, state.to_bytes())

    return bench.keep(f"state {name}", make)


def _fill(context: pyllama.Context) -> None:
    context.memory.clear()
    for seq in (0, 1):
        context.decode(Batch([1, 20, 290 - seq, 7], seq_id=seq))


def make_container(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change the bytes of a saved file; half of them get a checksum that fits."""
    name = rng.choice([*KINDS])
    container = _kind(bench, name).container
    how = rng.random()
    if how < 0.25:  # what the description says
        data, notes = _change_description(container, rng)
    else:
        data, notes = change_bytes(container, rng)
    if how < 0.6 and len(data) >= HEAD + SUM:
        head = data[:12] + struct.pack("<Q", len(data))
        body = data[HEAD + SUM :]
        data = head + hashlib.sha256(head + body).digest() + body
        notes += ", sealed again"
    return _pack(name, data), f"{name}: {notes}"


def _change_description(container: bytes, rng: random.Random) -> tuple[bytes, str]:
    n_about, n_tokens, n_data = struct.unpack_from("<QQQ", container, HEAD + SUM)
    start = HEAD + SUM + 24
    about = json.loads(container[start : start + n_about])
    key = rng.choice([*about])
    odd = (None, True, -1, 0, 1, 2, 99, 2**31, 2**64, 1e300, "", "x", [], {})
    about[key] = rng.choice((*odd, [[0, 4]], [[0, 5]], [[1, 2**31]], [[0, 3], [1, 4]]))
    text = json.dumps(about).encode()
    rest = container[start + n_about :]
    lengths = struct.pack("<QQQ", len(text), n_tokens, n_data)
    return container[: HEAD + SUM] + lengths + text + rest, f"{key} = {about[key]!r}"


def use_container(bench: Bench, data: bytes) -> str:
    """Read it, restore it, and decode."""
    name, data = _unpack(data)
    kind = _kind(bench, name)
    return REFUSED if data == kind.container else _restore(bench, name, State.from_bytes(data))


def make_blob(bench: Bench, rng: random.Random) -> tuple[bytes, str]:
    """Change what libllama itself wrote."""
    name = rng.choice([*KINDS])
    data, notes = change_bytes(bytes(_kind(bench, name).state.data), rng)
    return _pack(name, data), f"{name}: {notes}"


def use_blob(bench: Bench, data: bytes) -> str:
    """Restore it as a state that says it fits."""
    name, data = _unpack(data)
    old = _kind(bench, name).state
    state = State(
        data, fingerprint=old.fingerprint, n_past=old.n_past, seq=old.seq, partial=old.partial
    )
    return _restore(bench, name, state)


def _restore(bench: Bench, name: str, state: State) -> str:
    """Restore, decode, save again; the context must work also after a refusal."""
    context = _kind(bench, name).context
    try:
        context.restore(state)
        outcome = RAN
    except (StateError, ValueError):
        outcome = REFUSED
    try:
        for seq in (0, 1):
            last = context.memory.pos_max(seq)
            if last is None or last < 200:
                context.decode(Batch([5], pos=0 if last is None else last + 1, seq_id=seq))
        context.state()
    finally:
        _fill(context)
    return outcome


def _pack(name: str, data: bytes) -> bytes:
    return name.encode() + b"\0" + data


def _unpack(data: bytes) -> tuple[str, bytes]:
    name, _, rest = data.partition(b"\0")
    return name.decode(), rest
