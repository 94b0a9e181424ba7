"""Reading through Pillow: what JPEG, PNG, WebP, AVIF, BMP and GIF have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile, WebPImagePlugin

from bbcu_cli.image import metadata, orientation
from bbcu_cli.image.frames import Frame, Frames
from bbcu_cli.image.image import MOST_FRAMES, Image, ImageInfo, Metadata, Pixels

_GRAY_MODES: Final = frozenset({"1", "L", "LA"})
_ALPHA_MODES: Final = frozenset({"LA", "RGBA", "PA"})
_BAND_SAMPLES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PillowFile:
    """An image file whose header was read by Pillow; its methods raise whatever Pillow raises on damaged files.

    What is peculiar to a format is a method of its own class.

    Attributes:
        name: how to call it in errors.
        format: a name of `bbcu_cli.image.formats.FORMATS`.
        stream: the file.
        picture: Pillow's.
    """

    name: str
    format: str
    stream: BinaryIO
    picture: ImageFile.ImageFile

    def info(self) -> ImageInfo:
        """What the header says.

        Raises:
            ImageError: the samples or their colours are of a kind that we cannot restore.
        """
        metadata.check_colours(self.name, self.format, self.stream, self.picture.info)
        height, width = self._size()
        turned = self._orientation()
        if turned in orientation.SIDEWAYS:
            height, width = width, height
        info = ImageInfo(
            format=self.format,
            size=(height, width),
            channels=1 if self._is_gray() else 3,
            depth=self._depth(),
            alpha=self._has_alpha(),
            frames=min(self._frames(), MOST_FRAMES),
        )
        copied = info.nbytes if turned in orientation.TURNED else 0  # when Pillow's picture is gone
        info = replace(info, working=max(self._working(info), copied))
        return replace(info, each=(self._each(info),)) if info.frames > 1 else info

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata; `info` is what `info` gave."""
        samples, notes = self._samples(info)
        turned = self._orientation()
        give_back(self.picture)
        samples = orientation.upright(samples, turned)
        about, left_out = self._metadata(info, samples.shape[:2], turned)
        return Image(
            pixels=samples[..., : info.channels],
            alpha=samples[..., -1] if info.alpha else None,
            metadata=about,
            format=self.format,
            jpeg_tables=self._tables(),
            notes=(*notes, *left_out),
        )

    def frames(self, info: ImageInfo) -> Frames:
        """All frames; `info` is what `info` gave."""
        return Frames(info.frames, pages=False, plays=self._plays(), each=self._played(info))

    def _played(self, info: ImageInfo) -> Iterator[Frame]:
        turned, about, notes = self._orientation(), Metadata(), list[str]()
        for number in range(info.frames):
            if number:  # what `give_back` has taken
                self.picture.im = Pillow.new(self.picture.mode, self.picture.size).im
            self.picture.seek(number)
            samples, _ = self._samples(info)
            duration = self._duration(number)
            give_back(self.picture)
            samples = orientation.upright(samples, turned)
            if number == 0:
                about, notes = self._metadata(info, samples.shape[:2], turned)
            alpha = samples[..., -1] if info.alpha else None
            image = Image(samples[..., : info.channels], alpha, about, self.format, notes=tuple(notes))
            del samples, alpha
            yield Frame(image, duration)
            del image

    def _each(self, info: ImageInfo) -> ImageInfo:
        """What all frames are; `info` is about the first one."""
        return info

    def _plays(self) -> int:
        """How often an animation is played; 0: for ever."""
        return 0

    def _duration(self, number: int) -> Fraction:
        """Milliseconds of a frame, which was loaded."""
        del number
        return duration_of(self.picture)

    def _working(self, info: ImageInfo) -> int:
        """Bytes that `_samples` takes at the most beside its result."""
        return info.pixels * pixel_bytes(self.picture, info)

    def _size(self) -> tuple[int, int]:
        """(height, width) of what `_samples` gives."""
        width, height = self.picture.size
        return height, width

    def _is_gray(self) -> bool:
        return is_gray(self.picture)

    def _has_alpha(self) -> bool:
        return self.picture.mode in _ALPHA_MODES or "transparency" in self.picture.info

    def _depth(self) -> int:
        return 8

    def _frames(self) -> int:
        return int(getattr(self.picture, "n_frames", 1)) if getattr(self.picture, "is_animated", False) else 1

    def _tables(self) -> tuple[tuple[int, ...], ...] | None:
        return None

    def _orientation(self) -> object:
        """How the picture that Pillow gives has to be turned, as EXIF numbers it."""
        return exif_orientation(self.picture)

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        """Samples, (H, W, C): `info.channels` of colour and, if it has alpha, one more; and notes."""
        self.picture.load()
        return plain_samples(self.picture, info), []

    def _found(self) -> tuple[Mapping[Any, Any], list[str]]:
        """What lies beside the pixels as `metadata.read` wants it, and notes."""
        return self.picture.info, []

    def _converted(self) -> bool:
        """The colours of the samples are no longer the file's own."""
        return False

    def _metadata(self, info: ImageInfo, size: tuple[int, ...], turned: object) -> tuple[Metadata, list[str]]:
        found, notes = self._found()
        about, left_out = metadata.read(
            self.name,
            self.format,
            self.stream,
            found,
            channels=info.channels,
            size=(size[0], size[1]),
            orientation=turned,
            converted=self._converted(),
        )
        return about, [*notes, *left_out]


