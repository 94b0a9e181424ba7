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
        mended = piece.gray() if band.channels == 1 else piece.colour()
        samples = np.rint(np.clip(mended, 0, 255)).astype(np.uint8)
        yield replace(band, pixels=np.ascontiguousarray(samples.transpose(1, 2, 0)))
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
        """The result that is held, float32 (1, h, w)."""
        before, after = _planes(self.before), _planes(self.after)
        return after + self._excess((after - before)[0], self.steps.luma)

    def colour(self) -> Floats:
        """The result that is held, float32 (3, h, w), R, G, B."""
        after = _planes(self.after)
        luma, *chroma = _to_ycc(after - _planes(self.before))
        excess = [self._excess(luma, self.steps.luma)]
        if self.steps.planes is not None:
            excess += self._excess_of_stored(after)
        else:
            excess += [self._excess(plane, table) for plane, table in zip(chroma, self.steps.chroma, strict=False)]
        _add_ycc(after, *excess)
        return after

    def _excess_of_stored(self, after: Floats) -> list[Floats]:
        """What has to be added to chroma that the file has at another size, reduced as an encoder would."""
        assert self.steps.planes is not None  # noqa: S101 - `colour` asks only then
        factor, margins = self.steps.factor, self._margins
        _, *chroma = _to_ycc(_reduced(np.pad(after, [(0, 0), *margins], "edge"), factor))
        stored = self.steps.planes[self._stored_rows]
        lacking = (side - have for side, have in zip(chroma[0].shape, stored.shape, strict=False))
        beside = [(n, 0) if first else (0, n) for n, (first, _) in zip(lacking, margins, strict=True)]
        stored = np.pad(stored, [*beside, (0, 0)], "edge")
        excess = []
        for number, (plane, table) in enumerate(zip(chroma, self.steps.chroma, strict=True)):
            change = plane - (stored[..., number].astype(np.float32) - np.float32(128))
            excess.append(self._inner(_enlarged(_held(change, table, self.full) - change, factor)))
        return excess

    def _excess(self, change: Floats, table: Floats) -> Floats:
        """What has to be added to a plane that was changed so."""
        return self._inner(_held(np.pad(change, self._margins, "edge"), table, self.full)) - change

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


def _planes(samples: NDArray[np.uint8]) -> Floats:
    """(h, w, C) -> float32 (C, h, w)."""
    planes: Floats = samples.transpose(2, 0, 1).astype(np.float32, order="C")
    return planes


def _to_ycc(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """Y, Cb and Cr of JFIF, in 8-bit units and around 0; of pixels or of a change of pixels, (3, h, w)."""
    red, green, blue = rgb
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return luma, (blue - luma) * np.float32(1 / 1.772), (red - luma) * np.float32(1 / 1.402)


def _add_ycc(rgb: Floats, luma: Floats, *chroma: Floats) -> None:
    """Add a change of Y and, if it is given, of Cb and Cr to pixels (3, h, w)."""
    rgb += luma
    if chroma:
        blue, red = chroma
        rgb[0] += np.float32(1.402) * red
        rgb[1] -= np.float32(0.114 * 1.772 / 0.587) * blue + np.float32(0.299 * 1.402 / 0.587) * red
        rgb[2] += np.float32(1.772) * blue


def _reduced(planes: Floats, factor: tuple[int, int]) -> Floats:
    """The mean of 1 x 2 or 2 x 2 samples, as encoders reduce chroma, (C, h, w)."""
    rows, columns = factor
    if rows == 2:
        planes = (planes[:, ::2] + planes[:, 1::2]) * np.float32(0.5)
    if columns == 2:
        planes = (planes[..., ::2] + planes[..., 1::2]) * np.float32(0.5)
    return planes


def _enlarged(plane: Floats, factor: tuple[int, int]) -> Floats:
    return plane.repeat(factor[0], axis=0).repeat(factor[1], axis=1)


def _held(change: Floats, table: Floats, full: float) -> Floats:
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
