"""What an AVIF or HEIC file says of its main picture: code points of its colours, its crop, and EXIF as it lies there.

Pillow tells no code points, does not crop, writes the EXIF of an AVIF anew when it is turned, and of an animation
rounds durations and tells no number of repetitions.

Source: ISO/IEC 14496-12 (boxes, items, tracks) and 23008-12 (HEIF: properties, EXIF, repeated tracks).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final

_MOST_BYTES: Final = 1 << 24  # of the box that describes all, and of an EXIF block
_MOST_BOXES, _MOST_PIECES = 10_000, 1_000_000
_IN_FILE, _IN_META = 0, 1
"""Where the content of an item lies."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says of its main picture.

    Attributes:
        codes: ColourPrimaries and TransferCharacteristics of ITU-T H.273; None when it gives none.
        exif: the EXIF block, from its TIFF header on; None when there is none.
        coding: how the picture is coded, the type of its item (b"hvc1", b"grid", ...).
        aperture: the clean aperture (clap), width, height and the offset of its centre to the right and down; what is
            outside of it is not to be shown.
    """

    codes: tuple[int, int] | None = None
    exif: bytes | None = None
    coding: bytes = b""
    aperture: tuple[Fraction, Fraction, Fraction, Fraction] | None = None

    def crop(self, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """(top, left, bottom, right) of what is to be shown of a picture of a size, not yet turned; None: all of it.

        Raises:
            ValueError: the aperture is not within the picture.
        """
        if self.aperture is None:
            return None
        width, height, right, down = self.aperture
        top, left = (size[0] - height) / 2 + down, (size[1] - width) / 2 + right
        edges = (top, left, top + height, left + width)
        if not (0 <= top < edges[2] <= size[0] and 0 <= left < edges[3] <= size[1]):
            raise ValueError("its crop (clap) is not within the picture")
        if any(edge.denominator != 1 for edge in edges):
            raise ValueError("its crop (clap) cuts through pixels")
        return int(top), int(left), int(edges[2]), int(edges[3])


def read(stream: BinaryIO) -> Described:
    """Read the description of the main picture.

    Raises:
        ValueError: it is damaged.
    """
    try:
        meta = _meta(stream)
        if meta is None:
            return Described()
        boxes = dict(meta.boxes())
        main = _main(boxes[b"pitm"])
        references = list(_references(boxes[b"iref"])) if b"iref" in boxes else []
        owned = _properties(boxes[b"iprp"])
        codes = _codes(owned, main, references)
        items = dict(_items(boxes[b"iinf"])) if b"iinf" in boxes else {}
        exif = _exif(stream, boxes, items, main, references)
        return Described(codes, exif, items.get(main, b""), _aperture(owned.get(main, [])))
    except (IndexError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"its description is damaged ({error})") from error


@dataclass(frozen=True, slots=True)
class Track:
    """The timing of an animation.

    Attributes:
        durations: of its frames, in milliseconds.
        plays: how often it is played; 0: for ever, also where the file does not say.
    """

    durations: tuple[Fraction, ...]
    plays: int


def track(stream: BinaryIO, frames: int) -> Track | None:
    """The timing of so many frames; None where the file has no track of pictures.

    Raises:
        ValueError: it is damaged.
    """
    try:
        movie = _top(stream, b"moov")
        for name, box in movie.boxes() if movie else ():
            boxes = dict(box.boxes()) if name == b"trak" else {}
            media = dict(boxes[b"mdia"].boxes()) if b"mdia" in boxes else {}
            if b"hdlr" in media and media[b"hdlr"].take(12)[8:] == b"pict":
                table = dict(dict(media[b"minf"].boxes())[b"stbl"].boxes())[b"stts"]
                return Track(tuple(_durations(table, _timescale(media[b"mdhd"]), frames)), _plays(boxes))
    except (IndexError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"its description is damaged ({error})") from error
    return None


class _Bytes:
    """Bytes that are read from the front; IndexError behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) < count:
            raise IndexError("a box ends too early")
        self._at += count
        return piece

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def boxes(self) -> Iterator[tuple[bytes, _Bytes]]:
        """(name, content) of the boxes that fill the rest."""
        while self._at < len(self._data):
            size, name = self.integer(4), self.take(4)
            head = 8
            if size == 1:
                size, head = self.integer(8), 16
            elif size == 0:
                size = len(self._data) - self._at + head
            yield name, _Bytes(self.take(max(0, size - head)))


_Reference = tuple[bytes, int, list[int]]
"""Kind, item, items that it refers to."""


def _meta(stream: BinaryIO) -> _Bytes | None:
    """The box "meta" of a file, past its version and flags; a sequence of pictures needs none."""
    meta = _top(stream, b"meta")
    if meta is not None:
        meta.take(4)
    return meta


def _top(stream: BinaryIO, name: bytes) -> _Bytes | None:
    """A box of that name that is in no other."""
    end, at = stream.seek(0, os.SEEK_END), 0
    for _ in range(_MOST_BOXES):
        stream.seek(at)
        head = stream.read(16)
        size, skip = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, skip = int.from_bytes(head[8:16], "big"), 16
        if head[4:8] == name:
            stream.seek(at + skip)
            return _Bytes(stream.read(max(0, min((size or end - at) - skip, _MOST_BYTES))))
        if size < skip or at + size >= end:
            break
        at += size
    return None


def _timescale(mdhd: _Bytes) -> int:
    """Units of time in a second."""
    mdhd.take(16 if mdhd.integer(4) >> 24 == 1 else 8)
    return mdhd.integer(4)


