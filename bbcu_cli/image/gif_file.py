"""Reading GIF; the frames of an animation by its own blocks, as browsers show them.

Pillow's frames change their mode and their size within a file, and keep opaque what browsers clear to transparency.

Source: GIF89a specification; the NETSCAPE2.0 application extension.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO, Final

import numpy as np
from PIL import GifImagePlugin

from bbcu_cli.image.frames import Disposal, Frame, Frames, Patch, drawn, shows_transparency
from bbcu_cli.image.image import MOST_FRAMES, ImageInfo, Pixels
from bbcu_cli.image.pillow import PillowFile, fetch

_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_HAS_TABLE, _INTERLACED, _SIZE_OF_TABLE = 0x80, 0x40, 0x07
_TRANSPARENT: Final = 0x01
_DISPOSALS: Final = {2: Disposal.CLEAR, 3: Disposal.PREVIOUS}
_GRAYS: Final = bytes(value for value in range(256) for _ in range(3))
_WORKING: Final = 12  # bytes of a pixel: colours of a patch, what it hides, and masks
_INDICES: Final = 2  # of a patch, Pillow's and ours
_MOST_BEYOND: Final = 4  # times the canvas, and so many pixels more, may a patch be that reaches beyond it
_SLACK: Final = 1 << 20
_HELD: Final = 8  # the canvas, and what a patch hides


@dataclass(frozen=True, slots=True)
class _Stored:
    """A frame as it lies in the file.

    Attributes:
        patch: where it is drawn; within the canvas.
        size: (height, width), which may reach beyond.
        colours: its palette, three bytes each.
        transparent: the index of no colour.
        interlaced: its rows are out of order.
        at, end: where its compressed indices lie.
    """

    patch: Patch
    size: tuple[int, int]
    colours: bytes
    transparent: int | None
    interlaced: bool
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class GifFile(PillowFile):
    """A GIF file, whose first frame Pillow reads.

    Attributes:
        stored: its frames.
        plays: how often they are played.
    """

    stored: tuple[_Stored, ...]
    plays: int

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> GifFile:
        """Read the header of `stream` and find its frames."""
        picture = GifImagePlugin.GifImageFile(stream)
        at = stream.tell()
        stored, plays = _scan(stream, (picture.size[1], picture.size[0]))
        stream.seek(at)
        return cls(name, "GIF", stream, picture, stored, plays)

    def _frames(self) -> int:
        return max(1, len(self.stored))

    def _each(self, info: ImageInfo) -> ImageInfo:
        height, width = self._size()
        tables = {frame.colours for frame in self.stored}
        gray = all(table[0::3] == table[1::3] == table[2::3] for table in tables)
        return ImageInfo(
            format="GIF",
            size=(height, width),
            channels=1 if gray else 3,
            depth=8,
            alpha=shows_transparency((frame.patch for frame in self.stored), (height, width)),
            frames=info.frames,
            working=_WORKING * height * width + _INDICES * self._largest(height * width),
            held=_HELD * height * width,
        )

    def _largest(self, canvas: int) -> int:
        """Pixels of the largest patch that is read."""
        sizes = [frame.size[0] * frame.size[1] for frame in self.stored]
        return max((pixels for pixels in sizes if pixels <= _most(canvas)), default=0)

    def frames(self, info: ImageInfo) -> Frames:
        """All frames."""
        (kind,) = info.each
        return Frames(len(self.stored), pages=False, plays=self.plays, each=self._drawn(kind))

    def _drawn(self, kind: ImageInfo) -> Iterator[Frame]:
        def read(number: int, patch: Patch) -> Pixels | None:
            frame = self.stored[number]
            if patch.top >= patch.bottom or patch.left >= patch.right:
                return None
            height, width = frame.size
            if height * width > _most(kind.pixels):
                raise ValueError(f"it is {width}x{height} in a picture of {kind.size[1]}x{kind.size[0]}")
            return _samples(self.stream, frame, kind.channels)

        blank = np.zeros((*kind.size, kind.channels + 1), np.uint8)
        about, _ = self._metadata(kind, kind.size, 1)
        for frame in drawn((frame.patch for frame in self.stored), blank, read, alpha=kind.alpha):
            yield replace(frame, image=replace(frame.image, metadata=about, format="GIF"))


def _most(canvas: int) -> int:
    """Pixels that a patch may have on a canvas of so many."""
    return _MOST_BEYOND * canvas + _SLACK


def _samples(stream: BinaryIO, frame: _Stored, channels: int) -> Pixels:
    """Colours and opacity of the part of a frame that lies within the canvas, (H, W, channels + 1)."""
    height, width = frame.size
    table = frame.colours
    size = max(1, (len(table) // 3 - 1).bit_length())  # of a table, as a power of two
    stream.seek(frame.at)
    alone = struct.pack("<6s2H3B", b"GIF89a", width, height, _HAS_TABLE | (size - 1), 0, 0)
    alone += table.ljust(3 << size, b"\0")
    alone += struct.pack("<c4HB", _IMAGE, 0, 0, width, height, _INTERLACED if frame.interlaced else 0)
    alone += stream.read(frame.end - frame.at) + _END
    picture = GifImagePlugin.GifImageFile(io.BytesIO(alone))
    picture.load()
    place = frame.patch
    indices = fetch(picture)[: place.bottom - place.top, : place.right - place.left, 0]
    lookup = np.zeros((256, channels + 1), np.uint8)
    lookup[: len(table) // 3, :-1] = np.frombuffer(table, np.uint8).reshape(-1, 3)[:, :channels]
    lookup[:, -1] = 255
    if frame.transparent is not None:
        lookup[frame.transparent, -1] = 0
    return lookup[indices]


def _scan(stream: BinaryIO, size: tuple[int, int]) -> tuple[tuple[_Stored, ...], int]:
    """The frames of a file, at most `MOST_FRAMES`, and how often they are played; what ends early ends there."""
    stream.seek(6)
    head = stream.read(7)
    length = 3 << (head[4] & _SIZE_OF_TABLE) + 1
    shared = stream.read(length).ljust(length, b"\0") if head[4] & _HAS_TABLE else _GRAYS
    found: list[_Stored] = []
    plays, control = 1, b""
    while len(found) < MOST_FRAMES:
        kind = stream.read(1)
        if kind in (b"", _END):
            break
        if kind == _EXTENSION:
            label = stream.read(1)
            blocks = _blocks(stream)
            if label == bytes([_GRAPHIC_CONTROL]) and blocks and len(blocks[0]) >= 4:
                control = blocks[0]
            elif label == bytes([_APPLICATION]) and blocks[:1] == [b"NETSCAPE2.0"]:
                again = next((block for block in blocks[1:] if len(block) >= 3 and block[0] & 7 == 1), None)
                if again is not None:
                    times = int.from_bytes(again[1:3], "little")
                    plays = times + 1 if times else 0
        elif kind == _IMAGE:
            frame = _image(stream, size, shared, control)
            if frame is None:
                break
            found.append(frame)
            control = b""
    return tuple(found), plays


def _image(stream: BinaryIO, size: tuple[int, int], shared: bytes, control: bytes) -> _Stored | None:
    """The frame whose descriptor comes; None where the file ends in it."""
    descriptor = stream.read(9)
    if len(descriptor) < 9:
        return None
    left, top, width, height, flags = struct.unpack("<4HB", descriptor)
    colours = shared
    if flags & _HAS_TABLE:
        colours = stream.read(3 << (flags & _SIZE_OF_TABLE) + 1)
        if len(colours) % 3:
            return None
    said, delay, transparent = struct.unpack("<BHB", control[:4]) if control else (0, 0, 0)
    patch = Patch(
        min(top, size[0]),
        min(left, size[1]),
        min(top + height, size[0]),
        min(left + width, size[1]),
        _DISPOSALS.get(said >> 2 & 7, Disposal.KEEP),
        opaque=not said & _TRANSPARENT,
        duration=Fraction(10 * delay),
    )
    at = stream.tell()
    stream.read(1)
    _blocks(stream, keep=False)
    return _Stored(
        patch,
        (height, width),
        colours,
        transparent if said & _TRANSPARENT else None,
        bool(flags & _INTERLACED),
        at,
        stream.tell(),
    )


def _blocks(stream: BinaryIO, *, keep: bool = True) -> list[bytes]:
    """The data blocks that come, up to an empty one or the end of the file."""
    found = []
    while (length := stream.read(1)) not in (b"", b"\0"):
        block = stream.read(length[0])
        if keep:
            found.append(block)
    return found
