"""Files -> `Image`: the way in. Which reader a file gets is decided by its first bytes, never by its name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from PIL.Image import DecompressionBombError

from bbcu_cli.errors import ImageError
from bbcu_cli.image.avif_file import AvifFile
from bbcu_cli.image.bmp_file import open_bmp
from bbcu_cli.image.formats import HEAD_BYTES, describe_stranger, identify
from bbcu_cli.image.frames import Frame, Frames
from bbcu_cli.image.gif_file import GifFile
from bbcu_cli.image.heic import HeicFile
from bbcu_cli.image.image import MOST_FRAMES, Image, ImageInfo
from bbcu_cli.image.jpeg2000_file import Jpeg2000File
from bbcu_cli.image.jpeg_file import JpegFile
from bbcu_cli.image.jxl_file import JxlFile
from bbcu_cli.image.levels import Levels
from bbcu_cli.image.pillow import PillowFile, open_webp
from bbcu_cli.image.png_file import PngFile
from bbcu_cli.image.pnm_file import PnmFile
from bbcu_cli.image.raw_file import RawFile
from bbcu_cli.image.texture_file import DdsFile, IcoFile, TgaFile
from bbcu_cli.image.tiff_file import TiffFile, open_tiff


class _File(Protocol):
    """A file whose header was read; its methods raise almost anything when it is damaged."""

    def info(self) -> ImageInfo:
        """What the header says."""

    def decode(self, info: ImageInfo, /) -> Image:
        """All pixels and metadata; `info` is what `info` gave."""


_READERS: Final[Mapping[str, Callable[[str, BinaryIO], _File]]] = {
    "PNG": PngFile.open,
    "JPEG": JpegFile.open,
    "TIFF": open_tiff,
    "WebP": open_webp,
    "AVIF": AvifFile.open,
    "HEIC": HeicFile.open,
    "BMP": open_bmp,
    "GIF": GifFile.open,
    "PNM": PnmFile.open,
    "JPEG 2000": Jpeg2000File.open,
    "JPEG XL": JxlFile.open,
    "TGA": TgaFile.open,
    "ICO": IcoFile.open,
    "DDS": DdsFile.open,
    "RAW": RawFile.open,
}
"""Name of a format -> what reads the header of a file, given its name and stream."""


def probe(source: Path | bytes, *, name: str | None = None, levels: Levels | None = None) -> ImageInfo:
    """What the header of an image says; the pixels are not decoded, so they may still turn out to be damaged.

    Args:
        source: a path, or the whole content of a file.
        name: how to call it in errors; by default the path.
        levels: black and white of samples whose kind does not say it; None: these are refused, but for PFM.

    Raises:
        ImageError: it is not an image that we read, or its header is damaged.
    """
    called = name or _name(source)
    with _open(source, called, levels) as file, blaming(called):
        return file.info()


def decode(
    source: Path | bytes,
    *,
    max_pixels: int,
    name: str | None = None,
    first: bool = False,
    levels: Levels | None = None,
) -> Image:
    """Decode one picture completely and upright, with all that is known about it.

    CMYK is converted to sRGB through the file's profile, or by Pillow's formula when it has none. Palettes become
    RGB, or gray when all their colours are; 1-bit becomes 8-bit gray. All else stays in the file's own profile.

    Args:
        source: a path, or the whole content of a file.
        max_pixels: a picture with more than this is refused before memory is taken for it.
        name: how to call it in errors; by default the path.
        first: of an animation or of several pages, take the picture that stands for all: the first one, or what an
            animated PNG shows where it does not move.
        levels: as of `probe`.

    Raises:
        ImageError: not an image, truncated or damaged, animated or of several pages without `first`, larger than
            `max_pixels`, or of samples that we cannot restore (floating point, signed and 32-bit without `levels`).
    """
    called = name or _name(source)
    with _open(source, called, levels) as file, blaming(called):
        info = file.info()
        if info.frames > 1 and not first:
            raise ImageError(f"{called} has {count_of(info)}, and a single picture is wanted here; extract one first")
        _check_size(info, max_pixels, called)
        return file.decode(info)


def count_of(info: ImageInfo) -> str:
    """How many pictures a file has, in words."""
    word = "page" if info.format == "TIFF" else "frame"
    number = str(info.frames) if info.frames < MOST_FRAMES else f"at least {MOST_FRAMES}"
    return f"{number} {word}{'s' if info.frames > 1 else ''}"


@contextlib.contextmanager
def open_frames(
    source: Path | bytes, *, max_pixels: int, name: str | None = None, levels: Levels | None = None
) -> Iterator[Frames]:
    """The frames of an animation or the pages of a file, one after the other while the file is open.

    Each is decoded when it is asked for, upright and complete, as by `decode`; frames are what a viewer shows.

    Args:
        source: as of `decode`, of a file that `probe` says has several.
        max_pixels, name, levels: as of `decode`.

    Raises:
        ImageError: as of `decode`, or too many; and from the iterator, with the number of the frame or page.
    """
    called = name or _name(source)
    with _open(source, called, levels) as file:
        with blaming(called):
            info = file.info()
            if not isinstance(file, PillowFile | TiffFile) or info.frames < 2:
                raise ValueError("it has not several frames or pages")
            if info.frames >= MOST_FRAMES:
                raise ImageError(f"{called} has {count_of(info)}, which is too many for bbcu; divide it first")
            for kind in info.each:
                _check_size(kind, max_pixels, called)
            frames = file.frames(info)
        yield replace(frames, each=_named(frames, called))


def _named(frames: Frames, name: str) -> Iterator[Frame]:
    """The same, with the number of a frame in its errors."""
    for number in range(1, frames.count + 1):
        with blaming(f"{name}, {frames.word} {number},"):
            frame = next(frames.each, None)
            if frame is None:
                raise EOFError("the file ends before it")
        yield frame
        del frame


def _check_size(info: ImageInfo, max_pixels: int, name: str) -> None:
    if info.pixels > max_pixels:
        height, width = info.size
        raise ImageError(
            f"{name} has {width}x{height} = {info.pixels / 1e6:.1f} million pixels, more than the limit of "
            f"{max_pixels / 1e6:.1f} million; if you trust the file, raise it with --max-pixels {info.pixels}"
        )


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "the image"


@contextlib.contextmanager
def _open(source: Path | bytes, name: str, levels: Levels | None) -> Iterator[_File]:
    """Look at the first bytes of a file and let the right reader read its header."""
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, Path) and source.exists() and not source.is_file():
                raise ImageError(f"{name} is not a regular file")  # opening a pipe would wait for ever
            stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            stack.enter_context(stream)
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
        except OSError as error:
            raise ImageError(f"{name} cannot be read: {error.strerror or error}") from error
        kind = identify(head)
        if kind is None:
            raise ImageError(f"{name} is not an image that bbcu reads: it is {describe_stranger(head)}")
        with blaming(name):
            file = _READERS[kind](name, stream)
            if isinstance(file, TiffFile | PnmFile):
                file = replace(file, levels=levels)
        yield file


@contextlib.contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into one sentence about the file `name`."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory") from error
    except DecompressionBombError as error:  # Pillow's own limit, where it asks before we can: WebP, GIF
        raise ImageError(f"{name} is too large to be read as such ({error}); convert it to PNG first") from error
    except Exception as error:  # decoders raise almost anything: struct.error, SyntaxError, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        state = "truncated" if "truncated" in reason.lower() or isinstance(error, EOFError) else "damaged"
        if reason.startswith("image file is truncated"):  # Pillow, which then counts bytes that say nothing
            reason = "its pixels end too early"
        raise ImageError(f"{name} is {state} ({reason}); get a whole copy of it") from error
