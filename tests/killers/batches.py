"""D: batches, and the decoding of what does not fit."""

from __future__ import annotations

import gc

import numpy as np

from killers.table import Table
from killers.world import World, raised_by
from pyllama import Batch, generate
from pyllama.errors import (
    AbortedError,
    ContextLengthError,
    InvalidBatchError,
    NoSlotError,
    StateError,
    UnsupportedError,
)

TABLE = Table()
row, case = TABLE.row, TABLE.case


def bad(number: str, what: str, *tokens: int, **options: object) -> None:
    """Add a batch that a context with two sequences and three tokens must refuse."""

    def decode(w: World) -> None:
        context = w.held(n_seq_max=2, n_ctx=512)
        try:
            context.decode(Batch(tokens, **options))
        finally:
            assert context.memory.pos_max(0) == 2
            assert context.memory.pos_max(1) is None

    row(number, what, InvalidBatchError, decode)


bad("D1", "no tokens")
bad("D1", "token -1", -1, pos=3)
bad("D1", "token n_vocab", 512, pos=3)
bad("D1", "token 2**31-1", 1, 2**31 - 1, pos=3)
bad("D1", "sequence n_seq_max", 1, seq_id=2)
bad("D1", "sequence -1", 1, seq_id=-1)
bad("D1", "sequence 256", 1, seq_id=256)
bad("D1", "sequence 2**31-1", 1, seq_id=2**31 - 1)
bad("D1", "the second sequence of a token", 1, pos=3, seq_id=[[0, 5]])
bad("D3", "a token of no sequence", 1, 2, pos=3, seq_id=[[0], []])
bad("D3", "a token that two sequences with buffers of their own share", 1, pos=3, seq_id=[[0, 1]])
bad("D7", "a gap", 1, pos=4)
bad("D7", "a gap inside", 1, 2, pos=[3, 5])
bad("D7", "going back", 1, 2, pos=[3, 2])
bad("D7", "equal positions", 1, 2, pos=[3, 3])
bad("D7", "a position that is taken", 1, pos=2)
bad("D7", "a position of -1", 1, pos=[-1])
bad("D7", "a position of -2**31", 1, pos=[-(2**31)])
bad("D7", "the last position there is", 1, seq_id=1, pos=[2**31 - 1])
bad("D7", "the same sequence twice", 1, pos=3, seq_id=[[0, 0]])


@case("D2", "no positions", TypeError)
def _(w: World) -> None:
    context = w.context()
    raised_by(
        lambda: context.decode(Batch([1], pos=None)),
        lambda: context.decode(Batch([1], pos=None, seq_id=10**8)),
        lambda: context.decode(Batch([1], pos="0")),
        lambda: context.decode(Batch([1], pos=[0.0])),
    )


@case("D2", "200 wrong sequences, and then a right one", None)
def _(w: World) -> None:
    context = w.held()
    for seq in range(1, 200):
        try:
            context.decode(Batch([1], pos=3, seq_id=seq * 1000))
        except InvalidBatchError:
            continue
        raise AssertionError(seq)
    context.decode(Batch([1], pos=3))


@case("D3", "neither tokens nor embeddings", TypeError)
def _(w: World) -> None:
    raised_by(
        Batch,
        lambda: Batch("ab"),
        lambda: Batch([1.5]),
        lambda: Batch([None]),
        lambda: Batch([True]),
        lambda: Batch([1], seq_id=None),
        lambda: Batch([1], seq_id=0.5),
        lambda: Batch([1], seq_id="0"),
        lambda: Batch([1], output=[1]),
        lambda: Batch([1], output=None),
    )


@case("D3", "arrays that do not go together", ValueError)
def _(w: World) -> None:
    raised_by(
        lambda: Batch([[1, 2]]),
        lambda: Batch([2**31]),
        lambda: Batch(np.array([2**63], np.uint64)),
        lambda: Batch([1, 2], pos=[0]),
        lambda: Batch([1, 2], pos=2**31 - 1),
        lambda: Batch([1, 2], pos=2**40),
        lambda: Batch([1, 2], seq_id=[0]),
        lambda: Batch([1, 2], seq_id=[[0], 0]),
        lambda: Batch([1], seq_id=2**40),
        lambda: Batch([1, 2], output=[True]),
        lambda: Batch([1], output="some"),
    )


@case("D3", "writing how many sequences a token has", ValueError)
def _(w: World) -> None:
    batch = Batch([1], pos=3)

    def write() -> None:
        batch.n_seq_id[0] = 9

    def unlock() -> None:
        batch.n_seq_id.flags.writeable = True

    raised_by(write, unlock, lambda: batch.token.resize(100))


