"""Reading PNG.

Pillow has no 16-bit colour, yet its decoder unpacks 16-bit samples, keeping one of the two bytes; so such a file is
decoded twice, once for each byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile

from bbcu_cli.image import metadata
from bbcu_cli.image.apng import Coded, alone, coded_frames
from bbcu_cli.image.frames import Frame, Frames, Patch, drawn, shows_transparency
from bbcu_cli.image.image import Image, ImageInfo, Pixels
from bbcu_cli.image.orientation import upright
from bbcu_cli.image.pillow import PillowFile, fetch, give_back, is_gray, pixel_bytes, plain_samples, rawmode
from bbcu_cli.image.png_chunks import Chunks, scan

_SCALES: Final[Mapping[str, int]] = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True, slots=True)
class PngFile(PillowFile):
    """A PNG file, of which Pillow sees the picture alone."""

    chunks: Chunks

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> PngFile:
        """Read the header of `stream` and what lies beside its picture."""
        chunks = scan(stream, name)
        return cls(name, "PNG", stream, PngImageFile(chunks.bare), chunks)

    def _is_gray(self) -> bool:
        return is_gray(self.picture) or rawmode(self.picture).startswith(("I;16", "LA;16"))

    def _depth(self) -> int:
        return 16 if ";16" in rawmode(self.picture) else 8

    def _working(self, info: ImageInfo) -> int:
        """Of 16-bit colours Pillow's picture, of four bytes a pixel, and one byte of each sample.

        Of gray with alpha that picture, its copy and a half result more.
        """
        mode = rawmode(self.picture)
        if mode.startswith("LA;16"):
            return info.pixels * 12
        if info.depth == 16 and self.picture.mode in ("RGB", "RGBA"):
            return info.pixels * (4 + info.channels + info.alpha)
        return info.pixels * pixel_bytes(self.picture, info)

    def _frames(self) -> int:
        return self.chunks.frames

    def frames(self, info: ImageInfo) -> Frames:
        """All frames, drawn one over the other."""
        (kind,) = info.each
        coded, plays = self._coded(info)
        still = ("the still picture in front of the animation is not carried over",) if self.chunks.apart else ()
        turned = self._orientation()

        def read(number: int, _: Patch) -> Pixels:
            samples = PngFile.open(self.name, alone(self.stream, self.chunks.head, coded[number])).samples()
            return samples if samples.shape[2] > info.channels else _append_alpha(samples, None)

        def each() -> Iterator[Frame]:
            height, width = self._size()
            blank = np.zeros((height, width, info.channels + 1), np.dtype(f"u{info.depth // 8}"))
            about, notes = self._metadata(info, info.size, turned)
            for frame in drawn((one.patch for one in coded), blank, read, alpha=kind.alpha):
                picture, alpha = frame.image, frame.image.alpha
                yield replace(
                    frame,
                    image=Image(
                        upright(picture.pixels, turned),
                        None if alpha is None else upright(alpha[..., None], turned)[..., 0],
                        about,
                        "PNG",
                        notes=tuple(notes),
                    ),
                )

        return Frames(info.frames, pages=False, plays=plays, each=each(), notes=still)

    def samples(self) -> Pixels:
        """Colour and, if it has any, opacity, (H, W, C), as the file has them."""
        samples, _ = self._samples(self.info())
        return samples

    def _coded(self, info: ImageInfo) -> tuple[tuple[Coded, ...], int]:
        return coded_frames(self.stream, self._size(), opaque=not info.alpha)

    def _each(self, info: ImageInfo) -> ImageInfo:
        coded, _ = self._coded(info)
        alpha = shows_transparency((one.patch for one in coded), self._size())
        kind = replace(info, alpha=alpha)
        canvas = info.pixels * (info.channels + 1) * info.depth // 8
        stored = max((sum(length for _, _, length in one.places) for one in coded), default=0)
        # The canvas and what a patch hides; a patch and what its decoder takes; the copy of a picture that is turned.
        return replace(kind, working=4 * canvas + self._working(info) + 2 * stored, held=2 * canvas)

    def _orientation(self) -> object:
        return metadata.orientation(self.name, "PNG", self.stream)

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        picture, mode = self.picture, rawmode(self.picture)
        transparent = picture.info.get("transparency")
        if info.depth == 16 and picture.mode in ("RGB", "RGBA"):
            samples = self._decoded_twice(mode)
        else:
            picture.load()
            samples = plain_samples(picture, info)
        if transparent is None or picture.mode == "P":
            return samples, []
        give_back(picture)
        # PNG states the colour in the depth of the file, Pillow spreads 2 and 4 bits to 8.
        return _append_alpha(samples, np.multiply(transparent, _SCALES.get(mode, 1))), []

    def _decoded_twice(self, mode: str) -> Pixels:
        """16-bit colours, once for their high and once for their low bytes: uint16 (H, W, bands)."""
        if mode.startswith("LA;16"):  # Pillow's mode is RGBA here; as such it has the four bytes of each pixel
            four = fetch(_unpacked_as("RGBA", self.picture))
            return four[..., 0::2].astype(np.uint16) << 8 | four[..., 1::2]
        stem = mode[:-1]
        high = fetch(_unpacked_as(stem + "B", self.picture))
        give_back(self.picture)
        samples = high.astype(np.uint16)
        del high
        samples <<= 8
        self.chunks.bare.seek(0)
        samples |= fetch(_unpacked_as(stem + "L", PngImageFile(self.chunks.bare)))
        return samples

    def _found(self) -> tuple[Mapping[Any, Any], list[str]]:
        return self.picture.info, list(self.chunks.notes)


def _unpacked_as(mode: str, picture: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Load a picture, unpacking its samples by another of Pillow's rules than its own."""
    picture.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in picture.tile
    ]
    picture.load()
    return picture


def _append_alpha(samples: Pixels, transparent: Any) -> Pixels:
    """Add an alpha band that is zero where a pixel has the one `transparent` colour; None: no pixel has it."""
    most = np.iinfo(samples.dtype).max
    joined = np.empty((*samples.shape[:2], samples.shape[2] + 1), samples.dtype)
    joined[..., :-1] = samples
    if transparent is None:
        joined[..., -1] = most
        return joined
    for row, colours in zip(joined, samples, strict=True):
        row[:, -1] = np.where((colours == np.asarray(transparent)).all(axis=-1), 0, most)
    return joined
