"""What a file says beside its pixels, as it says it, gathered from each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final, TypeVar

from bbcu_cli.image import declared, exif, geotiff, ifd, isobmff, png_metadata
from bbcu_cli.image.ifd import Block, Field
from bbcu_cli.image.profile import ColourSpace

_XMP_TAG, _ICC_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 700, 34675, 33723, 34377
_IPTC_RESOURCE: Final = 0x0404
_XMP_HEADER: Final = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF_HEADERS: Final = (exif.HEADER.decode(), "II*\0", "MM\0*")
_OF_TIFF: Final = (
    {*exif.KEPT, ifd.EXIF, ifd.GPS, _XMP_TAG, _ICC_TAG, _IPTC_TAG, _PHOTOSHOP_TAG}
    | {*geotiff.TAGS, *geotiff.NOT_CARRIED}
    | declared.TIFF_TAGS
)
"""The tags of a TIFF that are looked at."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """What a file says.

    Attributes:
        icc, xmp, text, comment: as in the file.
        block: its EXIF, or the main directory of a TIFF.
        dpi: pixels per inch that are said outside of EXIF.
        iptc: there are IPTC data.
        space: the colour space that is declared by numbers and counts, as there is no profile.
        by: where that is.
        notes: a sentence for each thing that could not be read.
    """

    icc: bytes | None = None
    block: Block | None = None
    xmp: bytes | str | None = None
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    comment: bytes | None = None
    iptc: bool = False
    space: ColourSpace | None = None
    by: str = ""
    notes: list[str] = field(default_factory=list)


def gather(name: str, kind: str, stream: BinaryIO, info: Mapping[Any, Any], page: int | None = None) -> Found:
    """Read what a file says; the arguments are those of `metadata.read`.

    Raises:
        ImageError: the picture is HDR, or its samples are CIE XYZ.
    """
    if kind == "PNG":
        return _of_png(name, stream)
    if kind == "TIFF":
        return _of_tiff(stream, page)
    notes: list[str] = []
    block, codes = info.get("exif"), None
    if kind == "AVIF":
        described = attempt("description", notes, lambda: isobmff.read(stream)) or isobmff.Described()
        block, codes = described.exif or block, described.codes
    elif nclx := info.get("nclx_profile"):
        codes = nclx["color_primaries"], nclx["transfer_characteristics"]
    found = Found(
        icc=info.get("icc_profile"),
        block=attempt("EXIF data", notes, lambda: exif.unpack(block)) if block else None,
        xmp=info.get("xmp"),
        dpi=_jfif_dpi(info) if kind == "JPEG" else info.get("dpi"),
        comment=info.get("comment"),
        iptc=_IPTC_RESOURCE in info.get("photoshop", ()),
        notes=notes,
    )
    if kind == "BMP":
        space, icc, note = attempt("colour space", notes, lambda: declared.by_bmp(stream)) or (None, None, "")
        notes += [note] if note else []
        found = replace(found, icc=icc, space=space, by="its header")
    elif codes and not found.icc:
        space, note = declared.by_codes(name, *codes)
        notes += [note] if note else []
        found = replace(found, space=space, by="nclx")
    elif kind == "JPEG":
        found = _with_colours_of_exif(found)
    return found


def attempt(what: str, notes: list[str], part: Callable[[], T]) -> T | None:
    """The result of `part`, or None and a note when it finds its bytes damaged."""
    try:
        return part()
    except ValueError as error:
        notes.append(f"the {what} could not be read ({error}) and was left out")
        return None


def _of_png(name: str, stream: BinaryIO) -> Found:
    chunks = png_metadata.read(stream)
    notes: list[str] = []
    if chunks.faults:
        notes.append(f"chunks that are damaged or too large were left out ({', '.join(chunks.faults)})")
    block, packet, icc, text = chunks.exif, chunks.xmp, chunks.icc, []
    for kind, content in chunks.raw_profiles:
        if kind == "xmp" or content.startswith(_XMP_HEADER):
            packet = packet or content.removeprefix(_XMP_HEADER)
        elif kind in ("exif", "app1"):
            block = block or content
        elif kind in ("icc", "icm"):
            icc = icc or content
    for keyword, value in chunks.text:
        if keyword == "exif" and value.startswith(_TIFF_HEADERS):
            block = block or value.encode("latin-1", "replace")
        else:
            text.append((keyword, value))
    found = Found(
        icc=icc,
        block=attempt("EXIF data", notes, lambda: exif.unpack(block)) if block else None,
        xmp=packet,
        dpi=chunks.dpi,
        text=tuple(text),
        iptc=any(kind in ("iptc", "8bim") for kind, _ in chunks.raw_profiles),
        notes=notes,
    )
    if chunks.cicp is not None:
        primaries, transfer, _, full = chunks.cicp
        space, note = declared.by_codes(name, primaries, transfer, narrow=None if full else chunks.depth)
        notes += [note] if note else []
        if space is not None:  # it comes before a profile
            return replace(found, icc=None, space=space, by="cICP")
    if found.icc or chunks.srgb:
        return found
    gamma = None if chunks.gamma is None else 1 / max(chunks.gamma, 1e-9)
    by = " and ".join(["cHRM"] * (chunks.chromaticities is not None) + ["gAMA"] * (gamma is not None))
    space = attempt(f"colour space by {by}", notes, lambda: declared.by_chromaticities(chunks.chromaticities, gamma))
    return replace(found, space=space, by=by)


def _of_tiff(stream: BinaryIO, page: int | None) -> Found:
    notes: list[str] = []
    block = attempt("metadata", notes, lambda: ifd.parse(stream, _OF_TIFF.__contains__, page=page))
    if block is None:
        return Found(notes=notes)
    data = {tag: value.data for tag, value in block.directory.items() if isinstance(value, Field)}
    for tag, what in ((_XMP_TAG, "XMP data"), (_ICC_TAG, "colour profile")):
        notes += [f"the {what} could not be read and was left out"] if (0, tag) in block.faults else []
    return _with_colours_of_exif(
        Found(
            icc=data.get(_ICC_TAG),
            block=block,
            xmp=data.get(_XMP_TAG),
            iptc=_IPTC_TAG in data or b"8BIM\x04\x04" in data.get(_PHOTOSHOP_TAG, b""),
            notes=notes,
        )
    )


def _with_colours_of_exif(found: Found) -> Found:
    block = found.block
    if block is None or found.icc:
        return found
    space = attempt("colour space", found.notes, lambda: declared.by_exif(block))
    return replace(found, space=space, by="EXIF" if space == declared.ADOBE_RGB else "its tags")


def _jfif_dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    """What the header of a JPEG says; Pillow invents 72 where EXIF is damaged."""
    inches = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))
    x, y = info.get("jfif_density", (0, 0))
    return (x * inches, y * inches) if inches else None
