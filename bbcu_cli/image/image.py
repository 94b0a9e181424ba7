"""The values of this room: an image in memory, what a file's header says, what is known beside the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[Any]
"""Samples of one depth: uint8 or uint16."""

MOST_FRAMES: Final = 4096
"""Counting frames and pages stops here: a hostile TIFF can chain millions of pages."""


@dataclass(frozen=True, slots=True)
class Metadata:
    r"""What a file says beside its pixels, ready to be written again next to changed pixels.

    Attributes:
        icc: the ICC profile that the pixels are meant in; None means sRGB.
        exif: EXIF block that starts with ``Exif\0\0``; the orientation is 1, thumbnails and sizes are gone.
        xmp: XMP packet, UTF-8; the orientation is 1.
        dpi: (horizontal, vertical) pixels per inch.
        text: (keyword, text) pairs: PNG text chunks; the comment of a JPEG or GIF under "Comment", its bytes that are
            not UTF-8 as surrogate escapes.
        georeference: the GeoTIFF tags of a TIFF, as a TIFF directory of their own.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    georeference: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One decoded picture, upright.

    Attributes:
        pixels: uint8 or uint16 (H, W, C) in R, G, B order; C = 1 (gray) or 3; colour is not premultiplied.
        alpha: opacity, (H, W), of the same dtype; None when the file has none.
        metadata: profile, EXIF, XMP, resolution, text.
        format: what the file was, a name of `bbcu_cli.image.formats.FORMATS`.
        jpeg_tables: a JPEG's quantisation tables, each of 64 numbers row by row, luminance first.
        notes: one sentence for each thing that was converted or could not be read; to be shown to the user.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    jpeg_tables: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 or uint16 (H, W, 1 or 3)")
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise ValueError(f"alpha is {alpha.dtype} {alpha.shape}, expected {pixels.dtype} {pixels.shape[:2]}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.pixels.shape[:2]
        return height, width

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB; alpha is not counted."""
        return int(self.pixels.shape[2])

    @property
    def depth(self) -> int:
        """Bits per sample: 8 or 16."""
        return self.pixels.dtype.itemsize * 8

    @property
    def opaque(self) -> bool:
        """No pixel is transparent, whether or not there is an alpha channel."""
        return self.alpha is None or bool((self.alpha == np.iinfo(self.alpha.dtype).max).all())


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a file's header promises; nothing was decoded, so the pixels may still turn out to be damaged.

    Attributes:
        format: a name of `bbcu_cli.image.formats.FORMATS`.
        size: (height, width), upright: after the EXIF orientation.
        channels: 1 or 3, as `decode` will give.
        depth: 8 or 16, as `decode` will give.
        alpha: an alpha channel or a transparent colour is there.
        frames: 1, or the number of frames or pages; at the most `MOST_FRAMES`.
        working: bytes that `decode` takes at the most beside the picture that it gives.
        held: bytes that are kept from one frame to the next.
        each: the kinds of pictures that the frames or pages are, one of them for each kind; the other attributes are
            those of the picture that stands for all. Empty where there is only one.
    """

    format: str
    size: tuple[int, int]
    channels: int
    depth: int
    alpha: bool
    frames: int
    working: int = 0
    held: int = 0
    each: tuple[ImageInfo, ...] = ()

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.size[0] * self.size[1]

    @property
    def samples(self) -> int:
        """Samples of each pixel, alpha included."""
        return self.channels + self.alpha

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded `Image`, alpha included."""
        return self.pixels * self.samples * self.depth // 8


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """One picture on its way to a file: what a header says, then rows, which are never all in memory.

    Attributes:
        size: (height, width) of the whole.
        channels: 1 for gray, 3 for RGB.
        depth: 8 or 16.
        alpha: an alpha channel is there.
        opaque: no pixel will be transparent.
        metadata: as in `Image`.
        rows: the picture from top to bottom in bands of full width; to be gone through once. Of each `Image` only the
            pixels and the alpha count.
    """

    size: tuple[int, int]
    channels: int
    depth: int
    alpha: bool
    opaque: bool
    metadata: Metadata
    rows: Iterator[Image]

    @classmethod
    def of(cls, image: Image) -> Bands:
        """An image that is in memory, as one band."""
        alpha = image.alpha is not None
        return cls(image.size, image.channels, image.depth, alpha, image.opaque, image.metadata, iter((image,)))

    @property
    def samples(self) -> int:
        """Samples of each pixel, alpha included."""
        return self.channels + self.alpha

    def pieces(self, height: int, *, first: int = 0) -> Iterator[Image]:
        """The rows in bands of exactly `height`, however they came; but for the last one, and the first if it is given.

        Args:
            height: rows of a band.
            first: rows of the first one; 0 as any other.
        """
        rest, wanted = None, first or height
        for band in self.rows:
            top = 0
            if rest is not None:
                top = min(wanted - rest.size[0], band.size[0])
                rest = _joined(rest, _cut(band, 0, top))
                if rest.size[0] < wanted:
                    continue
                yield rest
                rest, wanted = None, height
            while band.size[0] - top >= wanted:
                yield _cut(band, top, top + wanted)
                top += wanted
                wanted = height
            if top < band.size[0]:
                rest = _cut(band, top, band.size[0])
        if rest is not None:
            yield rest

    def whole(self) -> Image:
        """All rows as one image in memory."""
        height, width = self.size
        dtype = np.dtype(f"u{self.depth // 8}")
        pixels = np.empty((height, width, self.channels), dtype)
        alpha = np.empty((height, width), dtype) if self.alpha else None
        top = 0
        for band in self.rows:
            rows = slice(top, top + band.size[0])
            pixels[rows] = band.pixels
            if alpha is not None and band.alpha is not None:
                alpha[rows] = band.alpha
            top = rows.stop
        return Image(pixels, alpha, self.metadata)


def _joined(upper: Image, lower: Image) -> Image:
    alphas = [part.alpha for part in (upper, lower) if part.alpha is not None]
    return Image(np.concatenate([upper.pixels, lower.pixels]), np.concatenate(alphas) if alphas else None)


def _cut(image: Image, top: int, bottom: int) -> Image:
    """Rows top..bottom, end excluded, as views."""
    alpha = None if image.alpha is None else image.alpha[top:bottom]
    return replace(image, pixels=image.pixels[top:bottom], alpha=alpha)
