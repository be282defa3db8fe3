"""Images and sounds: made of arrays and files, and refused before C sees what is too large."""

from __future__ import annotations

import hashlib
import struct
import threading

import media
import numpy as np
import pytest

from pyllama import Bitmap, MediaLimits
from pyllama.errors import ClosedError, StateError

SMALL = MediaLimits(max_bytes=10_000, max_side=100, max_pixels=5000, max_aspect=10, max_seconds=2)


def test_pixels_come_back():
    """An image of an array holds what the array holds, also where that is not contiguous."""
    pixels = media.noise()[::-1, ::2]
    with Bitmap(pixels) as bitmap:
        assert (bitmap.width, bitmap.height, bitmap.n_bytes) == (30, 40, 3600)
        assert not bitmap.is_sound
        assert np.array_equal(bitmap.content(), pixels)


def test_content_is_a_copy():
    """What is given and what is returned are not the memory of the bitmap."""
    pixels = media.noise()
    with Bitmap(pixels) as bitmap:
        pixels[:] = 0
        bitmap.content()[:] = 0
        assert bitmap.content().any()


def test_the_name_tells_contents_apart():
    """The same pixels have one name; others, or the same in another shape, have another."""
    names = [Bitmap(pixels).id for pixels in (media.noise(), media.noise(), media.noise(seed=1))]
    assert names[0] == names[1] != names[2]
    assert Bitmap(media.noise().reshape(60, 40, 3)).id != names[0]


def test_a_name_can_be_given():
    """A name of any text is kept."""
    assert Bitmap(media.noise(), id="été 1").id == "été 1"


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros((4, 4, 3)), TypeError),
        (np.zeros((4, 4, 3), np.int8), TypeError),
        ("image.png", TypeError),
        (None, TypeError),
        (np.zeros((4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 4), np.uint8), ValueError),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError),
        (np.zeros((0, 4, 3), np.uint8), ValueError),
        (np.zeros((4, 0, 3), np.uint8), ValueError),
        (np.zeros((1, 201, 3), np.uint8), ValueError),
    ],
)
def test_what_is_no_image_is_refused(pixels, error):
    """Other types, other shapes and shapes that are too narrow raise."""
    with pytest.raises(error):
        Bitmap(pixels)


@pytest.mark.parametrize("shape", [(101, 50, 3), (80, 80, 3), (5, 60, 3)])
def test_limits_can_be_given(shape):
    """Side, pixels and aspect each have their limit."""
    with pytest.raises(ValueError, match=r"refused: .*\(max_"):
        Bitmap(np.zeros(shape, np.uint8), limits=SMALL)


@pytest.mark.parametrize("option", [{"id": 5}, {"id": "a\0b"}, {"mergeable": 1}, {"limits": 5}])
def test_bad_options_are_refused(option):
    """Each option has a type; a NUL would cut a name."""
    with pytest.raises((TypeError, ValueError)):
        Bitmap(media.noise(), **option)


@pytest.mark.parametrize("option", [{"max_side": 0}, {"max_bytes": 1.5}, {"max_pixels": 2**31}])
def test_limits_are_whole_numbers(option):
    """A limit that is none raises when it is made."""
    with pytest.raises((TypeError, ValueError)):
        MediaLimits(**option)


def test_a_pillow_image_is_converted():
    """An image of Pillow in any mode can be given."""
    image = pytest.importorskip("PIL.Image").fromarray(media.noise()[:, :, 0])
    assert np.array_equal(Bitmap(image).content()[:, :, 1], media.noise()[:, :, 0])


@pytest.mark.parametrize("encode", [media.png, media.bmp])
def test_an_image_file_is_decoded(encode):
    """The pixels of a lossless file are those that went in."""
    data = encode(media.noise())
    with Bitmap.from_bytes(data) as bitmap:
        assert np.array_equal(bitmap.content(), media.noise())
        assert bitmap.id == hashlib.sha256(data).hexdigest()


def test_a_gif_and_a_jpeg_are_decoded():
    """Both kinds of file are known."""
    assert Bitmap.from_bytes(media.gif()).content().tolist() == [[[255, 128, 7]]]
    assert (Bitmap.from_bytes(media.jpeg()).content() == 128).all()


def test_an_image_is_decoded_on_a_small_stack():
    """The decoder does not need the stack of the thread that asks."""
    found = []
    before = threading.stack_size(128 << 10)
    try:
        thread = threading.Thread(target=lambda: found.append(Bitmap.from_bytes(media.gif())))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(found) == 1


def test_a_file_is_read(tmp_path):
    """A path works as its bytes do."""
    path = tmp_path / "image.png"
    path.write_bytes(media.png(media.noise()))
    assert np.array_equal(Bitmap.from_file(path, id="x").content(), media.noise())
    assert Bitmap.from_file(path, id="x").id == "x"


def test_a_missing_file_is_what_the_system_calls_it(tmp_path):
    """No file, no bitmap."""
    with pytest.raises(FileNotFoundError):
        Bitmap.from_file(tmp_path / "none.png")


