"""ST: saved states, whole and of one sequence."""

from __future__ import annotations

from contextlib import suppress

from random_model import write_llama

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch, Model, State
from pyllama.errors import StateError

TABLE = Table()
row, case = TABLE.row, TABLE.case


def forged(state: State, data: bytes) -> State:
    """Return a state that says it fits, with other data."""
    return State(data, fingerprint=state.fingerprint, n_past=state.n_past, seq=state.seq)


for what, seq in (("whole", None), ("of a sequence", 0)):

    @case("ST1", f"data cut short anywhere, {what}", StateError)
    def _(w: World, seq: int | None = seq) -> None:
        context = w.held()
        state = context.state(seq)
        cuts = range(1, state.n_bytes, max(1, state.n_bytes // 300))
        raised_by(
            *(lambda cut=cut: context.restore(forged(state, state.data[:cut])) for cut in cuts)
        )

    @case("ST6", f"every byte of the front changed, {what}", None)
    def _(w: World, seq: int | None = seq) -> None:
        context = w.held()
        state = context.state(seq)
        for at in range(min(200, state.n_bytes)):
            data = bytearray(state.data)
            data[at] ^= 0xFF
            with suppress(StateError):
                context.restore(forged(state, bytes(data)))
            context.memory.clear()
            context.decode(Batch([1, 2, 3]))


@case("ST2", "a refusal, and what was there before it", StateError)
def _(w: World) -> None:
    context = w.held()
    state = context.state()
    try:
        context.restore(State(state.data, fingerprint={"arch": "other"}, n_past=state.n_past))
    finally:
        context.decode(Batch([4], pos=3))


row("ST3", "no data", ValueError, lambda w: State(b"", fingerprint={}, n_past={}))
row("ST3", "data that is no buffer", TypeError, lambda w: State("x", fingerprint={}, n_past={}))


@case("ST4", "a state of other weights, sizes, types or buffers", StateError)
def _(w: World) -> None:
    context, state = w.context(), w.held().state()
    seed = Model(write_llama(w.file(b""), seed=1))
    try:
        other_weights = w.held(kind=seed).state()
    finally:
        seed.close()
    raised_by(
        lambda: context.restore(other_weights),
        lambda: context.restore(w.held(kind="head_32").state()),
        lambda: context.restore(w.held(kind="head_64").state()),
        lambda: w.context(type_k="f32").restore(state),
        lambda: w.context(flash_attn_type="disabled").restore(state),
        lambda: w.context(n_seq_max=2).restore(state),
    )


@case("ST5", "a length of four gigabytes", StateError)
def _(w: World) -> None:
    context = w.held()
    state = context.state()
    context.restore(forged(state, b"\xff" * 4 + bytes(state.data[4:])))


@case("ST7", "sequences out of range", ValueError)
def _(w: World) -> None:
    context = w.held(n_seq_max=2)
    state = context.state(0)
    wild = (-1, 2, 256, 2**31, 2**64)
    raised_by(
        *(lambda seq=seq: context.restore(state, seq) for seq in wild),
        *(lambda seq=seq: context.state(seq) for seq in wild),
    )


@case("ST9", "files that are no states", StateError)
def _(w: World) -> None:
    whole = w.held().state().to_bytes()
    raised_by(
        *(lambda cut=cut: State.load(w.file(whole[:cut])) for cut in (0, 8, 60, len(whole) - 1)),
        lambda: State.load(w.file(whole + b"x")),
        lambda: State.load(w.path()),
        lambda: State.load("/dev/zero"),
    )


@case("ST9", "saving to a full disk", OSError)
def _(w: World) -> None:
    w.held().state().save("/dev/full")


row("ST9", "a file that is not there", FileNotFoundError, lambda w: State.load("none"))
row("ST9", "a directory", IsADirectoryError, lambda w: State.load(w.directory))
