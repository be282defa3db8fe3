"""Changes to plain bytes and to plain text."""

from __future__ import annotations

import random

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
NUMBERS = (0, 1, 2, 3, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def change_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return *data* with one to four changes, most of them small, and what they are."""
    out, notes = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out)) if out else 0
        # most of what a format says stands at its beginning
        at = min(at, int(rng.expovariate(1 / 64))) if rng.random() < 0.5 else at
        how = rng.choice(("byte", "byte", "bit", "number", "number", "cut", "grow", "copy", "drop"))
        if how == "byte":
            out[at : at + 1] = bytes([rng.choice((*EDGES, rng.randrange(256)))])
        elif how == "bit":
            out[at : at + 1] = bytes([(out[at] if out else 0) ^ 1 << rng.randrange(8)])
        elif how == "number":
            width = rng.choice((4, 8))
            value = rng.choice((*NUMBERS, len(out), len(out) + 1)) % (1 << 8 * width)
            out[at : at + width] = value.to_bytes(width, "little")
        elif how == "cut":
            del out[at:]
        elif how == "grow":
            out += rng.randbytes(rng.choice((1, 4, 64, 1000)))
        elif how == "copy":
            n = rng.choice((1, 4, 8, 64))
            other = rng.randrange(len(out)) if out else 0
            out[at : at + n] = out[other : other + n]
        else:
            del out[at : at + rng.choice((1, 4, 8, 64))]
        notes.append(f"{how} at {at}")
    return bytes(out), "; ".join(notes)


def change_text(text: str, rng: random.Random, pieces: tuple[str, ...]) -> str:
    """Return *text* with *pieces* put in, parts taken out, doubled or repeated."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 1, 2, 5, 20)))
        how = rng.randrange(6)
        if how <= 2:
            text = text[:at] + rng.choice(pieces) + text[at:]
        elif how == 3:
            text = text[:at] + text[end:]
        elif how == 4:
            text = text[:end] + text[at:]
        else:
            text = text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]
        text = text[:100_000]
    return text
