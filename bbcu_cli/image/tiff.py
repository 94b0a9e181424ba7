"""TIFF files with 8 or 16 bits per sample, written strip by strip (TIFF 6.0; Pillow has no 16-bit colour)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import BinaryIO, Final

import numpy as np

from bbcu_cli.errors import ImageError
from bbcu_cli.image import exif, geotiff, ifd
from bbcu_cli.image.deflate import LEVEL, in_order, zlib
from bbcu_cli.image.ifd import Block, Field, Order
from bbcu_cli.image.image import Bands, Image, Metadata

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS = 256, 257, 258, 259, 262, 273
_SUBFILE, _PAGE = 254, 297
_SAMPLES, _ROWS, _BYTE_COUNTS, _PREDICTOR, _EXTRA, _XMP, _ICC = 277, 278, 279, 317, 338, 700, 34675
"""Tags."""

_STRIP_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 0xFFFFFFFF
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_BLACK_IS_ZERO, _RGB = 1, 2
_UNASSOCIATED_ALPHA = 2
_OF_SEVERAL = 2


def write_tiff(bands: Bands, file: BinaryIO, *, threads: int) -> None:
    """Write a picture, deflated, with all its metadata but the text.

    Gray with alpha is written as RGB in 16 bits: Pillow, and others, cannot read it otherwise.

    Args:
        bands: of any channels and depth.
        file: where to, from its start; it can seek.
        threads: how many strips are worked on at once; the file does not depend on it.

    Raises:
        ImageError: the file would pass 4 GiB, which is as far as TIFF's offsets go.
    """
    write_pages(iter((bands,)), file, count=1, threads=threads)


def write_pages(pages: Iterable[Bands], file: BinaryIO, *, count: int, threads: int) -> None:
    """Write pictures as the pages of a file, each as by `write_tiff`, which has the errors.

    Args:
        pages: each is written before the next one is asked for.
        file: where to, from its start; it can seek.
        count: how many there are.
        threads: as of `write_tiff`.
    """
    order: Order | None = None
    link = 0  # where to write down where the next page lies
    for number, bands in enumerate(pages):
        described = _described(bands.metadata, order)
        if count > 1:
            place = {_SUBFILE: described.longs(_OF_SEVERAL), _PAGE: described.shorts(number, count)}
            described = Block(described.order, {**described.directory, **place})
        order = described.order
        at, following = _write_page(bands, described, file, threads=threads)
        if number:
            file.seek(link)
            file.write(struct.pack(order + "L", at))
            file.seek(0, os.SEEK_END)
        link = following


def _write_page(bands: Bands, described: Block, file: BinaryIO, *, threads: int) -> tuple[int, int]:
    """Write a page at the end of a file; says where its directory lies, and where that one leads on."""
    begin = file.seek(0, os.SEEK_END)
    if begin % 2:
        begin += file.write(b"\0")
    height, width = bands.size
    gray = bands.channels == 1 and not (bands.alpha and bands.depth == 16)
    samples = (1 if gray else 3) + bands.alpha
    rows = max(1, _STRIP_BYTES // (width * samples * bands.depth // 8))
    stored = {
        _WIDTH: described.longs(width),
        _HEIGHT: described.longs(height),
        _BITS: described.shorts(*(bands.depth,) * samples),
        _COMPRESSION: described.shorts(_DEFLATE),
        _PHOTOMETRIC: described.shorts(_BLACK_IS_ZERO if gray else _RGB),
        _SAMPLES: described.shorts(samples),
        _ROWS: described.longs(rows),
        _PREDICTOR: described.shorts(_HORIZONTAL_DIFFERENCES),
        **({_EXTRA: described.shorts(_UNASSOCIATED_ALPHA)} if bands.alpha else {}),
    }
    block = Block(described.order, {**described.directory, **stored})
    head = begin + len(_head(block, [0] * -(-height // rows), begin=begin))
    file.write(bytes(head - begin))  # holds the place
    lengths: list[int] = []
    strip_of = partial(_deflated_strip, gray=gray, order=block.order)
    for strip in in_order(strip_of, bands.pieces(rows), threads=threads):
        lengths.append(len(strip))
        if head + sum(lengths) > _MOST_BYTES:
            what = "pages are" if _PAGE in block.directory else f"image of {width}x{height} pixels is"
            raise ImageError(f"the {what} too large for TIFF (4 GiB); write PNG instead")
        file.write(strip)
    file.seek(begin)
    written = _head(block, lengths, head, begin=begin)
    file.write(written)
    file.seek(0, os.SEEK_END)
    at = begin or struct.unpack_from(block.order + "L", written, 4)[0]
    return at, at + 2 + 12 * (len(block.directory) + 2)  # past its count and entries, those of the strips as well


def _head(block: Block, lengths: Sequence[int], start: int = 0, *, begin: int = 0) -> bytes:
    """Header, of the first page, and directories; as long for any lengths of that many strips.

    Args:
        block: the main directory but for the strips.
        lengths: of the strips.
        start: where they lie.
        begin: where the head lies; only at the start of a file there is a header.
    """
    offsets = accumulate(lengths[:-1], initial=start)
    strips = {_OFFSETS: block.longs(*offsets), _BYTE_COUNTS: block.longs(*lengths)}
    whole = Block(block.order, {**block.directory, **strips})
    head = ifd.serialise(whole, begin - ifd.HEADER_BYTES)[ifd.HEADER_BYTES :] if begin else ifd.serialise(whole)
    return head + bytes(len(head) % 2)


def _deflated_strip(piece: Image, *, gray: bool, order: Order) -> bytes:
    """The rows interleaved; each sample less its left neighbour, modulo its range (TIFF 6.0, 14)."""
    pixels = piece.pixels
    if piece.channels == 1 and not gray:
        pixels = np.repeat(pixels, 3, axis=2)
    samples = pixels if piece.alpha is None else np.dstack([pixels, piece.alpha])
    differences = samples.astype(samples.dtype.newbyteorder(order))
    differences[:, 1:] -= samples[:, :-1]
    return bytes(zlib.compress(differences.tobytes(), LEVEL))


def _described(metadata: Metadata, order: Order | None) -> Block:
    """All that describes the picture.

    Args:
        metadata: of the picture.
        order: of bytes; None: that of its EXIF, since a maker's note may depend on it.
    """
    block = Block() if metadata.exif is None else exif.unpack(metadata.exif)
    block = ifd.in_order(exif.clean(block)[0], order or block.order)  # here a tag of storage would break the file
    block = exif.with_resolution(block, metadata.dpi)
    # TIFF has no type for UTF-8, which is EXIF's own: text of any encoding stands under ASCII.
    more = {
        tag: Field(ifd.ASCII, value.data)
        for tag, value in block.directory.items()
        if isinstance(value, Field) and value.kind == ifd.UTF8
    }
    if metadata.xmp is not None:
        more[_XMP] = Field(ifd.BYTE, metadata.xmp)
    if metadata.icc is not None:
        more[_ICC] = Field(ifd.UNDEFINED, metadata.icc)
    if metadata.georeference is not None:
        more |= geotiff.fields(metadata.georeference, block.order)
    return Block(block.order, {**block.directory, **more})
