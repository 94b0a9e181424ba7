"""Samples whose black and white no file says - floating point, signed, 32 and 64 bits - between two stated values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bbcu_cli.image.image import Pixels

WHITE = 65535


@dataclass(frozen=True, slots=True)
class Levels:
    """The sample that is black and the one that is white; what lies between is spread evenly over 16 bits.

    Raises:
        ValueError: not two finite numbers of which the second one is larger.
    """

    black: float
    white: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.white - self.black) and self.black < self.white):
            raise ValueError(f"a range from {self.black:g} to {self.white:g} has no black below its white")

    def __str__(self) -> str:
        return f"{self.black:g} to {self.white:g}"


@dataclass(slots=True)
class Spread:
    """Spreads samples of one picture, some at a time, and counts those that did not fit.

    Attributes:
        levels: of its colour.
        samples: of colour that were seen.
        beyond: how many of them were clipped by more than rounding.
        undefined: how many were no numbers.
    """

    levels: Levels
    samples: int = field(default=0, init=False)
    beyond: int = field(default=0, init=False)
    undefined: int = field(default=0, init=False)

    def colour(self, samples: Pixels) -> Pixels:
        """Samples of any numbers and shape -> uint16 of that shape; no number (NaN) becomes black."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = samples.astype(np.float64)
            values -= self.levels.black
            values *= WHITE / (self.levels.white - self.levels.black)
        undefined = np.isnan(values)
        values[undefined] = 0
        self.samples += values.size
        self.undefined += int(undefined.sum())
        self.beyond += int(((values < -0.5) | (values > WHITE + 0.5)).sum())
        np.clip(values, 0, WHITE, out=values)
        return np.rint(values, out=values).astype(np.uint16)

    @staticmethod
    def opacity(samples: Pixels) -> Pixels:
        """The same of opacity, which has its own white: 1 of floating-point numbers, the largest of integers."""
        white = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
        return Spread(Levels(0, white)).colour(samples)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of samples that did not fit."""
        said = []
        if self.beyond:
            share = max(self.beyond / self.samples, 0.0001)
            said.append(f"{share:.2%} of its samples were beyond the range of {self.levels} and were clipped")
        if self.undefined:
            some = "a sample that is" if self.undefined == 1 else f"{self.undefined} samples that are"
            said.append(f"{some} no number (NaN) became black")
        return tuple(said)
