"""The samples of one TIFF page as they are stored: strips and tiles read, decompressed, unpacked and put in place.

Bytes are undone here and not left to Pillow, whose rules for them go by a few known combinations of tags and are wrong
for others. What is left to libtiff, through Pillow, is to decompress: it sees pages of plain bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bbcu_cli.image.deflate import zlib
from bbcu_cli.image.image import Pixels
from bbcu_cli.image.jpeg_stream import spliced
from bbcu_cli.image.levels import Spread
from bbcu_cli.image.tiff_directory import TiffContainer
from bbcu_cli.image.tiff_layout import (
    DEFLATE,
    FAX,
    FAX_4,
    FLOATING,
    JPEG,
    LIBTIFF,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    SIGNED,
    WEBP,
    WITH_PREDICTOR,
    YCBCR,
    Layout,
)

Bytes = NDArray[np.uint8]

_BAND_SAMPLES: Final = 1 << 20
_PIECE: Final = 1 << 20
_BATCH_BYTES: Final = 1 << 22
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A strip or a tile: its number, its plane, its place, and how many of its rows lie within the picture."""

    index: int
    plane: int
    top: int
    left: int
    rows: int


def read_samples(file: TiffContainer, layout: Layout, spread: Spread | None = None) -> Pixels:
    """All samples that `layout` keeps, uint8 or (of more than 8 bits) uint16 (H, W, samples), not scaled.

    Where YCbCr is compressed by JPEG the samples are RGB. Those of an open-ended layout go through `spread`, which
    it then needs.

    Raises:
        EOFError, ValueError, OSError, zlib.error: the file is damaged.
    """
    height, width = layout.size
    kept = list(layout.kept)
    stored: Pixels | None = None
    for chunk, top, found in _bands(file, layout):
        samples = found if spread is None else _spread_out(found, layout, chunk.plane, spread)
        if stored is None:  # not before, because libtiff may have had one strip for the whole picture
            stored = np.empty((height, width, len(kept)), samples.dtype)
        rows = slice(top, min(top + len(samples), chunk.top + chunk.rows))
        columns = slice(chunk.left, min(chunk.left + layout.chunk[1], width))
        seen = samples[: rows.stop - rows.start, : columns.stop - columns.start]
        if layout.planar:
            stored[rows, columns, kept.index(chunk.plane)] = seen[..., 0]
        else:
            stored[rows, columns] = seen if seen.shape[2] == len(kept) else seen[..., kept]
    if stored is None:
        raise ValueError("it has no samples")
    return stored


