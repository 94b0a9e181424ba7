"""How the samples of one TIFF page lie in its file and what they mean, by its tags.

Source: TIFF 6.0; Adobe's technical notes on TIFF (1995, 2002, 2005); libtiff for what those leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import lab
from bbcu_cli.image.tiff_directory import Directory, TiffContainer

NONE, FAX_1D, FAX_3, FAX_4, LZW, OLD_JPEG, JPEG, DEFLATE = range(1, 9)
PACKBITS, OLD_DEFLATE, LZMA, ZSTD, WEBP = 32773, 32946, 34925, 50000, 50001
FAX: Final = frozenset({FAX_1D, FAX_3, FAX_4})
LIBTIFF: Final = FAX | {LZW, LZMA, ZSTD}
"""Compressions that are undone by libtiff."""
WITH_PREDICTOR: Final = frozenset({LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD})
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)
LAB: Final = frozenset({lab.CIE, lab.ICC, lab.ITU})
COLOURS: Final[Mapping[int, int]] = {
    WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, **dict.fromkeys(LAB, 3),
}  # fmt: skip
"""What samples mean -> how many of them make a colour."""
SIGNED, FLOATING = 2, 3
_COMPLEX: Final = frozenset({5, 6})
ASSOCIATED, UNASSOCIATED, _COREL = 1, 2, 999
_LEAST_TILE: Final = 16  # of the standard; a hostile file asks for millions of smaller ones
_MOST_CHUNKS: Final = 1 << 18
_TILE_SLACK: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Layout:
    """One page.

    Attributes:
        order: byte order, "<" or ">".
        size: (height, width), not yet upright.
        orientation: as EXIF numbers it.
        bits: of each sample, one number for each.
        kinds: of each sample: 1 unsigned, 2 signed, 3 floating point, 4 unknown, 5 and 6 complex.
        meaning: of the samples: a photometric interpretation.
        extras: what the samples behind the colours are: `ASSOCIATED` or `UNASSOCIATED` alpha, or something else.
        planar: each sample has its plane; else the samples of a pixel lie together.
        compression, predictor: numbers of the standard.
        reversed: the lowest bit of a byte comes first.
        fax: options of CCITT compression.
        chunk: (height, width) of a strip or tile.
        tiled: tiles are padded to their full size, strips are not.
        offsets, lengths: where each strip or tile lies and its bytes; plane by plane, row by row.
        subsampling: (vertical, horizontal) of YCbCr.
        inks: 1 where they are cyan, magenta, yellow and black.
        tables: what the strips' or tiles' JPEG streams have in common.
    """

    order: str
    size: tuple[int, int]
    orientation: int
    bits: tuple[int, ...]
    kinds: tuple[int, ...]
    meaning: int
    extras: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    reversed: bool
    fax: int
    chunk: tuple[int, int]
    tiled: bool
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    subsampling: tuple[int, int]
    inks: int
    tables: bytes | None

    @property
    def samples(self) -> int:
        """Samples of each pixel."""
        return len(self.bits)

    @property
    def colours(self) -> int:
        """Those of them that make the colour."""
        return COLOURS.get(self.meaning, 1)

    @property
    def open_ended(self) -> bool:
        """The numbers are of a kind that does not say what is black and white: `Levels` do."""
        return bool({SIGNED, FLOATING} & {*self.kinds}) or max(self.bits) > 16

    @property
    def alpha(self) -> int | None:
        """Which sample is the opacity."""
        kinds = (ASSOCIATED, UNASSOCIATED, _COREL)
        return next((self.colours + i for i, kind in enumerate(self.extras) if kind in kinds), None)

    @property
    def premultiplied(self) -> bool:
        """The colour is multiplied by the opacity."""
        return self.alpha is not None and self.extras[self.alpha - self.colours] == ASSOCIATED

    @property
    def kept(self) -> tuple[int, ...]:
        """The samples that we read: colour, then alpha."""
        return (*range(self.colours), *(() if self.alpha is None else (self.alpha,)))

    @property
    def together(self) -> int:
        """How many samples of a pixel lie together."""
        return 1 if self.planar else self.samples

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of strips or tiles."""
        return -(-self.size[0] // self.chunk[0]), -(-self.size[1] // self.chunk[1])

    @property
    def subsampled(self) -> bool:
        """The samples are YCbCr and lie in blocks, maybe of one pixel: some of Y, then Cb and Cr."""
        return self.meaning == YCBCR and not self.planar and self.compression not in (JPEG, WEBP)

    def units(self, rows: int) -> int:
        """How many units, which is what bytes begin and end with, make so many rows: rows, or rows of YCbCr blocks."""
        return -(-rows // self.unit_rows)

    @property
    def unit_rows(self) -> int:
        """Rows of a unit."""
        return self.subsampling[0] if self.subsampled else 1

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit, which has the full width of a strip or tile."""
        columns = self.chunk[1]
        if self.subsampled:
            down, across = self.subsampling
            return -(-columns // across) * (down * across + 2)
        return -(-columns * self.together * self.bits[0] // 8)


def read_layout(file: TiffContainer, page: Directory) -> Layout:
    """What the tags of a page say; `completed` has still to look at its strips or tiles.

    Raises:
        EOFError, ValueError: they contradict each other or the length of the file.
    """
    height, width = file.number(page, 257, 0), file.number(page, 256, 0)
    if min(height, width) < 1:
        raise ValueError(f"its size is {width}x{height}")
    compression = file.number(page, 259, NONE)
    per_pixel = file.number(page, 277, 0)
    meaning = file.number(page, 262, -1)
    if meaning < 0:  # the standard requires it; so it is guessed as libtiff does
        meaning = RGB if per_pixel >= 3 else WHITE_IS_ZERO if compression in FAX else BLACK_IS_ZERO
    if not per_pixel:
        per_pixel = COLOURS.get(meaning, 1) if compression in (JPEG, WEBP) else max(1, page.tags.get(258, (0, 1, 0))[1])
    if per_pixel > 1 << 16:
        raise ValueError(f"{per_pixel} samples per pixel")
    colours = COLOURS.get(meaning, 1)
    if per_pixel < colours and meaning not in LAB:  # which may be lightness alone
        raise ValueError(f"{per_pixel} samples per pixel where the colours need {colours}")
    planar = file.number(page, 284, 1) == 2 and per_pixel > 1
    tiled = 322 in page.tags
    rows, columns = (
        (file.number(page, 323, 0), file.number(page, 322, 0))
        if tiled
        else (min(file.number(page, 278, height), height) or height, width)
    )
    subsampling = file.numbers(page, 530, most=2).tolist() or [2, 2]
    kinds = _each(file, page, 339, per_pixel, 1)
    of_lab = meaning in LAB and FLOATING not in kinds and _COMPLEX.isdisjoint(kinds)  # which has its own signs
    bits = _each(file, page, 258, per_pixel, 8 if compression in (JPEG, WEBP) else 1)
    if min(bits) < 1:
        raise ValueError(f"samples of {min(bits)} bits")
    chunk, offsets, lengths = (rows, columns), _places(file, page, 324, 273), _places(file, page, 325, 279)
    if compression == OLD_JPEG and (stream := _whole_jpeg(file, page)) is not None:
        compression, chunk, tiled = JPEG, (height, width), False
        offsets, lengths = np.array(stream[:1]), np.array(stream[1:])
    return Layout(
        order=file.order,
        size=(height, width),
        orientation=file.number(page, 274, 1),
        bits=bits,
        kinds=(1,) * per_pixel if set(kinds) == {0} or of_lab else kinds,
        meaning=meaning,
        extras=_extras(file, page, meaning, per_pixel - colours),
        planar=planar,
        compression=compression,
        predictor=file.number(page, 317, 1),
        reversed=file.number(page, 266, 1) == 2,
        fax=file.number(page, 293 if compression == FAX_4 else 292, 0),
        chunk=chunk,
        tiled=tiled,
        offsets=offsets,
        lengths=lengths,
        subsampling=(int(subsampling[-1]), int(subsampling[0])) if meaning == YCBCR else (1, 1),
        inks=file.number(page, 332, 1),
        tables=file.data(page, 347),
    )


def _each(file: TiffContainer, page: Directory, tag: int, count: int, default: int) -> tuple[int, ...]:
    """The value of each sample; many writers give one for all."""
    values = [int(value) for value in file.numbers(page, tag, most=count).tolist()] or [default]
    if len(values) not in (1, count):
        values = values[:1] if len(set(values)) == 1 else values + [values[-1]] * (count - len(values))
    return tuple(values * count if len(values) == 1 else values)


def _extras(file: TiffContainer, page: Directory, meaning: int, count: int) -> tuple[int, ...]:
    said = [int(value) for value in file.numbers(page, 338, most=count).tolist()]
    if not said and count == 1 and meaning == RGB and 338 not in page.tags:
        return (UNASSOCIATED,)  # not said, and RGBA all the same, as Pillow and others take it
    return tuple(said + [0] * (count - len(said)))


def _places(file: TiffContainer, page: Directory, of_tiles: int, of_strips: int) -> NDArray[Any]:
    """Offsets or lengths; old files keep those of tiles under the tags of strips."""
    return file.numbers(page, of_tiles if of_tiles in page.tags else of_strips)


def _whole_jpeg(file: TiffContainer, page: Directory) -> tuple[int, int] | None:
    """(offset, length) of the one JPEG stream that an old-style JPEG page keeps for interchange, if it is whole."""
    at, length = file.number(page, 513, 0), file.number(page, 514, 0)
    if not 4 <= length <= file.length - at or at < 8:
        return None
    ends = file.read(at, 2) + file.read(at + length - 2, 2)
    return (at, length) if ends == b"\xff\xd8\xff\xd9" else None


def completed(layout: Layout, length: int) -> Layout:
    """The layout with the lengths that a file of a length leaves out, and neighbouring raw strips taken together.

    Raises:
        ValueError: strips or tiles of an impossible size, or fewer than the picture needs.
    """
    (height, width), (rows, columns) = layout.size, layout.chunk
    if min(layout.chunk) < 1 or (
        layout.tiled and (rows < min(height, _LEAST_TILE) or columns < min(width, _LEAST_TILE))
    ):
        raise ValueError(f"its tiles are {columns}x{rows}")
    if rows * columns > 4 * height * width + _TILE_SLACK:
        raise ValueError(f"its tiles are {columns}x{rows} in a picture of {width}x{height}")
    if not {*layout.subsampling} <= {1, 2, 4}:
        raise ValueError(f"its chroma is subsampled {layout.subsampling[1]}x{layout.subsampling[0]}")
    planes = layout.samples if layout.planar else 1
    down, across = layout.grid
    what, needed = "tiles" if layout.tiled else "strips", down * across * planes
    offsets, lengths = layout.offsets[:needed], layout.lengths[:needed]
    if len(offsets) < needed:
        raise ValueError(f"it has {len(offsets)} of {needed} {what}")
    if layout.compression == NONE:
        whole = np.full((planes, down), layout.units(rows) * layout.unit_bytes, np.int64)
        if not layout.tiled:
            whole[:, -1] = layout.units(height - rows * (down - 1)) * layout.unit_bytes
            by_plane = offsets.reshape(planes, down)
            if (by_plane[:, 1:] == by_plane[:, :-1] + whole[:, :-1]).all():
                return replace(layout, chunk=(height, width), offsets=by_plane[:, 0], lengths=whole.sum(axis=1))
        if len(lengths) < needed or (needed == 1 and lengths[0] < whole[0, 0]):
            lengths = np.repeat(whole, across)
    elif len(lengths) < needed or not lengths.all():
        ends = np.append(np.sort(offsets), length)
        lengths = ends[np.searchsorted(ends, offsets, side="right").clip(max=needed)] - offsets
    if needed > _MOST_CHUNKS:
        raise ValueError(f"it has {needed} {what}")
    return replace(layout, offsets=offsets, lengths=lengths)
