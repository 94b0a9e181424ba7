"""Reading JPEG 2000 through Pillow, and what it does not look at: depth, colour space, profile, EXIF and XMP.

Source: ISO/IEC 15444-1, annex A (codestream) and annex I (JP2 boxes).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import numpy as np
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from bbcu_cli.errors import ImageError
from bbcu_cli.image.boxes import boxes, read
from bbcu_cli.image.image import ImageInfo, Pixels
from bbcu_cli.image.pillow import PillowFile, length_of, pixel_bytes

_SIZ, _COD, _FIRST_TILE = 0xFF51, 0xFF52, 0xFF90
_BY_NUMBER, _BY_PROFILES = 1, (2, 3)
_READ: Final = (0, 15, 16, 17, 18)  # bits, sRGB, gray, sYCC
_COLOURS: Final = {12: "CMYK", 14: "CIE Lab", 19: "CIE Jab", 20: "e-sRGB", 21: "ROMM RGB", 24: "e-sYCC"}
_EXIF: Final = b"JpgTiffExif->JP2"
_XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_MOST_BESIDE: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says beside its picture.

    Attributes:
        bits: of each component.
        signed: one of them may be negative.
        lossy: the picture is not exactly the one that was compressed.
        colours: number of the colour space; None where a profile, or nothing, says it.
        beside: profile, EXIF and XMP, under Pillow's names.
    """

    bits: tuple[int, ...]
    signed: bool
    lossy: bool
    colours: int | None = None
    beside: Mapping[str | tuple[int, int], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Jpeg2000File(PillowFile):
    """A file whose header was read."""

    described: Described

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> Jpeg2000File:
        """Read the header of `stream`.

        Raises:
            ImageError: its colours or samples are of a kind that we do not read.
        """
        found = describe(stream)
        colours, bits = found.colours, max(found.bits)
        if colours not in (None, *_READ):
            kind = _COLOURS.get(colours or 0, f"unknown (number {colours})")
            raise ImageError(f"{name} is a JPEG 2000 whose colours are {kind}; convert it to RGB first")
        if bits > 16 or found.signed:
            kind = "signed" if found.signed else f"{bits}-bit"
            raise ImageError(f"{name} is a JPEG 2000 of {kind} samples; convert it to 8 or 16 bits first")
        stream.seek(0)
        picture = Jpeg2KImageFile(stream)
        picture.info |= found.beside
        return cls(name, "JPEG 2000", stream, picture, found)

    def _is_gray(self) -> bool:
        return self.picture.mode == "I;16" or super(Jpeg2000File, self)._is_gray()

    def _depth(self) -> int:
        return 16 if self.picture.mode == "I;16" else 8

    def _working(self, info: ImageInfo) -> int:
        """OpenJPEG's 32 bits of each sample, what Pillow takes of them, its picture, and the file."""
        samples = len(self.described.bits) * (4 + (1 if max(self.described.bits) <= 8 else 2))
        return info.pixels * (samples + pixel_bytes(self.picture, info)) + length_of(self.stream)

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        samples, notes = super(Jpeg2000File, self)._samples(info)
        bits = max(self.described.bits)
        if info.depth == 8 and bits > 8:
            notes.append(f"{bits}-bit colours were reduced to 8 bits")
        elif bits < info.depth and len({*self.described.bits}) == 1 and self.picture.mode not in ("P", "PA"):
            # Pillow moves the bits up and puts zeros below them, so that white is darker than white.
            most, top = (1 << bits) - 1, (1 << info.depth) - 1
            table = ((2 * top * np.arange(most + 1, dtype=np.int64) + most) // (2 * most)).astype(samples.dtype)
            for row in samples:
                row[:] = table[row >> (info.depth - bits)]
        return samples, notes


def describe(stream: BinaryIO) -> Described:
    """What a file of boxes, or a bare codestream, says.

    Raises:
        ValueError: it has no codestream, or its header is damaged.
        EOFError: it ends too early.
    """
    length = length_of(stream)
    stream.seek(0)
    if stream.read(4) == b"\xff\x4f\xff\x51":
        return _codestream(stream, 0)
    colours, beside, start = None, dict[Any, bytes](), None
    for kind, at, end in boxes(stream, 0, length):
        if kind == b"jp2h":
            colours, profile = _colours(stream, at, end)
            beside |= {"icc_profile": profile} if profile else {}
        elif kind == b"uuid" and end - at <= _MOST_BESIDE:
            content = read(stream, at, end - at)
            name = {_EXIF: "exif", _XMP: "xmp"}.get(content[:16])
            beside |= {name: content[16:]} if name else {}
        elif kind == b"jp2c" and start is None:
            start = at
    if start is None:
        raise ValueError("it has no codestream")
    found = _codestream(stream, start)
    return Described(found.bits, found.signed, found.lossy, colours, beside)


def _colours(stream: BinaryIO, at: int, end: int) -> tuple[int | None, bytes | None]:
    """Number of the colour space, or the profile: what comes first counts."""
    for kind, start, until in boxes(stream, at, end):
        if kind == b"colr" and 3 < until - start <= _MOST_BESIDE:
            content = read(stream, start, until - start)
            if content[0] in _BY_PROFILES:
                return None, content[3:]
            if content[0] == _BY_NUMBER and len(content) >= 7:
                return int.from_bytes(content[3:7], "big"), None
    return None, None


def _codestream(stream: BinaryIO, at: int) -> Described:
    """What the main header says, to its marker COD."""
    bits: tuple[int, ...] = ()
    signed, at = False, at + 2
    while True:
        marker, length = struct.unpack(">HH", read(stream, at, 4))
        if length < 2 or marker >= _FIRST_TILE:
            raise ValueError("its codestream has no header")
        content = read(stream, at + 4, length - 2)
        if marker == _SIZ:
            depths = content[36::3]
            bits, signed = tuple((depth & 0x7F) + 1 for depth in depths), any(depth & 0x80 for depth in depths)
        elif marker == _COD and bits and len(content) >= 10:
            return Described(bits, signed, lossy=content[9] == 0)
        at += 2 + length
