"""PNG files with 8 or 16 bits per sample (PNG specification, third edition).

Pillow writes no 16-bit colour, wants the whole picture and deflates on one core; here pieces of a few rows are filtered
and deflated side by side as they come.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import exif
from bbcu_cli.image.deflate import LEVEL, in_order, zlib
from bbcu_cli.image.image import Bands, Image, Metadata
from bbcu_cli.image.png_metadata import METRES_PER_INCH, XMP_KEYWORD

Bytes: TypeAlias = NDArray[np.uint8]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = {(1, False): 0, (3, False): 2, (1, True): 4, (3, True): 6}
_BAND_BYTES: Final = 1 << 20
_KEEP, _SOURCE = b"\0", b"\0"
"""Of a frame: it stays when the next one comes; it takes the place of what is there."""
_MOST_DELAY: Final = 0xFFFF
_TAKEN: Final = frozenset(
    {"aspect", "bbox", "blend", "chromaticity", "default_image", "disposal", "dpi", "duration", "exif", "gamma"}
    | {"icc_profile", "interlace", "loop", "srgb", "transparency", "xmp"}
)
"""Keywords of texts that Pillow takes for what it has read from other chunks."""

_SAMPLE_ROWS: Final = 8
_ZLIB_HEADER: Final = b"\x78\x5e"  # deflate, window of 32 KiB, no preset dictionary (RFC 1950)
_END_OF_DEFLATE: Final = b"\x03\x00"  # an empty last block (RFC 1951)
_ADLER_MODULUS: Final = 65521


def write_png(bands: Bands, file: BinaryIO, *, threads: int) -> None:
    """Write a picture with all its metadata.

    Args:
        bands: of any channels and depth.
        file: where to.
        threads: how many bands are worked on at once; the file does not depend on it.
    """
    _write_head(bands, file)
    for name, data in _metadata_chunks(bands.metadata):
        write_chunk(file, name, data)
    for piece in _deflated(bands, threads=threads):
        write_chunk(file, b"IDAT", piece)
    write_chunk(file, b"IEND", b"")


def write_animation(
    patches: Iterable[tuple[Bands, tuple[int, int], Fraction]], file: BinaryIO, *, count: int, plays: int, threads: int
) -> None:
    """Write an animated PNG with the metadata of its first frame.

    Args:
        patches: of each frame what it puts in place of what is shown, where its (top, left) corner is, and its
            milliseconds; the first one is the whole picture.
        file: where to.
        count: of the frames.
        plays: how often it is played; 0: for ever.
        threads: as of `write_png`.
    """
    number = 0  # of fcTL and fdAT, in one row
    for index, (bands, (top, left), duration) in enumerate(patches):
        if index == 0:
            _write_head(bands, file)
            write_chunk(file, b"acTL", struct.pack(">LL", count, plays))
            for name, data in _metadata_chunks(bands.metadata):
                write_chunk(file, name, data)
        height, width = bands.size
        control = struct.pack(">LLLLL", number, width, height, left, top) + _delay(duration) + _KEEP + _SOURCE
        write_chunk(file, b"fcTL", control)
        number += 1
        for piece in _deflated(bands, threads=threads):
            if index == 0:
                write_chunk(file, b"IDAT", piece)
            else:
                write_chunk(file, b"fdAT", struct.pack(">L", number) + piece)
                number += 1
    write_chunk(file, b"IEND", b"")


def _delay(duration: Fraction) -> bytes:
    """Milliseconds as the nearest fraction of seconds of two 16-bit numbers."""
    seconds = min(duration / 1000, Fraction(_MOST_DELAY))
    seconds = seconds.limit_denominator(int(_MOST_DELAY / max(Fraction(1), seconds)))
    return struct.pack(">HH", seconds.numerator, seconds.denominator)


def _write_head(bands: Bands, file: BinaryIO) -> None:
    """Write the signature and IHDR."""
    height, width = bands.size
    colour_type = _COLOUR_TYPE[bands.channels, bands.alpha]
    file.write(SIGNATURE)
    write_chunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, bands.depth, colour_type, 0, 0, 0))


def _deflated(bands: Bands, *, threads: int) -> Iterator[bytes]:
    """The filtered rows as a zlib stream, piece by piece."""
    rows = max(1, _BAND_BYTES // (bands.size[1] * bands.samples * bands.depth // 8))
    check, start = 1, _ZLIB_HEADER
    for piece, adler, length in in_order(_deflate_rows, _with_row_above(bands.pieces(rows)), threads=threads):
        yield start + piece
        check, start = _joined_adler32(check, adler, length), b""
    yield _END_OF_DEFLATE + struct.pack(">L", check)


def write_chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    """Write a chunk with its length and checksum."""
    file.write(struct.pack(">L", len(data)) + name)
    file.write(data)
    file.write(struct.pack(">L", zlib.crc32(data, zlib.crc32(name))))


def _metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """In an order that the specification allows: all of these may stand before the first IDAT."""
    if metadata.icc is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)
    if metadata.dpi is not None:
        x, y = (round(value / METRES_PER_INCH) for value in metadata.dpi)
        yield b"pHYs", struct.pack(">LLB", x, y, 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif.removeprefix(exif.HEADER)
    for keyword, text in metadata.text:
        yield _text_chunk(png_keyword(keyword), text)
    if metadata.xmp is not None:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + metadata.xmp


def png_keyword(keyword: str) -> str:
    """The keyword to write a text under: Latin-1, up to 79 characters, and none that Pillow takes for a fact."""
    legal = keyword.replace("\0", "").encode("latin-1", "replace")[:79].decode("latin-1").strip() or "Comment"
    return legal.capitalize() if legal in _TAKEN else legal


def _text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Latin-1 where that holds the text, and for bytes of unknown encoding, which it keeps as they are; else UTF-8."""
    text = text.replace("\0", "")  # ends a text in a PNG
    head = keyword.encode("latin-1") + b"\0"
    try:
        return b"tEXt", head + text.encode("latin-1")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
    try:
        data.decode()
    except UnicodeDecodeError:
        return b"tEXt", head + data
    return b"iTXt", head + bytes(4) + data


