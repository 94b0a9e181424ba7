"""Reading TIFF and BigTIFF: which page is the picture, and from its stored samples to an `Image`.

By our own rules. Pillow goes by a table of known combinations of tags: it shows 12 bits 16 times too dark and separate
planes of 16 bits as noise. tifffile would need imagecodecs (26 MB) for LZW, and neither is made for hostile files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

import numpy as np

from bbcu_cli.errors import ImageError
from bbcu_cli.image import cmyk, lab, metadata
from bbcu_cli.image.color import to_8_bit, unpremultiply
from bbcu_cli.image.found import attempt
from bbcu_cli.image.frames import Frame, Frames
from bbcu_cli.image.image import Image, ImageInfo, Metadata, Pixels
from bbcu_cli.image.levels import Levels, Spread
from bbcu_cli.image.orientation import SIDEWAYS, TURNED, upright
from bbcu_cli.image.raw_file import RawFile, kind_in_tiff
from bbcu_cli.image.tiff_directory import Directory, TiffContainer
from bbcu_cli.image.tiff_layout import (
    CMYK,
    LAB,
    PALETTE,
    WHITE_IS_ZERO,
    Layout,
    completed,
    read_layout,
)
from bbcu_cli.image.tiff_refusal import refusal
from bbcu_cli.image.tiff_samples import read_samples, working_of

_SUBFILE, _OLD_SUBFILE = 254, 255
_REDUCED_OR_MASK: Final = 1 | 4
_OLD_REDUCED: Final = 2
_WHITE_POINT, _COLOUR_MAP, _DECODE, _COEFFICIENTS, _BLACK_AND_WHITE = 318, 320, 433, 529, 532
_MAKE, _XMP, _ICC, _EXIF = 271, 700, 34675, 34665
_BAND_SAMPLES: Final = 1 << 20
_DIRECTORY: Final = 300  # bytes of a tag in memory


def open_tiff(name: str, stream: BinaryIO) -> TiffFile | RawFile:
    """Find the pages of `stream`; of a camera raw file, which is a TIFF whose pages are thumbnails, its reader."""
    file = TiffFile.open(name, stream)
    raw = kind_in_tiff(file.container, file.pages)
    return file if raw is None else RawFile.open(name, stream, raw)


@dataclass(frozen=True, slots=True)
class TiffFile:
    """A file whose pages were found; its methods raise almost anything on damaged files.

    Attributes:
        name: how to call it in errors.
        container: the file.
        pages: all pages of its chain.
        main: the page that is the picture.
        pictures: the pages that are pictures, not thumbnails or masks.
        fault: what is wrong with the list of pages.
        levels: black and white of samples that do not say it.
    """

    name: str
    container: TiffContainer
    pages: tuple[Directory, ...]
    main: Directory
    pictures: tuple[Directory, ...]
    fault: str | None
    levels: Levels | None = None

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> TiffFile:
        """Find the pages of `stream`."""
        container = TiffContainer.open(stream)
        pages, fault = container.pages()
        pictures = _pictures(container, pages)
        return cls(name, container, pages, pictures[0], pictures, fault)

    def info(self) -> ImageInfo:
        """What the tags say.

        Raises:
            ImageError: the samples are of a kind that we cannot restore, or compressed in a way that we do not read.
        """
        info = self.page_info()
        if info.frames < 2:
            return info
        kinds = dict[ImageInfo, None]()
        for page in self._each():
            # What is wrong with a page beside the first one is told when all are wanted.
            with contextlib.suppress(ImageError, EOFError, ValueError):
                kinds[page.page_info()] = None
        directories = _DIRECTORY * sum(len(page.tags) for page in self.pages)
        return replace(info, each=tuple(replace(kind, held=directories) for kind in kinds))

    def page_info(self) -> ImageInfo:
        """The same of the main page alone."""
        layout = self._layout()
        palette = self._palette(layout)
        gray = layout.colours == 1 if palette is None else palette.shape[1] == 1
        height, width = layout.size[::-1] if layout.orientation in SIDEWAYS else layout.size
        info = ImageInfo(
            format="TIFF",
            size=(height, width),
            channels=1 if gray else 3,
            depth=16 if _is_deep(layout) else 8,
            alpha=layout.alpha is not None,
            frames=len(self.pictures),
        )
        return replace(info, working=_working(layout, info, self.container.length))

    def frames(self, _: ImageInfo) -> Frames:
        """All pages that are pictures.

        Raises:
            ImageError: one of them is of a kind that we cannot restore; none was read.
            EOFError, ValueError: the list of pages is damaged.
        """
        if self.fault:
            raise ValueError(self.fault)
        for page in self._each():
            page.page_info()
        each = (Frame(page.decode(page.page_info())) for page in self._each())
        return Frames(len(self.pictures), pages=True, plays=1, each=each)

    def _each(self) -> Iterator[TiffFile]:
        """The file with each of its pictures as the main one."""
        for number, page in enumerate(self.pictures, 1):
            yield replace(self, name=f"{self.name}, page {number},", main=page)

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata; `info` is what `info` gave."""
        layout = self._layout()
        notes = [f"{self.fault}; the picture before it was read"] if self.fault else []
        left = len(layout.extras) - (layout.alpha is not None)
        if left:
            some = "a channel beside the colour was" if left == 1 else f"{left} channels beside the colour were"
            notes.append(f"{some} left out, because the file does not say what it means")
        spread = Spread(self.levels) if self.levels and layout.open_ended else None
        samples = read_samples(self.container, layout, spread)
        notes += spread.notes if spread else ()
        palette = self._palette(layout)
        if palette is not None:
            samples = _looked_up(samples, palette, layout)
        else:
            _scale(samples, layout)
        if layout.premultiplied:
            for band in _bands(samples):
                band[..., :-1] = unpremultiply(band[..., :-1], band[..., -1])
        icc = None
        if layout.meaning == CMYK:
            samples, said = self._from_cmyk(samples, layout.bits[0])
            notes += said
            icc = cmyk.srgb_profile() if self._profile() else None
        elif layout.subsampled:
            self._from_ycbcr(samples)
        elif layout.meaning in LAB:
            samples, icc, said = self._from_lab(samples, layout)
            notes += said
        about, left_out = self._metadata(info, layout, icc)
        samples = upright(samples, layout.orientation)
        return Image(
            pixels=samples[..., : info.channels],
            alpha=samples[..., -1] if info.alpha else None,
            metadata=about,
            format="TIFF",
            notes=(*notes, *left_out),
        )

    def _layout(self) -> Layout:
        layout = read_layout(self.container, self.main)
        refused = refusal(layout, self.levels)
        if refused is not None:
            raise ImageError(f"{self.name} {refused}")
        return completed(layout, self.container.length)

    def _palette(self, layout: Layout) -> Pixels | None:
        """Colours of all indices, uint8 (2**bits, 3), or (2**bits, 1) when all are gray; None without a palette."""
        if layout.meaning != PALETTE:
            return None
        size = 1 << layout.bits[0]
        values = self.container.numbers(self.main, _COLOUR_MAP)
        if values.size != 3 * size or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its palette has {values.size} values, expected {3 * size}")
        colours = values.reshape(3, size).T
        if colours.max() > 0xFF:  # else written by a program that took 8 bits for 16, which libtiff minds as well
            low = colours & 0xFF
            shifted = (low == 0).all()  # 8 bits that were made 16 by zeros below them
            colours = colours >> 8 if shifted else to_8_bit(colours.astype(np.uint16))
        gray = (colours == colours[:, :1]).all()
        palette: Pixels = colours[:, : 1 if gray else 3].astype(np.uint8)
        return palette

    def _from_cmyk(self, samples: Pixels, bits: int) -> tuple[Pixels, list[str]]:
        notes = []
        if samples.dtype != np.uint8:
            notes.append(f"{bits}-bit CMYK was reduced to 8 bits")
            small = np.empty(samples.shape, np.uint8)
            for band, result in _bands(samples, small):
                result[:] = to_8_bit(band)
            samples = small
        rgb, how = cmyk.to_srgb(samples[..., :4], self._profile())
        return (np.dstack([rgb, samples[..., 4]]) if samples.shape[2] > 4 else rgb), [*notes, how]

    def _from_ycbcr(self, samples: Pixels) -> None:
        """Change the samples to RGB in place (TIFF 6.0, section 21)."""
        red, green, blue = _numbers(self.container, self.main, _COEFFICIENTS, (0.299, 0.587, 0.114))
        limits = _numbers(self.container, self.main, _BLACK_AND_WHITE, (0, 255, 128, 255, 128, 255))
        black, white = limits[::2].astype(np.float32), limits[1::2].astype(np.float32)
        for band in _bands(samples):
            y, cb, cr = np.moveaxis((band - black) * np.array([255, 127, 127], np.float32) / (white - black), -1, 0)
            r, b = cr * (2 - 2 * red) + y, cb * (2 - 2 * blue) + y
            rgb = np.stack([r, (y - blue * b - red * r) / green, b], axis=-1)
            band[:] = np.rint(np.clip(rgb, 0, 255))

    def _from_lab(self, samples: Pixels, layout: Layout) -> tuple[Pixels, bytes | None, list[str]]:
        """RGB of 16 bits, its profile (None for sRGB where the file had none), and notes."""
        notes: list[str] = []
        profile = self._profile()
        changes = attempt("colour profile", notes, lambda: lab.changes(profile)) if profile else None
        if changes:
            raise ImageError(f"{self.name} has CIE Lab colours that its profile changes; convert it to RGB first")
        white, decode = (self.container.numbers(self.main, tag).tolist() for tag in (_WHITE_POINT, _DECODE))
        how = lab.encoding(layout.meaning, layout.bits[0], () if changes is False else white, decode)
        rgb, space, said = lab.to_rgb(samples, how)
        return rgb, space.icc(3) if profile or not space.is_srgb(3) else None, notes + said

    def _profile(self) -> bytes | None:
        return self.container.data(self._page_with(_ICC), _ICC)

    def _metadata(self, info: ImageInfo, layout: Layout, icc: bytes | None) -> tuple[Metadata, tuple[str, ...]]:
        """What travels; `icc` is that of colours that were converted."""
        return metadata.read(
            self.name,
            "TIFF",
            self.container.stream,
            {"icc_profile": icc},
            channels=info.channels,
            size=info.size,
            orientation=layout.orientation,
            converted=layout.meaning in {CMYK, *LAB},
            page=self._page_with(_EXIF, _MAKE, _XMP, _ICC).at,
        )

    def _page_with(self, *tags: int) -> Directory:
        """The picture's page, or the first one if only that has any of these tags."""
        first = self.pages[0]
        if len(self.pictures) > 1:
            return self.main
        has = [any(tag in page.tags for tag in tags) for page in (self.main, first)]
        return first if has == [False, True] else self.main


