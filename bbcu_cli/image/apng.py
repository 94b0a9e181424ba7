"""Reading the frames of an animated PNG, in all depths (PNG specification, third edition: acTL, fcTL, fdAT).

Pillow keeps 8 of 16 bits, and mixes where one half transparent frame lies over another.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final

from bbcu_cli.image.frames import Disposal, Patch
from bbcu_cli.image.png import SIGNATURE, write_chunk
from bbcu_cli.image.png_chunks import Place, chunks, is_sound

_CONTROL: Final = struct.Struct(">LLLLLHHBB")
_DISPOSALS: Final = {1: Disposal.CLEAR, 2: Disposal.PREVIOUS}
_SOURCE: Final = 0
_SEQUENCE_NUMBER: Final = 4  # bytes, in front of the data of fdAT
_HUNDREDTHS: Final = 100  # of a second, where the denominator is 0


@dataclass(frozen=True, slots=True)
class Coded:
    """A frame as it lies in the file: where it is drawn, and the chunks that its deflated rows lie in."""

    patch: Patch
    places: tuple[Place, ...]


def coded_frames(stream: BinaryIO, size: tuple[int, int], *, opaque: bool) -> tuple[tuple[Coded, ...], int]:
    """The frames of a file, and how often they are played (0: for ever).

    A picture that is no frame is left out, and what is behind a damaged frame: nothing is known of it.

    Args:
        stream: the file.
        size: (height, width) of the canvas.
        opaque: no pixel of the file can be transparent.
    """
    found: list[tuple[Patch, list[Place]]] = []
    plays = 0
    for place in chunks(stream):
        kind, _, length = place
        if kind == b"acTL" and length == 8:
            (plays,) = struct.unpack(">4xL", stream.read(8))
        elif kind == b"fcTL":
            patch = _patch(stream.read(length), size, opaque=opaque) if is_sound(stream, place) else None
            if patch is None:
                break
            found.append((patch, []))
        elif kind in (b"IDAT", b"fdAT") and found:
            found[-1][1].append(place)
    return tuple(Coded(patch, tuple(places)) for patch, places in found), plays


def _patch(control: bytes, size: tuple[int, int], *, opaque: bool) -> Patch | None:
    """What an fcTL says; None when that is not within the canvas."""
    if len(control) != _CONTROL.size:
        return None
    _, width, height, left, top, delay, parts, disposal, blend = _CONTROL.unpack(control)
    if min(width, height) < 1 or top + height > size[0] or left + width > size[1]:
        return None
    return Patch(
        top,
        left,
        top + height,
        left + width,
        _DISPOSALS.get(disposal, Disposal.KEEP),
        over=blend != _SOURCE,
        opaque=opaque,
        duration=Fraction(1000 * delay, parts or _HUNDREDTHS),
    )


def alone(stream: BinaryIO, head: bytes, coded: Coded) -> BinaryIO:
    """A PNG of a frame's own pixels.

    Args:
        stream: the animation.
        head: its chunks IHDR, PLTE and tRNS.
        coded: the frame.

    Raises:
        ValueError: its data are missing or damaged.
        EOFError: the file ends in them.
    """
    patch, file = coded.patch, io.BytesIO()
    file.write(SIGNATURE)
    size = struct.pack(">LL", patch.right - patch.left, patch.bottom - patch.top)
    write_chunk(file, b"IHDR", size + head[16:21])
    file.write(head[25:])
    if not coded.places:
        raise ValueError("it has no data")
    for place in coded.places:
        kind, at, length = place
        if not is_sound(stream, place):
            raise ValueError(f"the checksum of {kind.decode()} is wrong")
        skip = _SEQUENCE_NUMBER if kind == b"fdAT" else 0
        stream.seek(at + skip)
        write_chunk(file, b"IDAT", stream.read(max(0, length - skip)))
    write_chunk(file, b"IEND", b"")
    file.seek(0)
    return file