@case("D3", "wrong values written into a batch that was right", InvalidBatchError)
def _(w: World) -> None:
    context = w.held()

    def wrong(name: str, value: int) -> None:
        batch = Batch([1, 2], pos=3)
        getattr(batch, name)[-1] = value
        context.decode(batch)

    raised_by(
        lambda: wrong("token", 10**9),
        lambda: wrong("token", -1),
        lambda: wrong("pos", 2**31 - 1),
        lambda: wrong("pos", -1),
        lambda: wrong("seq_id", 2**31 - 1),
        lambda: wrong("seq_id", -(2**31)),
    )


@case("D3", "another array in the place of a batch's own", AttributeError)
def _(w: World) -> None:
    batch = Batch([1])
    raised_by(
        *(
            lambda name=name: setattr(batch, name, np.zeros(1, np.int32))
            for name in ("token", "pos", "seq_id", "n_seq_id", "output", "embd", "n_tokens")
        )
    )


@case("D3", "strided, reversed, byte-swapped and empty arrays, changed afterwards", None)
def _(w: World) -> None:
    context = w.context(n_seq_max=2, n_ctx=512)
    tokens = np.arange(20, dtype=">i8")[::-2]
    seqs = np.zeros((10, 4), np.uint8)[:, 1]
    flags = np.ones(30, np.bool_)[::3]
    batch = Batch(tokens, seq_id=seqs, output=flags)
    tokens[:], seqs[:], flags[:] = 10**9, 200, False
    del tokens, seqs, flags
    gc.collect()
    batch.token.shape, batch.pos.dtype = (5, 2), np.uint16
    context.decode(batch)
    assert context.logits().shape == (10, 512)


@case("D3", "a token of all 256 sequences", None)
def _(w: World) -> None:
    context = w.context(n_seq_max=256, kv_unified=True)
    context.decode(Batch([1, 2], seq_id=[list(range(256)), list(range(255, -1, -1))]))
    assert context.memory.pos_max(255) == 1


@case("D3", "a token of 100,000 sequences", InvalidBatchError)
def _(w: World) -> None:
    context = w.context(n_seq_max=2, kv_unified=True)
    raised_by(
        lambda: context.decode(Batch([1], seq_id=[[0] * 100_000])),
        lambda: context.decode(Batch([1], seq_id=[range(100_000)])),
    )


row(
    "D4",
    "more tokens than n_batch",
    InvalidBatchError,
    lambda w: w.context(n_batch=8).decode(Batch([1] * 9)),
)
row(
    "D5",
    "more tokens than n_ubatch for an encoder",
    InvalidBatchError,
    lambda w: w.context("bert", n_ubatch=8).encode(Batch([1] * 9)),
)
row(
    "D5",
    "more tokens than n_ubatch for an encoder, decoded",
    InvalidBatchError,
    lambda w: w.context("bert", n_ubatch=8).decode(Batch([1] * 9)),
)
row(
    "D5",
    "more tokens than n_ubatch for the encoder of a pair",
    InvalidBatchError,
    lambda w: w.context("t5", n_ubatch=8).encode(Batch([1] * 9)),
)
row(
    "D5",
    "more tokens than n_ubatch for a diffusion model",
    InvalidBatchError,
    lambda w: w.context("diffusion", n_ubatch=8).decode(Batch([1] * 9)),
)
row(
    "D6",
    "more outputs than n_outputs_max",
    InvalidBatchError,
    lambda w: w.context(n_outputs_max=2).decode(Batch([1, 2, 3], output="all")),
)
row(
    "D6",
    "more outputs because of embeddings",
    InvalidBatchError,
    lambda w: w.context(n_outputs_max=2, embeddings=True).decode(Batch([1, 2, 3])),
)
row(
    "D6",
    "more outputs than a diffusion model makes",
    InvalidBatchError,
    lambda w: w.context("diffusion", n_outputs_max=2).decode(Batch([1, 2, 3])),
)


@case("D8", "a full memory", NoSlotError)
def _(w: World) -> None:
    context = w.context()
    context.decode(Batch([1] * 256))
    try:
        context.decode(Batch([1], pos=256))
    finally:
        assert context.memory.pos_max(0) == 255


row(
    "D8",
    "a prompt that is longer than the context",
    ContextLengthError,
    lambda w: list(generate.tokens(w.context(), [1] * 257)),
)
row("D9", "encoding on a decoder", UnsupportedError, lambda w: w.context().encode(Batch([1])))
row(
    "D9",
    "encoding on a recurrent model",
    UnsupportedError,
    lambda w: w.context("mamba").encode(Batch([1])),
)
row(
    "D10",
    "more tokens than learned positions",
    InvalidBatchError,
    lambda w: w.context("bert").decode(Batch([1] * 65)),
)
row(
    "D10",
    "a position behind the learned ones",
    InvalidBatchError,
    lambda w: w.context("bert").encode(Batch([1], pos=64)),
)
row("D11", "decoding before encoding", StateError, lambda w: w.context("t5").decode(Batch([0])))


