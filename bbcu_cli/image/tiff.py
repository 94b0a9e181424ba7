"""TIFF files with 8 or 16 bits per sample, written strip by strip (TIFF 6.0; Pillow has no 16-bit colour)."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
_SAMPLES, _ROWS, _BYTE_COUNTS, _PREDICTOR, _EXTRA, _XMP, _ICC = 277, 278, 279, 317, 338, 700, 34675
"""Tags."""

_STRIP_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 0xFFFFFFFF
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_BLACK_IS_ZERO, _RGB = 1, 2
_UNASSOCIATED_ALPHA = 2


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
    height, width = bands.size
    gray = bands.channels == 1 and not (bands.alpha and bands.depth == 16)
    samples = (1 if gray else 3) + bands.alpha
    rows = max(1, _STRIP_BYTES // (width * samples * bands.depth // 8))
    described = _described(bands.metadata)
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
    head = len(_head(block, [0] * -(-height // rows)))
    file.write(bytes(head))  # holds the place
    lengths: list[int] = []
    strip_of = partial(_deflated_strip, gray=gray, order=block.order)
    for strip in in_order(strip_of, bands.pieces(rows), threads=threads):
        lengths.append(len(strip))
        if head + sum(lengths) > _MOST_BYTES:
            raise ImageError(f"the image of {width}x{height} pixels is too large for TIFF (4 GiB); write PNG instead")
        file.write(strip)
    file.seek(0)
    file.write(_head(block, lengths, head))
    file.seek(0, os.SEEK_END)


def _head(block: Block, lengths: Sequence[int], start: int = 0) -> bytes:
    """Header and directories; as long for any lengths of that many strips, which lie from `start` on."""
    offsets = accumulate(lengths[:-1], initial=start)
    strips = {_OFFSETS: block.longs(*offsets), _BYTE_COUNTS: block.longs(*lengths)}
    head = ifd.serialise(Block(block.order, {**block.directory, **strips}))
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


def _described(metadata: Metadata) -> Block:
    """All that describes the picture, in the byte order of its EXIF: a maker's note may depend on it."""
    block = Block() if metadata.exif is None else exif.unpack(metadata.exif)
    block = exif.with_resolution(exif.clean(block)[0], metadata.dpi)  # here a tag of storage would break the file
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
