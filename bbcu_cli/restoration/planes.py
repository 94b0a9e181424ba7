"""Which planes of an image a network sees, and how its results become samples again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import Image
from bbcu_cli.image.color import jfif_to_rgb, premultiply, rgb_to_jfif, to_float, to_integer, unpremultiply
from bbcu_cli.restoration.tiling import Region
from bbcu_cli.spec import ModelSpec

Floats = NDArray[np.float32]
Chroma = Literal["keep", "restore"]

SLAB_ROWS: Final = 32
"""Rows of samples that are turned into floats and back at a time."""

# BT.601 luma of full-range RGB: the plane that a JPEG file itself stores (JFIF).
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """How an image is shown to a network, and how its results become samples again.

    Attributes:
        images: how many the network sees of each region.
        read: a region of the input -> float32 (images, C, H, W).
        paint: that region, and its result, float32 (images, C, S*H, S*W) -> integers.
    """

    images: int
    read: Callable[[Region], Floats]
    paint: Callable[[Region, Floats], Image]


def _slabs(region: Region) -> Iterator[tuple[Region, slice]]:
    """A region a few rows at a time, with their place in it, so that only its floats are ever as large as it is."""
    for top in range(region.top, region.bottom, SLAB_ROWS):
        bottom = min(top + SLAB_ROWS, region.bottom)
        yield replace(region, top=top, bottom=bottom), slice(top - region.top, bottom - region.top)


def _colour_planes(image: Image, scale: int) -> Planes:
    """RGB networks. Gray is shown to them as three equal channels. Colour under alpha is premultiplied."""
    alpha = None if image.opaque else image.alpha

    images = 1 if alpha is None or scale == 1 else 2

    def read(region: Region) -> Floats:
        seen = np.empty((images, 3, *image.pixels[region.slices].shape[:2]), np.float32)
        for slab, rows in _slabs(region):
            x = to_float(image.pixels[slab.slices])
            if alpha is not None:
                opacity = to_float(alpha[slab.slices])
                x = premultiply(x, opacity)
                seen[1:, :, rows] = opacity
            seen[0, :, rows] = x.transpose(2, 0, 1)
        return seen

    def paint(region: Region, y: Floats) -> Image:
        colour, opacity = y[0].transpose(1, 2, 0), None
        if image.channels == 1:
            colour = (colour @ _LUMA)[..., None]
        if alpha is not None:
            opacity = alpha[region.slices] if scale == 1 else to_integer(y[1].transpose(1, 2, 0) @ _LUMA, image.depth)
            colour = unpremultiply(colour, to_float(opacity))
        elif image.alpha is not None:
            opacity = np.full(colour.shape[:2], np.iinfo(image.alpha.dtype).max, image.alpha.dtype)
        return Image(to_integer(colour, image.depth), opacity)

    return Planes(images, read, paint)


def _luma_planes(image: Image) -> Planes:
    """Luma networks on the plane that the JPEG file stores; colour moves along with its luma."""

    def luma(x: Floats) -> Floats:
        y: Floats = x[..., 0] if image.channels == 1 else x @ _LUMA
        return y

    def read(region: Region) -> Floats:
        seen = np.empty((1, 1, *image.pixels[region.slices].shape[:2]), np.float32)
        for slab, rows in _slabs(region):
            seen[0, 0, rows] = luma(to_float(image.pixels[slab.slices]))
        return seen

    def paint(region: Region, y: Floats) -> Image:
        x = to_float(image.pixels[region.slices])
        return _beside(image, region, x + (y[0, 0] - luma(x))[..., None])

    return Planes(1, read, paint)


def _luma_and_chroma_planes(image: Image) -> Planes:
    """As `_luma_planes`, and Cb and Cr through the same network as if they were luma."""

    def read(region: Region) -> Floats:
        seen = np.empty((3, 1, *image.pixels[region.slices].shape[:2]), np.float32)
        for slab, rows in _slabs(region):
            seen[:, 0, rows] = rgb_to_jfif(to_float(image.pixels[slab.slices])).transpose(2, 0, 1)
        return seen

    def paint(region: Region, y: Floats) -> Image:
        return _beside(image, region, jfif_to_rgb(y[:, 0].transpose(1, 2, 0)))

    return Planes(3, read, paint)


def _paint_luma(image: Image, planes: Planes, region: Region, y: Floats) -> Image:
    """What a network of colour paints, but for its chroma, which stays that of the image."""
    made = planes.paint(region, y)
    before, after = to_float(image.pixels[region.slices]), to_float(made.pixels)
    return Image(to_integer(before + ((after - before) @ _LUMA)[..., None], image.depth), made.alpha)


def _beside(image: Image, region: Region, colour: Floats) -> Image:
    """New colour beside the alpha that was there."""
    return Image(to_integer(colour, image.depth), None if image.alpha is None else image.alpha[region.slices])


def blended(before: Image, after: Image, strength: float) -> Image:
    """Samples between two pictures of one size and depth: those of `before` at strength 0, of `after` at 1, exactly.

    Alpha is that of `after`.
    """
    start = before.pixels.astype(np.float32)  # holds every sample of 16 bits, and every difference of two, exactly
    mixed = np.rint(start + np.float32(strength) * (after.pixels.astype(np.float32) - start))
    return Image(mixed.astype(after.pixels.dtype), after.alpha)


def planes_of(image: Image, spec: ModelSpec, chroma: Chroma) -> Planes:
    """The planes of an image that a network sees; `chroma` is about deblocking images of colour."""
    if spec.channels == 3:
        planes = _colour_planes(image, spec.scale)
        keeps = chroma == "keep" and spec.task == "deblock" and image.channels == 3
        return replace(planes, paint=partial(_paint_luma, image, planes)) if keeps else planes
    return _luma_and_chroma_planes(image) if image.channels == 3 and chroma == "restore" else _luma_planes(image)


def images_of(channels: int, spec: ModelSpec, chroma: Chroma, *, alpha: bool) -> int:
    """`Planes.images` of an image that is not decoded yet; `alpha` if it has an alpha channel."""
    if spec.channels == 1:
        return 3 if channels == 3 and chroma == "restore" else 1
    return 2 if alpha and spec.scale > 1 else 1
