"""Camera raw files: told apart, and developed by LibRaw through rawpy, an optional dependency (`bbcu-cli[raw]`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO, Final

from bbcu_cli.errors import ImageError
from bbcu_cli.image import metadata
from bbcu_cli.image.formats import raw_kind
from bbcu_cli.image.image import Image, ImageInfo, Metadata
from bbcu_cli.image.tiff_directory import Directory, TiffContainer

_DNG_VERSION, _PHOTOMETRIC, _COMPRESSION, _MAKE = 50706, 262, 259, 271
_SENSOR: Final = frozenset({32803, 34892})  # a mosaic of colour filters; linear raw
_COMPRESSIONS: Final = frozenset({32767, 32770, 34713, 65000, 65535})  # of Sony, Samsung, Nikon, Kodak, Pentax
_MAKERS: Final[Mapping[str, str]] = {
    "canon": "Canon CR2", "eastman kodak": "Kodak DCR", "epson": "Epson ERF", "hasselblad": "Hasselblad 3FR",
    "kodak": "Kodak DCR", "leaf": "Leaf MOS", "mamiya": "Mamiya MEF", "nikon": "Nikon NEF", "pentax": "Pentax PEF",
    "phase one": "Phase One IIQ", "ricoh": "Pentax PEF", "samsung": "Samsung SRW", "sony": "Sony ARW",
}  # fmt: skip
_FLIPPED_SIDEWAYS: Final = (5, 6)
_SRGB_CURVE: Final = (2.4, 12.92)


def kind_in_tiff(container: TiffContainer, pages: tuple[Directory, ...]) -> str | None:
    """The kind of camera raw file that a TIFF is, such as "Nikon NEF"; None for other TIFFs."""
    first = pages[0]
    if _DNG_VERSION in first.tags:
        return "DNG"
    everything = [*pages, *(sub for page in pages for sub in container.pages_below(page))]
    if not any(
        container.number(page, _PHOTOMETRIC, 0) in _SENSOR or container.number(page, _COMPRESSION, 0) in _COMPRESSIONS
        for page in everything
    ):
        return None
    make = (container.data(first, _MAKE) or b"").decode("latin-1").strip("\0 ").lower()
    return next((kind for maker, kind in _MAKERS.items() if make.startswith(maker)), "of an unknown maker")


@dataclass(frozen=True, slots=True)
class RawFile:
    """A camera raw file whose header was read; its methods raise whatever rawpy raises on damaged files.

    Attributes:
        name: how to call it in errors.
        kind: such as "Nikon NEF".
        stream: the file.
        raw: rawpy's.
    """

    name: str
    kind: str
    stream: BinaryIO
    raw: Any  # rawpy.RawPy

    @classmethod
    def open(cls, name: str, stream: BinaryIO, kind: str | None = None) -> RawFile:
        """Read the header of `stream`.

        Raises:
            ImageError: rawpy is not installed, or knows no such camera.
        """
        stream.seek(0)
        kind = kind or raw_kind(stream.read(16)) or "of an unknown kind"
        rawpy = _library(name, kind)
        stream.seek(0)
        path = getattr(stream, "name", None)  # what LibRaw itself prints about damaged files begins with it
        try:
            with _explained(rawpy):
                return cls(name, kind, stream, rawpy.imread(path if isinstance(path, str) else stream))
        except rawpy.LibRawFileUnsupportedError as error:
            raise ImageError(
                f"{name} is a camera raw file ({kind}) that LibRaw does not know; develop it with its maker's program"
            ) from error

    def info(self) -> ImageInfo:
        """What the header says."""
        sizes = self.raw.sizes
        size = (sizes.iheight, sizes.iwidth)
        return ImageInfo(
            format="RAW",
            size=size[::-1] if sizes.flip in _FLIPPED_SIDEWAYS else size,
            channels=3,
            depth=16,
            alpha=False,
            frames=1,
            working=sizes.raw_height * sizes.raw_width * 10,  # the mosaic, and four samples for each of its pixels
        )

    def decode(self, _: ImageInfo) -> Image:
        """All pixels, developed, upright, in sRGB, and metadata.

        With the white balance of the camera and its exposure: LibRaw would brighten every picture until one pixel in
        a hundred is white, and a series would flicker.
        """
        with _explained(_library(self.name, self.kind)):
            pixels = self.raw.postprocess(use_camera_wb=True, output_bps=16, gamma=_SRGB_CURVE, no_auto_bright=True)
        self.raw.close()
        about, notes = self._metadata(pixels.shape[:2])
        developed = f"the camera raw file ({self.kind}) was developed with the camera's white balance, to sRGB"
        return Image(pixels, metadata=about, format="RAW", notes=(developed, *notes))

    def _metadata(self, size: tuple[int, ...]) -> tuple[Metadata, tuple[str, ...]]:
        """From a raw that is a TIFF but for its first bytes; nothing from others."""
        self.stream.seek(0)
        head = self.stream.read(4)
        if head[:2] not in (b"II", b"MM"):
            return Metadata(), ()
        tiff = io.BytesIO((b"II*\0" if head[:2] == b"II" else b"MM\0*") + self.stream.read())
        return metadata.read(self.name, "TIFF", tiff, {}, channels=3, size=(size[0], size[1]), converted=True)


@contextlib.contextmanager
def _explained(rawpy: ModuleType) -> Iterator[None]:
    """Make of rawpy's errors, which hold bytes, those that Python has for it."""
    try:
        yield
    except rawpy.LibRawFileUnsupportedError:
        raise
    except rawpy.LibRawIOError as error:
        raise EOFError("it ends too early") from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawError as error:
        raise ValueError(error.args[0].decode("utf-8", "replace")) from error


def _library(name: str, kind: str) -> ModuleType:
    """The module rawpy.

    Raises:
        ImageError: it is not installed.
    """
    try:
        import rawpy  # optional, and only needed for these files
    except ImportError as error:
        raise ImageError(
            f"{name} is a camera raw file ({kind}), which needs one more package: pip install rawpy (bbcu-cli[raw])"
        ) from error
    module: ModuleType = rawpy
    return module