HUGE = (60_000, 60_000)


@pytest.mark.parametrize(
    "data",
    [
        media.png(media.noise(4, 4), size=HUGE),
        media.bmp(media.noise(4, 4), size=HUGE),
        media.bmp(media.noise(4, 4), size=(60_000, -60_000)),
        media.gif(*HUGE),
        media.jpeg(*HUGE),
        media.png(media.noise(4, 4), size=(0, 4)),
        media.png(media.noise(4, 4), size=(1, 2**31 - 1)),
    ],
)
def test_a_header_that_promises_too_much_is_refused(data):
    """Sixty thousand pixels a side would be eleven gigabytes; a few bytes can ask for them."""
    with pytest.raises(ValueError, match="is refused"):
        Bitmap.from_bytes(data)


def test_a_png_that_inflates_without_end_is_refused():
    """The compressed data hold more than the pixels: a few kilobytes can hold gigabytes."""
    with pytest.raises(ValueError, match="holds more than"):
        Bitmap.from_bytes(media.png(media.noise(4, 4), extra=5_000_000))


@pytest.mark.parametrize("make", [media.png, media.bmp])
def test_a_file_cut_anywhere_raises(make):
    """No part of an image ends the process: it raises, or is decoded as far as it goes."""
    data, refused = make(media.noise(4, 4)), 0
    for end in range(len(data)):
        try:
            Bitmap.from_bytes(data[:end]).close()
        except ValueError:
            refused += 1
    assert refused > 25  # the rest of a BMP may be missing


@pytest.mark.parametrize("make", [media.jpeg, media.gif, lambda: media.png(media.noise(4, 4))])
def test_a_damaged_file_raises_or_is_decoded(make):
    """Each byte of an image may be another: that raises, or changes the picture."""
    data, seen = make(), 0
    for index in range(len(data)):
        for value in (0, 0x7F, 0xFF):
            changed = data[:index] + bytes([value]) + data[index + 1 :]
            try:
                with Bitmap.from_bytes(changed, limits=SMALL) as bitmap:
                    seen += bitmap.width <= 100
            except ValueError:
                seen += 1
    assert seen == 3 * len(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ValueError),
        (b"RIFF\0\0\0\0WEBPVP8 ", ValueError),
        (b"\xff\xd8\xff\xd9", ValueError),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ValueError),
        (media.png(media.noise(200, 60)), ValueError),
        ("text", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_image_file_is_refused(data, error):
    """Other formats, other types, and files that are too large."""
    with pytest.raises(error):
        Bitmap.from_bytes(data, limits=SMALL)


def test_a_sound_keeps_its_samples():
    """A sound of floats of any width is kept as float32."""
    samples = np.sin(np.arange(1000) / 20)
    with Bitmap.from_samples(samples, 16000) as sound:
        assert sound.is_sound
        assert (sound.n_samples, sound.sample_rate) == (1000, 16000)
        assert np.array_equal(sound.content(), samples.astype(np.float32))


@pytest.mark.parametrize(
    ("samples", "rate", "error"),
    [
        (np.zeros(10, np.int16), 16000, TypeError),
        (np.zeros((2, 10)), 16000, ValueError),
        (np.zeros(1), 16000, ValueError),
        (np.full(10, np.nan), 16000, ValueError),
        (np.full(10, 1e300), 16000, ValueError),
        (np.zeros(10), 0, ValueError),
        (np.zeros(10), 16000.0, TypeError),
        (np.zeros(201), 100, ValueError),
    ],
)
def test_what_is_no_sound_is_refused(samples, rate, error):
    """Other types and shapes, too few samples and too many raise."""
    with pytest.raises(error):
        Bitmap.from_samples(samples, rate, limits=SMALL)


def test_a_placeholder_has_a_size_only():
    """It can be counted, and has no pixels."""
    with Bitmap.placeholder(60, 40, id="later") as bitmap:
        assert (bitmap.width, bitmap.height, bitmap.id) == (60, 40, "later")
        assert bitmap.is_placeholder
        with pytest.raises(StateError):
            bitmap.content()


@pytest.mark.parametrize("size", [(0, 4), (-1, 4), (1 << 15, 1 << 15), (2**40, 4), (2.5, 4)])
def test_a_placeholder_has_limits_too(size):
    """Its size is checked as that of an image."""
    with pytest.raises((TypeError, ValueError)):
        Bitmap.placeholder(*size)


def test_a_closed_bitmap_says_so():
    """Nothing of it is read afterwards."""
    bitmap = Bitmap(media.noise())
    bitmap.close()
    assert repr(bitmap) == "<Bitmap: closed>"
    with pytest.raises(ClosedError):
        bitmap.content()


def test_a_wav_with_a_wrong_block_size_is_refused():
    """The decoder counts samples by the block, so it must be that of the channels."""
    data = bytearray(media.wav(np.zeros(100, np.int16)))
    struct.pack_into("<H", data, 32, 1)
    with pytest.raises(ValueError, match="whole samples"):
        Bitmap.sound_from_bytes(bytes(data), None)