def _with_row_above(pieces: Iterator[Image]) -> Iterator[tuple[Bytes, int]]:
    """Pieces as big-endian bytes (1 + rows, bytes), the first row that of the piece above; and the bytes of a pixel."""
    above: Bytes | None = None
    for piece in pieces:
        samples = piece.pixels if piece.alpha is None else np.dstack([piece.pixels, piece.alpha])
        samples = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
        rows = samples.reshape(len(samples), -1).view(np.uint8)
        yield (
            np.concatenate([np.zeros_like(rows[:1]) if above is None else above, rows]),
            samples.shape[2] * samples.itemsize,
        )
        above = rows[-1:].copy()


def _deflate_rows(rows: tuple[Bytes, int]) -> tuple[bytes, int, int]:
    """Filter and deflate: a piece of a deflate stream, Adler-32 and length of what is in it."""
    data, step = rows
    filtered = _filtered(data[1:], data[:-1], step).tobytes()
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    # The flush ends the piece on a byte and forgets nothing, so that pieces can simply be joined.
    piece = deflate.compress(filtered) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return piece, zlib.adler32(filtered), len(filtered)


def _joined_adler32(first: int, second: int, length: int) -> int:
    """Adler-32 of two runs of bytes put together, from theirs and the second one's length (zlib's adler32_combine)."""
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % _ADLER_MODULUS
    high = ((first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)) % _ADLER_MODULUS
    return high << 16 | low


def _filtered(now: Bytes, up: Bytes, step: int) -> Bytes:
    """Filter all rows of a piece by the one filter that makes a few rows in its middle smallest.

    Against the best filter for each row, Paeth's included, photographs become 1 % larger in a fifteenth of the time.

    Args:
        now: the rows, (rows, bytes).
        up: the rows above them.
        step: bytes per pixel.

    Returns:
        (rows, 1 + bytes): the number of the filter, then the differences.
    """
    middle = slice(max(0, (len(now) - _SAMPLE_ROWS) // 2), (len(now) + _SAMPLE_ROWS) // 2)

    def deflated(number: int) -> int:
        return len(zlib.compress(_FILTERS[number](now[middle], up[middle], step).tobytes(), LEVEL))

    best = min(_FILTERS, key=deflated)
    return np.insert(_FILTERS[best](now, up, step), 0, best, axis=1)


def _left(rows: Bytes, step: int) -> Bytes:
    """The pixel to the left of each one; zero at the edge."""
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    return left


def _less_left(now: Bytes, _: Bytes, step: int) -> Bytes:
    return now - _left(now, step)


def _less_up(now: Bytes, up: Bytes, _: int) -> Bytes:
    return now - up


def _less_average(now: Bytes, up: Bytes, step: int) -> Bytes:
    left = _left(now, step)
    average: Bytes = (left >> 1) + (up >> 1) + (left & up & 1)  # within 8 bits
    return now - average


# Numbers of the specification, section 9.2.
_FILTERS: Final[Mapping[int, Callable[[Bytes, Bytes, int], Bytes]]] = {1: _less_left, 2: _less_up, 3: _less_average}