_File = TypeVar("_File", bound=PillowFile)


def opener(
    kind: type[_File], form: str, reader: Callable[[BinaryIO], ImageFile.ImageFile]
) -> Callable[[str, BinaryIO], _File]:
    """A function that reads the header of a file, given its name and stream.

    Pillow's readers are taken one by one, not by Pillow.open: that one compares with a global limit where `decode` has
    a parameter, tries formats that we do not want, and turns a phone's JPEG with a second picture into an animation.
    """
    return lambda name, stream: kind(name, form, stream, reader(stream))


@dataclass(frozen=True, slots=True)
class WebPFile(PillowFile):
    """A WebP file, which Pillow takes for an animation."""

    def _working(self, info: ImageInfo) -> int:
        """Two canvases and the frame, of four bytes a pixel each, and the whole file, beside Pillow's picture."""
        return info.pixels * 16 - info.nbytes + length_of(self.stream)

    def _each(self, info: ImageInfo) -> ImageInfo:
        """Two canvases, the last frame as bytes, and the file are kept."""
        return replace(info, held=info.pixels * 12 + length_of(self.stream))

    def _plays(self) -> int:
        return int(self.picture.info.get("loop", 0))


open_webp: Final = opener(WebPFile, "WebP", WebPImagePlugin.WebPImageFile)


def pixel_bytes(picture: ImageFile.ImageFile, info: ImageInfo) -> int:
    """Bytes of a pixel of Pillow's picture, and of what palettes and bits are converted to."""
    mode, gray = picture.mode, info.channels == 1 and not info.alpha
    stored = {"1": 1, "L": 1, "P": 1}.get(mode, 2 if mode.startswith("I;16") else 4)
    return stored + ((1 if gray else 4) if mode in ("1", "P", "PA") else 0)


def duration_of(picture: ImageFile.ImageFile) -> Fraction:
    """Milliseconds of the frame that was loaded, as Pillow has them."""
    return Fraction(picture.info.get("duration", 0))


def length_of(stream: BinaryIO) -> int:
    """Bytes of a file."""
    here = stream.tell()
    length = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return length


def is_gray(picture: ImageFile.ImageFile) -> bool:
    """One channel of colour, or a palette of nothing but grays."""
    return picture.mode in _GRAY_MODES or _palette_is_gray(picture)


def exif_orientation(picture: ImageFile.ImageFile) -> object:
    """What EXIF says of how to turn a picture; 1 when it is damaged, which `metadata.read` notes."""
    with contextlib.suppress(Exception):  # Pillow's parser raises almost anything
        return picture.getexif().get(orientation.TAG, 1)
    return 1


def rawmode(picture: ImageFile.ImageFile) -> str:
    """How the samples lie in the file, in Pillow's words."""
    args = picture.tile[0].args if picture.tile else ""
    return str(args[0]) if isinstance(args, tuple) else str(args)


def fetch(picture: Pillow.Image) -> Pixels:
    """Samples of a loaded picture, (H, W, bands), in bands: so there is never a third copy of a large picture."""
    width, height = picture.size
    bands = len(picture.getbands())
    rows = max(1, _BAND_SAMPLES // (width * bands))
    out: Pixels | None = None
    for top in range(0, height, rows):
        band = np.asarray(picture.crop((0, top, width, min(top + rows, height))))
        if out is None:
            out = np.empty((height, width, bands), band.dtype.newbyteorder("="))
        out[top : top + rows] = band.reshape(-1, width, bands)
    if out is None:
        raise ValueError("the picture has no rows")
    return out


def plain_samples(picture: Pillow.Image, info: ImageInfo) -> Pixels:
    """Samples of a loaded picture of at most 8 bits, (H, W, C), palettes looked up."""
    mode = picture.mode
    plain = "L" if info.channels == 1 else "RGB"
    if mode in ("P", "PA"):
        return fetch(picture.convert({"L": "LA", "RGB": "RGBA"}[plain] if info.alpha else plain))
    return fetch(picture if mode in ("L", "LA", "RGB", "RGBA") or mode.startswith("I;16") else picture.convert(plain))


def give_back(picture: ImageFile.ImageFile) -> None:
    """Let go of Pillow's copy of the pixels before more memory is taken; what the file says is kept."""
    picture.im = Pillow.new("1", (1, 1)).im


def _palette_is_gray(picture: ImageFile.ImageFile) -> bool:
    """All colours of the palette are gray; False when there is no palette."""
    if picture.mode not in ("P", "PA") or picture.palette is None:
        return False
    swatch = Pillow.new("P", (1, 1))  # asking the picture itself would decode its pixels
    swatch.putpalette(picture.palette.palette, picture.palette.rawmode or picture.palette.mode)
    colours = np.array(swatch.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())
