"""PNG files with 8 or 16 bits per sample (PNG specification, third edition).

Pillow writes no 16-bit colour and deflates on one core; here bands of rows are filtered and deflated side by side.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image.image import Image, Metadata
from bbcu_cli.image.metadata import EXIF_HEADER, XMP_KEYWORD

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = {(1, False): 0, (3, False): 2, (1, True): 4, (3, True): 6}
_BAND_BYTES: Final = 1 << 20
_METRES_PER_INCH: Final = 0.0254
_SUB, _UP, _PAETH = 1, 2, 4
_ZLIB_HEADER: Final = b"\x78\x5e"  # deflate, window of 32 KiB, no preset dictionary (RFC 1950)
_END_OF_DEFLATE: Final = b"\x03\x00"  # an empty last block (RFC 1951)
_ADLER_MODULUS: Final = 65521


def write_png(image: Image, file: BinaryIO, *, level: int, threads: int) -> None:
    """Write an image with all its metadata.

    Args:
        image: of any channels and depth.
        file: where to.
        level: zlib's, 0 to 9.
        threads: how many bands are worked on at once; the file does not depend on it.
    """
    height, width = image.size
    header = struct.pack(
        ">LLBBBBB", width, height, image.depth, _COLOUR_TYPE[image.channels, image.alpha is not None], 0, 0, 0
    )
    file.write(_SIGNATURE)
    _write_chunk(file, b"IHDR", header)
    for name, data in _metadata_chunks(image.metadata):
        _write_chunk(file, name, data)
    bands = image.channels + (image.alpha is not None)
    rows = max(1, _BAND_BYTES // (width * bands * image.depth // 8))
    check, start = 1, _ZLIB_HEADER
    with ThreadPoolExecutor(threads) as pool:
        for piece, adler, length in pool.map(
            partial(_deflate_rows, image, rows=rows, level=level), range(0, height, rows)
        ):
            _write_chunk(file, b"IDAT", start + piece)
            check, start = _joined_adler32(check, adler, length), b""
    _write_chunk(file, b"IDAT", _END_OF_DEFLATE + struct.pack(">L", check))
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">L", len(data)) + name)
    file.write(data)
    file.write(struct.pack(">L", zlib.crc32(data, zlib.crc32(name))))


def _metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """In an order that the specification allows: all of these may stand before the first IDAT."""
    if metadata.icc is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)
    if metadata.dpi is not None:
        x, y = (round(value / _METRES_PER_INCH) for value in metadata.dpi)
        yield b"pHYs", struct.pack(">LLB", x, y, 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif.removeprefix(EXIF_HEADER)
    for keyword, text in metadata.text:
        yield b"iTXt", keyword.encode("latin-1", "replace")[:79] + b"\0\0\0\0\0" + text.encode()
    if metadata.xmp is not None:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + metadata.xmp


def _deflate_rows(image: Image, top: int, *, rows: int, level: int) -> tuple[bytes, int, int]:
    """Filter and deflate `rows` rows from `top`: a piece of a deflate stream, Adler-32 and length of what is in it."""
    above = max(top - 1, 0)
    part = slice(above, top + rows)
    samples = image.pixels[part] if image.alpha is None else np.dstack([image.pixels[part], image.alpha[part]])
    step = samples.shape[2] * samples.itemsize
    data = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1).view(np.uint8)
    if top == 0:  # above the picture all is zero
        data = np.vstack([np.zeros_like(data[:1]), data])
    filtered = _filter(data[1:], data[:-1], step).tobytes()
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    # The flush ends the piece on a byte and forgets nothing, so that pieces can simply be joined.
    piece = deflate.compress(filtered) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return piece, zlib.adler32(filtered), len(filtered)


def _joined_adler32(first: int, second: int, length: int) -> int:
    """Adler-32 of two runs of bytes put together, from theirs and the second one's length (zlib's adler32_combine)."""
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % _ADLER_MODULUS
    high = ((first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)) % _ADLER_MODULUS
    return high << 16 | low


def _filter(now: NDArray[np.uint8], up: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Filter rows, each with what leaves the least sum of absolute differences (as the specification suggests).

    Args:
        now: the rows, (rows, bytes).
        up: the rows above them.
        step: bytes per pixel.

    Returns:
        (rows, 1 + bytes): the number of the filter, then the differences.
    """
    left, corner = np.zeros_like(now), np.zeros_like(now)
    left[:, step:], corner[:, step:] = now[:, :-step], up[:, :-step]
    candidates = {_SUB: now - left, _UP: now - up, _PAETH: now - _paeth(left, up, corner)}
    numbers = np.array(list(candidates), np.uint8)
    differences = np.stack(list(candidates.values()))
    best = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64).argmin(axis=0)
    return np.hstack([numbers[best][:, None], differences[best, np.arange(len(now))]])


def _paeth(left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of the three neighbours, the one nearest to left + up - corner; in doubt the first."""
    a, b, c = (neighbour.astype(np.int16) for neighbour in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
