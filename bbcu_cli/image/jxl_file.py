"""JPEG XL through pillow-jxl-plugin, an optional dependency (`pip install bbcu-cli[jxl]`)."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import BinaryIO, Final

import numpy as np

from bbcu_cli.errors import ImageError
from bbcu_cli.image import declared, metadata
from bbcu_cli.image.boxes import read
from bbcu_cli.image.color import unpremultiply
from bbcu_cli.image.found import attempt
from bbcu_cli.image.image import Image, ImageInfo, Pixels
from bbcu_cli.image.jpeg_file import JpegFile
from bbcu_cli.image.jxl_header import Header, read_header
from bbcu_cli.image.pillow import length_of

_MOST_BESIDE: Final = 1 << 24
_BAND_ROWS: Final = 256
_TIFF: Final = (b"II*\0", b"MM\0*")  # pillow-jxl-plugin writes EXIF without the four bytes that tell where it begins
_HELD: Final = 9
_OTHER_PIXELS: Final = "its pixels are not what its header says"
_FIRST: Final = "convert it to PNG first, for example with djxl: djxl in.jxl out.png"


def _library(name: str, module: str) -> ModuleType:
    """A module of the extra.

    Raises:
        ImageError: it is not installed, so `name` cannot be read.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f"{name} is JPEG XL, which needs more packages: pip install pillow-jxl-plugin brotli"
        ) from error


@dataclass(frozen=True, slots=True)
class JxlFile:
    """A JPEG XL file whose header was read; its methods raise whatever the library raises on damaged files."""

    name: str
    stream: BinaryIO
    header: Header

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> JxlFile:
        """Read the header of `stream`.

        Raises:
            ImageError: it is of a kind that we do not read, or the package is missing.
        """
        _library(name, "pillow_jxl")
        header = read_header(stream)
        if header.codes is not None:
            declared.by_codes(name, *header.codes)  # refuses HDR
        for refused, sentence in _refusals(header):
            if refused:
                raise ImageError(f"{name} {sentence}")
        return cls(name, stream, header)

    def info(self) -> ImageInfo:
        """What the header says; the library turns the picture upright."""
        header = self.header
        info = ImageInfo(
            format="JPEG XL",
            size=header.size,
            channels=1 if header.gray else 3,
            depth=16 if header.gray and header.bits > 8 else 8,
            alpha=header.alpha,
            frames=1,
        )
        return replace(info, working=self._working(info))

    def _working(self, info: ImageInfo) -> int:
        """The samples twice, for libjxl and for Python; numbers of 32 bits where it holds all; the file."""
        held = info.samples if self.header.whole else info.alpha
        if self.header.recompressed:  # its coefficients, or then a JPEG that is decoded
            return info.pixels * 8 + 3 * length_of(self.stream)
        return info.nbytes + info.pixels * _HELD * held + 2 * length_of(self.stream)

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata."""
        # A JPEG is made of all boxes; where the codestream is enough, damage beside it does no harm.
        pieces = ((0, length_of(self.stream)),) if self.header.recompressed else self.header.pieces
        code = b"".join(read(self.stream, start, end - start) for start, end in pieces)
        try:
            jpeg, about, data, icc, _ = _library(self.name, "pillow_jxl").Decoder(num_threads=0)(code)
        except RuntimeError as error:  # whose words are about how to build the library
            raise ValueError("libjxl cannot decode it") from error
        del code
        if jpeg:
            file = JpegFile.open(self.name, io.BytesIO(data))
            image = replace(file.decode(file.info()), format="JPEG XL")
            if (image.size, image.channels) != (info.size, info.channels):
                raise ValueError(_OTHER_PIXELS)
            return image
        height, width = info.size
        if (about.height, about.width) != info.size or len(data) != info.nbytes:
            raise ValueError(_OTHER_PIXELS)
        samples = np.frombuffer(data, f"u{info.depth // 8}").reshape(height, width, info.samples)
        notes = []
        if self.header.associated:
            samples = _apart(samples)
        if self.header.bits > info.depth:
            notes.append(f"{self.header.bits}-bit colours were reduced to {info.depth} bits")
        if self.header.further:
            notes.append(f"{self.header.further} channels beside the colour were left out")
        about, said = metadata.read(
            self.name,
            "JPEG XL",
            self.stream,
            {"icc_profile": None if self.header.srgb else icc, **self._beside(notes)},
            channels=info.channels,
            size=info.size,
            orientation=self.header.orientation,
        )
        return Image(
            pixels=samples[..., : info.channels],
            alpha=samples[..., -1] if info.alpha else None,
            metadata=about,
            format="JPEG XL",
            notes=(*notes, *said),
        )

    def _beside(self, notes: list[str]) -> dict[str, bytes]:
        """EXIF and XMP under Pillow's names."""
        found = dict[str, bytes]()
        for key, (content, packed) in self.header.beside.items():
            what = {"exif": "EXIF data", "xmp": "XMP data"}[key]
            plain = attempt(what, notes, partial(self._unpacked, content)) if packed else content
            if plain is not None:
                found[key] = (
                    plain if key == "xmp" or plain.startswith(_TIFF) else plain[4 + int.from_bytes(plain[:4], "big") :]
                )
        return found

    def _unpacked(self, content: bytes) -> bytes:
        """What Brotli has compressed.

        Raises:
            ValueError: it is damaged or too large.
        """
        brotli = _library(self.name, "brotli")
        try:
            plain: bytes = brotli.Decompressor().process(content, output_buffer_limit=_MOST_BESIDE)
        except brotli.error as error:
            raise ValueError("Brotli cannot decompress it") from error
        if len(plain) >= _MOST_BESIDE:
            raise ValueError("it is too large")
        return plain


def _apart(samples: Pixels) -> Pixels:
    """Colour (H, W, colour and alpha) that is no longer multiplied by its opacity."""
    out: Pixels = samples.copy()
    for top in range(0, len(out), _BAND_ROWS):
        band = out[top : top + _BAND_ROWS]
        band[..., :-1] = unpremultiply(band[..., :-1], band[..., -1])
    return out


def _refusals(header: Header) -> Iterator[tuple[bool, str]]:
    """Whether a picture is of a kind that is not read, and why, to be put behind its name."""
    yield header.animated, "is a JPEG XL animation, which bbcu does not read; convert it first: djxl in.jxl out.apng"
    yield header.floating, f"is a JPEG XL of floating-point samples; {_FIRST}"
    yield header.inks, f"is a JPEG XL of CMYK inks; {_FIRST}"
    # Without a colour management of its own libjxl then gives linear light, of which 8 bits are too few.
    yield header.profile and header.xyb, f"is a lossy JPEG XL with a profile of its own kind; {_FIRST}"
