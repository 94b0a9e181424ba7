"""The file formats, what each can hold, and how to tell them apart."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from bbcu_cli.errors import ImageError


@dataclass(frozen=True, slots=True)
class Format:
    """What a file of this format can hold as we write it (the table of docs/formats.md is checked against these).

    Attributes:
        suffixes: file name endings, the usual one first.
        writable: we write it.
        depth: most bits per sample.
        gray: one gray channel stays one gray channel.
        lossy: the pixels of the file are not exactly those given, unless a lossless option is set.
        alpha, icc, exif, xmp, text: it has a place for them.
        dpi: it has a place for the resolution; "exif" means that it travels inside the EXIF block.
        max_side: most pixels per side.
    """

    suffixes: tuple[str, ...]
    writable: bool = True
    depth: int = 8
    gray: bool = True
    lossy: bool = False
    alpha: bool = True
    icc: bool = True
    exif: bool = True
    xmp: bool = True
    dpi: bool | str = True
    text: bool = False
    max_side: int = 2**31 - 1


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "PNG": Format((".png",), depth=16, text=True),
        "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False, lossy=True, max_side=65500),
        "TIFF": Format((".tif", ".tiff"), depth=16),
        "WebP": Format((".webp",), gray=False, lossy=True, dpi="exif", max_side=16383),
        "AVIF": Format((".avif",), gray=False, lossy=True, dpi="exif", max_side=16384),
        "HEIC": Format((".heic", ".heif", ".hif"), gray=False, lossy=True, dpi="exif", max_side=16384),
        "BMP": Format((".bmp", ".dib"), alpha=False, icc=False, exif=False, xmp=False),
        "GIF": Format((".gif",), writable=False, icc=False, exif=False, xmp=False, dpi=False),
    }
)

SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {suffix: name for name, fmt in FORMATS.items() for suffix in fmt.suffixes}
)
"""File name ending, lower case -> name of the format."""


def is_image_name(path: PurePath) -> bool:
    """Whether a file found in a folder is taken for an image; a file named by the user is tried whatever its name."""
    return path.suffix.lower() in SUFFIXES


_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
_BRANDS: Final = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
_OTHERS: Final = (
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"PK\x03\x04", "a zip archive"),
)

HEAD_BYTES: Final = 64
"""How much of a file `identify` wants to see."""


def identify(head: bytes) -> str | None:
    """Name of the format that a file beginning with `head` has, whatever its name; None when we read no such thing."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        # The major brand says what the file is, the others what it is compatible with; "mif1" alone says little.
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(len(head), head[3]), 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in known else known[0] if known else None
    return None


def describe_stranger(head: bytes) -> str:
    """What a file that `identify` does not know seems to be, to be put after "it is"."""
    if not head:
        return "an empty file"
    for signature, description in _OTHERS:
        if head.startswith(signature):
            return description
    if b"\0" not in head:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the cut may go through a character
        except UnicodeDecodeError:
            return "of an unknown kind"
        return "a text file"
    return "of an unknown kind"


def format_of(path: PurePath) -> str:
    """The format that the name of an output asks for.

    Raises:
        ImageError: the ending is missing, unknown, or of a format that is only read.
    """
    name = SUFFIXES.get(path.suffix.lower())
    if name is None or not FORMATS[name].writable:
        endings = ", ".join(fmt.suffixes[0] for fmt in FORMATS.values() if fmt.writable)
        ending = f"the ending {path.suffix!r}" if path.suffix else "a name without an ending"
        raise ImageError(f"{path.name}: images cannot be written under {ending}; use one of {endings}")
    return name
