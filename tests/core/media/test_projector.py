"""Projectors with random weights: images and sounds become tokens, embeddings and logits."""

from __future__ import annotations

import media
import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Batch, Bitmap, Projector
from pyllama.core.library import ffi, lib
from pyllama.errors import (
    BusyError,
    ClosedError,
    InvalidBatchError,
    LoadError,
    NoSlotError,
    UnsupportedError,
)

KINDS = ("janus_pro", "gemma3", "qwen2vl_merger", "ultravox")
ONE = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}


@pytest.fixture(scope="module")
def mrope(tmp_path_factory):
    """Load a tiny model with M-RoPE positions."""
    path = tmp_path_factory.mktemp("mrope") / "mrope.gguf"
    sections = {"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
    random_model.write_llama(path, arch="qwen2vl", metadata=sections)
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Write a projector of each kind."""
    directory = tmp_path_factory.mktemp("projectors")
    for kind in KINDS[:3]:
        random_model.write_projector(directory / kind, type=kind)
    random_model.write_audio_projector(directory / "ultravox")
    return {kind: directory / kind for kind in KINDS}


@pytest.fixture(scope="module")
def projectors(paths, model, mrope):
    """Load each of them for a model that it fits."""
    models = {"qwen2vl_merger": mrope}
    loaded = {
        kind: Projector(models.get(kind, model), path, n_threads=1) for kind, path in paths.items()
    }
    yield loaded
    for each in loaded.values():
        each.close()


@pytest.fixture
def projector(projectors):
    """Return the simplest of them."""
    return projectors["janus_pro"]


def medium(kind: str, seed: int = 0) -> Bitmap:
    """Return something random that a projector takes."""
    if kind == "ultravox":
        samples = np.random.default_rng(seed).normal(size=32000)
        return Bitmap.from_samples(samples / 4, 16000)
    return Bitmap(media.noise(seed=seed))


def prompt(projector: Projector, kind: str, seed: int = 0) -> pyllama.Chunks:
    """Return the chunks of a short prompt with something random in it."""
    return projector.tokenize("what is <__media__> here?", [medium(kind, seed)])


def logits(projector: Projector, chunks: pyllama.Chunks, **options: int) -> np.ndarray:
    """Return the logits after a prompt."""
    with projector.model.context(**{**ONE, **options}) as context:
        assert projector.decode(context, chunks) == chunks.n_pos
        return context.logits()[-1]


def test_a_projector_says_what_it_is_for(projectors, paths):
    """Images or sounds, before loading as afterwards, the rate and the kind of positions."""
    for kind, each in projectors.items():
        sound = kind == "ultravox"
        assert Projector.capabilities(paths[kind]) == (not sound, sound)
        assert (each.supports_vision, each.supports_audio) == (not sound, sound)
        assert each.sample_rate == (16000 if sound else None)
        assert each.uses_mrope == (kind == "qwen2vl_merger")
        assert each.n_embd == 64


def test_an_image_becomes_a_chunk(projectors):
    """Text, image, text: tokens here, embeddings there."""
    chunks = prompt(projectors["janus_pro"], "janus_pro")
    assert [chunk.kind for chunk in chunks] == ["text", "image", "text"]
    assert [chunk.n_tokens for chunk in chunks][1] == 16
    assert chunks.n_tokens == sum(chunk.n_tokens for chunk in chunks) == chunks.n_pos
    assert chunks[1].tokens is None
    assert chunks[1].id == medium("janus_pro").id
    assert chunks[-1].id is None


def test_text_is_tokenized_as_the_vocabulary_does(projector):
    """Without a bitmap the chunk is what `Vocab.tokenize` gives, for long words too."""
    text = "Once upon a time " + "x" * 3000
    chunks = projector.tokenize(text)
    assert len(chunks) == 1
    assert np.array_equal(chunks[0].tokens, projector.model.vocab.tokenize(text))


def test_a_list_of_parts_needs_no_marker(projector):
    """In a list of parts a marker is text like any other: a user cannot move an image."""
    bitmap = medium("janus_pro")
    chunks = projector.tokenize(["say <__media__>: ", bitmap])
    assert [chunk.kind for chunk in chunks] == ["text", "image"]
    spelled = projector.model.vocab.detokenize(chunks[0].tokens)
    assert spelled.strip() == "say <__media__>:"


def test_special_tokens_are_only_parsed_when_asked(projector):
    """A control token in a text is spelled out, as in `Vocab.tokenize`."""
    eos = projector.model.vocab.piece(projector.model.vocab.eos, special=True).decode()
    plain, parsed = (
        projector.tokenize(f"a{eos}", parse_special=flag)[0].tokens for flag in (False, True)
    )
    assert projector.model.vocab.eos in parsed
    assert projector.model.vocab.eos not in plain


def test_beginning_and_end_are_added_on_request(projector):
    """add_special=False leaves out the token that begins a text."""
    with_it, without = (
        projector.tokenize("a", add_special=flag)[0].tokens for flag in (True, False)
    )
    assert with_it[1:].tolist() == without.tolist()


def test_a_prompt_may_begin_with_an_image(projector):
    """The token that begins a text gets a chunk of its own then."""
    chunks = projector.tokenize([medium("janus_pro"), "!"])
    assert [chunk.kind for chunk in chunks] == ["text", "image", "text"]
    assert chunks[0].tokens.tolist() == [projector.model.vocab.bos]


def test_chunks_are_a_sequence(projector):
    """Slices, negative indices, and errors as of a list."""
    chunks = prompt(projector, "janus_pro")
    assert [chunk.kind for chunk in chunks[1:]] == ["image", "text"]
    with pytest.raises(IndexError):
        chunks[3]
    with pytest.raises(TypeError):
        chunks["0"]


@pytest.mark.parametrize(
    ("text", "bitmaps", "error"),
    [
        ("no marker", 1, ValueError),
        ("<__media__>", 0, ValueError),
        ("<__media__><__media__>", 1, ValueError),
        ("", 0, ValueError),
        ([], 0, ValueError),
        (["a"], 1, ValueError),
        (["a", 5], 0, TypeError),
        ([b"a"], 0, TypeError),
        (b"a", 0, TypeError),
        (None, 0, TypeError),
        ("\ud800", 0, UnicodeEncodeError),
    ],
)
def test_prompts_that_do_not_work_out_are_refused(projector, text, bitmaps, error):
    """Markers and bitmaps differ in number, nothing is there, or something of another type."""
    with pytest.raises(error):
        projector.tokenize(text, [medium("janus_pro")] * bitmaps)
    assert len(prompt(projector, "janus_pro")) == 3


def test_the_marker_can_be_another(model, paths):
    """What stands for a bitmap is free to choose."""
    with Projector(model, paths["janus_pro"], media_marker="[img]", warmup=False) as other:
        assert other.marker == "[img]"
        assert len(other.tokenize("a [img] <__media__>", [medium("janus_pro")])) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bitmap_has_the_same_embeddings(projectors, kind):
    """Embeddings are finite, depend on what is seen or heard, and on nothing else."""
    each = projectors[kind]
    first, again, other = (each.encode(prompt(each, kind, seed)[1]) for seed in (0, 0, 1))
    assert first.shape == (prompt(each, kind)[1].n_tokens, 64)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_together_is_encoding_one_by_one(projectors, kind):
    """A batch of images gives what each of them gives, in order, one of them twice."""
    each = projectors[kind]
    chunks = [prompt(each, kind, seed)[1] for seed in (0, 1, 2)]
    chunks.append(chunks[0])
    for together, alone in zip(each.encode_all(chunks), map(each.encode, chunks), strict=True):
        assert np.allclose(together, alone, atol=1e-5)


def test_encoding_nothing_gives_nothing(projector):
    """An empty list has no embeddings."""
    assert projector.encode_all([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_logits_depend_on_what_is_seen(projectors, kind):
    """The same prompt gives the same logits; another image gives others."""
    each = projectors[kind]
    first, again, other = (logits(each, prompt(each, kind, seed)) for seed in (0, 0, 1))
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_batch", [8, 64])
def test_libllamas_own_loop_comes_to_the_same(projectors, kind, n_batch):
    """The loop in C gives the same logits and the same end, in batches of any size."""
    each = projectors[kind]
    chunks, options = prompt(each, kind), {"n_batch": n_batch, "n_ubatch": n_batch}
    ours = logits(each, chunks, **options)
    with each.model.context(**ONE, **options) as context:
        end = ffi.new("llama_pos *")
        code = lib.mtmd_helper_eval_chunks(
            each.pointer, context.pointer, chunks.pointer, 0, 0, n_batch, True, end
        )
        memory = ffi.buffer(lib.llama_get_logits(context.pointer), ours.nbytes)
        assert (code, end[0]) == (0, chunks.n_pos)
        assert np.array_equal(np.frombuffer(memory, np.float32), ours)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_goes_on_after_an_image(projectors, kind):
    """What decode returns is where the next token stands."""
    each = projectors[kind]
    with each.model.context(**ONE) as context:
        end = each.decode(context, prompt(each, kind), output="none")
        assert context.n_outputs == 0
        context.decode(Batch([5, 6], pos=end))
        assert np.isfinite(context.logits()).all()
        assert context.causal_attn


def test_an_image_of_an_m_rope_model_takes_few_positions(projectors):
    """Rows and columns are positions of their own; what follows is on by the longer side."""
    chunk = prompt(projectors["qwen2vl_merger"], "qwen2vl_merger")[1]
    time, rows, columns, _ = chunk.positions(7)
    assert (chunk.n_tokens, chunk.n_pos) == (12, 4)
    assert (time == 7).all()
    assert rows.tolist() == [7] * 4 + [8] * 4 + [9] * 4
    assert columns.tolist() == [7, 8, 9, 10] * 3


def test_positions_of_other_models_count_up(projector):
    """One position a token, up to the end of what 32 bits hold."""
    chunk = prompt(projector, "janus_pro")[1]
    assert chunk.positions(3).tolist() == list(range(3, 19))
    with pytest.raises(ValueError, match="pos"):
        chunk.positions(2**31 - 10)


def test_frames_of_a_video_are_merged(projectors):
    """Two mergeable bitmaps in a row make one chunk in a model that knows videos."""
    frames = [Bitmap(media.noise(seed=seed), mergeable=True) for seed in (0, 1)]
    chunks = projectors["qwen2vl_merger"].tokenize(frames)
    images = [chunk for chunk in chunks if chunk.kind == "image"]
    assert [chunk.n_tokens for chunk in images] == [12]
    assert np.isfinite(projectors["qwen2vl_merger"].encode(images[0])).all()


def test_placeholders_count_tokens_only(projector):
    """The number of tokens is that of the image; encoding is refused, the projector is well."""
    chunks = projector.tokenize(["a", Bitmap.placeholder(60, 40)])
    assert chunks[1].n_tokens == 16
    with pytest.raises(ValueError, match="placeholder"):
        projector.encode(chunks[1])
    assert np.isfinite(projector.encode(prompt(projector, "janus_pro")[1])).all()


def test_bounds_for_the_tokens_of_an_image_are_kept(mrope, paths):
    """image_max_tokens makes a large image smaller."""
    with Projector(mrope, paths["qwen2vl_merger"], image_max_tokens=20, warmup=False) as bounded:
        chunks = bounded.tokenize([Bitmap(media.noise(400, 400))])
        assert max(chunk.n_tokens for chunk in chunks if chunk.kind == "image") <= 20


def test_a_sound_is_decoded_into_the_rate_of_the_projector(projectors):
    """A WAV of another rate becomes samples that the projector takes."""
    samples = (np.sin(np.arange(8000) / 10) * 20000).astype(np.int16)
    sound = Bitmap.sound_from_bytes(media.wav(samples, 8000), projectors["ultravox"])
    assert (sound.n_samples, sound.sample_rate) == (16000, 16000)
    assert abs(np.abs(sound.content()).max() - 20000 / 32768) < 0.01


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID3" + bytes(100),
        media.wav(np.zeros(100, np.int16))[:30],
        media.wav(np.zeros(100, np.int16), n_bytes=2**31),
        media.wav(np.zeros(100, np.int16), rate=1),
        media.wav(np.zeros(0, np.int16)),
        media.wav(np.full(100, np.nan, np.float32)),
        media.flac(2**36 - 1),
        media.flac(0),
        media.flac(16000),
    ],
)
def test_sounds_that_are_damaged_or_too_long_are_refused(projectors, data):
    """What the header promises is looked at before room is made for it."""
    with pytest.raises(ValueError, match=r"sound|bytes"):
        Bitmap.sound_from_bytes(data, projectors["ultravox"])


def test_media_that_a_projector_does_not_take_are_refused(projectors):
    """Sounds by one for images, images by one for sounds, and sounds of another rate."""
    with pytest.raises(UnsupportedError):
        projectors["janus_pro"].tokenize([medium("ultravox")])
    with pytest.raises(UnsupportedError):
        projectors["ultravox"].tokenize([medium("janus_pro")])
    with pytest.raises(UnsupportedError):
        Bitmap.sound_from_bytes(media.wav(np.zeros(9, np.int16)), projectors["janus_pro"])
    with pytest.raises(ValueError, match="resample"):
        projectors["ultravox"].tokenize([Bitmap.from_samples(np.zeros(9), 8000)])


def test_a_failure_takes_back_what_was_stored(projectors):
    """When the memory is full, it holds what it held before, and can be used."""
    each = projectors["janus_pro"]
    chunks = each.tokenize(["a", *[medium("janus_pro")] * 20])
    assert chunks.n_tokens > 256
    with each.model.context(**ONE) as context:
        context.decode(Batch([1, 2, 3]))
        with pytest.raises(NoSlotError):
            each.decode(context, chunks, pos=3)
        assert context.memory.pos_max(0) == 2
        assert each.decode(context, prompt(each, "janus_pro"), pos=3) > 3


def test_a_wrong_position_changes_nothing(projector):
    """A position behind the end of the memory is refused before anything is stored."""
    with projector.model.context(**ONE) as context:
        context.decode(Batch([1, 2, 3]))
        for pos in (1, 7):
            with pytest.raises(InvalidBatchError):
                projector.decode(context, prompt(projector, "janus_pro"), pos=pos)
        assert context.memory.pos_max(0) == 2


def test_an_image_that_is_read_at_once_must_fit(projectors):
    """Without a causal mask an image is one micro-batch: too small a context is refused first."""
    chunks = prompt(projectors["gemma3"], "gemma3")
    with projectors["gemma3"].model.context(**ONE, n_batch=4, n_ubatch=2) as context:
        with pytest.raises(InvalidBatchError, match="n_ubatch"):
            projectors["gemma3"].decode(context, chunks)
        assert context.memory.pos_max(0) is None


def test_whoever_remembers_tokens_is_told(projector):
    """A sequence with an image in it is not what a list of tokens says."""
    with projector.model.context(**ONE, n_seq_max=2) as context:
        before = list(context._edits)
        projector.decode(context, prompt(projector, "janus_pro"), seq=1)
        assert context._edits[0] == before[0]
        assert context._edits[1] > before[1]


def test_what_belongs_elsewhere_is_refused(projectors, mrope):
    """A context of another model, chunks of another projector, and text to encode."""
    chunks = prompt(projectors["janus_pro"], "janus_pro")
    with mrope.context(**ONE) as context, pytest.raises(ValueError, match="another model"):
        projectors["janus_pro"].decode(context, chunks)
    with pytest.raises(ValueError, match="another projector"):
        projectors["gemma3"].encode(chunks[1])
    with pytest.raises(ValueError, match="text"):
        projectors["janus_pro"].encode(chunks[0])
    with pytest.raises(TypeError):
        projectors["janus_pro"].encode(5)


@pytest.mark.parametrize("options", [{"output": "all"}, {"seq": 1}, {"seq": -1}, {"pos": -1}])
def test_bad_arguments_of_decode_are_refused(projector, options):
    """Each is checked before anything is encoded."""
    with (
        projector.model.context(**ONE) as context,
        pytest.raises(ValueError, match=r"output|seq|pos"),
    ):
        projector.decode(context, prompt(projector, "janus_pro"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"n_threads": 0},
        {"use_gpu": 1},
        {"flash_attn_type": "sometimes"},
        {"image_min_tokens": 0},
        {"image_max_tokens": 2**31},
        {"image_min_tokens": 9, "image_max_tokens": 8},
        {"batch_max_tokens": 0},
        {"media_marker": ""},
        {"media_marker": "a\0b"},
        {"media_marker": 5},
        {"n_ctx": 5},
    ],
)
def test_bad_options_are_refused(mrope, paths, options):
    """Types, ranges, and what contradicts or overflows."""
    with pytest.raises((TypeError, ValueError)):
        Projector(mrope, paths["qwen2vl_merger"], **options)


def test_a_projector_of_another_width_is_refused(model, tmp_path):
    """One that was made for another text model says so."""
    path = random_model.write_projector(tmp_path / "wide.gguf", n_embd_text=128)
    with pytest.raises(LoadError, match="not loaded") as caught:
        Projector(model, path)
    assert "mismatch" in "".join(caught.value.log)


def test_a_text_model_is_no_projector(model, tiny_path):
    """The wrong file is named for what it is."""
    with pytest.raises(LoadError, match="clip"):
        Projector(model, tiny_path)


def test_progress_is_told_and_can_cancel(model, paths):
    """The fractions go up to 1; False ends the load, and an exception comes out."""
    seen: list[float] = []
    Projector(model, paths["janus_pro"], progress=seen.append, warmup=False).close()
    assert seen[-1] == pytest.approx(1.0)
    with pytest.raises(LoadError, match="cancelled"):
        Projector(model, paths["janus_pro"], progress=lambda _: False)
    with pytest.raises(ZeroDivisionError):
        Projector(model, paths["janus_pro"], progress=lambda _: 1 / 0)
    with pytest.raises(TimeoutError):
        Projector(model, paths["janus_pro"], timeout=0)


def test_the_model_closes_projector_and_chunks(tiny_path, paths):
    """What lives in the model goes with it, in the right order."""
    model = pyllama.Model(tiny_path)
    projector = Projector(model, paths["janus_pro"])
    chunks = prompt(projector, "janus_pro")
    chunk = chunks[1]
    model.close()
    assert projector.closed
    assert chunks.closed
    with pytest.raises(ClosedError):
        chunk.positions()


def test_a_context_in_a_call_is_busy(projector):
    """Decoding chunks takes its turn as any decode does; nothing is stored."""
    chunks = prompt(projector, "janus_pro")
    with projector.model.context(**ONE) as context:
        context._record.enter(shared=False)
        try:
            with pytest.raises(BusyError):
                projector.decode(context, chunks)
        finally:
            context._record.leave()
        assert context.memory.pos_max(0) is None
