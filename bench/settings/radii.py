"""Radii and other lengths in pixels: exact fractions of the pixel range, written in 255ths.

Two conventions are in use: 8 for 8/255 and 0.03 for 3 % of the range. A number that could be read by the wrong one is
refused, with both spellings in the message, wherever a length is given: as a radius (`parse_eps`), in Python
(`as_eps`), and as an option (`bench.settings.lengths`).
"""

import re
from fractions import Fraction

from bench.errors import BenchError

FINEST = 10**9  # largest denominator of a radius

# Bounded: Fraction("1e99999999") would not come back.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][+-]?[0-9]{1,2})?")
_LONG = 40  # characters of a mistake that are shown


def parse_eps(text: str, where: str = "--eps") -> Fraction:
    """A radius as it is given on the command line and in [run] of bench.toml; the result lies in [0, 1].

    `8` and `2.5` mean 255ths, `8/255` is taken as written, `3%` is a share of the pixel range.

    Args:
        where: what an error says the text was given to.

    Raises:
        BenchError: anything else; a bare number between 0 and 1, which could be a fraction of the pixel range or
            255ths; a value outside the pixel range, or finer than 1e-9.
    """
    try:
        value, bare = written(text)
    except ValueError:
        raise BenchError(
            f"{where}: '{shortened(text)}' is not a number; write 8, 2.5 or 8/255 (255ths of the pixel range), or 3%."
        ) from None
    if bare and 0 < value < 1:
        raise BenchError(
            f"{where}: '{shortened(text)}' could be a fraction of the pixel range or 255ths: write "
            f"{_decimal(100 * value)}% or {_decimal(255 * value)}/255 for the one, {shortened(text)}/255 for the other."
        )
    return _bounded(value / 255 if bare else value, f"{where}: '{shortened(text)}'")


def as_eps(value: str | float | Fraction) -> Fraction:
    """A radius as Python code gives it; the result lies in [0, 1].

    Args:
        value: a float (or a Fraction) is a fraction of the pixel range, as in torchattacks and foolbox; text is read
            as on the command line (`parse_eps`). A float becomes the nearest fraction with a denominator up to 1e9,
            so that `8 / 255` is 8/255.

    Raises:
        BenchError: outside [0, 1], finer than 1e-9, not finite, or no number. So is an int other than 0, which could
            be 255ths.
    """
    if isinstance(value, str):
        return parse_eps(value, "eps")
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise BenchError(f"eps: {shortened(repr(value))} is not a number; give 8 / 255 or '8/255'.")
    if isinstance(value, int) and value:
        named = f"the int {value}" if abs(value) <= 255 else "an int that large"
        raise BenchError(
            f"eps: {named} could be 255ths or a fraction of the pixel range: give '8/255', or the float 8 / 255 "
            "(1.0 for the whole range)."
        )
    if isinstance(value, float):
        if not 0 <= value <= 1:  # nor NaN
            raise BenchError(f"eps: {value} is outside 0 to 1 (a fraction of the pixel range); give 8 / 255.")
        short = Fraction(value).limit_denominator(FINEST)
        return short if short or not value else _bounded(Fraction(value), f"eps: {value}")
    return _bounded(Fraction(value), f"eps: {shortened(str(value))}")


def show_eps(eps: Fraction) -> str:
    """`8/255`, `2.5/255`; a fraction that is no short decimal of 255 as itself."""
    scaled = eps * 255
    if scaled.denominator == 1:
        return f"{scaled}/255"
    decimal = f"{float(scaled):g}"
    return f"{decimal}/255" if Fraction(decimal) == scaled else str(eps)


def written(text: str) -> tuple[Fraction, bool]:
    """The value of `8`, `2.5`, `8/255` or `3%` as written, and whether it is a bare number.

    Raises ValueError for anything else, for infinity and NaN, and for numbers too long to be meant.
    """
    text = text.strip()
    if text.endswith("%"):
        return _number(text[:-1]) / 100, False
    top, slash, bottom = text.partition("/")
    if not slash:
        return _number(text), True
    if not (divisor := _number(bottom)):
        raise ValueError("a fraction of nothing")
    return _number(top) / divisor, False


def shortened(text: str) -> str:
    """What a user wrote, as far as a message of one line takes it."""
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _number(text: str) -> Fraction:
    if not _DECIMAL.fullmatch(text.strip()):
        raise ValueError("not a number")
    return Fraction(text.strip())


def _bounded(value: Fraction, what: str) -> Fraction:
    if not 0 <= value <= 1:
        raise BenchError(f"{what} is outside 0 to 255 (the pixel range in 255ths).")
    if value.denominator > FINEST:
        raise BenchError(f"{what} is finer than any image needs; write 8, 2.5 or 8/255.")
    return value


def _decimal(value: Fraction) -> str:
    return f"{float(value):.6g}"