def _durations(stts: _Bytes, timescale: int, frames: int) -> Iterator[Fraction]:
    stts.take(4)
    left = frames
    for _ in range(stts.integer(4)):
        count, units = stts.integer(4), stts.integer(4)
        yield from (Fraction(1000 * units, timescale) for _ in range(min(count, left)))
        left -= min(count, left)
    if left:
        raise IndexError("durations are missing")


def _plays(trak: Mapping[bytes, _Bytes]) -> int:
    """By the edit list: a track that repeats is as long as all its plays together."""
    edits = dict(trak[b"edts"].boxes()).get(b"elst") if b"edts" in trak else None
    if edits is None:
        return 0
    version_and_flags = edits.integer(4)
    edits.take(4)
    once = edits.integer(8 if version_and_flags >> 24 == 1 else 4)
    if not version_and_flags & 1:
        return 1
    header = trak[b"tkhd"]
    wide = header.integer(4) >> 24 == 1
    header.take(24 if wide else 16)
    together = header.integer(8 if wide else 4)
    return 0 if together == (1 << (64 if wide else 32)) - 1 else max(1, -(-together // once))


def _main(pitm: _Bytes) -> int:
    version = pitm.integer(4) >> 24
    return pitm.integer(2 if version == 0 else 4)


def _references(iref: _Bytes) -> Iterator[_Reference]:
    width = 2 if iref.integer(4) >> 24 == 0 else 4
    for kind, box in iref.boxes():
        item = box.integer(width)
        yield kind, item, [box.integer(width) for _ in range(box.integer(2))]


def _properties(iprp: _Bytes) -> dict[int, list[tuple[bytes, bytes]]]:
    """Item -> (name, content) of its properties."""
    properties: list[tuple[bytes, bytes]] = []
    owned: dict[int, list[int]] = {}
    for name, box in iprp.boxes():
        if name == b"ipco":
            properties += [(kind, content.rest()) for kind, content in box.boxes()]
        elif name == b"ipma":
            version_and_flags = box.integer(4)
            for _ in range(box.integer(4)):
                item = box.integer(2 if version_and_flags >> 24 == 0 else 4)
                width = 2 if version_and_flags & 1 else 1  # their first bit says "essential"
                mask = (1 << (8 * width - 1)) - 1
                owned.setdefault(item, []).extend(box.integer(width) & mask for _ in range(box.integer(1)))
    return {
        item: [properties[index - 1] for index in indices if 0 < index <= len(properties)]
        for item, indices in owned.items()
    }


def _codes(
    owned: Mapping[int, list[tuple[bytes, bytes]]], main: int, references: list[_Reference]
) -> tuple[int, int] | None:
    """Of the main picture, or of the tiles that it is put together from."""
    tiles = [tile for kind, item, to in references if (kind, item) == (b"dimg", main) for tile in to]
    for item in (main, *tiles[:1]):
        for name, content in owned.get(item, ()):
            if name == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
                return int.from_bytes(content[4:6], "big"), int.from_bytes(content[6:8], "big")
    return None


def _aperture(properties: list[tuple[bytes, bytes]]) -> tuple[Fraction, Fraction, Fraction, Fraction] | None:
    for name, content in properties:
        if name == b"clap" and len(content) == 32:
            numbers = struct.unpack(">LLLLlLlL", content)
            width, height, right, down = map(Fraction, numbers[::2], numbers[1::2])
            return width, height, right, down
    return None


def _exif(
    stream: BinaryIO,
    boxes: Mapping[bytes, _Bytes],
    items: Mapping[int, bytes],
    main: int,
    references: list[_Reference],
) -> bytes | None:
    """Content of the EXIF item that describes the main picture, past the offset that it begins with."""
    about = {item for kind, item, to in references if kind == b"cdsc" and main in to}
    found = [item for item, kind in items.items() if kind == b"Exif" and (item in about or not about)]
    if not found or b"iloc" not in boxes:
        return None
    method, extents = _places(boxes[b"iloc"])[found[0]]
    if method not in (_IN_FILE, _IN_META) or sum(length for _, length in extents) > _MOST_BYTES:
        raise KeyError("Exif")
    inner = boxes[b"idat"].rest() if method == _IN_META else b""
    content = b""
    for offset, length in extents:
        if method == _IN_META:
            content += inner[offset : offset + length]
        else:
            stream.seek(offset)
            content += stream.read(length)
    return content[4 + int.from_bytes(content[:4], "big") :]


def _items(iinf: _Bytes) -> Iterator[tuple[int, bytes]]:
    """(item, kind)."""
    iinf.take(2 if iinf.integer(4) >> 24 == 0 else 4)  # the count
    for name, box in iinf.boxes():
        version = box.integer(4) >> 24
        if name == b"infe" and version in (2, 3):
            item = box.integer(2 if version == 2 else 4)
            box.take(2)  # protection
            yield item, box.take(4)


def _places(iloc: _Bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Item -> where its content lies: how, and (offset, length) of its pieces."""
    version = iloc.integer(4) >> 24
    sizes, more = iloc.integer(1), iloc.integer(1)
    found, room = {}, _MOST_PIECES
    for _ in range(iloc.integer(2 if version < 2 else 4)):
        item = iloc.integer(2 if version < 2 else 4)
        method = iloc.integer(2) & 0xF if version in (1, 2) else _IN_FILE
        iloc.take(2)  # which file
        base, extents, count = iloc.integer(more >> 4), list[tuple[int, int]](), iloc.integer(2)
        room -= count
        if room < 0:
            raise IndexError("its items lie in too many pieces")
        for _ in range(count):
            iloc.take(more & 0xF if version in (1, 2) else 0)
            offset = iloc.integer(sizes >> 4)
            extents.append((base + offset, iloc.integer(sizes & 0xF)))
        found[item] = (method, extents)
    return found
