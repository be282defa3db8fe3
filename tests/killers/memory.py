"""M and O: cutting, copying and moving what a context holds; outputs that are not there."""

from __future__ import annotations

from killers.table import Table
from killers.world import World, compute, raised_by
from pyllama import Batch, Memory, generate
from pyllama.errors import InvalidBatchError, StateError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case

OUTSIDE = (-1, -(2**31), 2, 5, 255, 256, 2**31, 2**64)


def every_call(memory: Memory, seq: int) -> None:
    """Raise what all calls raise for a sequence that is not there."""
    raised_by(
        lambda: memory.remove(seq),
        lambda: memory.remove(seq, 1, 2),
        lambda: memory.copy(seq, 0),
        lambda: memory.copy(0, seq),
        lambda: memory.keep(seq),
        lambda: memory.shift(seq, delta=1),
        lambda: memory.divide(seq, divisor=2),
        lambda: memory.pos_min(seq),
        lambda: memory.pos_max(seq),
    )


for unified in (False, True):
    row(
        "M1",
        f"sequences that are not there, kv_unified={unified}",
        ValueError,
        lambda w, unified=unified: raised_by(
            *(
                lambda seq=seq: every_call(w.held(n_seq_max=2, kv_unified=unified).memory, seq)
                for seq in OUTSIDE
            )
        ),
    )
row(
    "M1",
    "a sequence of one that is not there",
    ValueError,
    lambda w: every_call(w.held().memory, 1),
)
row(
    "M1",
    "a sequence that is no number",
    TypeError,
    lambda w: raised_by(
        *(lambda seq=seq: every_call(w.held().memory, seq) for seq in (None, "0", 0.0, True))
    ),
)


@case("M2", "copying a part between buffers", UnsupportedError)
def _(w: World) -> None:
    memory = w.held(n_seq_max=2, n_ctx=512).memory
    raised_by(
        lambda: memory.copy(0, 1, 0, 2),
        lambda: memory.copy(0, 1, 1),
        lambda: memory.copy(0, 1, 2, 300),
    )


@case("M2", "copying a part within a buffer, again and again, and on itself", None)
def _(w: World) -> None:
    context = w.held(n_seq_max=2, kv_unified=True)
    memory = context.memory
    for _ in range(3):
        memory.copy(0, 1, 0, 2)
        memory.copy(0, 1)
        memory.copy(0, 0)
    memory.remove(1)
    assert memory.pos_max(1) is None
    context.decode(Batch([5, 6], seq_id=1))
    memory.copy(0, 1)
    context.decode(Batch([9], pos=3, seq_id=[[0, 1]]))


@case("M2", "copying a whole sequence onto one that holds another", None)
def _(w: World) -> None:
    context = w.held(n_seq_max=2, n_ctx=512)
    context.decode(Batch([1] * 50, seq_id=1))
    context.memory.copy(0, 1)
    assert context.memory.pos_max(1) == 2
    context.decode(Batch([1, 2], pos=[3, 3], seq_id=[0, 1]))


row("M3", "dividing by 0", ValueError, lambda w: w.held().memory.divide(0, divisor=0))
row(
    "M3",
    "dividing by 1 or less, or by no integer",
    ValueError,
    lambda w: raised_by(
        *(lambda n=n: w.held().memory.divide(0, divisor=n) for n in (1, -2, 2**31, -(2**64)))
    ),
)


@case("M3", "dividing by the largest number", None)
def _(w: World) -> None:
    context = w.held()
    context.memory.divide(0, divisor=2**31 - 1)
    assert context.memory.pos_max(0) == 0
    context.decode(Batch([1], pos=1))


@case("M4", "moving positions out of range", ValueError)
def _(w: World) -> None:
    memory = w.held().memory
    raised_by(
        lambda: memory.shift(0, delta=-1),
        lambda: memory.shift(0, 1, delta=-2),
        lambda: memory.shift(0, delta=2**31 - 1),
        lambda: memory.shift(0, delta=2**31 - 3),
        lambda: memory.shift(0, delta=2**31),
        lambda: memory.shift(0, delta=-(2**31)),
    )


@case("M4", "moving to the last positions and back", None)
def _(w: World) -> None:
    context = w.held(n_seq_max=2, n_ctx=512)
    context.memory.shift(0, delta=2**31 - 4)
    context.decode(Batch([1], seq_id=1))
    try:
        context.decode(Batch([1], pos=[2**31 - 1]))
    except InvalidBatchError:
        context.memory.shift(0, delta=-(2**31) + 4)
        context.decode(Batch([1], pos=3))
    else:
        raise AssertionError


