"""What travels beside the pixels: read, made true for changed pixels, checked.

Metadata are never worth an image: what cannot be read is left out, with a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from PIL import ExifTags
from PIL.Image import Exif

from bbcu_cli.image.image import Metadata

EXIF_HEADER: Final = b"Exif\0\0"
XMP_KEYWORD: Final = "XML:com.adobe.xmp"
"""PNG keeps XMP in a text chunk of this name."""

_KEPT_FROM_TIFF: Final = frozenset(
    {270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853, 18246, 40091, 40092, 40093, 40094, 40095}
)
"""The tags of a TIFF directory that describe the picture (as EXIF 2.32, table 4 and Windows' XP tags list them)."""

_STALE: Final = frozenset({256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 330, 513, 514, 700, 33723, 34377, 34675})
"""Tags that describe how pixels were stored, or repeat what we carry elsewhere: of no use beside new pixels."""

_STALE_SIZES: Final = frozenset({ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight})

_XMP_ORIENTATION: Final = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)[2-8]""")

_ORIENTATION: Final = 274

T = TypeVar("T")


def read(
    info: Mapping[Any, Any], exif: Callable[[], Exif | None], text: Mapping[str, str], *, channels: int, from_tiff: bool
) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata of a file, from what Pillow found in it.

    Args:
        info: Pillow's ``info`` of the loaded picture.
        exif: gives Pillow's EXIF, or None; that is changed here.
        text: a PNG's text chunks.
        channels: 1 or 3, of the decoded pixels: a profile of another kind cannot belong to them.
        from_tiff: the EXIF is a TIFF's main directory, which is full of tags about storage.

    Returns:
        The metadata and a note for each part that had to be left out.
    """
    notes: list[str] = []

    def attempt(what: str, part: Callable[[], T]) -> T | None:
        try:
            return part()
        except Exception as error:  # noqa: BLE001 - Pillow's parsers raise almost anything on damaged bytes
            notes.append(f"the {what} could not be read ({str(error) or type(error).__name__}) and was left out")
            return None

    return Metadata(
        icc=attempt("colour profile", lambda: _icc(info.get("icc_profile"), channels)),
        exif=attempt("EXIF data", lambda: _exif(exif(), from_tiff=from_tiff)),
        xmp=attempt("XMP data", lambda: _xmp(info.get("xmp"))),
        dpi=attempt("resolution", lambda: _dpi(info.get("dpi"))),
        text=attempt("text", lambda: _text(text, info.get("comment"))) or (),
    ), tuple(notes)


def with_dpi_in_exif(metadata: Metadata) -> bytes | None:
    """EXIF that also says the resolution, for formats that have no other place for it."""
    if metadata.dpi is None:
        return metadata.exif
    exif = Exif()
    if metadata.exif is not None:
        exif.load(metadata.exif)
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = metadata.dpi
    exif[ExifTags.Base.ResolutionUnit] = 2  # inch
    return exif.tobytes()


def icc_space(icc: bytes) -> bytes:
    """The colour space that a profile describes: b"RGB ", b"GRAY", b"CMYK", ...

    Raises:
        ValueError: this is no ICC profile.
    """
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("it is not an ICC profile")
    return icc[16:20]


def _icc(icc: bytes | None, channels: int) -> bytes | None:
    if not icc:
        return None
    space = icc_space(icc)
    if space != {1: b"GRAY", 3: b"RGB "}[channels]:
        kind = {1: "gray", 3: "RGB"}[channels]
        raise ValueError(f"it is for {space.decode('ascii', 'replace').strip()}, the image is {kind}")
    return icc


def _exif(exif: Exif | None, *, from_tiff: bool) -> bytes | None:
    if exif is None:
        return None
    if ExifTags.IFD.Exif in exif:
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for size in _STALE_SIZES & details.keys():
            del details[size]
    for tag in list(exif):
        if tag in _STALE or (from_tiff and tag not in _KEPT_FROM_TIFF):
            del exif[tag]
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1
    return exif.tobytes() if len(exif) else None


def _xmp(xmp: bytes | str | None) -> bytes | None:
    if not xmp:
        return None
    packet = xmp.encode() if isinstance(xmp, str) else xmp.rstrip(b"\0")
    packet.decode("utf-8")  # raises on anything that PNG could not hold
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def _dpi(dpi: tuple[Any, Any] | None) -> tuple[float, float] | None:
    if dpi is None:
        return None
    x, y = float(dpi[0]), float(dpi[1])
    # TIFF and JPEG readers say 1 or 0 when the file says nothing; no format holds more than 16 bits.
    return (x, y) if math.isfinite(x + y) and min(x, y) > 1 and max(x, y) < 65535 else None


def _text(chunks: Mapping[str, str], comment: object) -> tuple[tuple[str, str], ...]:
    pairs = [
        (keyword, str(text))
        for keyword, text in chunks.items()
        if keyword != XMP_KEYWORD and not keyword.startswith("Raw profile type ")
    ]
    if isinstance(comment, bytes) and comment:
        pairs.append(("Comment", comment.decode("utf-8", "replace")))
    return tuple(pairs)
