"""The grammar of decimal numbers between two bounds, which llama.cpp's converter leaves out."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

MORE_DIGITS = 2  # behind the point, beyond those of the bounds
MOST_DIGITS = 12
FAR = Decimal(10) ** 9  # where there is no bound, or the nearest power of ten beyond the other one


def between(
    low: float | None, high: float | None, *, above_low: bool = False, below_high: bool = False
) -> str:
    """Return GBNF for the numbers between two bounds.

    Parameters
    ----------
    low, high
        The bounds; None is no bound.
    above_low, below_high
        Whether the bound itself is left out.

    Returns
    -------
    str
        An expression, in brackets. Numbers have two digits more behind the point than the bounds,
        and go to 10^9 where there is no bound.

    Raises
    ------
    ValueError
        If there is no such number, or a bound is not finite or has more than 10 digits behind the
        point.
    """
    bounds = [Decimal(repr(bound)) for bound in (low, high) if bound is not None]
    if not all(map(math.isfinite, bounds)):
        raise ValueError("the bounds of a number must be finite")
    digits = max((max(0, -int(bound.as_tuple().exponent)) for bound in bounds), default=0)
    if digits + MORE_DIGITS > MOST_DIGITS:
        message = f"bounds with {digits} digits behind the point are too fine"
        raise ValueError(message)
    far = max([FAR, *(abs(bound) * 10 for bound in bounds)])
    first = -far if low is None else Decimal(repr(low))
    last = far if high is None else Decimal(repr(high))
    choices: list[str] = []
    for n_digits in range(digits + MORE_DIGITS + 1):
        scale = Decimal(10) ** n_digits
        start = int((first * scale).to_integral_value(ROUND_CEILING))
        stop = int((last * scale).to_integral_value(ROUND_FLOOR))
        start += above_low and start == first * scale
        stop -= below_high and stop == last * scale
        choices += [f'"-" {each}' for each in _positive(max(1, -stop), -start, n_digits)]
        choices += _positive(max(0, start), stop, n_digits)
    if not choices:
        raise ValueError("no number lies between the bounds")
    return f"({' | '.join(choices)})"


def _positive(start: int, stop: int, n_digits: int) -> list[str]:
    """Return expressions for *start* to *stop*, with a point before the last *n_digits* digits."""
    choices = []
    for length in range(n_digits + 1, len(str(max(stop, 0))) + n_digits + 2):
        low = max(start, 10 ** (length - 1) if length > n_digits + 1 else 0)
        high = min(stop, 10**length - 1)
        if low <= high:
            choices.append(
                _texts(_pointed(low, length, n_digits), _pointed(high, length, n_digits))
            )
    return choices


def _pointed(number: int, length: int, n_digits: int) -> str:
    text = str(number).zfill(length)
    return f"{text[:-n_digits]}.{text[-n_digits:]}" if n_digits else text


def _texts(low: str, high: str) -> str:
    """Return an expression for the texts from *low* to *high*, which have the same form."""
    if not low:
        return '""'
    if low[0] == high[0]:
        return f'"{low[0]}" {_texts(low[1:], high[1:])}'
    rest_low, rest_high = low[1:], high[1:]
    zeros, nines = (rest_low.translate(_all(digit)) for digit in "09")
    first, last = int(low[0]), int(high[0])
    choices = []
    if rest_low != zeros:
        choices.append(f'"{first}" {_texts(rest_low, nines)}')
        first += 1
    tail = None
    if rest_high != nines:
        tail = f'"{last}" {_texts(zeros, rest_high)}'
        last -= 1
    if first <= last:
        free = " ".join('"."' if each == "." else "[0-9]" for each in rest_low)
        choices.append(f"[{first}-{last}] {free}".rstrip())
    if tail:
        choices.append(tail)
    return f"({' | '.join(choices)})"


def _all(digit: str) -> dict[int, str]:
    return {ord(each): digit for each in "0123456789"}
