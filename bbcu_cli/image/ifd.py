"""TIFF directories as bytes: EXIF blocks, TIFF and BigTIFF of either byte order are read, classic TIFF is written.

Values stay the bytes that they are, in the byte order of the file: text of unknown encoding, a maker's note or a value
of a wrong type is carried, or left out, without being understood. Pillow's `Exif` and piexif turn values into Python
objects and back, which breaks text that is not ASCII, fails on one wrong type, and makes no EXIF of a BigTIFF.

Source: TIFF 6.0, section 2; the BigTIFF design of libtiff.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import BinaryIO, Final, Literal, TypeAlias

Order: TypeAlias = Literal["<", ">"]
"""Little or big endian, as `struct` writes it."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, UTF8 = 1, 2, 3, 4, 5, 7, 12, 129
"""Types of values; the last is of EXIF 3.0."""

EXIF, GPS, INTEROPERABILITY, MAKER_NOTE = 34665, 34853, 40965, 37500
"""Tags: three of them lead to further directories."""

HEADER_BYTES: Final = 8

_SUBDIRECTORIES: Final[Mapping[int, tuple[int, ...]]] = {0: (EXIF, GPS), EXIF: (INTEROPERABILITY,)}
"""Tag of a directory (0: the main one) -> tags in it that lead further."""

_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_FRACTIONS: Final = (RATIONAL, 10)
_BYTES_OF_BIG: Final = {16: 8, 17: 8, 18: 8}
_AS_CLASSIC: Final = {16: (LONG, "Q", "L"), 17: (9, "q", "l"), 18: (13, "Q", "L")}
"""Types of BigTIFF: the classic type of the same meaning, and the letters of both in `struct`."""

_MOST_BYTES: Final = 1 << 25
_MOST_FIELDS: Final = 1 << 16
_MOST_PINNED: Final = 65_000  # a maker's note further behind would not fit into the one segment of a JPEG


@dataclass(frozen=True, slots=True)
class Field:
    """The values of one tag.

    Attributes:
        kind: their type, a number of TIFF 6.0.
        data: all of them.
        at: where they have to stay, counted from the start of the block; None: anywhere.
    """

    kind: int
    data: bytes
    at: int | None = None

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.data) // _BYTES[self.kind]


Directory: TypeAlias = Mapping[int, "Field | Directory"]
"""Tag -> its values, or the directory that it leads to."""


