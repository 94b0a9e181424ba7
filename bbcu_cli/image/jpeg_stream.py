"""The segments of a JPEG stream, and what they tell that its decoder does not (ITU-T T.81, annex B)."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import Final

START, END = b"\xff\xd8", b"\xff\xd9"
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_END_OF_IMAGE, _START_OF_SCAN, _JFIF, _ADOBE = 0xD9, 0xDA, 0xE0, 0xEE
_RESTART: Final = 0xD0  # the first of eight
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xCD, 0xCE})
_JPEG_LS: Final = 0xF7
_DJPEG: Final = "libjpeg-turbo 3: djpeg -outfile out.ppm in.jpg"
_ITS_MAKER: Final = "the program that made it"
_BEHIND_A_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def segments(data: bytes, *, scans: bool = False) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to the header of the first scan, or of all; the start is at its marker.

    Raises:
        ValueError: no segment is where one should be.
    """
    at = len(START)
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError(f"no marker of a JPEG at {at}")
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker == _END_OF_IMAGE:
            return
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if length < 2:
                raise ValueError(f"a segment of {length} bytes at {at}")
            end = at + 2 + length
            yield marker, at, end
            if marker == _START_OF_SCAN:
                behind = _BEHIND_A_SCAN.search(data, end) if scans else None
                if behind is None:
                    return
                end = behind.start()
            at = end


def spliced(tables: bytes, data: bytes, *, ycbcr: bool) -> bytes:
    """A JPEG file of a stream of a TIFF and the tables that all its streams share.

    Args:
        tables: a JPEG stream of tables alone, or nothing.
        data: a JPEG stream that may lack them.
        ycbcr: three components are YCbCr, else RGB: in a TIFF its tags decide, in a JPEG file the segments that are
            replaced here.

    Raises:
        ValueError: `data` is no JPEG stream.
    """
    if not data.startswith(START):
        raise ValueError("it holds no JPEG stream")
    colours = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([ycbcr])
    parts, end = [START, colours, tables.removeprefix(START).removesuffix(END)], len(START)
    for marker, start, stop in segments(data):
        if marker not in (_JFIF, _ADOBE):
            parts.append(data[start:stop])
        end = stop
    return b"".join([*parts, data[end:]])


def strange_kind(data: bytes) -> tuple[str, str] | None:
    """What a JPEG is that Pillow cannot decode though it is whole, and what converts it; None for an ordinary one."""
    with contextlib.suppress(ValueError, IndexError, struct.error):
        for marker, start, _ in segments(data):
            if marker == _JPEG_LS:
                return "a JPEG-LS image", "ffmpeg: ffmpeg -i in.jls out.png"
            if marker in _FRAMES:
                precision, components = data[start + 4], data[start + 9]
                kinds = (
                    (marker in _LOSSLESS, "a lossless JPEG image", _DJPEG),
                    (marker in _HIERARCHICAL, "a hierarchical JPEG image", _ITS_MAKER),
                    (precision != 8, f"a JPEG image of {precision} bits per sample", _DJPEG),
                    (components not in (1, 3, 4), f"a JPEG image of {components} components", _ITS_MAKER),
                )
                return next(((kind, tool) for strange, kind, tool in kinds if strange), None)
    return None


def next_restart(data: bytes) -> bytes:
    """The restart marker that would come next at the end of a stream."""
    start = 0
    with contextlib.suppress(ValueError, struct.error):
        start = max((end for _, _, end in segments(data, scans=True)), default=0)
    places = [data.rfind(bytes([0xFF, _RESTART + number]), start) for number in range(8)]
    last = max(range(8), key=places.__getitem__)
    return bytes([0xFF, _RESTART + ((last + 1) % 8 if places[last] >= 0 else 0)])


def is_covered(data: bytes) -> bool:
    """Whether the scans of a stream bring every coefficient of every component down to its last bit."""
    missing: dict[int, set[int]] = {}
    try:
        for marker, start, end in segments(data, scans=True):
            if marker in _FRAMES:
                missing = {data[at]: set(range(64)) for at in range(start + 10, end, 3)}
            elif marker == _START_OF_SCAN and data[end - 1] & 15 == 0:
                for at in range(start + 5, end - 3, 2):
                    missing[data[at]] -= set(range(data[end - 3], data[end - 2] + 1))
    except (ValueError, IndexError, KeyError, struct.error):
        return False
    return bool(missing) and not any(missing.values())
