"""Side-by-side pictures: input, result and ground truth in columns, the whole above and a magnified crop below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from bbcu_cli.image import Image
from bbcu_cli.image.color import to_8_bit

Pixels = NDArray[Any]

_PANEL: Final = 560  # longest side of a panel
_ZOOM: Final = 4
_GAP: Final = 12
_FONT: Final = 16
_PAPER: Final = (255, 255, 255)
_INK: Final = (32, 32, 32)
_MARK: Final = (230, 30, 60)
_BAND_PIXELS: Final = 1 << 18  # that are made 8-bit RGB at a time
_CHECKERS: Final = (255, 204)  # what shows through transparent pixels


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle of the result, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def within(self, across: float, down: float) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in an image that is so many times as wide and as high as the result."""
        right, bottom = self.left + self.width, self.top + self.height
        return self.left * across, self.top * down, right * across, bottom * down


@dataclass(frozen=True, slots=True)
class _Column:
    """One picture, its name, and its (width, height) as multiples of the result's."""

    name: str
    picture: Pillow.Image
    ratio: tuple[float, float] = (1.0, 1.0)

    def resized(self, size: tuple[int, int], part: _Box | None = None) -> Pillow.Image:
        """The whole, or the part that shows what `part` shows of the result, as (width, height)."""
        box = None
        if part:
            left, top, right, bottom = part.within(*self.ratio)
            box = (left, top, min(right, self.picture.width), min(bottom, self.picture.height))
        return self.picture.resize(size, Pillow.Resampling.BICUBIC, box=box)


def side_by_side(
    source: Image,
    result: Image,
    truth: Image | None = None,
    *,
    label: str = "result",
    truth_label: str = "ground truth",
) -> Image:
    """Draw input, result and, if given, ground truth beside each other.

    Args:
        source: of any size; enlarged by plain bicubic interpolation.
        result: of about that shape, in any size.
        truth: about as large as the result; what is beyond is cropped, what is missing repeated from the edge.
        label, truth_label: what result and ground truth are called.

    Returns:
        8-bit RGB, at most about 1,800 pixels wide whatever the size of the images. The crop is the part of the result
        with the most detail.
    """
    height, width = result.size
    ratio = (source.size[1] / width, source.size[0] / height)
    enlarged = ", bicubic" if max(ratio) < 1 else ""
    columns = [
        _Column(f"input, {_size(source)}{enlarged}", _picture(source, source.size), ratio),
        _Column(f"{label}, {_size(result)}", _picture(result, result.size)),
    ]
    if truth is not None:
        columns.append(_Column(truth_label, _picture(truth, result.size)))
    # Small results are enlarged by a whole number, large ones reduced.
    longest = max(height, width)
    shrink = _PANEL / longest if longest > _PANEL else _PANEL // longest
    panel = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    crop = _most_detailed(columns[1].resized(panel), (height, width))
    zoom = max(1, round(panel[0] / crop.width))
    magnified = (crop.width * zoom, crop.height * zoom)

    font = ImageFont.load_default(_FONT)
    step = _GAP + max(panel[0], magnified[0], *(round(font.getlength(column.name)) for column in columns))
    line = _FONT + _GAP
    below = line + panel[1] + line
    sheet = Pillow.new("RGB", (_GAP + step * len(columns), below + magnified[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, column in enumerate(columns):
        x = _GAP + index * step
        draw.text((x, _GAP // 2), column.name, fill=_INK, font=font)
        sheet.paste(column.resized(panel), (x, line))
        left, top, right, bottom = crop.within(shrink, shrink)
        corner = (x + max(left, right - 1), line + max(top, bottom - 1))
        draw.rectangle(((x + left, line + top), corner), outline=_MARK, width=2)
        # First to the result's own pixels, then each of them a square: what is seen is what the file holds.
        part = column.resized((crop.width, crop.height), crop)
        sheet.paste(part.resize(magnified, Pillow.Resampling.NEAREST), (x, below))
    draw.text((_GAP, below - line + _GAP // 2), f"marked part, {zoom}x", fill=_MARK, font=font)
    return Image(np.asarray(sheet))


def _most_detailed(overview: Pillow.Image, size: tuple[int, int]) -> _Box:
    """Where the gradients of a result of that (height, width) are strongest: a box that fills a panel magnified."""
    gray = np.asarray(overview.convert("L"), dtype=np.float64)
    detail = np.zeros_like(gray)
    detail[1:, 1:] = np.abs(np.diff(gray, axis=0))[:, 1:] + np.abs(np.diff(gray, axis=1))[1:]
    crop = [min(full, max(8, round(side / _ZOOM))) for full, side in zip(size, gray.shape, strict=True)]
    ratio = gray.shape[1] / size[1]
    rows, columns = (min(side, max(1, round(n * ratio))) for side, n in zip(gray.shape, crop, strict=True))
    total = np.pad(detail, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    corner = np.unravel_index(int(sums.argmax()), sums.shape)
    top, left = (min(int(at / ratio), full - n) for at, full, n in zip(corner, size, crop, strict=True))
    return _Box(left, top, crop[1], crop[0])


def _picture(image: Image, size: tuple[int, int]) -> Pillow.Image:
    """An image -> 8-bit RGB of that (height, width), some rows at a time; transparent pixels show a checkerboard.

    What is beyond is cropped, what is missing repeated from the edge.
    """
    height, width = size
    picture = Pillow.new("RGB", (width, height))
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, height, step):
        rows = np.minimum(np.arange(top, min(top + step, height)), image.size[0] - 1)
        part = np.ix_(rows, np.minimum(np.arange(width), image.size[1] - 1))
        band = to_8_bit(image.pixels[part])
        if image.alpha is not None:
            band = _on_checkers(band, to_8_bit(image.alpha[part]), top)
        rgb = np.ascontiguousarray(np.broadcast_to(band, (*band.shape[:2], 3)))
        picture.paste(Pillow.fromarray(rgb), (0, top))
    return picture


def _on_checkers(band: Pixels, alpha: Pixels, top: int) -> Pixels:
    """uint8 (H, W, C) with opacity (H, W), whose first row is row `top` of its picture, on a checkerboard."""
    opacity = alpha[..., None].astype(np.float32) / 255
    rows, columns = np.ogrid[top : top + band.shape[0], : band.shape[1]]
    side = max(1, band.shape[1] // 64)
    ground = np.where((rows // side + columns // side) % 2, *_CHECKERS)[..., None]
    blended: Pixels = np.rint(band * opacity + ground * (1 - opacity)).astype(np.uint8)
    return blended


def _size(image: Image) -> str:
    height, width = image.size
    return f"{width}x{height}"
