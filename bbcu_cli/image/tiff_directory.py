"""The directories of a TIFF or BigTIFF file of either byte order: its pages, and the numbers in their tags.

Pillow's directories turn every value of every tag into Python objects, know no big-endian BigTIFF, and find neither
pages below pages nor the good ones before a damaged one.

Source: TIFF 6.0, section 2; TIFF Technical Note 1 (trees of directories); the BigTIFF design of libtiff.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image.image import MOST_FRAMES

_MAGIC: Final[Mapping[bytes, tuple[str, bool]]] = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
_NUMBERS: Final[Mapping[int, str]] = {
    1: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8",
    17: "i8", 18: "u8",
}  # fmt: skip
_FRACTIONS: Final = (5, 10)
_BYTES: Final = (1, 2, 6, 7)
_SIZES: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # others: 1
_WIDTH, _LENGTH = 256, 257
_SUBDIRECTORIES: Final = 330
_MOST_SUBDIRECTORIES: Final = 32
_MOST_ENTRIES: Final = 1 << 17  # in all pages together: a hostile file lets them overlap


@dataclass(frozen=True, slots=True)
class Directory:
    """One page: where it lies, where the next one does (0: nowhere), and its tags' (type, count, place of the values).

    The place is counted from the start of the file.
    """

    at: int
    following: int
    tags: Mapping[int, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class TiffContainer:
    """A file and the layout of its directories.

    Attributes:
        order: its byte order, "<" or ">".
        big: BigTIFF, with offsets of 64 bits.
        first: where the first page lies.
        length: bytes of the file.
    """

    stream: BinaryIO
    order: str
    big: bool
    first: int
    length: int

    @classmethod
    def open(cls, stream: BinaryIO) -> TiffContainer:
        """Read the header.

        Raises:
            ValueError: it is none.
            EOFError: the file ends in it.
        """
        length = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(16)
        if head[:4] not in _MAGIC:
            raise ValueError("it does not begin as a TIFF")
        order, big = _MAGIC[head[:4]]
        if len(head) < (16 if big else 8):
            raise EOFError("it ends in its header")
        (first,) = struct.unpack_from(order + ("Q" if big else "L"), head, 8 if big else 4)
        return cls(stream, order, big, first, length)

    def read(self, at: int, count: int) -> bytes:
        """Bytes of the file.

        Raises:
            EOFError: the file has not that many there.
        """
        if at < 0 or count < 0 or at + count > self.length:
            raise EOFError(f"it has {self.length} bytes, and its directories speak of byte {at + count}")
        self.stream.seek(at)
        return self.stream.read(count)

    def directory(self, at: int) -> Directory:
        """The page at an offset.

        Raises:
            EOFError: the file ends in it.
            ValueError: it has too many tags.
        """
        head, size, inline = (8, 20, 8) if self.big else (2, 12, 4)
        (count,) = struct.unpack(self.order + ("Q" if self.big else "H"), self.read(at, head))
        if count > _MOST_ENTRIES:
            raise ValueError(f"a directory of {count} tags")
        table = self.read(at + head, count * size + inline)
        tags: dict[int, tuple[int, int, int]] = {}
        for index, (tag, kind, values, place) in enumerate(
            struct.iter_unpack(self.order + ("HHQQ" if self.big else "HHLL"), table[:-inline])
        ):
            here = at + head + index * size + size - inline
            tags.setdefault(tag, (kind, values, here if values * _SIZES.get(kind, 1) <= inline else place))
        (following,) = struct.unpack(self.order + ("Q" if self.big else "L"), table[-inline:])
        return Directory(at, following, tags)

    def numbers(self, page: Directory, tag: int, *, most: int | None = None) -> NDArray[Any]:
        """The values of a tag: int64, or float64 for fractions (by zero: infinite or nan) and floats; empty without it.

        Args:
            page: the directory.
            tag: of integers, fractions or floats; bytes of an unknown meaning count as none.
            most: no more values than that are read.

        Raises:
            EOFError: the values lie behind the end of the file.
            ValueError: an offset of more than 63 bits.
        """
        kind, count, place = page.tags.get(tag, (0, 0, 0))
        if kind not in _NUMBERS:
            return np.empty(0, np.int64)
        dtype = np.dtype(self.order + _NUMBERS[kind])
        count = min(count, most if most is not None else count) * (1 + (kind in _FRACTIONS))
        values = np.frombuffer(self.read(place, count * dtype.itemsize), dtype)
        if kind in _FRACTIONS:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(values[::2] / values[1::2])
        if dtype.kind == "f":
            return values.astype(np.float64)
        integers = values.astype(np.int64)
        if dtype.kind == "u" and (integers < 0).any():
            raise ValueError(f"the values of tag {tag} are out of range")
        return integers

    def number(self, page: Directory, tag: int, default: int) -> int:
        """The first value of a tag; errors as `numbers`."""
        values = self.numbers(page, tag, most=1)
        return int(values[0]) if values.size and np.isfinite(values[0]) else default

    def data(self, page: Directory, tag: int) -> bytes | None:
        """The values of a tag of bytes, as they are; None without it.

        Raises:
            EOFError: they lie behind the end of the file.
        """
        kind, count, place = page.tags.get(tag, (0, 0, 0))
        return self.read(place, count) if kind in _BYTES and count else None

    def pages(self) -> tuple[tuple[Directory, ...], str | None]:
        """The pages, at most `MOST_FRAMES`, and why the ones behind them cannot be read.

        Raises:
            EOFError, ValueError: there is not even a first page.
        """
        found = [self.directory(self.first)]
        entries, seen = len(found[0].tags), {self.first}
        while (at := found[-1].following) and at not in seen and len(found) < MOST_FRAMES:
            seen.add(at)
            try:
                page = self.directory(at)
                sides = [self.number(page, side, 0) for side in (_WIDTH, _LENGTH)]
            except (EOFError, ValueError):
                sides = [0, 0]
            if min(sides) < 1:
                return tuple(found), f"what follows page {len(found)} is damaged"
            entries += len(page.tags)
            if entries > _MOST_ENTRIES:
                raise ValueError(f"more than {_MOST_ENTRIES} tags")
            found.append(page)
        return tuple(found), None

    def pages_below(self, page: Directory) -> tuple[Directory, ...]:
        """The pages that a page leads to beside the chain (its SubIFDs); damaged ones are left out."""
        try:
            places = self.numbers(page, _SUBDIRECTORIES, most=_MOST_SUBDIRECTORIES)
        except (EOFError, ValueError):
            return ()
        found = []
        for at in places.tolist():
            try:
                found.append(self.directory(int(at)))
            except (EOFError, ValueError):
                continue
        return tuple(found)
