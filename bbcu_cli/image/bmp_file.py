"""Reading BMP: pixels of 16 and 32 bits by whatever masks their header gives, the others through Pillow.

Source: BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER of Windows.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from bbcu_cli.errors import ImageError
from bbcu_cli.image import metadata
from bbcu_cli.image.image import Image, ImageInfo, Pixels
from bbcu_cli.image.pillow import PillowFile

_RGB, _BITFIELDS, _JPEG, _PNG, _ALPHA_BITFIELDS = 0, 3, 4, 5, 6
_INFO_HEADER, _WITH_MASKS, _WITH_ALPHA = 40, 52, 56
_PLAIN_MASKS: Final[Mapping[int, tuple[int, ...]]] = {
    16: (0x7C00, 0x3E0, 0x1F, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}
_ZERO_MASKS: Final = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # what programs mean that write none
_BAND_BYTES: Final = 1 << 22
_INCH: Final = 0.0254


def open_bmp(name: str, stream: BinaryIO) -> MaskedBmp | PillowFile:
    """Read the header of `stream`.

    Raises:
        ImageError: it is a BMP of a kind that is not read here.
    """
    head = stream.read(14 + _WITH_ALPHA + 16)
    stream.seek(0)
    if len(head) >= 14 + _INFO_HEADER:
        size, width, height, _, bits, compression = struct.unpack_from("<LllHHL", head, 14)
        if compression in (_JPEG, _PNG):
            kind = "JPEG" if compression == _JPEG else "PNG"
            raise ImageError(f"{name} is a BMP that holds a {kind} file, which bbcu does not read; convert it to PNG")
        if size >= _INFO_HEADER and bits in _PLAIN_MASKS and compression in (_RGB, _BITFIELDS, _ALPHA_BITFIELDS):
            return MaskedBmp(
                name,
                stream,
                start=struct.unpack_from("<L", head, 10)[0],
                size=(abs(height), width),
                bits=bits,
                masks=_masks(head, size, bits, compression),
                bottom_up=height > 0,
                dpi=tuple(value * _INCH for value in struct.unpack_from("<ll", head, 14 + 24)),
            )
    try:
        return PillowFile(name, "BMP", stream, BmpImageFile(stream))
    except OSError as error:
        if str(error).startswith("Unsupported"):
            raise ImageError(f"{name} is a BMP that bbcu does not read ({error}); convert it to PNG first") from error
        raise


@dataclass(frozen=True, slots=True)
class MaskedBmp:
    """A file of integers of 16 or 32 bits that masks cut into red, green, blue and alpha.

    Attributes:
        start: where the pixels lie.
        size: (height, width).
        bits: of a pixel.
        masks: of red, green, blue and alpha.
        bottom_up: the lowest row comes first.
        dpi: (horizontal, vertical) pixels per inch; 0 when not known.
    """

    name: str
    stream: BinaryIO
    start: int
    size: tuple[int, int]
    bits: int
    masks: tuple[int, ...]
    bottom_up: bool
    dpi: tuple[float, ...]

    def info(self) -> ImageInfo:
        """What the header says."""
        if min(self.size) < 1:
            raise ValueError(f"its size is {self.size[1]}x{self.size[0]}")
        deep = max(mask.bit_count() for mask in self.masks) > 8
        return ImageInfo("BMP", self.size, channels=3, depth=16 if deep else 8, alpha=self.masks[3] != 0, frames=1)

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata; `info` is what `info` gave."""
        height, width = self.size
        stride = -(-width * self.bits // 32) * 4
        needed = stride * (height - 1) + width * self.bits // 8  # programs have left out the padding of the last row
        if self.start + needed > self.stream.seek(0, os.SEEK_END):
            raise EOFError(f"its pixels need {needed} bytes")
        samples = np.empty((height, width, 3 + info.alpha), np.dtype(f"u{info.depth // 8}"))
        parts = [_part(mask, info.depth) for mask in self.masks[: samples.shape[2]]]
        step = max(1, _BAND_BYTES // stride)
        self.stream.seek(self.start)
        for top in range(0, height, step):
            rows = (samples[::-1] if self.bottom_up else samples)[top : top + step]
            data = self.stream.read(len(rows) * stride).ljust(len(rows) * stride, b"\0")
            pixels = np.frombuffer(data, np.dtype(f"<u{self.bits // 8}")).reshape(len(rows), -1)[:, :width]
            for channel, (shift, mask, table) in enumerate(parts):
                rows[..., channel] = table[pixels >> shift & mask]
        about, notes = metadata.read(self.name, "BMP", self.stream, {"dpi": self.dpi}, channels=3, size=self.size)
        return Image(samples[..., :3], samples[..., 3] if info.alpha else None, about, "BMP", notes=notes)


def _masks(head: bytes, size: int, bits: int, compression: int) -> tuple[int, ...]:
    """Masks of red, green, blue and alpha.

    Raises:
        ValueError: their bits are not side by side.
    """
    if compression == _RGB:
        return _PLAIN_MASKS[bits]
    count = 4 if size >= _WITH_ALPHA or compression == _ALPHA_BITFIELDS else 3
    masks = (*struct.unpack_from(f"<{count}L", head, 14 + _INFO_HEADER), *(0,) * (4 - count))
    if not any(masks):
        return _ZERO_MASKS if bits == 32 else _PLAIN_MASKS[bits]
    for mask in masks:
        lowest = mask & -mask
        if mask >= 1 << bits or (mask + lowest) & mask:
            raise ValueError(f"the mask {mask:#x} is none of {bits} bits")
    return masks


def _part(mask: int, depth: int) -> tuple[int, int, Pixels]:
    """How far to shift a pixel, what to keep of it, and the sample of `depth` bits for each value."""
    count = mask.bit_count()
    if count > 16:
        raise ValueError(f"the mask {mask:#x} is of {count} bits")
    shift = (mask & -mask).bit_length() - 1 if mask else 0
    most, top = max(1, (1 << count) - 1), (1 << depth) - 1
    table = (2 * top * np.arange(1 << count, dtype=np.int64) + most) // (2 * most)
    return shift, (1 << count) - 1, table.astype(np.dtype(f"u{depth // 8}"))
