"""TIFF files with 8 or 16 bits per sample, written strip by strip (TIFF 6.0; Pillow has no 16-bit colour)."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags
from PIL.Image import Exif
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.TiffTags import BYTE, LONG, UNDEFINED

from bbcu_cli.errors import ImageError
from bbcu_cli.image.image import Image, Metadata

_HEADER: Final = b"II*\0"  # little-endian
_STRIP_BYTES: Final = 1 << 20
_LEVEL: Final = 4
_DIRECTORY_BYTES: Final = 1 << 26  # more than metadata ever take
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_BLACK_IS_ZERO, _RGB = 1, 2
_UNASSOCIATED_ALPHA = 2


def write_tiff(image: Image, file: BinaryIO, *, threads: int) -> None:
    """Write one image, deflated, with all its metadata but the text.

    Gray with alpha is written as RGB in 16 bits: Pillow, and others, cannot read it otherwise.

    Args:
        image: of any channels and depth.
        file: where to.
        threads: how many strips are worked on at once; the file does not depend on it.

    Raises:
        ImageError: the file would pass 4 GiB, which is as far as TIFF's offsets go.
    """
    height, width = image.size
    gray = image.channels == 1 and (image.alpha is None or image.depth == 8)
    bands = (1 if gray else 3) + (image.alpha is not None)
    rows = max(1, _STRIP_BYTES // (width * bands * image.depth // 8))
    with ThreadPoolExecutor(threads) as pool:
        strips = list(pool.map(partial(_deflated_strip, image, rows=rows, gray=gray), range(0, height, rows)))
    directory = _directory(image.metadata)
    directory[ExifTags.Base.ImageWidth] = width
    directory[ExifTags.Base.ImageLength] = height
    directory[ExifTags.Base.BitsPerSample] = (image.depth,) * bands
    directory[ExifTags.Base.Compression] = _DEFLATE
    directory[ExifTags.Base.PhotometricInterpretation] = _BLACK_IS_ZERO if gray else _RGB
    directory[ExifTags.Base.SamplesPerPixel] = bands
    directory[ExifTags.Base.RowsPerStrip] = rows
    directory[ExifTags.Base.StripByteCounts] = tuple(map(len, strips))
    directory[ExifTags.Base.Predictor] = _HORIZONTAL_DIFFERENCES
    if image.alpha is not None:
        directory[ExifTags.Base.ExtraSamples] = _UNASSOCIATED_ALPHA
    # Pillow counts these from the end of the directory, which is where the strips are going to lie.
    directory.tagtype[ExifTags.Base.StripOffsets] = LONG
    directory[ExifTags.Base.StripOffsets] = tuple(accumulate(map(len, strips[:-1]), initial=0))
    if sum(map(len, strips)) + _DIRECTORY_BYTES > 0xFFFFFFFF:
        raise ImageError(f"the image of {width}x{height} pixels is too large for TIFF (4 GiB); write PNG instead")
    directory.save(file)
    file.writelines(strips)


def _deflated_strip(image: Image, top: int, *, rows: int, gray: bool) -> bytes:
    """`rows` rows from `top`, interleaved; each sample less its left neighbour, modulo its range (TIFF 6.0, 14)."""
    part = slice(top, top + rows)
    pixels = image.pixels[part]
    if image.channels == 1 and not gray:
        pixels = np.repeat(pixels, 3, axis=2)
    samples = pixels if image.alpha is None else np.dstack([pixels, image.alpha[part]])
    differences = samples.astype(samples.dtype.newbyteorder("<"))
    differences[:, 1:] -= samples[:, :-1]
    return zlib.compress(differences.tobytes(), _LEVEL)


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
