"""Reading AVIF."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO, Final

from PIL.AvifImagePlugin import AvifImageFile

from bbcu_cli.image import isobmff
from bbcu_cli.image.image import ImageInfo, Pixels
from bbcu_cli.image.pillow import PillowFile, duration_of, length_of, plain_samples

_HELD: Final = 24  # bytes of a pixel: eight frames in full colour


@dataclass(frozen=True, slots=True)
class AvifFile(PillowFile):
    """An AVIF file. Pillow makes an orientation of `irot` and `imir`, and knows nothing of `clap`.

    Attributes:
        crop: (top, left, bottom, right) of what is to be shown.
        fault: why the file's own crop is not that.
        track: the timing of an animation.
    """

    crop: tuple[int, int, int, int]
    fault: str | None
    track: isobmff.Track | None

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> AvifFile:
        """Read the header of `stream`."""
        picture = AvifImageFile(stream)
        size = picture.size[1], picture.size[0]
        crop, fault = None, None
        with contextlib.suppress(ValueError):  # `metadata.read` notes a damaged description
            described = isobmff.read(stream)
            try:
                crop = described.crop(size)
            except ValueError as error:
                fault = f"{error}, so the whole picture was taken"
        track = None
        if picture.n_frames > 1:
            with contextlib.suppress(ValueError):
                track = isobmff.track(stream, picture.n_frames)
        return cls(name, "AVIF", stream, picture, crop or (0, 0, *size), fault, track)

    def _size(self) -> tuple[int, int]:
        top, left, bottom, right = self.crop
        return bottom - top, right - left

    def _working(self, info: ImageInfo) -> int:
        """The planes that were decoded and the samples made of them, four of both, beside Pillow's picture."""
        planes = 8 if _is_deep(self.stream) else 4
        width, height = self.picture.size
        return width * height * (planes + 4 + 4) - (info.nbytes if (height, width) == self._size() else 0)

    def _each(self, info: ImageInfo) -> ImageInfo:
        """What its decoder keeps: frames that others refer to, the last one as bytes, and the file."""
        width, height = self.picture.size
        return replace(info, held=width * height * _HELD + length_of(self.stream))

    def _plays(self) -> int:
        return self.track.plays if self.track else 0

    def _duration(self, number: int) -> Fraction:
        return self.track.durations[number] if self.track else duration_of(self.picture)

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        self.picture.load()
        top, left, bottom, right = self.crop
        return plain_samples(self.picture, info)[top:bottom, left:right], []

    def _found(self) -> tuple[Mapping[Any, Any], list[str]]:
        notes = [self.fault] if self.fault else []
        if _is_deep(self.stream):
            notes.append("more than 8 bits per sample were reduced to 8: Pillow reads AVIF no deeper")
        return self.picture.info, notes


def _is_deep(stream: BinaryIO) -> bool:
    """The file's codec configuration (av1C: 4 bytes, high_bitdepth is bit 6 of the third) says 10 or 12 bits."""
    stream.seek(0)
    head = stream.read(1 << 16)
    at = head.find(b"av1C")
    return 0 <= at < len(head) - 6 and bool(head[at + 6] & 0x40)
