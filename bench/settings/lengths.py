"""The type of options that are lengths in pixels: radii and step sizes, as fractions of the pixel range [0, 1].

An option of a model, a recipe or an attack that is one is annotated with `Length`; it then takes `8/255`, `0.03` and
`3%`, and nothing that could be 255ths.
"""

from fractions import Fraction
from math import isfinite
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from bench.settings.radii import shortened, written


def pixel_fraction(value: object) -> float:
    """A length in [0, 1) as a float; of `8/255` the nearest one.

    Raises PydanticCustomError, which an error about the option quotes, for anything else; of a number from 1 to 255 it
    says how it is written in 255ths.
    """
    if isinstance(value, str):
        try:
            exact, bare = written(value)
        except ValueError:
            raise _refused(f"{shortened(value)} is no number; write 8/255 or 0.03") from None
        return _below_one(exact, bare, value)
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise _refused(f"{shortened(repr(value))} is no number; write 8/255 or 0.03")
    if isinstance(value, float) and not isfinite(value):
        raise _refused(f"{value} is no length; write 8/255 or 0.03")
    return _below_one(Fraction(value), True, f"{value}")


Length = Annotated[float, BeforeValidator(pixel_fraction)]
PositiveLength = Annotated[Length, Field(gt=0)]


def _below_one(value: Fraction, bare: bool, text: str) -> float:
    short = shortened(text)
    if value < 0:
        raise _refused(f"{short} is negative; write a fraction of the pixel range, such as 8/255 or 0.03")
    if value < 1:
        return float(value)
    if bare and value <= 255:
        raise _refused(
            f"{short} would be that many times the pixel range: write {short}/255 for 255ths, "
            f"{float(value / 255):.4g} as a fraction of the range"
        )
    raise _refused(f"{short} is not below 1, the whole pixel range; write a fraction of it, such as 8/255 or 0.03")


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("length", "{reason}", {"reason": reason})
