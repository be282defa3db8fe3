"""Projectors with random weights: what they take, and how prompts with bitmaps are read."""

from __future__ import annotations

import media
import numpy as np
import pytest
import random_model
from projecting import medium, prompt

import pyllama
from pyllama import Bitmap, Projector
from pyllama.errors import (
    ClosedError,
    LoadError,
    UnsupportedError,
)


def test_a_projector_says_what_it_is_for(projectors, paths):
    """Images or sounds, before loading as afterwards, the rate and the kind of positions."""
    for kind, each in projectors.items():
        sound = kind == "ultravox"
        assert Projector.capabilities(paths[kind]) == (not sound, sound)
        assert (each.supports_vision, each.supports_audio) == (not sound, sound)
        assert each.sample_rate == (16000 if sound else None)
        assert each.uses_mrope == (kind == "qwen2vl_merger")
        assert each.n_embd == 64


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
    with pytest.raises(LoadError, match="cancelled"):  # when all was loaded
        Projector(model, paths["janus_pro"], progress=lambda fraction: fraction < 1)
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
