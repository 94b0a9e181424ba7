"""TIFF directories for the tests, built and read by the letter of TIFF 6.0 and BigTIFF; share no code with ours."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Fields = Mapping[int, "tuple[int, bytes] | Fields"]
"""Tag -> (type, values as bytes), or the directory that the tag leads to."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005


def tree(fields: Fields, order: str = "<", *, big: bool = False, behind: bytes = b"") -> bytes:
    """A TIFF of these directories; `behind` follows it at an offset that `offset_behind` tells."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HL", 42, 8))
    return head + _directory(fields, len(head), order, big=big) + behind


def offset_behind(fields: Fields, order: str = "<", *, big: bool = False) -> int:
    """Where what follows the directories begins."""
    return len(tree(fields, order, big=big))


def _directory(fields: Fields, start: int, order: str, *, big: bool) -> bytes:
    count, entry, inline, pointer = ("Q", "HHQ", 8, 16) if big else ("H", "HHL", 4, 4)
    table = struct.pack(order + count, len(fields))
    room = start + len(table) + len(fields) * (20 if big else 12) + (8 if big else 4)
    extra = b""
    for tag, value in sorted(fields.items()):
        if isinstance(value, Mapping):
            at = room + len(extra)
            extra += _directory(value, at, order, big=big)
            kind, data = pointer, struct.pack(order + ("Q" if big else "L"), at)
        else:
            kind, data = value
        number = len(data) // SIZES[kind]
        if len(data) > inline:
            at, extra = room + len(extra), extra + data + bytes(len(data) % 2)
            data = struct.pack(order + ("Q" if big else "L"), at)
        table += struct.pack(order + entry, tag, kind, number) + data.ljust(inline, b"\0")
    return table + bytes(8 if big else 4) + extra


def fields_of(block: bytes) -> dict[int, Any]:
    """Inverse of `tree` for classic TIFF, with or without the header of EXIF."""
    block = block.removeprefix(b"Exif\0\0")
    order = "<" if block[:2] == b"II" else ">"
    assert struct.unpack_from(order + "H", block, 2) == (42,)

    def directory(at: int, leads: tuple[int, ...]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        (count,) = struct.unpack_from(order + "H", block, at)
        assert at + 2 + 12 * count <= len(block)
        for place in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHL", block, place)
            length = number * SIZES[kind]
            (offset,) = struct.unpack_from(order + "L", block, place + 8)
            start = place + 8 if length <= 4 else offset
            assert start + length <= len(block)
            found[tag] = (kind, block[start : start + length])
            if tag in leads:
                found[tag] = directory(offset, (INTEROPERABILITY,))
        return found

    return directory(struct.unpack_from(order + "L", block, 4)[0], (EXIF, GPS))


def shorts(*values: int, order: str = "<") -> tuple[int, bytes]:
    """SHORT values."""
    return 3, struct.pack(f"{order}{len(values)}H", *values)


def longs(*values: int, order: str = "<") -> tuple[int, bytes]:
    """LONG values."""
    return 4, struct.pack(f"{order}{len(values)}L", *values)


def rationals(*values: int, order: str = "<") -> tuple[int, bytes]:
    """RATIONAL values, numerators and denominators in turn."""
    return 5, struct.pack(f"{order}{len(values)}L", *values)


def doubles(*values: float, order: str = "<") -> tuple[int, bytes]:
    """DOUBLE values."""
    return 12, struct.pack(f"{order}{len(values)}d", *values)


def text(data: bytes) -> tuple[int, bytes]:
    """ASCII with its zero, whatever the bytes."""
    return 2, data + b"\0"


def tiff_file(samples: NDArray[Any], fields: Fields, order: str = "<", *, big: bool = False) -> bytes:
    """An uncompressed TIFF of one strip, uint8 or uint16 (H, W, C), with more fields than it needs."""
    height, width, channels = samples.shape
    pixels = samples.astype(samples.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    stored: dict[int, Any] = {
        256: longs(width, order=order),
        257: longs(height, order=order),
        258: shorts(*(samples.itemsize * 8,) * channels, order=order),
        259: shorts(1, order=order),
        262: shorts(2 if channels >= 3 else 1, order=order),
        273: longs(0, order=order),
        277: shorts(channels, order=order),
        278: longs(height, order=order),
        279: longs(len(pixels), order=order),
        **fields,
    }
    stored[273] = longs(offset_behind(stored, order, big=big), order=order)
    return tree(stored, order, big=big, behind=pixels)