def working_of(layout: Layout, length: int) -> int:
    """Bytes that `read_samples` takes at the most beside its result, but for bands of a few rows.

    Args:
        length: of the file; no strip or tile is longer, whatever it says.
    """
    rows, columns = layout.chunk
    packed = min(int(layout.lengths.max(initial=0)), length)
    if layout.compression in (JPEG, WEBP):  # a strip or tile, the file made of it, and Pillow's picture
        return rows * columns * (4 if layout.compression == JPEG else 16) + 2 * packed
    if layout.compression in LIBTIFF:  # strips and the page made of them, then that page and its samples
        samples = layout.units(rows) * layout.unit_bytes
        together = min(max(1, _BATCH_BYTES // samples), len(layout.lengths))
        unpacked = samples * (8 if layout.compression in FAX else 1)
        return together * (packed + max(packed, unpacked))
    wide = 8 < layout.bits[0] < 16 or layout.open_ended
    widened = 32 * min(_BAND_SAMPLES, columns * rows * layout.together) if wide else 0
    return widened + (2 * packed if layout.compression == PACKBITS else 0)


def _chunks(layout: Layout) -> Iterator[_Chunk]:
    """Those of the planes that are kept, in the order of the file."""
    down, across = layout.grid
    rows, columns = layout.chunk
    for plane in layout.kept if layout.planar else (0,):
        for number in range(down * across):
            y, x = divmod(number, across)
            top = y * rows
            index = plane * down * across + number
            yield _Chunk(index, plane, top, x * columns, min(rows, layout.size[0] - top))


def _bands(file: TiffContainer, layout: Layout) -> Iterator[tuple[_Chunk, int, Pixels]]:
    """Chunk, row of the picture, and a few rows of samples (rows, columns, samples that lie together)."""
    if layout.compression in (JPEG, WEBP):
        for chunk in _chunks(layout):
            for start, samples in _picture(file, layout, chunk):
                yield chunk, chunk.top + start, samples
        return
    raw = _by_libtiff(file, layout) if layout.compression in LIBTIFF else _one_by_one(file, layout)
    for chunk, top, units in raw:
        most = max(1, _BAND_SAMPLES // (layout.chunk[1] * layout.together * layout.unit_rows))
        for first in range(0, len(units), most):
            yield chunk, top + first * layout.unit_rows, _unpacked(units[first : first + most], layout)


def _one_by_one(file: TiffContainer, layout: Layout) -> Iterator[tuple[_Chunk, int, Bytes]]:
    """Chunk, row of the picture, and a few units of bytes (units, bytes)."""
    for chunk in _chunks(layout):
        at, length = int(layout.offsets[chunk.index]), int(layout.lengths[chunk.index])
        size, top = layout.unit_bytes, chunk.top
        for data in _PLAIN[layout.compression](file, layout, at, length, layout.units(chunk.rows) * size):
            units = np.frombuffer(data, np.uint8).reshape(-1, size)
            yield chunk, top, units
            top += len(units) * layout.unit_rows


def _as_stored(file: TiffContainer, layout: Layout, at: int, length: int, wanted: int) -> Iterator[bytes]:
    if length < wanted:
        raise EOFError(f"a strip or tile has {length} bytes of {wanted}")
    for start, count in _steps(layout, wanted):
        yield _in_order(layout, file.read(at + start, count))


def _inflated(file: TiffContainer, layout: Layout, at: int, length: int, wanted: int) -> Iterator[bytes]:
    """Piece by piece: one strip may hold the whole picture, and little data become much."""
    inflate = zlib.decompressobj()
    rest, taken = b"", 0
    for _, count in _steps(layout, wanted):
        parts, missing = [], count
        while missing:
            if not rest and taken < length:
                rest = _in_order(layout, file.read(at + taken, min(_PIECE, length - taken)))
                taken += len(rest)
            part = inflate.decompress(rest, missing)
            if not part and not inflate.unconsumed_tail and taken >= length:
                raise EOFError("a deflated strip or tile ends too early")
            rest = inflate.unconsumed_tail
            parts.append(part)
            missing -= len(part)
        yield b"".join(parts)
    inflate.decompress(rest + _in_order(layout, file.read(at + taken, min(_PIECE, length - taken))), 1)  # its checksum


def _expanded(file: TiffContainer, layout: Layout, at: int, length: int, wanted: int) -> Iterator[bytes]:
    """PackBits (TIFF 6.0, section 9)."""
    data, out, here = _in_order(layout, file.read(at, length)), bytearray(), 0
    for _, band in _steps(layout, wanted):
        while len(out) < band:
            if here + 1 >= len(data):
                raise EOFError("a strip or tile of PackBits ends too early")
            count = data[here]
            if count < 128:
                out += data[here + 1 : here + 2 + count]
                here += 2 + count
            elif count > 128:
                out += data[here + 1 : here + 2] * (257 - count)
                here += 2
            else:
                here += 1
        yield bytes(out[:band])
        del out[:band]


_PLAIN: Final = {NONE: _as_stored, DEFLATE: _inflated, OLD_DEFLATE: _inflated, PACKBITS: _expanded}


def _steps(layout: Layout, wanted: int) -> Iterator[tuple[int, int]]:
    """(start, count) of bands of whole units in so many bytes."""
    step = max(1, _PIECE // layout.unit_bytes) * layout.unit_bytes
    return ((start, min(step, wanted - start)) for start in range(0, wanted, step))


def _in_order(layout: Layout, data: bytes) -> bytes:
    return data.translate(_REVERSED) if layout.reversed else data


def _by_libtiff(file: TiffContainer, layout: Layout) -> Iterator[tuple[_Chunk, int, Bytes]]:
    """As `_one_by_one`: a page of 8-bit gray, or for faxes of 1 bit, is made of some strips or tiles, and decoded."""
    _silence_libtiff()
    batch: list[_Chunk] = []
    most = max(1, _BATCH_BYTES // (layout.units(layout.chunk[0]) * layout.unit_bytes))
    for chunk in _chunks(layout):
        # Only the last strip of a page may be shorter than the others.
        batch.append(chunk)
        if len(batch) == most or chunk.rows < layout.chunk[0]:
            yield from _decoded_together(file, layout, batch)
            batch = []
    if batch:
        yield from _decoded_together(file, layout, batch)


def _decoded_together(file: TiffContainer, layout: Layout, batch: list[_Chunk]) -> Iterator[tuple[_Chunk, int, Bytes]]:
    fax = layout.compression in FAX
    full, last = layout.units(layout.chunk[0]), layout.units(batch[-1].rows)
    height = full * (len(batch) - 1) + last
    width = layout.chunk[1] if fax else layout.unit_bytes
    strips = [file.read(int(layout.offsets[chunk.index]), int(layout.lengths[chunk.index])) for chunk in batch]
    if not fax:
        strips = [_in_order(layout, strip) for strip in strips]
    page = _PlainPage(io.BytesIO(_page(layout, (height, width), full, strips)))
    del strips
    try:
        page.load()
    except OSError as error:
        raise ValueError("its strips or tiles cannot be decompressed") from error
    for number, chunk in enumerate(batch):
        first, units = full * number, layout.units(chunk.rows)
        step = max(1, _PIECE // width)
        for start in range(0, units, step):
            box = (0, first + start, width, first + min(start + step, units))
            samples = np.asarray(page.crop(box))
            yield chunk, chunk.top + start * layout.unit_rows, np.packbits(samples, axis=1) if fax else samples


class _PlainPage(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its check of the size, which compares with a global: `decode` has a parameter."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Pillow.new(self.mode, self._tile_size).im
        ImageFile.ImageFile.load_prepare(self)


def _page(layout: Layout, size: tuple[int, int], rows: int, strips: list[bytes]) -> bytes:
    """A little-endian TIFF of one page of plain bytes, or of bits, in strips of so many rows."""
    height, width = size
    fax = layout.compression in FAX
    lengths = [len(strip) for strip in strips]
    entries = [
        (256, width),
        (257, height),
        (258, 1 if fax else 8),
        (259, layout.compression),
        (262, 1),
        (266, 2 if fax and layout.reversed else 1),
        (277, 1),
        (278, rows),
        *([(293 if layout.compression == FAX_4 else 292, layout.fax)] if fax else []),
    ]
    tables = 8 + 2 + 12 * (len(entries) + 2) + 4
    starts = np.cumsum([tables + 8 * len(strips), *lengths[:-1]]).tolist()
    if starts[-1] + lengths[-1] >= 1 << 32:
        raise ValueError("a strip or tile of more than 4 GiB")
    packed = [(tag, struct.pack("<HHLL", tag, 4, 1, value)) for tag, value in entries]
    for tag, values, at in ((273, starts, tables), (279, lengths, tables + 4 * len(strips))):
        packed.append((tag, struct.pack("<HHLL", tag, 4, len(values), values[0] if len(values) == 1 else at)))
    directory = struct.pack("<H", len(packed)) + b"".join(entry for _, entry in sorted(packed)) + bytes(4)
    arrays = struct.pack(f"<{2 * len(strips)}L", *starts, *lengths)
    return b"".join([b"II*\0\x08\0\0\0", directory, arrays, *strips])


def _silence_libtiff() -> None:
    """Its errors come as exceptions; what it also writes to stderr names a file that nobody knows.

    Pillow does the same with its warnings. The handler is found through Pillow's own module, where the loader can.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(Pillow.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


def _picture(file: TiffContainer, layout: Layout, chunk: _Chunk) -> Iterator[tuple[int, Pixels]]:
    """A strip or tile that is a picture file in itself: row of it, some samples (rows, columns, that lie together)."""
    data = file.read(int(layout.offsets[chunk.index]), int(layout.lengths[chunk.index]))
    if layout.compression == WEBP:
        picture: ImageFile.ImageFile = WebPImageFile(io.BytesIO(data))
    else:
        stream = spliced(layout.tables or b"", data, ycbcr=layout.meaning == YCBCR)
        picture = JpegImageFile(io.BytesIO(stream))
    (width, height), bands = picture.size, len(picture.getbands())
    if width != layout.chunk[1] or not chunk.rows <= height <= layout.chunk[0] + 16:
        raise ValueError(f"a strip or tile of {layout.chunk[1]}x{layout.chunk[0]} pixels holds {width}x{height}")
    if bands != layout.together:
        raise ValueError(f"a strip or tile holds {bands} samples per pixel, not {layout.together}")
    picture.load()
    step = max(1, _BAND_SAMPLES // (width * bands))
    for start in range(0, chunk.rows, step):
        samples = np.asarray(picture.crop((0, start, width, min(start + step, chunk.rows)))).reshape(-1, width, bands)
        yield (
            start,
            np.invert(samples) if picture.mode == "CMYK" else samples,
        )  # four are taken as Adobe's inverted inks


def _unpacked(units: Bytes, layout: Layout) -> Pixels:
    """Bytes (units, bytes) -> samples (rows, columns, samples that lie together), differences summed up."""
    if layout.subsampled:
        return _spread(units, layout)
    columns, together, bits = layout.chunk[1], layout.together, layout.bits[0]
    shape = len(units), columns, together
    if bits == 8:
        samples: Pixels = units.reshape(shape)
    elif layout.predictor == 3 and layout.compression in WITH_PREDICTOR:
        return _floats_of_planes(units, layout).reshape(shape)
    elif bits in (16, 32, 64):
        whole = f"u{bits // 8}"
        samples = np.ascontiguousarray(units).view(layout.order + whole).astype(whole).reshape(shape)
    else:
        samples = _unpacked_bits(units, columns * together, bits).reshape(shape)
    if layout.predictor == 2 and layout.compression in WITH_PREDICTOR:
        samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
    kind = {SIGNED: "i", FLOATING: "f"}.get(layout.kinds[0])
    return samples.view(f"{kind}{bits // 8}") if kind else samples


def _floats_of_planes(units: Bytes, layout: Layout) -> Pixels:
    """Predictor 3 (Adobe's technical note of 2005): differences of bytes, the highest byte of a row's samples first.

    They are big-endian whatever the order of the file.
    """
    count, size = layout.chunk[1] * layout.together, layout.bits[0] // 8
    summed = np.cumsum(units.reshape(len(units), -1, layout.together), axis=1, dtype=np.uint8)
    together = summed.reshape(len(units), size, count).swapaxes(1, 2)
    return np.ascontiguousarray(together).view(f">f{size}").astype(f"f{size}")


def _spread_out(samples: Pixels, layout: Layout, plane: int, spread: Spread) -> Pixels:
    """Numbers of any kind (rows, columns, samples that lie together) -> uint16."""
    result = np.zeros(samples.shape, np.uint16)
    for index in range(samples.shape[2]):
        number = plane if layout.planar else index
        if number in layout.kept:
            spread_of = spread.opacity if number == layout.alpha else spread.colour
            result[..., index] = spread_of(samples[..., index])
    return result


def _unpacked_bits(units: Bytes, count: int, bits: int) -> Pixels:
    """The first `count` integers of 1 to 15 bits of each row of bytes, the highest bit first."""
    if bits == 1:
        return np.unpackbits(units, axis=1, count=count)
    start = np.arange(count) * bits
    at, shift = start >> 3, (24 - bits - (start & 7)).astype(np.uint32)
    three = np.pad(units, ((0, 0), (0, 2))).astype(np.uint32)  # no sample touches more bytes
    joined = (three[:, at] << 16 | three[:, at + 1] << 8 | three[:, at + 2]) >> shift
    return (joined & ((1 << bits) - 1)).astype(np.uint8 if bits < 8 else np.uint16)


def _spread(units: Bytes, layout: Layout) -> Bytes:
    """Blocks of Y and one Cb and Cr each -> Y, Cb, Cr of each pixel; as libtiff, chroma is repeated."""
    down, across = layout.subsampling
    blocks = units.reshape(len(units), -1, down * across + 2)
    wide = blocks.shape[1] * across
    luma = blocks[..., :-2].reshape(len(units), -1, down, across).swapaxes(1, 2).reshape(-1, wide)
    chroma = blocks[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.concatenate([luma[..., None], chroma], axis=2)[:, : layout.chunk[1]]