row(
    "M4",
    "moving where positions have several sections",
    UnsupportedError,
    lambda w: w.held(kind="m_rope").memory.shift(0, delta=1),
)
row(
    "M4",
    "ranges that are none",
    ValueError,
    lambda w: raised_by(
        lambda: w.held().memory.remove(0, 3, 1),
        lambda: w.held().memory.remove(0, -1),
        lambda: w.held().memory.remove(0, 0, -1),
        lambda: w.held().memory.remove(0, 2**31),
        lambda: w.held().memory.shift(0, 5, 3, delta=1),
    ),
)

for kind in ("mamba", "jamba"):

    @case("M5", f"parts of the memory of {kind}", UnsupportedError)
    def _(w: World, kind: str = kind) -> None:
        context = w.held(kind=kind, n_seq_max=2, n_ctx=512)
        memory = context.memory
        try:
            raised_by(
                lambda: memory.remove(0, 1),
                lambda: memory.remove(0, 0, 2),
                lambda: memory.remove(0, 1, 2),
                lambda: memory.copy(0, 1, 0, 2),
                lambda: memory.shift(0, delta=1),
                lambda: memory.divide(0, divisor=2),
                lambda: list(generate.tokens(context, [1, 2], n_keep=1)),
            )
        finally:
            assert memory.pos_max(0) == 2

    row(
        "M5",
        f"sequences that {kind} does not have",
        ValueError,
        lambda w, kind=kind: every_call(w.held(kind=kind).memory, 1),
    )

    @case("M5", f"whole sequences of {kind}", None)
    def _(w: World, kind: str = kind) -> None:
        context = w.held(kind=kind, n_seq_max=2, n_ctx=512)
        context.memory.copy(0, 1)
        context.decode(Batch([1, 2], pos=[3, 3], seq_id=[0, 1]))
        context.memory.keep(1)
        context.memory.remove(1)
        assert context.memory.pos_max(1) is None
        compute(context)


@case("M7", "clearing with and without the data, in the middle of everything", None)
def _(w: World) -> None:
    context = w.held(n_seq_max=2, n_ctx=512)
    for data in (True, False):
        context.memory.copy(0, 1)
        context.memory.shift(0, delta=5)
        context.memory.clear(data=data)
        context.decode(Batch([1, 2, 3]))


@case("M7", "the memory of an encoder alone", UnsupportedError)
def _(w: World) -> None:
    memory = w.context("bert").memory
    assert memory.pos_max(0) is None
    assert not memory.can_shift
    raised_by(
        memory.clear,
        lambda: memory.remove(0),
        lambda: memory.keep(0),
        lambda: memory.shift(0, delta=1),
        lambda: memory.divide(0, divisor=2),
    )


@case("O1", "rows that are not there", IndexError)
def _(w: World) -> None:
    context = w.context()
    context.decode(Batch([1, 2, 3], output=[True, False, True]))
    raised_by(*(lambda row=row: context.logits_view(row) for row in (2, -3, 2**31, -(2**64))))


@case("O1", "a row that is no number", TypeError)
def _(w: World) -> None:
    context = w.held()
    raised_by(*(lambda row=row: context.logits_view(row) for row in ("0", 0.5, [0])))


@case("O2", "outputs that nothing made", StateError)
def _(w: World) -> None:
    context, silent = w.context(), w.context(embeddings=False)
    silent.decode(Batch([1], output="none"))
    pooled = w.context(embeddings=True, pooling_type="mean")
    raised_by(
        context.logits,
        context.embeddings,
        context.embedding,
        silent.logits,
        lambda: w.held().embeddings(),
        pooled.embedding,
        pooled.embeddings,
        lambda: w.held(embeddings=True).embedding(),
    )


@case("O2", "logits of a model that makes none", UnsupportedError)
def _(w: World) -> None:
    context = w.context("bert", embeddings=True)
    context.decode(Batch([1, 2, 3]))
    context.logits()


@case("O4", "the pooled embedding of a sequence that was not there", IndexError)
def _(w: World) -> None:
    context = w.context(embeddings=True, pooling_type="last", n_seq_max=4, n_ctx=1024)
    context.decode(Batch([1, 2], pos=0, seq_id=[0, 2]))
    assert context.embedding(2).shape == (64,)
    raised_by(*(lambda seq=seq: context.embedding(seq) for seq in (1, 3, -1, 256, 2**31 - 1)))


@case("O4", "the pooled embedding of what is no sequence", TypeError)
def _(w: World) -> None:
    context = w.held(embeddings=True, pooling_type="mean")
    raised_by(*(lambda seq=seq: context.embedding(seq) for seq in ("0", 0.5, None, True)))
