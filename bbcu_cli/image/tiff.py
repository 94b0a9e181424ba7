"""TIFF files with 8 or 16 bits per sample, written strip by strip (TIFF 6.0; Pillow has no 16-bit colour)."""

from __future__ import annotations

import os
from functools import partial
from itertools import accumulate
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags
from PIL.Image import Exif
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.TiffTags import BYTE, LONG, UNDEFINED

from bbcu_cli.errors import ImageError
from bbcu_cli.image.deflate import LEVEL, in_order, zlib
from bbcu_cli.image.image import Bands, Image, Metadata

_HEADER: Final = b"II*\0"  # little-endian
_STRIP_BYTES: Final = 1 << 20
_DIRECTORY_BYTES: Final = 1 << 26  # more than metadata ever take
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_BLACK_IS_ZERO, _RGB = 1, 2
_UNASSOCIATED_ALPHA = 2


def write_tiff(bands: Bands, file: BinaryIO, *, threads: int) -> None:
    """Write a picture, deflated, with all its metadata but the text.

    Gray with alpha is written as RGB in 16 bits: Pillow, and others, cannot read it otherwise.

    Args:
        bands: of any channels and depth.
        file: where to; it can seek.
        threads: how many strips are worked on at once; the file does not depend on it.

    Raises:
        ImageError: the file would pass 4 GiB, which is as far as TIFF's offsets go.
    """
    height, width = bands.size
    gray = bands.channels == 1 and not (bands.alpha and bands.depth == 16)
    samples = (1 if gray else 3) + bands.alpha
    rows = max(1, _STRIP_BYTES // (width * samples * bands.depth // 8))
    directory = _directory(bands.metadata)
    directory[ExifTags.Base.ImageWidth] = width
    directory[ExifTags.Base.ImageLength] = height
    directory[ExifTags.Base.BitsPerSample] = (bands.depth,) * samples
    directory[ExifTags.Base.Compression] = _DEFLATE
    directory[ExifTags.Base.PhotometricInterpretation] = _BLACK_IS_ZERO if gray else _RGB
    directory[ExifTags.Base.SamplesPerPixel] = samples
    directory[ExifTags.Base.RowsPerStrip] = rows
    directory[ExifTags.Base.Predictor] = _HORIZONTAL_DIFFERENCES
    if bands.alpha:
        directory[ExifTags.Base.ExtraSamples] = _UNASSOCIATED_ALPHA
    start = file.tell()
    _write_directory(directory, file, [0] * -(-height // rows))  # holds the place
    lengths: list[int] = []
    for strip in in_order(partial(_deflated_strip, gray=gray), bands.pieces(rows), threads=threads):
        lengths.append(len(strip))
        if sum(lengths) + _DIRECTORY_BYTES > 0xFFFFFFFF:
            raise ImageError(f"the image of {width}x{height} pixels is too large for TIFF (4 GiB); write PNG instead")
        file.write(strip)
    file.seek(start)
    _write_directory(directory, file, lengths)
    file.seek(0, os.SEEK_END)


def _write_directory(directory: ImageFileDirectory_v2, file: BinaryIO, lengths: list[int]) -> None:
    """Header and directory; as long for any lengths of that many strips, which lie behind it."""
    for tag, values in (
        (ExifTags.Base.StripByteCounts, lengths),
        (ExifTags.Base.StripOffsets, accumulate(lengths[:-1], initial=0)),  # Pillow counts from the directory's end
    ):
        directory.tagtype[tag] = LONG
        directory[tag] = tuple(values)
    directory.save(file)


def _deflated_strip(piece: Image, *, gray: bool) -> bytes:
    """The rows interleaved; each sample less its left neighbour, modulo its range (TIFF 6.0, 14)."""
    pixels = piece.pixels
    if piece.channels == 1 and not gray:
        pixels = np.repeat(pixels, 3, axis=2)
    samples = pixels if piece.alpha is None else np.dstack([pixels, piece.alpha])
    differences = samples.astype(samples.dtype.newbyteorder("<"))
    differences[:, 1:] -= samples[:, :-1]
    return bytes(zlib.compress(differences.tobytes(), LEVEL))


def _directory(metadata: Metadata) -> ImageFileDirectory_v2:
    directory = ImageFileDirectory_v2(ifh=_HEADER + bytes(4))
    if metadata.exif is not None:
        exif = Exif()
        exif.load(metadata.exif)
        for tag, value in exif.items():
            directory[tag] = exif.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else value
    if metadata.dpi is not None:
        directory[ExifTags.Base.XResolution], directory[ExifTags.Base.YResolution] = metadata.dpi
        directory[ExifTags.Base.ResolutionUnit] = 2  # inch
    for tag, kind, block in (
        (ExifTags.Base.XMLPacket, BYTE, metadata.xmp),
        (ExifTags.Base.InterColorProfile, UNDEFINED, metadata.icc),
    ):
        if block is not None:
            directory.tagtype[tag] = kind
            directory[tag] = block
    return directory