@case("D11", "decoding other sequences than were encoded", StateError)
def _(w: World) -> None:
    context = w.context("t5", n_seq_max=2, kv_unified=True)
    context.encode(Batch([1, 2, 3]))
    raised_by(
        lambda: context.decode(Batch([0], seq_id=1)),
        lambda: context.decode(Batch([0, 0], pos=0, seq_id=[0, 1])),
        lambda: context.decode(Batch([0], seq_id=[[0, 1]])),
    )


@case("D11", "decoding after a warm-up", StateError)
def _(w: World) -> None:
    context = w.context("t5")
    context.warmup()
    context.decode(Batch([0]))


@case("D12", "embeddings of a wrong width or number of positions", InvalidBatchError)
def _(w: World) -> None:
    context = w.context()
    raised_by(
        lambda: context.decode(Batch(embd=np.zeros((2, 63)))),
        lambda: context.decode(Batch(embd=np.zeros((2, 6400)))),
        lambda: context.decode(Batch(embd=np.zeros((0, 64)))),
        lambda: context.decode(Batch(embd=np.zeros((2, 64)), pos=np.zeros((4, 2), int))),
        lambda: w.context("m_rope").decode(Batch(embd=np.zeros((2, 64)))),
    )


@case("D12", "embeddings that are no numbers", ValueError)
def _(w: World) -> None:
    raised_by(
        lambda: Batch(embd=np.full((1, 64), np.nan)),
        lambda: Batch(embd=np.full((1, 64), np.inf)),
        lambda: Batch(embd=[["a"]]),
        lambda: Batch(embd=[1.0]),
        lambda: Batch(embd=np.zeros((2, 0))),
    )


@case("D12", "NaN written into embeddings", InvalidBatchError)
def _(w: World) -> None:
    context, batch = w.held(), Batch(embd=np.zeros((2, 64)), pos=3)
    batch.embd[1, 5] = np.nan
    context.decode(batch)


@case("D13", "one batch for every sequence in turn", None)
def _(w: World) -> None:
    context, batch = w.context(n_seq_max=4, n_ctx=1024), Batch([1, 2])
    for seq in range(4):
        batch.seq_id[:] = seq
        context.decode(batch)
        assert context.memory.pos_max(seq) == 1


@case("D14", "numbers of tokens that no array has", ValueError)
def _(w: World) -> None:
    raised_by(
        lambda: Batch(np.zeros((2, 2), int)),
        lambda: Batch(np.zeros((), int)),
        lambda: Batch(5),
        lambda: Batch(embd=np.zeros(5)),
    )


@case("D16", "an abort in the middle takes everything back", AbortedError)
def _(w: World) -> None:
    context = w.held(n_seq_max=2, n_ctx=512)
    context.abort()
    try:
        context.decode(Batch([1, 2, 3], pos=[3, 0, 1], seq_id=[0, 1, 1]))
    finally:
        assert context.memory.pos_max(0) == 2
        assert context.memory.pos_max(1) is None
        context.decode(Batch([1, 2, 3], pos=[3, 0, 1], seq_id=[0, 1, 1]))


@case("D16", "an abort empties the sequences of a recurrent memory", AbortedError)
def _(w: World) -> None:
    context = w.context("mamba")
    context.decode(Batch([1, 2, 3]))
    context.abort()
    try:
        context.decode(Batch([1], pos=3))
    finally:
        assert context.memory.pos_max(0) is None


@case("D7", "positions of images: equal, jumping, but never back", InvalidBatchError)
def _(w: World) -> None:
    context, embd = w.context("m_rope", n_seq_max=2, kv_unified=True), np.ones((2, 64))
    context.decode(Batch([1, 2]))
    context.decode(Batch(embd=embd, pos=np.full((4, 2), 7)))
    context.decode(Batch([1], pos=20))
    raised_by(
        lambda: context.decode(Batch([1], pos=20)),
        lambda: context.decode(Batch(embd=embd, pos=np.full((4, 2), 6))),
        lambda: context.decode(Batch(embd=embd, pos=[[30, 30], [30, -5], [0, 0], [0, 0]])),
        lambda: context.decode(Batch(embd=embd, pos=[[30, 30], [2**31 - 1, 0], [0, 0], [0, 0]])),
    )
