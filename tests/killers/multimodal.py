"""P: projectors, images and sounds, against what ends the process inside libmtmd."""

from __future__ import annotations

import media
import numpy as np

from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import Batch, Bitmap, Chunks, Projector
from pyllama.errors import (
    BusyError,
    ClosedError,
    InvalidBatchError,
    LoadError,
    NoSlotError,
    StateError,
    UnsupportedError,
)

TABLE = Table()
row, case = TABLE.row, TABLE.case


def projector(world: World, kind: str = "mmproj", model: str = "tiny") -> Projector:
    """Return a projector for a shared model; the case closes it."""
    return Projector(world.model(model), world.path(kind), n_threads=1)


def chunks(each: Projector) -> Chunks:
    """Return a prompt with an image in it."""
    return each.tokenize("see <__media__>!", [Bitmap(media.noise())])


# P1: the file.
row("P1", "a text model as projector", LoadError, lambda w: Projector(w.model(), w.path()))
row("P1", "an empty file", LoadError, lambda w: Projector(w.model(), w.file(b"")))
row(
    "P1",
    "half a file",
    LoadError,
    lambda w: Projector(w.model(), w.file(w.path("mmproj").read_bytes()[:9000])),
)
row("P1", "of another width", LoadError, lambda w: projector(w, model="head_64"))
row("P1", "capabilities of a text model", LoadError, lambda w: Projector.capabilities(w.path()))
row("P1", "no model", TypeError, lambda w: Projector(None, w.path("mmproj")))  # type: ignore[arg-type]


@case("P1", "a model without weights", UnsupportedError)
def _(world: World) -> None:
    Projector(world.open(vocab_only=True), world.path("mmproj"))


# P2: images and sounds before they are taken.
row("P2", "a PNG of 60000 x 60000", ValueError, lambda _: _huge_png())
row("P2", "pixels of zero height", ValueError, lambda _: Bitmap(np.zeros((0, 9, 3), np.uint8)))
row("P2", "pixels of 1 x 16384", ValueError, lambda _: Bitmap(np.zeros((1, 1 << 14, 3), np.uint8)))
row("P2", "a placeholder of 2**31", ValueError, lambda _: Bitmap.placeholder(2**31, 1))
row("P2", "a sound of one sample", ValueError, lambda _: Bitmap.from_samples(np.zeros(1), 16000))
row("P2", "a sound of NaN", ValueError, lambda _: Bitmap.from_samples(np.full(9, np.nan), 16000))
row("P2", "a NUL in the name", ValueError, lambda _: Bitmap(media.noise(), id="a\0"))


def _huge_png() -> None:
    Bitmap.from_bytes(media.png(media.noise(4, 4), size=(60_000, 60_000)))


@case("P2", "a FLAC of 2**36 samples", ValueError)
def _(world: World) -> None:
    with projector(world, "mmproj_audio") as each:
        Bitmap.sound_from_bytes(media.flac(2**36 - 1), each)


# P3: prompts.
@case("P3", "fewer bitmaps than markers, and more", ValueError)
def _(world: World) -> None:
    with projector(world) as each:
        raised_by(
            lambda: each.tokenize("<__media__>", []),
            lambda: each.tokenize("none", [Bitmap(media.noise())]),
            lambda: each.tokenize("<__media__>" * 1000, [Bitmap(media.noise())] * 999),
        )


@case("P3", "a word of 200000 characters", None)
def _(world: World) -> None:
    with projector(world, model="bpe") as each:
        each.tokenize(["x" * 200_000, Bitmap(media.noise()), "é" * 26_000])


@case("P3", "a sound for a projector of images", UnsupportedError)
def _(world: World) -> None:
    with projector(world) as each:
        each.tokenize([Bitmap.from_samples(np.zeros(99), 16000)])


@case("P3", "a sound of two samples", None)
def _(world: World) -> None:
    with projector(world, "mmproj_audio") as each:
        prompt = each.tokenize([Bitmap.from_samples(np.zeros(2), 16000)])
        each.encode_all([chunk for chunk in prompt if chunk.kind == "audio"])


@case("P3", "images of one pixel, and as narrow as allowed", None)
def _(world: World) -> None:
    for kind, model in (("mmproj", "tiny"), ("mmproj_mrope", "m_rope"), ("mmproj_gemma3", "tiny")):
        with projector(world, kind, model) as each, world.context(model, n_ctx=2048) as context:
            for shape in ((1, 1), (1, 200), (600, 3)):
                prompt = each.tokenize([Bitmap(media.noise(*shape))])
                context.memory.clear()
                each.decode(context, prompt)


