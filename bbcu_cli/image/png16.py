"""PNG files with 16 bits per sample (PNG specification, third edition; Pillow writes 16-bit gray only)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
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


def write_png16(image: Image, file: BinaryIO, level: int) -> None:
    """Write a uint16 image with all its metadata; `level` is zlib's, 0 to 9."""
    height, width = image.size
    colour_type = _COLOUR_TYPE[image.channels, image.alpha is not None]
    file.write(_SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, 0))
    for name, data in _metadata_chunks(image.metadata):
        _write_chunk(file, name, data)
    deflate = zlib.compressobj(level)
    for band in _filtered_bands(image):
        data = deflate.compress(band)
        if data:
            _write_chunk(file, b"IDAT", data)
    _write_chunk(file, b"IDAT", deflate.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data)))


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
        yield b"iTXt", keyword.encode("latin-1", "replace") + b"\0\0\0\0\0" + text.encode()
    if metadata.xmp is not None:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + metadata.xmp


def _filtered_bands(image: Image) -> Iterator[bytes]:
    """Rows of big-endian samples, each behind the number of its filter, a band of rows at a time."""
    height, width = image.size
    bands = image.channels + (image.alpha is not None)
    step = bands * 2  # bytes per pixel
    rows = max(1, _BAND_BYTES // (width * step))
    above: NDArray[np.uint8] = np.zeros((1, width * step), np.uint8)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        samples = image.pixels[part] if image.alpha is None else np.dstack([image.pixels[part], image.alpha[part]])
        now = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
        yield _filter(now, np.vstack([above, now[:-1]]), step).tobytes()
        above = now[-1:]


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
