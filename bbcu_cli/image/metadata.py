"""What travels beside the pixels: read, made true for other pixels, checked.

Metadata are never worth an image: what cannot be read or kept true is left out, with a note. Only what would give the
pixels a wrong meaning, as an HDR transfer does, is an error.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, BinaryIO, Final

from bbcu_cli.image import exif, geotiff, xmp
from bbcu_cli.image.found import Found, attempt, gather
from bbcu_cli.image.image import Metadata
from bbcu_cli.image.profile import icc_space

COMMENT: Final = "Comment"
"""The keyword of `Metadata.text` under which the comment of a JPEG or GIF stands."""

_WITH_CODES: Final = frozenset({"PNG", "AVIF", "HEIC"})
"""Formats that name the primaries and the transfer of their samples by code points."""


def read(
    name: str,
    kind: str,
    stream: BinaryIO,
    info: Mapping[Any, Any],
    *,
    channels: int,
    size: tuple[int, int],
    orientation: object = None,
    converted: bool = False,
    page: int | None = None,
) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata of a file for its decoded pixels, which are upright.

    Args:
        name: how to call the file in errors.
        kind: its format, a name of `FORMATS`.
        stream: the file; it is where it was afterwards.
        info: what Pillow or pillow-heif found; PNG and TIFF are read from the file alone.
        channels: 1 or 3, of the pixels: a profile of another kind cannot belong to them.
        size: (height, width) of the upright picture.
        orientation: the EXIF orientation (1 to 8, all else is 1) that the pixels had before they were turned upright;
            None: the one that EXIF says.
        converted: the colours are no longer the file's own but those of the profile in `info`, or sRGB.
        page: where a TIFF's directory lies; None: the first one.

    Returns:
        The metadata, and a note for each part that had to be left out or was converted.

    Raises:
        ImageError: the picture is HDR, or its samples are CIE XYZ.
    """
    with _unmoved(stream):
        found = gather(name, kind, stream, info, page)
    block, notes, georeference = found.block, found.notes, None
    if orientation is None and block is not None:
        orientation = exif.orientation_of(block)
    turned = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    if converted:
        found = replace(found, space=None, icc=info.get("icc_profile"))
        block = None if block is None else exif.without_colour_space(block)
    if block is not None:
        if kind == "TIFF":
            georeference, left_out = geotiff.read(block, turned)
            notes += left_out
        block, left_out = exif.clean(block, orientation=turned, size=size)
        notes += left_out
    if found.iptc:
        notes.append("IPTC data (captions, keywords) are not carried over")
    dpi = found.dpi[::-1] if found.dpi and turned >= 5 else found.dpi
    return Metadata(
        icc=_icc(found, channels),
        exif=None if block is None else exif.pack(block),
        xmp=_xmp(found, turned, converted=converted),
        dpi=_sane(dpi) or _sane(None if block is None else exif.resolution(block)),
        text=_text(found),
        georeference=georeference,
    ), tuple(notes)


def orientation(name: str, kind: str, stream: BinaryIO) -> int:
    """How the EXIF of a file says that its picture has to be turned, 1 to 8; 1 when it says nothing.

    Raises:
        ImageError: as `check_colours`.
    """
    with _unmoved(stream):
        block = gather(name, kind, stream, {}).block
    return 1 if block is None else exif.orientation_of(block)


def check_colours(name: str, kind: str, stream: BinaryIO, info: Mapping[Any, Any]) -> None:
    """Refuse at once what `read` would refuse.

    Raises:
        ImageError: the picture is HDR, or its samples are CIE XYZ.
    """
    if kind in _WITH_CODES:
        with _unmoved(stream):
            gather(name, kind, stream, info)


def scaled(metadata: Metadata, factor: int) -> Metadata:
    """Metadata of the same picture with `factor` times as many pixels a side; `dpi`, a wish for paper, stays."""
    return _times(metadata, Fraction(factor), Fraction(factor))


def resized(metadata: Metadata, before: tuple[int, int], after: tuple[int, int]) -> Metadata:
    """The same for a picture that had the (height, width) `before` and has that of `after`."""
    down, right = (Fraction(new, old) for new, old in zip(after, before, strict=True))
    return _times(metadata, right, down, wide=before[1] >= before[0])


def _times(metadata: Metadata, right: Fraction, down: Fraction, *, wide: bool = True) -> Metadata:
    if right == down == 1:
        return metadata
    factor = right if wide else down  # the longer side was rounded less
    return replace(
        metadata,
        exif=_scaled(metadata.exif, partial(exif.scaled, factor=factor)),
        xmp=_scaled(metadata.xmp, partial(xmp.scaled, factor=factor)),
        georeference=_scaled(metadata.georeference, partial(geotiff.scaled, factors=(right, down))),
    )


def _scaled(block: bytes | None, scale: Callable[[bytes], bytes | None]) -> bytes | None:
    if block is None:
        return None
    try:
        return scale(block)
    except ValueError:  # not what `read` gave, so nothing of it is known
        return block


@contextlib.contextmanager
def _unmoved(stream: BinaryIO) -> Iterator[None]:
    """Leave a file where it was read up to: Pillow goes on there."""
    at = stream.tell()
    try:
        yield
    finally:
        stream.seek(at)


def _icc(found: Found, channels: int) -> bytes | None:
    """The profile of the pixels, built if it has to be; None for sRGB."""
    if found.icc:
        return attempt("colour profile", found.notes, lambda: _of_kind(found.icc or b"", channels))
    space = found.space
    if space is None:
        return None

    def built() -> bytes | None:
        space.icc(3)  # also for gray: where primaries are none the rest is damaged as well
        return None if space.is_srgb(channels) else space.icc(channels)

    icc = attempt(f"colour space declared by {found.by}", found.notes, built)
    if icc is not None:
        found.notes.append(f"the colour space declared by {found.by} ({space.name}) is carried over as an ICC profile")
    return icc


def _of_kind(icc: bytes, channels: int) -> bytes:
    space = icc_space(icc)
    if space != {1: b"GRAY", 3: b"RGB "}[channels]:
        kind = {1: "gray", 3: "RGB"}[channels]
        raise ValueError(f"it is for {space.decode('ascii', 'replace').strip()}, the image is {kind}")
    return icc


def _xmp(found: Found, orientation: int, *, converted: bool) -> bytes | None:
    if not found.xmp:
        return None
    packet = found.xmp.encode() if isinstance(found.xmp, str) else found.xmp.rstrip(b"\0")
    cleaned = attempt("XMP data", found.notes, lambda: xmp.clean(packet, orientation=orientation, converted=converted))
    if cleaned is None:
        return None
    found.notes.extend(cleaned[1])
    return cleaned[0]


def _sane(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    if dpi is None:
        return None
    x, y = float(dpi[0]), float(dpi[1])
    # Files that know nothing say 1 or 0; no format holds more than 16 bits.
    return (x, y) if math.isfinite(x + y) and min(x, y) > 1 and max(x, y) < 65535 else None


def _text(found: Found) -> tuple[tuple[str, str], ...]:
    if not found.comment:
        return found.text
    return (*found.text, (COMMENT, found.comment.decode("utf-8", "surrogateescape")))
