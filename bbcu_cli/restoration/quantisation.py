"""What a JPEG says of its picture, held against what a network made of it.

The true value of a coefficient lies within half a quantisation step of the one in the file. A network does not know the
steps, and a result that leaves them is wrong for certain. So the change of each coefficient is kept within a part of
its step, and where steps are finer than what the network is good for, it is taken in proportion. There is nothing but
adding and multiplying here, in a fixed order, so a result has the same bits everywhere.

Sources: projection onto the quantisation constraint set (Zakhor, IEEE TCSVT 2(1), 1992), and onto a narrower one (Park
and Lee, IEEE TCSVT 9(1), 1999). Measured on withheld photographs: `weights/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import Bands, Image
from bbcu_cli.image.image import Pixels
from bbcu_cli.image.jpeg_steps import SIDE, Steps

Floats = NDArray[np.float32]

PART: Final = np.float32(0.35)
"""The most that a coefficient changes, in steps; true values are seldom found at the border of the step."""

_ROWS: Final = 32  # of a piece; a multiple of the rows that share blocks

_WAVE: Final = np.array(
    [[np.sqrt((2 if k else 1) / SIDE) * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(4)] for k in range(SIDE)],
    np.float32,
)
"""The orthonormal DCT, of the first four samples; the other four mirror them, with the sign of the frequency."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantisation:
    """What the result for a JPEG is held against.

    Attributes:
        steps: of the file.
        full: the step from which on the network's changes are taken as they are, see `hub.Serves.full_step`.
    """

    steps: Steps
    full: float

    def hold(self, bands: Bands, image: Image, *, chroma: bool = True) -> Bands:
        """A result with the change of each coefficient kept within its step.

        Args:
            bands: the result, 8 bits, as large as the picture.
            image: the picture as it was decoded.
            chroma: hold chroma as well; else it is left as the network gave it.
        """
        steps = self.steps if chroma else self.steps.of_luma()
        return replace(bands, rows=_rows(bands, image, steps, self.full))


def working(width: int, channels: int) -> int:
    """Bytes that `Quantisation.hold` takes at the most beside the bands, for a picture of that width."""
    return _ROWS * (width + 4 * SIDE) * channels * 26