@dataclass(frozen=True, slots=True)
class Block:
    """A main directory with those below it.

    Attributes:
        order: the byte order of all values.
        directory: the main directory.
        faults: (tag of the directory, or 0; tag) of what could not be read.
    """

    order: Order = "<"
    directory: Directory = field(default_factory=dict)
    faults: tuple[tuple[int, int], ...] = ()

    def numbers(self, values: Field) -> tuple[float, ...]:
        """The values of a field of integers, fractions or floats; a fraction by zero is infinite.

        Raises:
            ValueError: they are no numbers.
        """
        letter = {1: "B", 3: "H", 4: "L", 5: "L", 6: "b", 8: "h", 9: "l", 10: "l", 11: "f", 12: "d"}.get(values.kind)
        if letter is None:
            raise ValueError(f"values of type {values.kind} are not numbers")
        size = struct.calcsize(self.order + letter)
        found = struct.unpack(f"{self.order}{len(values.data) // size}{letter}", values.data)
        if values.kind not in (5, 10):
            return found
        pairs = zip(found[::2], found[1::2], strict=True)
        return tuple(top / bottom if bottom else float("inf") for top, bottom in pairs)

    def shorts(self, *values: int) -> Field:
        """A field of 16-bit integers in this byte order."""
        return Field(SHORT, struct.pack(f"{self.order}{len(values)}H", *values))

    def longs(self, *values: int) -> Field:
        """A field of 32-bit integers in this byte order."""
        return Field(LONG, struct.pack(f"{self.order}{len(values)}L", *values))

    def rational(self, value: float) -> Field:
        """A field of one fraction, positive and below 2**32, in this byte order."""
        fraction = Fraction(value).limit_denominator(max(1, int(0xFFFFFFFF // max(1, value))))
        return Field(RATIONAL, struct.pack(f"{self.order}2L", fraction.numerator, fraction.denominator))

    def doubles(self, *values: float) -> Field:
        """A field of floats of 64 bits in this byte order."""
        return Field(DOUBLE, struct.pack(f"{self.order}{len(values)}d", *values))


def parse(
    stream: BinaryIO | bytes, wanted: Callable[[int], bool] = lambda _: True, *, page: int | None = None
) -> Block:
    """Read a main directory and the EXIF, GPS and interoperability directories below it.

    What is damaged is left out and listed in `Block.faults`. No more is read than the file has bytes, nor more than
    32 MiB, however many fields claim the same place.

    Args:
        stream: a TIFF or BigTIFF file, or an EXIF block without its header, at whose start offsets begin.
        wanted: which tags of the main directory are read.
        page: where the main directory lies; None: where the header says.

    Raises:
        ValueError: it begins with no header of a TIFF, or the main directory cannot be read.
    """
    file = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    return _Reader.of(file).block(wanted, page)


class _Reader:
    """A file, the layout of its directories, and how many bytes may still be read."""

    def __init__(self, file: BinaryIO, order: Order, *, big: bool) -> None:
        self._file, self._order, self._big = file, order, big
        self._end = file.seek(0, os.SEEK_END)
        self._budget = min(self._end, _MOST_BYTES)

    @classmethod
    def of(cls, file: BinaryIO) -> _Reader:
        file.seek(0)
        mark = file.read(4)
        for order, magic in (("<", b"II*\0"), (">", b"MM\0*"), ("<", b"II+\0"), (">", b"MM\0+")):
            if mark == magic:
                return cls(file, "<" if order == "<" else ">", big=b"+" in magic)
        raise ValueError("it does not begin as a TIFF")

    def block(self, wanted: Callable[[int], bool], page: int | None) -> Block:
        faults: list[tuple[int, int]] = []
        start = page or self._integer(self._read(8, 8) if self._big else self._read(4, 4))
        directory = self._directory(start, 0, wanted, faults)
        return Block(self._order, directory, tuple(faults))

    def _read(self, at: int, length: int) -> bytes:
        if length > self._budget:
            raise ValueError("it holds more than its file")
        if at + length > self._end:
            raise ValueError("it ends too early")
        self._budget -= length
        self._file.seek(at)
        return self._file.read(length)

    def _integer(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._order == "<" else "big")

    def _entries(self, start: int) -> Iterator[tuple[int, int, int, bytes]]:
        """(tag, type, count, value or offset) of each entry of the directory at `start`."""
        head, size, inline = (8, 20, 8) if self._big else (2, 12, 4)
        count = self._integer(self._read(start, head))
        if count > _MOST_FIELDS:
            raise ValueError(f"a directory of {count} fields")
        table = self._read(start + head, count * size)
        for at in range(0, len(table), size):
            tag, kind = (self._integer(table[at + i : at + i + 2]) for i in (0, 2))
            yield tag, kind, self._integer(table[at + 4 : at + 4 + inline]), table[at + size - inline : at + size]

    def _directory(
        self, start: int, own: int, wanted: Callable[[int], bool], faults: list[tuple[int, int]]
    ) -> Directory:
        found: dict[int, Field | Directory] = {}
        for tag, kind, count, value in self._entries(start):
            if tag in found or count == 0 or not wanted(tag):
                continue
            try:
                if tag in _SUBDIRECTORIES.get(own, ()):
                    to = self._integer(self._values(kind, count, value).data) if count == 1 else 0
                    found[tag] = self._directory(to, tag, lambda _: True, faults)
                else:
                    found[tag] = self._values(kind, count, value, pinned=tag == MAKER_NOTE)
            except (ValueError, struct.error):
                faults.append((own, tag))
        return found

    def _values(self, kind: int, count: int, value: bytes, *, pinned: bool = False) -> Field:
        size = _BYTES.get(kind) or (_BYTES_OF_BIG.get(kind) if self._big else None)
        if size is None:
            raise ValueError(f"values of the unknown type {kind}")
        at = None
        if count * size > len(value):
            at = self._integer(value)
            value = self._read(at, count * size)
        value = value[: count * size]
        if kind in _AS_CLASSIC:
            kind, long, short = _AS_CLASSIC[kind]
            numbers = struct.unpack(f"{self._order}{count}{long}", value)
            value = struct.pack(f"{self._order}{count}{short}", *numbers)
        return Field(kind, value, at if pinned and at is not None and at + len(value) <= _MOST_PINNED else None)


def in_order(block: Block, order: Order) -> Block:
    """The same in another byte order; bytes of unknown meaning stay as they are."""
    if order == block.order:
        return block

    def turned(directory: Directory) -> Directory:
        return {
            tag: replace(value, data=_swapped(value)) if isinstance(value, Field) else turned(value)
            for tag, value in directory.items()
        }

    return Block(order, turned(block.directory), block.faults)


def _swapped(value: Field) -> bytes:
    size = 4 if value.kind in _FRACTIONS else _BYTES[value.kind]
    return b"".join(value.data[at : at + size][::-1] for at in range(0, len(value.data), size))


def serialise(block: Block, start: int = 0) -> bytes:
    """A classic TIFF of these directories alone: header, main directory, values.

    The field with a place of its own (a maker's note, whose makers count offsets from the start of the block) stays
    there if that keeps all within one segment of a JPEG, and the block is at the start of its file.

    Args:
        block: the directories.
        start: where the block will lie: what all offsets are counted from is as many bytes in front of it.
    """
    pinned = next((value for value in _fields(block.directory) if value.at is not None), None)
    if pinned is not None and pinned.at is not None and not start:
        hole = range(pinned.at, pinned.at + len(pinned.data))
        layout = _Layout.of(block, hole)
        if hole.start >= 8 and len(layout) <= _MOST_PINNED:
            return bytes(layout)
    return bytes(_Layout.of(block, range(0), start))


def _fields(directory: Directory) -> Iterator[Field]:
    for value in directory.values():
        if isinstance(value, Field):
            yield value
        else:
            yield from _fields(value)


class _Layout(bytearray):
    """The bytes of a block as they are put down, past a hole that is kept free for one field."""

    start = 0

    @classmethod
    def of(cls, block: Block, hole: range, start: int = 0) -> _Layout:
        layout = cls((b"II*\0" if block.order == "<" else b"MM\0*") + bytes(4))
        layout.start = start
        layout[4:8] = struct.pack(block.order + "L", layout._directory(block.directory, block.order, hole))
        return layout

    def _put(self, data: bytes, hole: range) -> int:
        """At the next even offset that leaves the hole free; says where."""
        at = len(self) + len(self) % 2
        if at < hole.stop and hole.start < at + len(data):
            at = hole.stop + hole.stop % 2
        self.extend(bytes(at - len(self)) + data)
        return at

    def _directory(self, directory: Directory, order: Order, hole: range) -> int:
        start = self._put(bytes(2 + 12 * len(directory) + 4), hole)
        table = struct.pack(order + "H", len(directory))
        for tag, value in sorted(directory.items(), key=lambda item: item[0]):
            if not isinstance(value, Field):
                table += struct.pack(order + "HHLL", tag, LONG, 1, self._directory(value, order, hole))
            elif len(value.data) <= 4:
                table += struct.pack(order + "HHL", tag, value.kind, value.count) + value.data.ljust(4, b"\0")
            else:
                at = self._stay(value.data, hole) if hole and value.at == hole.start else self._put(value.data, hole)
                table += struct.pack(order + "HHLL", tag, value.kind, value.count, self.start + at)
        self[start : start + len(table)] = table
        return self.start + start

    def _stay(self, data: bytes, hole: range) -> int:
        self.extend(bytes(max(0, hole.stop - len(self))))
        self[hole.start : hole.stop] = data
        return hole.start
