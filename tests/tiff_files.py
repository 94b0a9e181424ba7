"""TIFF files of any kind, built by the letter of the specification: the oracle of our reader."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

Encode = Callable[[bytes, int], bytes]
"""Bytes and how many make a row -> the bytes of a strip or tile."""


def tiff(
    samples: NDArray[Any],
    bits: int,
    *,
    photometric: int | None = None,
    extras: Sequence[int] = (),
    planar: bool = False,
    predictor: int = 1,
    compression: int = 1,
    encode: Encode = lambda data, _: data,
    chunk: int | tuple[int, int] | None = None,
    order: str = "<",
    big: bool = False,
    lowest_first: bool = False,
    tags: Mapping[int, Any] | None = None,
    following: int = 0,
) -> bytes:
    """One page (TIFF 6.0).

    Args:
        samples: (H, W, C) values of `bits` bits.
        bits: per sample.
        photometric: by default black is zero, or RGB.
        extras: content of ExtraSamples.
        planar: each sample in its plane.
        predictor: 2 writes differences, of 8 or 16 bits; numbers of other kinds are written as they are.
        compression: the number that is written.
        encode: what belongs to it.
        chunk: rows of a strip, or (height, width) of a tile; by default one strip.
        order: "<" or ">".
        big: BigTIFF.
        lowest_first: FillOrder 2: the bits of every byte of the strips are reversed.
        tags: more tags, or other values: a number or numbers, fractions, or bytes (UNDEFINED); None leaves one
            out.
        following: offset of the next page.
    """
    height, width, count = samples.shape
    rows, columns = (height, width) if chunk is None else (chunk, width) if isinstance(chunk, int) else chunk
    planes = [samples[..., i : i + 1] for i in range(count)] if planar else [samples]
    chunks = [
        _packed(part, bits, order, predictor, encode)
        for plane in planes
        for part in _parts(plane, rows, columns, padded=isinstance(chunk, tuple))
    ]
    if lowest_first:
        chunks = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) for data in chunks]
    start = 16 if big else 8
    offsets = [start + sum(map(len, chunks[:i])) for i in range(len(chunks))]
    entries: dict[int, Any] = {
        256: width, 257: height, 258: [bits] * count, 259: compression, 277: count,
        262: photometric if photometric is not None else 2 if count >= 3 else 1,
    }  # fmt: skip
    if isinstance(chunk, tuple):
        entries |= {322: columns, 323: rows, 324: offsets, 325: [len(data) for data in chunks]}
    else:
        entries |= {273: offsets, 278: rows, 279: [len(data) for data in chunks]}
    entries |= {284: 2} if planar else {}
    entries |= {317: predictor} if predictor != 1 else {}
    entries |= {266: 2} if lowest_first else {}
    entries |= {338: list(extras)} if extras else {}
    entries |= tags or {}
    body = b"".join(chunks)
    body += bytes(len(body) % 2)
    at = start + len(body)
    header = {False: struct.pack(order + "HL", 42, at), True: struct.pack(order + "HHHQ", 43, 8, 0, at)}[big]
    return {"<": b"II", ">": b"MM"}[order] + header + body + directory(entries, at, following, order=order, big=big)


def directory(entries: Mapping[int, Any], at: int, following: int = 0, *, order: str = "<", big: bool = False) -> bytes:
    """A directory that lies at `at`, with the values of its tags behind it."""
    entries = {tag: value for tag, value in entries.items() if value is not None}
    size, inline, count, offset = (20, 8, "Q", "Q") if big else (12, 4, "H", "L")
    table, extra = struct.pack(order + count, len(entries)), b""
    room = at + len(table) + size * len(entries) + inline
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes):
            kind, data, number = 7, value, len(value)
        elif isinstance(value, list) and isinstance(value[0], Fraction):
            data = b"".join(struct.pack(order + "ll", part.numerator, part.denominator) for part in value)
            kind, number = 10 if min(value) < 0 else 5, len(value)
        else:
            numbers = list(value) if isinstance(value, list | tuple) else [value]
            kind, letter = (3, "H") if max(numbers) < 1 << 16 else (4, "L") if max(numbers) < 1 << 32 else (16, "Q")
            data, number = struct.pack(f"{order}{len(numbers)}{letter}", *numbers), len(numbers)
        field = data.ljust(inline, b"\0")
        if len(data) > inline:
            field = struct.pack(order + offset, room + len(extra))
            extra += data + bytes(len(data) % 2)
        table += struct.pack(order + "HH" + offset, tag, kind, number) + field
    return table + struct.pack(order + offset, following) + extra


def written(pages: list[tuple[NDArray[Any], dict[str, Any]]], **options: Any) -> bytes:
    """What tifffile makes of pages."""
    from tifffile import TiffWriter

    file = io.BytesIO()
    with TiffWriter(file, **options) as writer:
        for samples, about in pages:
            writer.write(samples, **{"photometric": "rgb", **about})
    return file.getvalue()


def spread(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """What samples of `bits` bits are in 8 or 16: the nearest value of the same share of white."""
    top = 65535 if bits > 8 else 255
    return np.floor(samples.astype(np.float64) * top / ((1 << bits) - 1) + 0.5).astype(
        np.uint16 if bits > 8 else np.uint8
    )


def deflate(data: bytes, _: int) -> bytes:
    """Compression 8."""
    return zlib.compress(data)


def pack_bits(data: bytes, row: int) -> bytes:
    """Compression 32773: runs of two and more bytes, and what is between them, row by row."""
    out = b""
    for line in (data[i : i + row] for i in range(0, len(data), row)):
        at = 0
        while at < len(line):
            run = 1
            while run < 128 and line[at : at + 1] == line[at + run : at + run + 1]:
                run += 1
            if run > 1:
                out += bytes([257 - run]) + line[at : at + 1]
                at += run
                continue
            end = at + 1
            while end < len(line) and end - at < 128 and line[end] != line[end - 1]:
                end += 1
            out += bytes([end - at - 1]) + line[at:end]
            at = end
    return out


def lzw(data: bytes, _: int) -> bytes:
    """Compression 5 (TIFF 6.0, section 13)."""
    bits = f"{256:09b}"
    table = {bytes([i]): i for i in range(256)}
    width, word = 9, b""
    for value in data:
        byte = bytes([value])
        if word + byte in table:
            word += byte
            continue
        bits += f"{table[word]:0{width}b}"
        table[word + byte] = len(table) + 2
        if len(table) + 2 == 4094:
            bits += f"{256:0{width}b}"
            table = {bytes([i]): i for i in range(256)}
        width = max(9, (len(table) + 2).bit_length())
        word = byte
    bits += f"{table[word]:0{width}b}{257:0{width}b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def by_libtiff(compression: str) -> Encode:
    """A compression of bytes that libtiff knows, such as "zstd"."""

    def encode(data: bytes, row: int) -> bytes:
        import tifffile

        file = io.BytesIO()
        plain = np.frombuffer(data, np.uint8).reshape(-1, row)
        Pillow.fromarray(plain).save(file, "TIFF", compression=compression, strip_size=1 << 30)
        page = tifffile.TiffFile(io.BytesIO(file.getvalue())).pages[0]
        assert len(page.dataoffsets) == 1
        return file.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]

    return encode


def _parts(plane: NDArray[Any], rows: int, columns: int, *, padded: bool) -> list[NDArray[Any]]:
    height, width = plane.shape[:2]
    found = []
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = plane[top : top + rows, left : left + columns]
            if padded:
                part = np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)))
            found.append(part)
    return found


def _packed(part: NDArray[Any], bits: int, order: str, predictor: int, encode: Encode) -> bytes:
    if part.dtype.kind == "f" or bits > 16:
        data = _planes(part) if predictor == 3 else part.astype(part.dtype.newbyteorder(order)).tobytes()
        return encode(data, len(data) // len(part))
    if predictor == 2:
        part = part.astype(np.int64)
        part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1) % (1 << bits)
    if bits == 16:
        data = part.astype(order + "u2").tobytes()
    else:
        flat = part.reshape(len(part), -1)
        each = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        data = np.packbits(each.reshape(len(part), -1).astype(np.uint8), axis=1).tobytes()
    return encode(data, len(data) // len(part))


def _planes(part: NDArray[Any]) -> bytes:
    """Predictor 3 (Adobe's technical note of 2005): per row the bytes by their weight, then differences of bytes."""
    rows, columns, count = part.shape
    size = part.dtype.itemsize
    weights = np.frombuffer(part.astype(part.dtype.newbyteorder(">")).tobytes(), np.uint8)
    planes = weights.reshape(rows, columns * count, size).swapaxes(1, 2).reshape(rows, -1, count)
    return np.diff(planes, axis=1, prepend=np.zeros((rows, 1, count), np.uint8)).astype(np.uint8).tobytes()
