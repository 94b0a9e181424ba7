"""What a PNG says beside its pixels, read chunk by chunk (PNG specification, third edition).

Pillow keeps neither cICP nor the kind of a text, refuses the whole file for one profile over 1 MiB, and takes a text
under the keyword "exif" for EXIF.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

XMP_KEYWORD: Final = "XML:com.adobe.xmp"
"""PNG keeps XMP in a text chunk of this name."""

RAW_PROFILE: Final = "Raw profile type "
"""ImageMagick, and PNG before it had eXIf, keep EXIF, IPTC and XMP as text in hexadecimal under such keywords."""

METRES_PER_INCH: Final = 0.0254

_SIGNATURE_BYTES = 8
_MOST_BYTES: Final = 1 << 24  # of one chunk, and of what inflates from it
_MOST_TEXT: Final = 1 << 25  # of all texts together
_WANTED: Final = frozenset(
    {b"IHDR", b"cICP", b"cHRM", b"gAMA", b"sRGB", b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
)


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks that describe the picture.

    Attributes:
        depth: bits per sample.
        icc, exif, xmp: as in the file, the EXIF block without a header; None when it has none.
        raw_profiles: kind ("exif", "iptc", ...) -> content of texts in hexadecimal.
        cicp: the four bytes of cICP.
        chromaticities: x and y of white, red, green and blue.
        gamma: the exponent from light to samples.
        srgb: the chunk sRGB is there.
        dpi: (horizontal, vertical) pixels per inch.
        text: (keyword, text) pairs.
        faults: names of chunks that are damaged or too large.
    """

    depth: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    raw_profiles: tuple[tuple[str, bytes], ...] = ()
    cicp: tuple[int, int, int, int] | None = None
    chromaticities: tuple[tuple[float, float], ...] | None = None
    gamma: float | None = None
    srgb: bool = False
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    faults: tuple[str, ...] = ()


def read(stream: BinaryIO) -> Chunks:
    """Read what a PNG says beside its pixels, before and behind them; what is damaged is left out and listed."""
    first: dict[bytes, bytes] = {}
    texts: list[tuple[str, str]] = []
    profiles: list[tuple[str, bytes]] = []
    faults: dict[str, None] = {}
    xmp, room = None, _MOST_TEXT
    for name, data in _chunks(stream):
        if data is None or room < 0:
            faults[name.decode("latin-1")] = None
            continue
        try:
            if name not in (b"tEXt", b"zTXt", b"iTXt"):
                first.setdefault(name, _content(name, data))
                continue
            keyword, text = _text(name, data)
            room -= len(text)
            if keyword == XMP_KEYWORD:
                xmp = xmp or text.encode()
            elif keyword.startswith(RAW_PROFILE):
                profiles.append((keyword.removeprefix(RAW_PROFILE).lower(), _from_hexadecimal(text)))
            else:
                texts.append((keyword, text))
        except (ValueError, IndexError, struct.error, zlib.error):
            faults[name.decode("latin-1")] = None
    codes = struct.unpack(">4B", first[b"cICP"]) if b"cICP" in first else None
    points = [value / 100_000 for value in struct.unpack(">8L", first[b"cHRM"])] if b"cHRM" in first else None
    x, y, unit = struct.unpack(">LLB", first.get(b"pHYs", bytes(9)))
    return Chunks(
        depth=first[b"IHDR"][8] if b"IHDR" in first else 8,
        icc=first.get(b"iCCP"),
        exif=first.get(b"eXIf"),
        xmp=xmp,
        raw_profiles=tuple(profiles),
        cicp=codes,
        chromaticities=tuple(zip(points[::2], points[1::2], strict=True)) if points else None,
        gamma=struct.unpack(">L", first[b"gAMA"])[0] / 100_000 if b"gAMA" in first else None,
        srgb=b"sRGB" in first,
        dpi=(x * METRES_PER_INCH, y * METRES_PER_INCH) if unit == 1 else None,
        text=tuple(texts),
        faults=tuple(faults),
    )


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes | None]]:
    """(name, data) of each wanted chunk; None for one that is damaged or too large."""
    end = stream.seek(0, os.SEEK_END)
    at = stream.seek(_SIGNATURE_BYTES)
    while at + 12 <= end:
        stream.seek(at)
        length, name = struct.unpack(">L4s", stream.read(8))
        if name in _WANTED:
            data = stream.read(length) if length <= _MOST_BYTES else b""
            check = stream.read(4)
            sound = len(data) == length and check == struct.pack(">L", zlib.crc32(data, zlib.crc32(name)))
            yield name, data if sound else None
        elif name == b"IEND":
            return
        at += 12 + length


def _content(name: bytes, data: bytes) -> bytes:
    """The data of a chunk that has one size, or a profile inflated.

    Raises:
        ValueError: it has another size, or inflates too far.
        IndexError: the name of the profile does not end.
        zlib.error: the profile is damaged.
    """
    size = {b"IHDR": 13, b"cICP": 4, b"cHRM": 32, b"gAMA": 4, b"sRGB": 1, b"pHYs": 9}.get(name, len(data))
    if len(data) != size:
        raise ValueError(f"{name!r} has {len(data)} bytes")
    return _inflated(data.split(b"\0", 1)[1]) if name == b"iCCP" else data


def _text(kind: bytes, data: bytes) -> tuple[str, str]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk."""
    key, _, rest = data.partition(b"\0")
    keyword = key.decode("latin-1")
    if kind == b"tEXt":
        return keyword, rest.decode("latin-1")
    if kind == b"zTXt":
        return keyword, _inflated(rest).decode("latin-1")
    deflated, method = rest[0], rest[1:]
    _, _, text = rest[2:].split(b"\0", 2)  # language, keyword in it
    return keyword, (_inflated(method[:1] + text) if deflated else text).decode()


def _inflated(data: bytes) -> bytes:
    """What follows the number of the one method of compression."""
    if data[:1] != b"\0":
        raise ValueError("an unknown compression")
    inflate = zlib.decompressobj()
    content = inflate.decompress(data[1:], _MOST_BYTES)
    if not inflate.eof:
        raise ValueError("too large or truncated")
    return content


def _from_hexadecimal(text: str) -> bytes:
    r"""The content of a "Raw profile type": a line with its name, one with its length, then hexadecimal digits."""
    _, length, digits = text.lstrip("\n").split("\n", 2)
    content = bytes.fromhex(digits)
    if len(content) != int(length):
        raise ValueError("it has another length")
    return content
