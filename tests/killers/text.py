"""V, T, Q, B: vocabularies and text, metadata, devices, the library as a whole."""

from __future__ import annotations

import logging
import threading

import numpy as np

import pyllama
from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import GGMLType, LoadMode, Vocab
from pyllama.errors import StateError, TokenizeError, UnsupportedError

TABLE = Table()
row, case = TABLE.row, TABLE.case

OUTSIDE = (-1, 512, 2**31 - 1, 2**31, 10**9, -(2**64))


@case("V1", "tokens that are not in the vocabulary", IndexError)
def _(w: World) -> None:
    for token in OUTSIDE:
        raised_by(*(lambda f=f, token=token: f(token) for f in token_calls(w.vocab())))


def token_calls(v: Vocab) -> tuple:
    """Return every call that takes a token."""
    return (
        v.text, v.score, v.attr, v.piece, v.is_control, v.is_eog,
        lambda token: v.pieces([1, token]), lambda token: v.detokenize([1, token]),
        lambda token: v.detokenize_bytes([token]),
    )  # fmt: skip


@case("V1", "tokens that are no numbers", TypeError)
def _(w: World) -> None:
    for token in (None, "1", 1.0, [1]):
        raised_by(*(lambda f=f, token=token: f(token) for f in token_calls(w.vocab())))


@case("V2", "a model without a vocabulary", UnsupportedError)
def _(w: World) -> None:
    v = w.vocab("no_vocab")
    assert v.bos is None
    raised_by(
        lambda: v.tokenize("a"),
        lambda: v.tokenize(""),
        lambda: v.tokenize_batch(["a"]),
        lambda: v.offsets("a"),
        lambda: v.detokenize([1]),
        lambda: v.piece(1),
        v.piece_table,
        lambda: v.text(1),
        lambda: v.score(1),
        lambda: v.attr(1),
        lambda: v.is_control(1),
        lambda: v.attrs,
        lambda: v.scores,
    )


@case("V3", "what is no text", TypeError)
def _(w: World) -> None:
    v = w.vocab()
    raised_by(*(
        lambda f=f, text=text: f(text)
        for f in (v.tokenize, v.offsets, lambda text: v.tokenize_batch([text]))
        for text in (None, 5, ["a"], bytearray(b"a"))
    ))  # fmt: skip


@case("V3", "bytes that are not UTF-8, everywhere", None)
def _(w: World) -> None:
    rng = np.random.default_rng(0)
    texts = [b"\xf4\x90\x80\x80", b"\xff", b"\0", b"\xed\xa0\x80", b"\xc0\x80", b"a\x80b\xf8"]
    texts += [bytes(rng.integers(0, 256, 50, np.uint8)) for _ in range(200)]
    for kind in ("tiny", "bpe", "bert", "t5", "mamba"):
        v = w.vocab(kind)
        for text in (*texts, b"".join(texts)):
            try:
                v.detokenize(v.tokenize(text, parse_special=True))
            except TokenizeError:
                assert kind != "bpe"


row("V3", "half a surrogate pair", UnicodeEncodeError, lambda w: w.vocab("bpe").tokenize("\ud800"))


@case("V4", "no token for some bytes", TokenizeError)
def _(w: World) -> None:
    data = w.path().read_bytes()
    path = w.file(data.replace(b"<0x00>", b"<nul!>"))  # typed a byte still
    with pyllama.Model(path) as model:
        model.vocab.tokenize(b"\0")


@case("V5", "a million characters in a row", None)
def _(w: World) -> None:
    v = w.vocab("bpe")
    for text in ("a", " ", "1", "\n", "!", "中"):
        assert v.tokenize(text * 200_000).size
    assert w.vocab().tokenize("中" * 3000).size


@case("V5", "a long word on a small stack", None)
def _(w: World) -> None:
    v, size = w.vocab("bpe"), threading.stack_size(256 * 1024)
    try:
        at_once(*(lambda n=n: v.tokenize("a" * n) for n in (500, 1_700, 100_000)))
    finally:
        threading.stack_size(size)


@case("V6", "tokens that are no row", TypeError)
def _(w: World) -> None:
    v = w.vocab()
    raised_by(*(
        lambda f=f, ids=ids: f(ids)
        for f in (v.detokenize, v.pieces)
        for ids in (5, [[1]], [1.5], "ab", None)
    ))  # fmt: skip


@case("V7", "roles that the vocabulary does not have", None)
def _(w: World) -> None:
    v = w.vocab()
    assert v.fim_pre is None
    assert v.mask is None
    assert v.suppress_tokens.size == 0


row("T2", "metadata that is not there", KeyError, lambda w: w.model().metadata["no.such.key"])
row("T2", "metadata by what is no name", KeyError, lambda w: w.model().metadata[None])
row("T2", "a template by what is no name", TypeError, lambda w: w.model().chat_template(5))
row(
    "T2",
    "labels and templates that are not there",
    None,
    lambda w: [w.model().cls_labels, w.model().chat_template("x" * 10_000)],
)
row("Q3", "a load mode that does not exist", ValueError, lambda w: LoadMode("bogus"))
row(
    "Q4",
    "system_info in eight threads",
    None,
    lambda w: at_once(*[pyllama.system_info, pyllama.build_info, pyllama.devices] * 8),
)
row(
    "Q6",
    "NUMA once a model was loaded",
    StateError,
    lambda w: [w.model(), pyllama.numa("distribute")],
)
row(
    "Q6",
    "a NUMA strategy that does not exist",
    ValueError,
    lambda w: raised_by(lambda: pyllama.numa("bogus"), lambda: pyllama.numa(99)),
)
row("B1", "a device that is not there", IndexError, lambda w: pyllama.devices()[99])
row("B2", "a type that does not exist", ValueError, lambda w: GGMLType(999))


@case("Q5", "a log handler that raises, uses and closes what logs", None)
def _(w: World) -> None:
    model = w.open()

    class Handler(logging.Handler):
        n = 0

        def emit(self, record: logging.LogRecord) -> None:
            Handler.n += 1
            if Handler.n == 1:
                model.vocab.tokenize("hello")
                model.context(n_ctx=256).close()  # which logs
            elif Handler.n == 100:
                model.close()

    handler, logger = Handler(), logging.getLogger("pyllama")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        for _ in range(10):
            w.context(n_seq_max=3)
            pyllama.Model(w.path()).close()
        assert model.closed
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
