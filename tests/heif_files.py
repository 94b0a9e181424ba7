"""AVIF and HEIC files with properties that no encoder here writes: crop, rotation, mirror (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Property = tuple[bytes, bytes]
"""Name and content."""


def clap(rows: slice, columns: slice, size: tuple[int, int]) -> Property:
    """A clean aperture: rows and columns of a picture of a size (height, width)."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    right, down = columns.start + columns.stop - size[1], rows.start + rows.stop - size[0]  # of the centre, doubled
    return b"clap", struct.pack(">LLLLlLlL", width, 1, height, 1, right, 2, down, 2)


def irot(quarters: int) -> Property:
    """A rotation by quarters of a turn, anti-clockwise."""
    return b"irot", bytes([quarters])


def imir(axis: int) -> Property:
    """A mirror: 0 exchanges top and bottom, 1 left and right."""
    return b"imir", bytes([axis])


def with_properties(data: bytes, added: list[Property]) -> bytes:
    """A file whose main picture has more properties, in this order."""
    meta, meta_size = _find(data, 0, len(data), b"meta")
    inside = (meta + 12, meta + meta_size)
    pitm, _ = _find(data, *inside, b"pitm")
    main = int.from_bytes(data[pitm + 12 : pitm + 14], "big")
    iprp, iprp_size = _find(data, *inside, b"iprp")
    ipco, ipco_size = _find(data, iprp + 8, iprp + iprp_size, b"ipco")
    ipma, ipma_size = _find(data, iprp + 8, iprp + iprp_size, b"ipma")
    count = sum(1 for _ in _boxes(data, ipco + 8, ipco + ipco_size))
    properties = b"".join(_box(name, content) for name, content in added)
    owned = _associated(data[ipma : ipma + ipma_size], main, range(count + 1, count + 1 + len(added)))
    grown = len(properties) + len(owned) - ipma_size
    described = _box(b"iprp", _box(b"ipco", data[ipco + 8 : ipco + ipco_size] + properties) + owned)
    out = bytearray(data[:iprp] + described + data[iprp + iprp_size :])
    out[meta : meta + 4] = struct.pack(">L", meta_size + grown)
    _move_items(out, _find(bytes(out), meta + 12, meta + meta_size + grown, b"iloc")[0], grown)
    return bytes(out)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at < end:
        size, name = struct.unpack_from(">L4s", data, at)
        yield name, at, size
        at += size


def _find(data: bytes, at: int, end: int, wanted: bytes) -> tuple[int, int]:
    return next((start, size) for name, start, size in _boxes(data, at, end) if name == wanted)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">L4s", 8 + len(content), name) + content


def _associated(ipma: bytes, main: int, added: range) -> bytes:
    """An ipma (version 0, indices of 7 bits) in which the main item has more properties, all essential."""
    out, at = bytearray(ipma[:16]), 16
    for _ in range(int.from_bytes(ipma[12:16], "big")):
        item, owned = ipma[at : at + 2], ipma[at + 3 : at + 3 + ipma[at + 2]]
        at += 3 + len(owned)
        owned += bytes(0x80 | index for index in added) if int.from_bytes(item, "big") == main else b""
        out += item + bytes([len(owned)]) + owned
    out[:4] = struct.pack(">L", len(out))
    return bytes(out)


def _move_items(data: bytearray, iloc: int, by: int) -> None:
    """Content behind the description has moved (iloc, version 0 or 1)."""
    version, sizes, more = data[iloc + 8], data[iloc + 12], data[iloc + 13]
    offset, length, base = sizes >> 4, sizes & 15, more >> 4

    def move(at: int, size: int) -> None:
        data[at : at + size] = (int.from_bytes(data[at : at + size], "big") + by).to_bytes(size, "big")

    at = iloc + 16
    for _ in range(int.from_bytes(data[iloc + 14 : iloc + 16], "big")):
        inner = version == 1 and data[at + 3] & 15 == 1  # lies within the description itself, counted from there
        at += 6 if version == 1 else 4
        if base and not inner:
            move(at, base)
        at += base + 2
        for _ in range(int.from_bytes(data[at - 2 : at], "big")):
            if not base and not inner:
                move(at, offset)
            at += offset + length
