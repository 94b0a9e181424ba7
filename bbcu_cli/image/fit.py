"""What of the metadata a format holds; what it does not is left out, with a sentence."""

from __future__ import annotations

from typing import Final

from bbcu_cli.image import exif, ifd
from bbcu_cli.image.formats import FORMATS
from bbcu_cli.image.image import Metadata
from bbcu_cli.image.metadata import COMMENT
from bbcu_cli.image.png import png_keyword
from bbcu_cli.image.profile import gray_as_rgb

_JPEG_SEGMENT: Final = 65_533
_MOST_OF_JPEG: Final = _JPEG_SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
"""Most bytes of EXIF, and of XMP, that fit into their one segment of a JPEG."""

# Pillow opens no PNG with a larger profile; 255 segments with a head of 14 bytes are all that a JPEG numbers.
_MOST_ICC: Final = {"PNG": 1 << 20, "JPEG": 255 * (_JPEG_SEGMENT - 14)}
_MOST_TEXT: Final = {"PNG": 8_000_000 - 100, "JPEG": _JPEG_SEGMENT}  # libpng's default for a chunk; one segment


def fitted(metadata: Metadata, kind: str, *, gray_to_rgb: bool = False) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata as a file of the format `kind` holds them, and a sentence for each loss.

    Args:
        metadata: of the picture.
        kind: a name of `FORMATS`.
        gray_to_rgb: the picture is gray and will be written as RGB, so its profile has to become one for RGB.
    """
    fmt, lost = FORMATS[kind], []
    for what, value, place in (
        ("colour profile", metadata.icc, fmt.icc),
        ("EXIF data", metadata.exif, fmt.exif),
        ("XMP data", metadata.xmp, fmt.xmp),
        ("resolution", metadata.dpi, fmt.dpi),
        ("georeference (GeoTIFF)", metadata.georeference, kind == "TIFF"),
    ):
        if value is not None and not place:
            lost.append(f"{kind} has no place for the {what}")
    held = Metadata(
        icc=_icc(metadata.icc, kind, lost, gray_to_rgb=gray_to_rgb) if fmt.icc else None,
        exif=_exif(metadata.exif, kind, lost) if fmt.exif else None,
        xmp=_xmp(metadata.xmp, kind, lost) if fmt.xmp else None,
        dpi=metadata.dpi if fmt.dpi else None,
        text=_text(metadata.text, kind, lost),
        georeference=metadata.georeference if kind == "TIFF" else None,
    )
    return held, tuple(lost)


def _icc(icc: bytes | None, kind: str, lost: list[str], *, gray_to_rgb: bool) -> bytes | None:
    if icc is None:
        return None
    if gray_to_rgb and icc[16:20] == b"GRAY":
        rgb = gray_as_rgb(icc)
        if rgb is None:
            lost.append(f"{kind} stores the gray image as RGB, and its colour profile cannot say that: it is left out")
            return None
        icc = rgb
    if len(icc) > _MOST_ICC.get(kind, len(icc)):
        lost.append(
            f"the colour profile ({len(icc)} bytes) is too long for readers of {kind} and is left out, so the colours "
            "will look different; TIFF holds it"
        )
        return None
    return icc


def _exif(block: bytes | None, kind: str, lost: list[str]) -> bytes | None:
    if block is None or kind != "JPEG" or len(block) <= _MOST_OF_JPEG:
        return block
    shorter = exif.pack(exif.without(exif.unpack(block), ifd.EXIF, ifd.MAKER_NOTE))
    if shorter is not None and len(shorter) <= _MOST_OF_JPEG:
        lost.append(f"the EXIF data ({len(block)} bytes) are too long for JPEG: the maker's note is left out")
        return shorter
    lost.append(f"the EXIF data ({len(block)} bytes) are too long for JPEG")
    return None


def _xmp(packet: bytes | None, kind: str, lost: list[str]) -> bytes | None:
    if packet is None or kind != "JPEG" or len(packet) <= _MOST_OF_JPEG:
        return packet
    lost.append(f"the XMP data ({len(packet)} bytes) are too long for JPEG")
    return None


def _text(text: tuple[tuple[str, str], ...], kind: str, lost: list[str]) -> tuple[tuple[str, str], ...]:
    places = {"PNG": None, "JPEG": COMMENT}
    held = [pair for pair in text if kind in places and places[kind] in (None, pair[0])]
    if homeless := [keyword for keyword, _ in text if keyword not in dict(held)]:
        lost.append(f"{kind} has no place for the text ({', '.join(homeless)})")
    most = _MOST_TEXT.get(kind, 0)
    fit = [(keyword, value) for keyword, value in held if len(value.encode("utf-8", "surrogateescape")) <= most]
    if long := [keyword for keyword, _ in held if keyword not in dict(fit)]:
        lost.append(f"the text ({', '.join(long)}) is too long for {kind}")
    if kind == "PNG":
        for keyword, _ in fit:
            if png_keyword(keyword) != keyword:
                lost.append(
                    f"the text under {keyword!r} is written under {png_keyword(keyword)!r}, which readers take for text"
                )
    return tuple(fit)
