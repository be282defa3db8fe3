"""Bytes become whole characters; stop strings never leak."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyllama
from pyllama.text.stream import TextStream

STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)
LETTERS = "aé€😀"  # of one to four bytes, the last three with bytes in common


@pytest.fixture(scope="module")
def vocab():
    """Load the vocabulary of the shipped model."""
    with pyllama.Model(pyllama.demo_model(), vocab_only=True) as model:
        yield model.vocab


def run(pieces: list[bytes], stop: list[str]) -> tuple[str, str | None]:
    """Push *pieces* until a stop string comes; return the text and the stop."""
    stream, out = TextStream(stop), []
    for piece in pieces:
        out.append(stream.push(piece))
        if stream.stopped_by is not None:
            break
    out.append(stream.finish())
    return "".join(out), stream.stopped_by


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut *data* at *places*."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def by_hand(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Say what should come out, one character at a time."""
    for end in range(1, len(text) + 1):
        hits = [each for each in stop if text[:end].endswith(each)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_any_cut_gives_the_same_text(text, places):
    """Characters of several bytes are put together again."""
    assert run(cut(text.encode(), places), []) == (text, None)


@given(st.binary(), st.lists(st.integers(0, 1000)))
def test_any_cut_of_any_bytes_gives_the_same_text(data, places):
    """Bytes that are not UTF-8 become the same replacements wherever they are cut."""
    assert run(cut(data, places), []) == (data.decode("utf-8", "replace"), None)


@given(st.text())
@settings(max_examples=50)
def test_the_tokens_of_a_text_are_the_text(vocab, text):
    """Those of a real vocabulary, which cuts characters in the middle."""
    pieces = [vocab.piece(token) for token in vocab.tokenize(text, add_special=False).tolist()]
    assert run(pieces, []) == (text, None)


@given(st.text("abcd", max_size=30), STOPS, st.lists(st.integers(0, 1000)))
def test_stop_strings_are_found_wherever_the_text_is_cut(text, stop, places):
    """The one complete first counts, the longer of two that end together."""
    assert run(cut(text.encode(), places), stop) == by_hand(text, stop)


@given(
    st.text(LETTERS, max_size=20),
    st.lists(st.text(LETTERS, min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(0, 1000)),
)
def test_stop_strings_of_several_bytes_are_found_wherever_they_are_cut(text, stop, places):
    """Cut between characters or within them."""
    assert run(cut(text.encode(), places), stop) == by_hand(text, stop)


@pytest.mark.parametrize("stop", ["END", "\n\n", "€😀"])
def test_a_stop_string_is_found_at_every_offset(stop):
    """And with each place at which it can be cut in two."""
    text = "some text, 12"
    for offset in range(len(text) + 1):
        data = (text[:offset] + stop + text[offset:]).encode()
        for place in range(len(data)):
            assert run(cut(data, [place]), [stop]) == (text[:offset], stop)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("xabcd", ["abc", "ab"], ("x", "ab")),  # the shorter is complete first
        ("xabcd", ["abc", "bc"], ("x", "abc")),  # both end together
        ("xabcd", ["bcd", "abc"], ("x", "abc")),  # they overlap
        ("xababac", ["abac"], ("xab", "abac")),  # it begins anew within its own beginning
        ("xaab", ["aaab", "ab"], ("xa", "ab")),  # the longer one comes to nothing
        ("xab", ["abc"], ("xab", None)),  # the text ends within it
        ("aaaa", ["aa"], ("", "aa")),
    ],
)
def test_stop_strings_that_share_letters(text, stop, expected):
    """However the text is cut, and in whichever order they are given."""
    for pieces in ([text.encode()], [letter.encode() for letter in text]):
        for order in itertools.permutations(stop):
            assert run(pieces, list(order)) == expected


@given(st.text("ab", max_size=20), STOPS, st.lists(st.integers(0, 1000)))
def test_nothing_of_a_stop_string_ever_leaks(text, stop, places):
    """What has come out is always a beginning of the final text."""
    final, _ = by_hand(text, stop)
    stream, out = TextStream(stop), ""
    for piece in cut(text.encode(), places):
        out += stream.push(piece)
        assert final.startswith(out)


def test_an_unfinished_character_waits_and_ends_as_a_replacement():
    """Half an umlaut is not text yet."""
    stream = TextStream()
    assert stream.push(b"\xc3") == ""
    assert stream.finish() == "\ufffd"


def test_multi_byte_stop_strings_cut_in_the_middle():
    """The stop string arrives byte by byte."""
    assert run([bytes([b]) for b in "weiß € mehr".encode()], ["€"]) == ("weiß ", "€")


@pytest.mark.parametrize(
    ("stop", "error"),
    [("x", TypeError), (None, TypeError), ([1], TypeError), ([""], ValueError)],
)
def test_odd_stop_strings_are_refused(stop, error):
    """A bare string would be taken letter by letter."""
    with pytest.raises(error):
        TextStream(stop)