@case("P3", "a closed bitmap", ClosedError)
def _(world: World) -> None:
    with projector(world) as each:
        bitmap = Bitmap(media.noise())
        bitmap.close()
        each.tokenize([bitmap])


# P4: encoding.
@case("P4", "a placeholder", ValueError)
def _(world: World) -> None:
    with projector(world) as each:
        prompt = each.tokenize([Bitmap.placeholder(60, 40)])
        raised_by(
            lambda: each.encode(prompt[1]),
            lambda: each.encode_all([prompt[1]]),
            lambda: each.decode(world.context(), prompt),
        )


@case("P4", "chunks of another projector, and text", ValueError)
def _(world: World) -> None:
    with projector(world) as each, projector(world, "mmproj_gemma3") as other:
        prompt = chunks(each)
        raised_by(lambda: other.encode(prompt[1]), lambda: each.encode(prompt[0]))


@case("P4", "chunks after they were closed, or their projector", ClosedError)
def _(world: World) -> None:
    each = projector(world)
    first, second = chunks(each), chunks(each)
    image, late = first[1], second[1]
    first.close()
    with each:
        raised_by(lambda: each.encode(image), lambda: each.decode(world.context(), [image]))
    raised_by(lambda: each.encode(late), lambda: late.positions(), lambda: chunks(each))


@case("P4", "two threads at once", None)
def _(world: World) -> None:
    with projector(world) as each:
        image = chunks(each)[1]

        def encode() -> None:
            for _ in range(20):
                each.encode(image)

        at_once(encode, encode, each.close, expected=(BusyError, ClosedError))


# P5: decoding.
@case("P5", "positions that do not follow", InvalidBatchError)
def _(world: World) -> None:
    with projector(world) as each, world.held() as context:
        prompt = chunks(each)
        raised_by(
            lambda: each.decode(context, prompt, pos=1),
            lambda: each.decode(context, prompt, pos=9),
        )


@case("P5", "positions and sequences out of range", ValueError)
def _(world: World) -> None:
    with projector(world) as each, world.context() as context:
        prompt = chunks(each)
        raised_by(
            lambda: each.decode(context, prompt, pos=2**31 - 5),
            lambda: each.decode(context, prompt, pos=-1),
            lambda: each.decode(context, prompt, seq=1),
            lambda: each.decode(context, prompt, seq=-1),
            lambda: each.decode(context, []),
        )


@case("P5", "an image without causal mask, larger than n_ubatch", InvalidBatchError)
def _(world: World) -> None:
    with projector(world, "mmproj_gemma3") as each:
        each.decode(world.context(n_ubatch=2), chunks(each))


@case("P5", "a memory that is full", NoSlotError)
def _(world: World) -> None:
    with projector(world) as each:
        each.decode(world.context(), each.tokenize([Bitmap(media.noise())] * 20))


@case("P5", "a context of another model", ValueError)
def _(world: World) -> None:
    with projector(world) as each:
        each.decode(world.context("bpe"), chunks(each))


@case("P5", "a context that lends its logits", BufferError)
def _(world: World) -> None:
    with projector(world) as each, world.held() as context:
        view = context.logits_view()
        try:
            each.decode(context, chunks(each), pos=3)
        finally:
            del view


@case("P5", "a closed context", ClosedError)
def _(world: World) -> None:
    context = world.context()
    context.close()
    with projector(world) as each:
        each.decode(context, chunks(each))


@case("P5", "weights of NaN", ValueError)
def _(world: World) -> None:
    with projector(world, "mmproj_nan") as each:
        each.decode(world.context(), chunks(each))


@case("P5", "embeddings with one position in an M-RoPE model", InvalidBatchError)
def _(world: World) -> None:
    with projector(world, "mmproj_mrope", "m_rope") as each, world.context("m_rope") as context:
        context.decode(Batch(embd=each.encode(chunks(each)[1])))


# P6: lifetimes.
@case("P6", "the model closed first", ClosedError)
def _(world: World) -> None:
    model = world.open()
    each = Projector(model, world.path("mmproj"), warmup=False)
    prompt = chunks(each)
    model.close()
    raised_by(lambda: len(prompt), lambda: each.encode_all([]), lambda: each.supports_vision)


@case("P6", "made twice", StateError)
def _(world: World) -> None:
    with projector(world) as each:
        each.__init__(world.model(), world.path("mmproj"))  # type: ignore[misc]
