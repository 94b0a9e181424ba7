"""The file formats, what each can hold, and how to tell them apart."""

from __future__ import annotations

import codecs
import re
import struct
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
        read_suffixes: more of them, which we do not write under.
        writable: we write it.
        depth: most bits per sample.
        gray: one gray channel stays one gray channel.
        lossy: the pixels of the file are not exactly those given, unless a lossless option is set.
        alpha, icc, exif, xmp, text: it has a place for them.
        dpi: it has a place for the resolution; "exif" means that it travels inside the EXIF block.
        max_side: most pixels per side.
        several: "frames" of an animation or "pages", if a file holds more than one picture.
    """

    suffixes: tuple[str, ...]
    read_suffixes: tuple[str, ...] = ()
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
    several: str = ""


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "PNG": Format((".png",), (".apng",), depth=16, text=True, several="frames"),
        "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), (".mpo",), alpha=False, lossy=True, max_side=65500),
        "TIFF": Format((".tif", ".tiff"), depth=16, several="pages"),
        "WebP": Format((".webp",), gray=False, lossy=True, dpi="exif", max_side=16383, several="frames"),
        "AVIF": Format((".avif",), gray=False, lossy=True, dpi="exif", max_side=16384, several="frames"),
        "HEIC": Format((".heic", ".heif", ".hif"), gray=False, lossy=True, dpi="exif", max_side=16384),
        "BMP": Format((".bmp", ".dib"), alpha=False, icc=False, exif=False, xmp=False),
        "GIF": Format((".gif",), writable=False, icc=False, exif=False, xmp=False, dpi=False, several="frames"),
        "PNM": Format(
            (".ppm",),
            (".pgm", ".pbm", ".pnm", ".pam", ".pfm"),
            writable=False,
            depth=16,
            icc=False,
            exif=False,
            xmp=False,
            dpi=False,
        ),
        "JPEG 2000": Format((".jp2",), (".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), writable=False, depth=16, lossy=True),
        "JPEG XL": Format((".jxl",), writable=False, depth=16, lossy=True, dpi="exif"),
        "TGA": Format((".tga",), writable=False, icc=False, exif=False, xmp=False, dpi=False),
        "ICO": Format((".ico",), writable=False, exif=False, xmp=False),
        "DDS": Format((".dds",), writable=False, icc=False, exif=False, xmp=False, dpi=False),
        "RAW": Format(
            (".dng",),
            (
                ".3fr",
                ".arw",
                ".cr2",
                ".cr3",
                ".crw",
                ".dcr",
                ".erf",
                ".iiq",
                ".kdc",
                ".mef",
                ".mos",
                ".mrw",
                ".nef",
                ".nrw",
                ".orf",
                ".pef",
                ".raf",
                ".raw",
                ".rw2",
                ".rwl",
                ".sr2",
                ".srf",
                ".srw",
                ".x3f",
            ),
            writable=False,
            depth=16,
            alpha=False,
            icc=False,
            xmp=False,
            dpi=False,
        ),
    }
)

SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {suffix: name for name, fmt in FORMATS.items() for suffix in fmt.suffixes + fmt.read_suffixes}
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
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "ICO"),
    (b"DDS ", "DDS"),
)
_BRANDS: Final = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
_RAWS: Final = (
    (b"IIRO", "Olympus ORF"),
    (b"IIRS", "Olympus ORF"),
    (b"MMOR", "Olympus ORF"),
    (b"IIU\0", "Panasonic RW2"),
    (b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW"),
    (b"\0MRM", "Minolta MRW"),
    (b"FOVb", "Sigma X3F"),
    (b"II*\0\x10\0\0\0CR\x02", "Canon CR2"),
)
"""Camera raw files by their first bytes; many others are TIFFs that only their directories tell."""
_PNM: Final = re.compile(rb"P(?:[1-6][\s#]|[7Ff]\n)")
_PHASE_ONE: Final = (b"IIIITwaR", b"MMMMRawT")
_CANON_BRAND: Final = b"crx "
_MAGICK: Final = "ImageMagick: magick in{} out.png"
_OTHERS: Final = (
    (0, b"II\xbc\x01", "a JPEG XR image", "jxrlib: JxrDecApp -i in.jxr -o out.tif"),
    (0, b"8BPS", "a Photoshop document", _MAGICK.format(".psd[0]")),
    (0, b"gimp xcf", "a GIMP image", "GIMP"),
    (0, b"%PDF", "a PDF document", "poppler: pdftoppm -png in.pdf out"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image, of light without a white", None),
    (0, b"#?R", "a Radiance HDR image, of light without a white", None),
    (0, b"SIMPLE  =", "a FITS image", None),
    (128, b"DICM", "a DICOM image", "dcmtk: dcm2img in.dcm out.png"),
    (0, b"qoif", "a QOI image", _MAGICK.format(".qoi")),
    (0, b"icns", "an icon (ICNS)", _MAGICK.format(".icns")),
    (0, b"SDPX", "a DPX image", _MAGICK.format(".dpx")),
    (0, b"XPDS", "a DPX image", _MAGICK.format(".dpx")),
    (0, b"\x8aMNG", "an MNG animation", None),
    (0, b"PK\x03\x04", "a zip archive", None),
    (0, b"\x1f\x8b", "a gzip archive", None),
    (4, b"ftypqt", "a video", None),
    (4, b"ftypisom", "a video", None),
    (4, b"ftypmp4", "a video", None),
)  # fmt: skip
"""(offset, bytes, what such a file is, what converts it to an image that we read)."""

HEAD_BYTES: Final = 256
"""How much of a file `identify` wants to see."""


def identify(head: bytes) -> str | None:
    """Name of the format that a file beginning with `head` has, whatever its name; None when we read no such thing."""
    if raw_kind(head) is not None:
        return "RAW"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if _PNM.match(head):
        return "PNM"
    if head[4:8] == b"ftyp":
        # The major brand says what the file is, the others what it is compatible with; "mif1" alone says little.
        end = min(len(head), int.from_bytes(head[:4], "big"))
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in known else known[0] if known else None
    return "TGA" if _looks_like_tga(head) else None


def _looks_like_tga(head: bytes) -> bool:
    """Whether a file of no other kind begins as a Targa file does, which has no signature."""
    if len(head) < 18:
        return False
    _, mapped, kind, start, colours, of_map, _, _, width, height, bits, flags = struct.unpack_from(
        "<BBBHHBHHHHBB", head
    )
    depths = {1: (8,), 9: (8,), 2: (16, 24, 32), 10: (16, 24, 32), 3: (8, 16), 11: (8, 16)}
    if bits not in depths.get(kind, ()) or not (width and height) or flags & 0xC0:
        return False
    if kind in (1, 9):
        return mapped == 1 and 0 < colours <= 256 and start < 256 and of_map in (15, 16, 24, 32)
    return mapped == 0 and start == colours == 0 and (flags & 0x0F) in (0, 1, 8)


def raw_kind(head: bytes) -> str | None:
    """The kind of camera raw file that begins with `head`; None also for those that begin as any TIFF does."""
    if head[4:12] == b"ftyp" + _CANON_BRAND:
        return "Canon CR3"
    if head[8:16] in _PHASE_ONE:
        return "Phase One IIQ"
    return next((kind for signature, kind in _RAWS if head.startswith(signature)), None)


def describe_stranger(head: bytes) -> str:
    """What a file that `identify` does not know seems to be, and what to do, to be put after "it is"."""
    if not head:
        return "an empty file"
    for at, signature, description, tool in _OTHERS:
        if head.startswith(signature, at):
            return f"{description}; convert it first, for example with {tool}" if tool else description
    if b"\0" not in head:
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the cut may divide a character
        except UnicodeDecodeError:
            return "of an unknown kind"
        return "an SVG drawing; render it first" if "<svg" in text else "a text file"
    return "of an unknown kind"


def format_of(path: PurePath) -> str:
    """The format that the name of an output asks for.

    Raises:
        ImageError: the ending is missing, unknown, or of a format that is only read.
    """
    name = SUFFIXES.get(path.suffix.lower())
    if name is None or not FORMATS[name].writable or path.suffix.lower() in FORMATS[name].read_suffixes:
        endings = ", ".join(fmt.suffixes[0] for fmt in FORMATS.values() if fmt.writable)
        ending = f"the ending {path.suffix!r}" if path.suffix else "a name without an ending"
        raise ImageError(f"{path.name}: images cannot be written under {ending}; use one of {endings}")
    return name
