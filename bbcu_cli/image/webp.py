"""Animated WebP, put together of still ones frame by frame (RFC 9649, section 2.7).

libwebp's own writer keeps all frames until the last one is there, and is not lossless under transparent pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

_MOST_BYTES: Final = 0xFFFFFFFE
_MOST_DURATION: Final = 0xFFFFFF  # 4.7 hours
_MOST_PLAYS: Final = 0xFFFF
_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_DO_NOT_BLEND: Final = 0x02
_BITSTREAM: Final = (b"ALPH", b"VP8 ", b"VP8L")


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a frame, which takes the place of what is shown.

    Attributes:
        still: a WebP file of it.
        corner: (top, left), even numbers.
        size: (height, width).
        duration: milliseconds.
    """

    still: bytes
    corner: tuple[int, int]
    size: tuple[int, int]
    duration: int


def write_animation(
    patches: Iterable[Patch], file: BinaryIO, *, alpha: bool, plays: int, blocks: Mapping[str, bytes]
) -> None:
    """Write an animation as its frames come.

    Args:
        patches: of its frames; the first one is the whole picture.
        file: where to, from its start; it can seek.
        alpha: there may be transparent pixels.
        plays: how often it is played; 0: for ever.
        blocks: "icc_profile", "exif" (with or without its header) and "xmp", where there are any.

    Raises:
        ValueError: the file would pass 4 GiB.
    """
    flags = _ANIMATION | (_ALPHA if alpha else 0)
    flags |= sum(bit for name, bit in (("icc_profile", _ICC), ("exif", _EXIF), ("xmp", _XMP)) if name in blocks)
    for index, patch in enumerate(patches):
        if index == 0:
            height, width = patch.size
            file.write(b"RIFF" + bytes(4) + b"WEBP")
            _write(file, b"VP8X", struct.pack("<L", flags) + _three(width - 1) + _three(height - 1))
            if "icc_profile" in blocks:
                _write(file, b"ICCP", blocks["icc_profile"])
            _write(file, b"ANIM", struct.pack("<LH", 0, min(plays, _MOST_PLAYS)))
        top, left = patch.corner
        height, width = patch.size
        place = [left // 2, top // 2, width - 1, height - 1, min(patch.duration, _MOST_DURATION)]
        _write(file, b"ANMF", b"".join(map(_three, place)) + bytes([_DO_NOT_BLEND]) + _bitstream(patch.still))
    if "exif" in blocks:
        _write(file, b"EXIF", blocks["exif"].removeprefix(b"Exif\0\0"))
    if "xmp" in blocks:
        _write(file, b"XMP ", blocks["xmp"])
    length = file.tell() - 8
    file.seek(4)
    file.write(struct.pack("<L", length))
    file.seek(0, os.SEEK_END)


def _write(file: BinaryIO, name: bytes, data: bytes) -> None:
    """A chunk, padded to an even length."""
    if file.tell() + len(data) + 9 > _MOST_BYTES:
        raise ValueError("it is too large (4 GiB); write PNG instead")
    file.write(name + struct.pack("<L", len(data)))
    file.write(data)
    file.write(bytes(len(data) % 2))


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _bitstream(still: bytes) -> bytes:
    """The chunks of a still file that hold its pixels."""
    return b"".join(chunk for name, chunk in _chunks(still) if name in _BITSTREAM)


def _chunks(still: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, all of it) of each chunk of a file."""
    at = 12
    while at + 8 <= len(still):
        length = int.from_bytes(still[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        yield still[at : at + 4], still[at:end]
        at = end
