"""How a JPEG was quantised: the steps of its coefficients, where its blocks lie, and its chroma as it is stored."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from bbcu_cli.image.formats import HEAD_BYTES, identify
from bbcu_cli.image.image import Pixels
from bbcu_cli.image.orientation import SIDEWAYS, upright
from bbcu_cli.image.pillow import exif_orientation

SIDE: Final = 8
"""Rows and columns of a block."""

_MIRRORED_ROWS: Final = (3, 4, 7, 8)  # orientations, as `orientation.upright` has them
_MIRRORED_COLUMNS: Final = (2, 3, 6, 7)
_LEAST_FANCY: Final = 3  # samples of a row of chroma from which on libjpeg interpolates
_ROUNDS: Final = 6
_BAND_ROWS: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The quantisation of a JPEG, upright as its picture is after `decode`.

    Attributes:
        luma: step of each coefficient, float32 (8, 8), vertical frequency first, in 8-bit units of the orthonormal
            DCT.
        chroma: the same for Cb and Cr; empty for a gray file, and where chroma is left alone.
        planes: Cb and Cr at the size that the file has them in, uint8 (h, w, 2); None where that is the picture's.
        factor: rows and columns of the picture for one of these, each 1 or 2.
        first: rows and columns of the picture before its first whole block of luma and chroma; 0 unless it was
            mirrored, since blocks begin at the first row and column of the stored picture.
    """

    luma: NDArray[np.float32]
    chroma: tuple[NDArray[np.float32], ...] = ()
    planes: Pixels | None = None
    factor: tuple[int, int] = (1, 1)
    first: tuple[int, int] = (0, 0)

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of the picture that share blocks: 8, or 16 where chroma has half as many."""
        return SIDE * self.factor[0], SIDE * self.factor[1]

    def of_luma(self) -> Steps:
        """The same without what is said of chroma."""
        first = self.first[0] % SIDE, self.first[1] % SIDE
        return replace(self, chroma=(), planes=None, factor=(1, 1), first=first)


def steps_of(source: Path | bytes) -> Steps | None:
    """The quantisation of a file; None if it is no JPEG, or not of luma (and chroma) that its tables tell about.

    Chroma in 4:2:0 or 4:2:2 is decoded once more, as it is before it is brought to full size; that of rarer samplings
    is left alone.

    Args:
        source: a path, or the whole content of a file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        if identify(stream.read(HEAD_BYTES)) != "JPEG":
            return None
        return _read(stream)


def _read(stream: BinaryIO) -> Steps | None:
    stream.seek(0)
    picture = JpegImageFile(stream)
    layers, tables = picture.layer, picture.quantization
    if picture.mode not in ("L", "RGB") or any(layer[3] not in tables for layer in layers):
        return None
    turned, (width, height) = exif_orientation(picture), picture.size
    steps = [_table(tables[layer[3]], turned) for layer in layers]
    whole = Steps(steps[0], first=_first((height, width), (SIDE, SIDE), turned))
    if picture.mode == "L":
        return whole
    if _is_rgb(picture):
        return None
    sampling, *rest = (tuple(layer[1:3]) for layer in layers)  # columns, rows
    if sampling not in ((1, 1), (2, 1), (2, 2)) or rest != [(1, 1), (1, 1)]:
        return whole
    planes, factor = None, sampling[::-1]
    if factor != (1, 1):
        planes = _halved_chroma(picture) if factor == (2, 2) else _narrowed_chroma(picture)
        if planes is None:
            return whole
        planes = upright(planes, turned)
    first = _first((height, width), (SIDE * factor[0], SIDE * factor[1]), turned)
    return Steps(steps[0], tuple(steps[1:]), planes, factor[::-1] if turned in SIDEWAYS else factor, first)


def _table(numbers: list[int], turned: object) -> NDArray[np.float32]:
    table = np.array(numbers, np.float32).reshape(SIDE, SIDE)
    return np.ascontiguousarray(table.T) if turned in SIDEWAYS else table


def _first(size: tuple[int, int], cell: tuple[int, int], turned: object) -> tuple[int, int]:
    """Rows and columns before the first whole cell of an upright picture, given both (height, width) as stored."""
    rows, columns = size[0] % cell[0], size[1] % cell[1]
    if turned in SIDEWAYS:
        rows, columns = columns, rows
    return rows if turned in _MIRRORED_ROWS else 0, columns if turned in _MIRRORED_COLUMNS else 0


def _is_rgb(picture: JpegImageFile) -> bool:
    """Whether its three components are R, G and B, as libjpeg would say."""
    if "jfif" in picture.info:
        return False
    if "adobe_transform" in picture.info:
        return bool(picture.info["adobe_transform"] == 0)
    return bytes(layer[0] for layer in picture.layer) == b"RGB"


def _halved_chroma(picture: JpegImageFile) -> Pixels | None:
    """Cb and Cr of a 4:2:0 file as they are stored, uint8 (ceil(H / 2), ceil(W / 2), 2); None of a damaged one.

    Where a picture is decoded at half its size, libjpeg halves luma and takes chroma as it is (jdmaster.c).
    """
    width, height = picture.size
    least = max(1, width // 2), max(1, height // 2)
    return _chroma(picture, least, (-(-width // 2), -(-height // 2)), lambda band: band)


def _narrowed_chroma(picture: JpegImageFile) -> Pixels | None:
    """Cb and Cr of a 4:2:2 file as they are stored, to about half a level, uint8 (H, ceil(W / 2), 2); None as above."""
    if picture.size[0] < 2 * _LEAST_FANCY:
        return None
    return _chroma(picture, picture.size, picture.size, _narrowed)


def _narrowed(wide: Pixels) -> Pixels:
    """Rows of chroma (h, w, 2) as they were before libjpeg made two columns of one.

    It takes 3/4 of the nearer sample and 1/4 of the next (jdsample.c). So the sum of a pair holds 3/2 of its own sample
    and 1/4 of each neighbour; solved by Jacobi's method, which divides the error by three each time.
    """
    pairs = np.pad(wide, ((0, 0), (0, wide.shape[1] % 2), (0, 0)), "edge").astype(np.float32)
    total = pairs[:, ::2] + pairs[:, 1::2]
    found = total / 2
    for _ in range(_ROUNDS):
        around = np.pad(found, ((0, 0), (1, 1), (0, 0)), "edge")
        found = (total - (around[:, :-2] + around[:, 2:]) / 4) / np.float32(1.5)
    return np.rint(np.clip(found, 0, 255)).astype(np.uint8)


def _chroma(
    picture: JpegImageFile, least: tuple[int, int], size: tuple[int, int], stored: Callable[[Pixels], Pixels]
) -> Pixels | None:
    """Cb and Cr of a picture decoded at a (width, height) of `least` or the next larger one, if that is `size`.

    Args:
        stored: what some rows of it are in the file.
    """
    try:
        picture.draft("YCbCr", least)
        picture.load()
        if (picture.mode, picture.size) != ("YCbCr", size):
            return None
        width, height = size
        tops = range(0, height, _BAND_ROWS)
        bands = (picture.crop((0, top, width, min(top + _BAND_ROWS, height))) for top in tops)
        return np.concatenate([stored(np.asarray(band)[..., 1:]) for band in bands])
    except Exception:  # noqa: BLE001 - Pillow raises almost anything; `decode` has said what is to be said of the file
        return None
