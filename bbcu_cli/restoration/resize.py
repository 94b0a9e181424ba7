"""A picture to a smaller size, by an antialiased filter, while its rows come.

Pillow's Lanczos filter (three lobes, widened by the ratio of the sizes) runs on floats, in blocks of rows whose place
depends on the sizes alone: the result is the same in whatever bands the picture comes. Colour under alpha is
premultiplied. Measured behind the networks on Set14: against bicubic it gains 0.56 dB at x1.2 and 0.10 dB at
x1.5, and loses 0.03 at x2.5 and 0.02 at x3.7 and x5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from bbcu_cli.image import Bands, Image
from bbcu_cli.image.color import premultiply, to_float, to_integer, unpremultiply
from bbcu_cli.image.metadata import resized as resized_metadata

FILTER: Final = "Lanczos"
_REACH: Final = 3  # pixels of the result on each side that the kernel looks at
_ROWS: Final = 32  # of the picture that a block is made of, beside those that the kernel looks at

Size = tuple[int, int]


def resized(bands: Bands, size: Size) -> Bands:
    """The picture as (height, width), of which no side is larger than it has; metadata are made true for it."""
    if size == bands.size:
        return bands
    metadata = resized_metadata(bands.metadata, bands.size, size)
    return replace(bands, size=size, metadata=metadata, rows=_rows(bands, size))


def working(before: Size, after: Size, samples: int, depth: int) -> int:
    """Bytes that `resized` takes at the most, beside the bands that it is given and the block that it gives.

    Args:
        before: (height, width) of the picture.
        after: of the result.
        samples: of a pixel, alpha included.
        depth: bits of a sample.
    """
    if before == after:
        return 0
    step = _step(before[0], after[0])
    ratio = before[0] / after[0]
    rows = min(before[0], math.ceil((step + 2 * _REACH) * ratio) + 2)
    window = (rows + _ROWS) * before[1] * samples * (2 * depth // 8)  # with the rows that are put to it
    floats = 4 * rows * before[1] * (3 * samples + 2)  # colour, premultiplied, one plane as Pillow's and numpy's
    return window + floats + 4 * after[1] * (rows + step * (4 * samples + 2))


def _step(before: int, after: int) -> int:
    """Rows of the result in a block."""
    return max(1, _ROWS * after // before)


def _rows(bands: Bands, size: Size) -> Iterator[Image]:
    height, (end, _) = bands.size[0], size
    ratio, step = height / end, _step(height, end)
    pieces = bands.pieces(_ROWS)
    held = next(pieces)
    first = 0  # row of the picture that `held` begins with
    for top in range(0, end, step):
        bottom = min(top + step, end)
        above = max(0, math.floor((top - _REACH) * ratio))
        below = min(height, math.ceil((bottom + _REACH) * ratio))
        waiting = [_cut(held, above - first, held.size[0])] if above - first < held.size[0] else []
        reached = first + held.size[0]
        while reached < below:
            piece = next(pieces)
            waiting.append(_cut(piece, max(0, above - reached), piece.size[0]))
            reached += piece.size[0]
        held, first = _stacked(waiting), above
        window = _cut(held, 0, below - above)
        box = (0, top * ratio - above, window.size[1], bottom * ratio - above)
        yield _filtered(window, (bottom - top, size[1]), box, opaque=bands.opaque)
    for _ in pieces:  # whoever makes the rows is to come to an end
        pass


def _cut(image: Image, top: int, bottom: int) -> Image:
    alpha = None if image.alpha is None else image.alpha[top:bottom]
    return Image(image.pixels[top:bottom], alpha)


def _stacked(parts: list[Image]) -> Image:
    if len(parts) == 1:
        return parts[0]
    alphas = [part.alpha for part in parts if part.alpha is not None]
    return Image(np.concatenate([part.pixels for part in parts]), np.concatenate(alphas) if alphas else None)


def _filtered(window: Image, size: Size, box: tuple[float, float, float, float], *, opaque: bool) -> Image:
    """The part of a window within a box (left, top, right, bottom) as (height, width)."""

    def plane(values: NDArray[Any]) -> NDArray[np.float32]:
        picture = Pillow.fromarray(np.ascontiguousarray(values))
        smaller: NDArray[np.float32] = np.asarray(picture.resize(size[::-1], Pillow.Resampling.LANCZOS, box))
        return smaller

    colour, alpha = to_float(window.pixels), window.alpha
    if alpha is None or opaque:
        pixels = np.dstack([plane(colour[..., channel]) for channel in range(window.channels)])
        full = None if alpha is None else np.full(size, np.iinfo(alpha.dtype).max, alpha.dtype)
        return Image(to_integer(pixels, window.depth), full)
    opacity = to_float(alpha)
    colour = premultiply(colour, opacity)
    pixels = np.dstack([plane(colour[..., channel]) for channel in range(window.channels)])
    small = plane(opacity)
    return Image(to_integer(unpremultiply(pixels, small), window.depth), to_integer(small, window.depth))
