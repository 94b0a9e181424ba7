"""TIFF pages that are whole and yet not read: what they have, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bbcu_cli.image.tiff_layout import (
    CMYK,
    COLOURS,
    DEFLATE,
    FAX,
    JPEG,
    LIBTIFF,
    MASK,
    NONE,
    OLD_DEFLATE,
    OLD_JPEG,
    PACKBITS,
    WEBP,
    WITH_PREDICTOR,
    YCBCR,
    Layout,
)

_READ: Final = LIBTIFF | {NONE, DEFLATE, OLD_DEFLATE, PACKBITS, JPEG, WEBP}
_COMPRESSIONS: Final[Mapping[int, str]] = {
    OLD_JPEG: "old-style JPEG", 9: "JBIG", 10: "JBIG", 32766: "NeXT", 32809: "ThunderScan", 32908: "PixarFilm",
    32909: "PixarLog", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 33007: "ALT_JPEG", 34661: "JBIG",
    34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of a DNG",
    34926: "Zstandard under its old number", 34927: "WebP under its old number", 34933: "PNG", 34934: "JPEG XR",
    22610: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_MEANINGS: Final[Mapping[int, str]] = {
    MASK: "is a transparency mask, not a picture",
    8: "has CIE Lab colours; convert it to RGB first",
    9: "has CIE Lab colours (ICC); convert it to RGB first",
    10: "has CIE Lab colours (ITU); convert it to RGB first",
    32844: "has logarithmic luminance (SGI LogL), whose white the file does not say; convert it to 16 bits first",
    32845: "has logarithmic colours (SGI LogLuv), whose white the file does not say; convert it to 16 bits first",
    51177: "is a depth map, not a picture",
}
_UNSIGNED: Final = frozenset({1, 4})
_SIGNED, _FLOATING, _COMPLEX = 2, 3, (5, 6)
_MOST_SAMPLES: Final = 32
_TO_16_BITS: Final = "convert it to 8 or 16 bits first, for example with ImageMagick: magick in.tif -depth 16 out.tif"
_RECOMPRESS: Final = "save it with LZW or ZIP compression"


def refusal(layout: Layout) -> str | None:
    """Why a page is not read, to be put behind a name; None when it is."""
    return next((sentence for refused, sentence in _rules(layout) if refused), None)


def _rules(layout: Layout) -> Iterator[tuple[bool, str]]:
    """Whether a page is refused, and why; a rule counts on those before it."""
    meaning, compression, kinds, bits = layout.meaning, layout.compression, layout.kinds, layout.bits[0]
    yield meaning in _MEANINGS, _MEANINGS.get(meaning, "")
    yield (
        meaning not in COLOURS,
        f"has colours of an unknown kind (PhotometricInterpretation {meaning}); convert it to RGB first",
    )
    method = _COMPRESSIONS.get(compression, f"a method unknown to bbcu (number {compression})")
    yield compression not in _READ, f"is compressed by {method}, which bbcu does not read in TIFF; {_RECOMPRESS}"
    yield (
        _FLOATING in kinds,
        f"has floating-point samples ({bits}-bit), whose white the file does not say; {_TO_16_BITS}",
    )
    yield any(kind in kinds for kind in _COMPLEX), f"has complex numbers for samples; {_TO_16_BITS}"
    yield max(layout.bits) > 16, f"has {max(layout.bits)}-bit samples; {_TO_16_BITS}"
    yield _SIGNED in kinds, f"has signed samples, whose black the file does not say; {_TO_16_BITS}"
    yield not _UNSIGNED.issuperset(kinds), f"has samples of an unknown kind (SampleFormat {max(kinds)}); {_TO_16_BITS}"
    depths = ", ".join(map(str, layout.bits))
    yield len(set(layout.bits)) > 1, f"has samples of different depths ({depths} bits); {_TO_16_BITS}"
    yield from _rules_of_arrangement(layout, bits)


def _rules_of_arrangement(layout: Layout, bits: int) -> Iterator[tuple[bool, str]]:
    samples, extras, jpeg = layout.samples, len(layout.extras), layout.compression in (JPEG, WEBP)
    yield (
        samples > _MOST_SAMPLES or (layout.colours == 1 and extras > 1),
        f"has {samples} channels, and bbcu does not know which make a picture; extract one, or three as RGB, first",
    )
    yield layout.meaning == CMYK and layout.inks != 1, "has inks that are not CMYK; convert it to RGB first"
    listed = min(len(layout.offsets), len(layout.lengths))
    absent = (layout.offsets[:listed] == 0) & (layout.lengths[:listed] == 0)
    yield bool(absent.any()), "leaves out strips or tiles (sparse); fill them first: gdal_translate in.tif out.tif"
    yield jpeg and bits != 8, f"is compressed by {bits}-bit JPEG, which bbcu does not read; {_RECOMPRESS}"
    yield (
        layout.compression in FAX and (bits != 1 or layout.together != 1),
        f"is compressed as a fax though it is not black and white; {_RECOMPRESS}",
    )
    predicted = layout.predictor != 1 and layout.compression in WITH_PREDICTOR
    yield (
        predicted and layout.predictor != 2,
        f"has predictor {layout.predictor}, which is not one for integers; save it without",
    )
    yield (
        predicted and bits not in (8, 16),
        f"has differences of {bits}-bit samples (predictor 2), which bbcu does not read; {_TO_16_BITS}",
    )
    yield (
        layout.meaning == YCBCR and (layout.planar or bits != 8 or (extras > 0 and not jpeg)),
        "has YCbCr colours of another kind than 8 bits and interleaved; convert it to RGB first",
    )
