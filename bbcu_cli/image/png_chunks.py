"""The chunks of a PNG file that make its picture: Pillow gives that up for one damaged or large chunk beside it.

What the others say is read by `png_metadata`.

Source: PNG specification, third edition.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO, Final, TypeAlias

from bbcu_cli.errors import ImageError

_SIGNATURE_BYTES: Final = 8
_HEAD: Final = 8  # length and name
_CHECKSUM: Final = 4
_PICTURE: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_BESIDE: Final[Mapping[bytes, tuple[str, int]]] = {b"tRNS": ("transparency", 1), b"acTL": ("animation", 8)}
"""Chunks that belong to the picture and may be left out: what they are, and the fewest bytes that they have."""
_TRANSPARENCY: Final[Mapping[int, int]] = {0: 2, 2: 6}
"""Colour type -> the fewest bytes of tRNS, where that is more than one."""
_MOST_BYTES: Final = 1 << 10  # of either; a palette's opacities are 256
_MOST_CHUNKS: Final = 1 << 18
_PIECE: Final = 1 << 16


Place: TypeAlias = tuple[bytes, int, int]
"""A chunk: its name, where its data begin, and their length."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """A PNG file.

    Attributes:
        bare: the file with nothing beside its picture.
        head: its chunks IHDR, PLTE and tRNS.
        frames: of an animation; 1 for a still picture.
        apart: the picture is not one of these frames, but what is shown where they are not.
        notes: one for each chunk that was left out.
    """

    bare: BinaryIO
    head: bytes
    frames: int
    apart: bool
    notes: tuple[str, ...]


def scan(stream: BinaryIO, name: str) -> Chunks:
    """Sort the chunks of a file.

    Raises:
        ImageError: it is a PNG of Apple's own form.
        ValueError: it has very many chunks.
    """
    first, beside, rest = [(0, _SIGNATURE_BYTES)], list[tuple[int, int]](), list[tuple[int, int]]()
    notes: list[str] = []
    announced = controlled = colour_type = 0
    for kind, at, length in chunks(stream):
        piece = (at - _HEAD, _HEAD + length + _CHECKSUM)
        if kind == b"CgBI":
            raise ImageError(
                f"{name} is a PNG in Apple's own form (CgBI), which bbcu does not read; convert it back first, with "
                "xcrun pngcrush -revert-iphone-optimizations"
            )
        if kind in _PICTURE:
            (first if kind in (b"IHDR", b"PLTE") else rest).append(piece)
            if kind == b"IHDR":
                colour_type = stream.read(10)[-1]
        elif kind == b"fcTL":
            controlled += not rest
        elif kind in _BESIDE and not (kind == b"tRNS" and rest):
            what, least = _BESIDE[kind]
            if kind == b"tRNS":
                least = _TRANSPARENCY.get(colour_type, least)
            try:
                data = _data(stream, kind, length, least)
                if kind == b"acTL":
                    (announced,) = struct.unpack_from(">L", data)
                else:
                    beside.append(piece)
            except ValueError as error:
                notes.append(f"the {what} ({kind.decode()}) could not be read ({error}) and was left out")
    bare = io.BufferedReader(_Pieces(stream, [*first, *beside, *rest]))
    head = b""
    for at, length in (*first[1:], *beside) if announced > 1 else ():
        stream.seek(at)
        head += stream.read(length)
    # The still picture is the first frame if fcTL says so in front of it.
    return Chunks(bare, head, max(1, announced), not controlled, tuple(notes))


def chunks(stream: BinaryIO) -> Iterator[Place]:
    """Each chunk, a cut one included; the stream stands at its data."""
    end = stream.seek(0, os.SEEK_END)
    at = _SIGNATURE_BYTES
    for _ in range(_MOST_CHUNKS):
        stream.seek(at)
        head = stream.read(_HEAD)
        if len(head) < _HEAD or not head[4:].isalpha():
            return
        length, kind = struct.unpack(">L4s", head)
        yield kind, at + _HEAD, length
        at += _HEAD + length + _CHECKSUM
        if kind == b"IEND" or at >= end:
            return
    raise ValueError(f"it has more than {_MOST_CHUNKS} chunks")


def _data(stream: BinaryIO, kind: bytes, length: int, least: int) -> bytes:
    """The data of a chunk, at which the stream stands.

    Raises:
        ValueError: it is cut, too long, too short, or its checksum is wrong.
    """
    if length > _MOST_BYTES:
        raise ValueError(f"it has {length} bytes")
    data, checksum = stream.read(length), stream.read(_CHECKSUM)
    if len(data) < max(length, least) or len(checksum) < _CHECKSUM:
        raise ValueError("it is cut")
    if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
        raise ValueError("its checksum is wrong")
    return data


def is_sound(stream: BinaryIO, place: Place) -> bool:
    """Whether the checksum of a chunk is right; the stream stands at its data again."""
    kind, at, length = place
    stream.seek(at)
    check, left = zlib.crc32(kind), length
    while left and (piece := stream.read(min(left, _PIECE))):
        check, left = zlib.crc32(piece, check), left - len(piece)
    sound = not left and stream.read(_CHECKSUM) == check.to_bytes(4, "big")
    stream.seek(at)
    return sound


class _Pieces(io.RawIOBase):
    """Some pieces of a file as if there were nothing between them."""

    def __init__(self, stream: BinaryIO, pieces: list[tuple[int, int]]) -> None:
        self._stream, self._at = stream, 0
        self._pieces = pieces[:1]
        for at, length in pieces[1:]:
            start, before = self._pieces[-1]
            if start + before == at:
                self._pieces[-1] = (start, before + length)
            else:
                self._pieces.append((at, length))
        self._starts = list(accumulate((length for _, length in self._pieces[:-1]), initial=0))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        index = bisect_right(self._starts, self._at) - 1
        (at, length), inside = self._pieces[index], self._at - self._starts[index]
        self._stream.seek(at + inside)
        data = self._stream.read(max(0, min(len(view), length - inside)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
