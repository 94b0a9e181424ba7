"""How large a result shall be, and the way there: networks one after the other, then a filter to the exact size.

Sizes are (height, width). A side of a result is the side of the picture times the exact factor, rounded to the nearest
pixel, halves up, and at least 1; a side that the user named is that side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from bbcu_cli.errors import UsageError
from bbcu_cli.restoration.model import Model
from bbcu_cli.spec import SCALES

MOST: Final = 16
"""The largest enlargement."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Way:
    """How a picture comes to its size.

    Attributes:
        scales: of the networks, in their order; none where the picture is not enlarged.
        size: of the result.
        factor: that was asked for, before sides were rounded to pixels.
        filtered: what the networks give is reduced to that size.
    """

    scales: tuple[int, ...]
    size: Size
    factor: Fraction
    filtered: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A size that is asked for: a factor, or sides in pixels.

    Attributes:
        factor: more than 1 and up to `MOST`.
        width, height: of the result; with both the largest size within them.
        longest: the longer side of the result.
        reduce: a picture that is larger is reduced; otherwise it stays as it is.
    """

    factor: Fraction | None = None
    width: int | None = None
    height: int | None = None
    longest: int | None = None
    reduce: bool = False

    def factor_for(self, size: Size) -> Fraction:
        """The exact factor for a picture of that size."""
        if self.factor is not None:
            return self.factor
        height, width = size
        if self.longest is not None:
            return Fraction(self.longest, max(size))
        ends = [Fraction(end, side) for end, side in ((self.height, height), (self.width, width)) if end is not None]
        return min(ends)

    def way(self, size: Size, scales: Collection[int] = SCALES) -> Way:
        """The way of a picture of that size.

        Args:
            size: of the picture.
            scales: of the networks that are at hand.

        Raises:
            UsageError: it would be enlarged more than `MOST` times.
        """
        factor = self.factor_for(size)
        if factor <= 1:
            end = _rounded(size, factor) if self.reduce else size
            return Way((), end, factor if self.reduce else Fraction(1), filtered=end != size)
        if factor > MOST:
            raise UsageError(
                f"{size[1]}x{size[0]} pixels would be enlarged {float(factor):.4g} times; "
                f"the most is {MOST}, so ask for a smaller size."
            )
        return way_to(size, _rounded(size, factor), scales, factor)


def way_to(size: Size, end: Size, scales: Collection[int] = SCALES, factor: Fraction | None = None) -> Way:
    """The way to an exact size, of which no side is smaller.

    Args:
        size: of the picture.
        end: of the result.
        scales: of the networks that are at hand.
        factor: that was asked for, if the size comes of one.
    """
    needed = max(Fraction(after, before) for before, after in zip(size, end, strict=True))
    steps = chain(needed, scales)
    product = math.prod(steps)
    return Way(steps, end, factor or needed, filtered=end != (size[0] * product, size[1] * product))


def chain(factor: Fraction, scales: Collection[int] = SCALES) -> tuple[int, ...]:
    """Scales of the fewest networks that enlarge at least so many times; of these the ones that enlarge least.

    The smaller come first: the work of a network grows with the pixels that it is given, so that x4 behind x2 takes 5
    units of it, x2 behind x4 17, for 0.07 dB more (Set14).
    """
    if factor <= 1:
        return ()
    count = next(n for n in itertools.count(1) if max(scales) ** n >= factor)
    able = [
        steps for steps in itertools.combinations_with_replacement(sorted(scales), count) if math.prod(steps) >= factor
    ]
    return min(able, key=math.prod)


@dataclass(frozen=True, slots=True, eq=False)
class Then:
    """What comes behind the first network of a picture, or alone where none serves.

    Attributes:
        models: the other networks, opened, in their order.
        size: of the result.
        factor, filtered: as in `Way`.
    """

    models: tuple[Model, ...]
    size: Size
    factor: Fraction
    filtered: bool


def _rounded(size: Size, factor: Fraction) -> Size:
    height, width = (max(1, math.floor(side * factor + Fraction(1, 2))) for side in size)
    return height, width