def _is_deep(layout: Layout) -> bool:
    """Its samples come out with 16 bits."""
    return layout.open_ended or layout.meaning in LAB or (layout.bits[0] > 8 and layout.meaning not in (PALETTE, CMYK))


def _working(layout: Layout, info: ImageInfo, length: int) -> int:
    """Bytes that `TiffFile.decode` takes at the most beside its result; `length` is that of the file."""
    stored = info.pixels * len(layout.kept) * (2 if layout.bits[0] > 8 else 1)
    converted = 0
    if layout.meaning == CMYK:  # what is stored, in 8 bits if it has more, and RGB before its alpha is beside it
        converted = stored + (stored // 2 if layout.bits[0] > 8 else 0) + (info.pixels * 3 if info.alpha else 0)
    elif layout.meaning == PALETTE:
        converted = stored
    elif layout.meaning in LAB:
        converted = (stored if layout.bits[0] == 8 else 0) + lab.working_of(info.size)
    turned = info.nbytes if layout.orientation in TURNED else 0
    return max(working_of(layout, length), converted, turned)


def _pictures(container: TiffContainer, pages: Sequence[Directory]) -> tuple[Directory, ...]:
    """The pages that are pictures: whole pages before those below other pages; of nothing but parts the largest."""
    whole = [page for page in pages if not _is_part(container, page)]
    if not whole:
        below = [sub for page in pages for sub in container.pages_below(page)]
        whole = [sub for sub in below if not _is_part(container, sub)]
    if whole:
        return tuple(whole)
    return (max(pages, key=lambda page: container.number(page, 256, 0) * container.number(page, 257, 0)),)


def _is_part(container: TiffContainer, page: Directory) -> bool:
    """It is a thumbnail or a mask."""
    if _SUBFILE in page.tags:
        return bool(container.number(page, _SUBFILE, 0) & _REDUCED_OR_MASK)
    return container.number(page, _OLD_SUBFILE, 0) == _OLD_REDUCED


def _numbers(container: TiffContainer, page: Directory, tag: int, default: tuple[float, ...]) -> Any:
    values = container.numbers(page, tag).astype(np.float64)
    usable = values.size == len(default) and bool(np.isfinite(values).all())
    if usable and tag == _BLACK_AND_WHITE:
        usable = bool((values[::2] != values[1::2]).all())
    return values if usable else np.array(default, np.float64)


def _bands(*arrays: Pixels) -> Iterator[Any]:
    """A few rows of one array, or of several of the same height side by side, at a time, as views."""
    step = max(1, _BAND_SAMPLES // max(array.shape[1] * array.shape[2] for array in arrays))
    for top in range(0, len(arrays[0]), step):
        views = tuple(array[top : top + step] for array in arrays)
        yield views if len(views) > 1 else views[0]


def _spread(bits: int, top: int) -> Pixels:
    """Table of 2**bits values that spreads them over 0..top, rounded."""
    most = (1 << bits) - 1
    return (2 * top * np.arange(most + 1, dtype=np.int64) + most) // (2 * most)


def _scale(samples: Pixels, layout: Layout) -> None:
    """Spread the samples over 8 or 16 bits in place, and turn white that is zero."""
    bits, top = 16 if layout.open_ended else layout.bits[0], np.iinfo(samples.dtype).max
    inverted = layout.meaning == WHITE_IS_ZERO
    table = _spread(bits, top).astype(samples.dtype) if bits not in (8, 16) else None
    for band in _bands(samples) if inverted or table is not None else ():
        if table is not None:
            band[:] = table[band]
        if inverted:
            np.invert(band[..., 0], out=band[..., 0])


def _looked_up(samples: Pixels, palette: Pixels, layout: Layout) -> Pixels:
    """Colours of indices and, if there is one, their alpha in 8 bits."""
    channels = palette.shape[1]
    opacity = _spread(layout.bits[0], 255).astype(np.uint8)
    out = np.empty((*samples.shape[:2], channels + (layout.alpha is not None)), np.uint8)
    for band, result in _bands(samples, out):
        result[..., :channels] = palette[band[..., 0]]
        if layout.alpha is not None:
            result[..., channels] = opacity[band[..., 1]]
    return out
