"""Radii: exact fractions of the pixel range, written in 255ths."""

from fractions import Fraction

from bench.errors import BenchError


def parse_eps(text: str) -> Fraction:
    """`2` and `2.5` mean /255; `8/255` and `2.5/255` are taken as written. The result lies in [0, 1].

    Raises BenchError for anything else.
    """
    top, slash, bottom = text.partition("/")
    try:
        value = Fraction(top.strip()) / Fraction(bottom.strip() if slash else 255)
    except (ValueError, ZeroDivisionError):
        raise BenchError(f"--eps: '{text}' is not a number; write 8, 2.5 or 8/255 (all mean 255ths).") from None
    if value < 0 or value > 1:
        raise BenchError(f"--eps: '{text}' is outside 0 to 255 (the pixel range in 255ths).")
    if value.denominator > 10**9:
        raise BenchError(f"--eps: '{text}' is finer than any image needs; write 8, 2.5 or 8/255.")
    return value


def show_eps(eps: Fraction) -> str:
    """`8/255`, `2.5/255`; a fraction that is no short decimal of 255 as itself."""
    scaled = eps * 255
    if scaled.denominator == 1:
        return f"{scaled}/255"
    decimal = f"{float(scaled):g}"
    return f"{decimal}/255" if Fraction(decimal) == scaled else str(eps)