def _rows(bands: Bands, image: Image, steps: Steps, full: float) -> Iterator[Image]:
    top = 0
    for band in bands.pieces(_ROWS, first=steps.first[0]):
        bottom = top + band.size[0]
        piece = _Piece(steps, full, top, image.pixels[top:bottom], band.pixels)
        colour = piece.gray() if band.channels == 1 else piece.colour()
        yield replace(band, pixels=np.rint(np.clip(colour, 0, 255)).astype(np.uint8))
        top = bottom


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some rows of a picture, and of the result.

    Attributes:
        steps, full: of the `Quantisation`.
        top: the first row.
        before, after: uint8 (h, w, C).
    """

    steps: Steps
    full: float
    top: int
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]

    def gray(self) -> Floats:
        """The result that is held, float32 (h, w, 1)."""
        before, after = (samples.astype(np.float32)[..., 0] for samples in (self.before, self.after))
        return (before + self._held(after - before, self.steps.luma))[..., None]

    def colour(self) -> Floats:
        """The result that is held, float32 (h, w, 3), R, G, B."""
        before, after = _to_ycc(self.before), _to_ycc(self.after)
        luma, *chroma = after
        luma = before[0] + self._held(luma - before[0], self.steps.luma)
        for number, table in enumerate(self.steps.chroma):
            own, old = chroma[number], before[1 + number]
            if self.steps.planes is None:
                chroma[number] = old + self._held(own - old, table)
            else:
                chroma[number] = self._held_reduced(own, self.steps.planes[self._stored_rows, :, number], table)
        return _to_rgb(luma, *chroma)

    def _held_reduced(self, plane: Floats, stored: Pixels, table: Floats) -> Floats:
        """Chroma that the file has at another size, held there: as an encoder would reduce it."""
        reduced = _reduced(np.pad(plane, self._margins, "edge"), self.steps.factor)
        lacking = (side - have for side, have in zip(reduced.shape, stored.shape, strict=True))
        beside = [(n, 0) if first else (0, n) for n, (first, _) in zip(lacking, self._margins, strict=True)]
        change = reduced - (np.pad(stored, beside, "edge").astype(np.float32) - np.float32(128))
        mended = _held_blocks(change, table, self.full) - change
        return plane + self._inner(_enlarged(mended, self.steps.factor))

    def _held(self, change: Floats, table: Floats) -> Floats:
        """A change of a plane, with that of each coefficient held."""
        return self._inner(_held_blocks(np.pad(change, self._margins, "edge"), table, self.full))

    def _inner(self, plane: Floats) -> Floats:
        (above, _), (left, _) = self._margins
        height, width = self.before.shape[:2]
        return plane[above : above + height, left : left + width]

    @property
    def _margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows above and below, columns left and right, that lack of whole blocks; the encoder repeated the edge."""
        rows, columns = (-side % cell for side, cell in zip(self.before.shape, self.steps.cell, strict=False))
        first_rows, first_columns = self.steps.first
        return (rows, 0) if self.top < first_rows else (0, rows), (columns, 0) if first_columns else (0, columns)

    @property
    def _stored_rows(self) -> slice:
        """Those of the planes."""
        factor, first = self.steps.factor[0], self.steps.first[0]
        above = -(-first // factor)
        if self.top < first:
            return slice(0, above)
        begin = above + (self.top - first) // factor
        return slice(begin, begin - (-len(self.before) // factor))


def _to_ycc(rgb: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
    """Y, Cb and Cr of JFIF, in 8-bit units, chroma around 0."""
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return luma, (blue - luma) * np.float32(1 / 1.772), (red - luma) * np.float32(1 / 1.402)


def _to_rgb(luma: Floats, blue: Floats, red: Floats) -> Floats:
    """Inverse of `_to_ycc`."""
    rgb = np.empty((*luma.shape, 3), np.float32)
    np.add(luma, np.float32(1.402) * red, out=rgb[..., 0])
    np.add(luma, np.float32(1.772) * blue, out=rgb[..., 2])
    rest = luma - np.float32(0.299) * rgb[..., 0] - np.float32(0.114) * rgb[..., 2]
    np.multiply(rest, np.float32(1 / 0.587), out=rgb[..., 1])
    return rgb


def _reduced(plane: Floats, factor: tuple[int, int]) -> Floats:
    """The mean of 1 x 2 or 2 x 2 samples, as encoders reduce chroma."""
    for axis, times in enumerate(factor):
        if times == 2:
            pairs = plane if axis == 0 else plane.T
            pairs = (pairs[::2] + pairs[1::2]) * np.float32(0.5)
            plane = pairs if axis == 0 else pairs.T
    return plane


def _enlarged(plane: Floats, factor: tuple[int, int]) -> Floats:
    return plane.repeat(factor[0], axis=0).repeat(factor[1], axis=1)


def _held_blocks(change: Floats, table: Floats, full: float) -> Floats:
    """A change of whole blocks, with that of each coefficient held."""
    height, width = change.shape
    blocks = change.reshape(height // SIDE, SIDE, width // SIDE, SIDE).transpose(1, 3, 0, 2)
    coefficients = _transformed(_transformed(np.ascontiguousarray(blocks)).swapaxes(0, 1))  # horizontal frequency first
    step = np.ascontiguousarray(table.T)[..., None, None]
    coefficients *= np.minimum(step * np.float32(1 / full), np.float32(1))
    np.clip(coefficients, -PART * step, PART * step, out=coefficients)
    blocks = _restored(_restored(coefficients).swapaxes(0, 1))
    return np.ascontiguousarray(blocks.transpose(2, 0, 3, 1)).reshape(height, width)


def _transformed(samples: Floats) -> Floats:
    """The DCT along the first axis, (8, ...) -> (8, ...)."""
    mirrored = samples[:3:-1]
    even, odd = samples[:4] + mirrored, samples[:4] - mirrored
    out = np.empty(samples.shape, np.float32)
    for frequency in range(SIDE):
        _sum(_WAVE[frequency], odd if frequency % 2 else even, out[frequency])
    return out


def _restored(coefficients: Floats) -> Floats:
    """Inverse of `_transformed`."""
    out, even, odd = np.empty(coefficients.shape, np.float32), *np.empty((2, *coefficients.shape[1:]), np.float32)
    for n in range(4):
        _sum(_WAVE[::2, n], coefficients[::2], even)
        _sum(_WAVE[1::2, n], coefficients[1::2], odd)
        np.add(even, odd, out=out[n])
        np.subtract(even, odd, out=out[SIDE - 1 - n])
    return out


def _sum(weights: Floats, terms: Floats, out: Floats) -> None:
    """Four terms, each by its weight, added one after the other."""
    np.multiply(terms[0], weights[0], out=out)
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        out += term * weight
