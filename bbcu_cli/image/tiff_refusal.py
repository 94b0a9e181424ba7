"""TIFF pages that are whole and yet not read: what they have, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bbcu_cli.image.levels import Levels
from bbcu_cli.image.tiff_layout import (
    BLACK_IS_ZERO,
    CMYK,
    COLOURS,
    DEFLATE,
    FAX,
    FLOATING,
    JPEG,
    LAB,
    LIBTIFF,
    MASK,
    NONE,
    OLD_DEFLATE,
    OLD_JPEG,
    PACKBITS,
    RGB,
    SIGNED,
    WEBP,
    WHITE_IS_ZERO,
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
    32844: "has logarithmic luminance (SGI LogL), whose white the file does not say; convert it to 16 bits first",
    32845: "has logarithmic colours (SGI LogLuv), whose white the file does not say; convert it to 16 bits first",
    51177: "is a depth map, not a picture",
}
_PLAIN: Final = frozenset({1, SIGNED, FLOATING, 4})
_COMPLEX: Final = (5, 6)
_WHOLE_BYTES: Final = (8, 16, 32, 64)
_MOST_SAMPLES: Final = 32
_TO_16_BITS: Final = "convert it to 8 or 16 bits first, for example with ImageMagick: magick in.tif -depth 16 out.tif"
_STATE: Final = (
    "say what is black and what is white with --range LOW HIGH, for example --range 0 1, or convert it to 8 or 16 bits"
)
_RECOMPRESS: Final = "save it with LZW or ZIP compression"


def refusal(layout: Layout, levels: Levels | None = None) -> str | None:
    """Why a page is not read, to be put behind a name; None when it is.

    Args:
        levels: black and white, where they are stated.
    """
    return next((sentence for refused, sentence in _rules(layout, levels) if refused), None)


def _rules(layout: Layout, levels: Levels | None) -> Iterator[tuple[bool, str]]:
    """Whether a page is refused, and why; a rule counts on those before it."""
    meaning, compression, kinds, bits = layout.meaning, layout.compression, layout.kinds, layout.bits[0]
    yield meaning in _MEANINGS, _MEANINGS.get(meaning, "")
    yield (
        meaning not in COLOURS,
        f"has colours of an unknown kind (PhotometricInterpretation {meaning}); convert it to RGB first",
    )
    method = _COMPRESSIONS.get(compression, f"a method unknown to bbcu (number {compression})")
    yield compression not in _READ, f"is compressed by {method}, which bbcu does not read in TIFF; {_RECOMPRESS}"
    yield any(kind in kinds for kind in _COMPLEX), f"has complex numbers for samples; {_TO_16_BITS}"
    yield not _PLAIN.issuperset(kinds), f"has samples of an unknown kind (SampleFormat {max(kinds)}); {_TO_16_BITS}"
    depths = ", ".join(map(str, layout.bits))
    yield len(set(layout.bits)) > 1, f"has samples of different depths ({depths} bits); {_TO_16_BITS}"
    if meaning in LAB:
        yield layout.samples < 3, "has the lightness of CIE Lab alone; convert it to gray first"
        plain = FLOATING not in kinds and bits in (8, 16)
        yield not plain, f"has CIE Lab colours of another kind than 8 or 16 bits; {_TO_16_BITS}"
        yield layout.premultiplied, "has CIE Lab colours multiplied by their opacity; convert it to RGB first"
    if layout.open_ended:
        yield from _rules_of_levels(layout, levels)
    yield from _rules_of_arrangement(layout, bits)


def _rules_of_levels(layout: Layout, levels: Levels | None) -> Iterator[tuple[bool, str]]:
    kinds, bits = {*layout.kinds}, layout.bits[0]
    floating = FLOATING in kinds
    yield len(kinds) > 1, f"has samples of different kinds; {_TO_16_BITS}"
    name = f"{'floating-point' if floating else 'signed' if SIGNED in kinds else f'{bits}-bit'} samples"
    name += f" ({bits}-bit)" if kinds & {SIGNED, FLOATING} else ""
    yield bits not in _WHOLE_BYTES[floating:], f"has {name}, which bbcu does not read; {_TO_16_BITS}"
    yield (
        layout.meaning not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or layout.compression in (JPEG, WEBP),
        f"has {name} in another form than plain gray or RGB; convert it to RGB first",
    )
    if levels is None:
        yield True, f"has {name}, whose black and white the file does not say; {_STATE}"
    else:
        yield (
            layout.premultiplied and levels.black != 0,
            f"has {name} multiplied by their opacity, which needs a --range that begins at 0",
        )


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
    known = (2, 3) if FLOATING in layout.kinds else (2,)
    yield (
        predicted and layout.predictor not in known,
        f"has predictor {layout.predictor}, which is not one for its kind of samples; save it without",
    )
    yield (
        predicted and bits not in _WHOLE_BYTES,
        f"has differences of {bits}-bit samples (predictor 2), which bbcu does not read; {_TO_16_BITS}",
    )
    yield (
        layout.meaning == YCBCR and (layout.planar or bits != 8 or (extras > 0 and not jpeg)),
        "has YCbCr colours of another kind than 8 bits and interleaved; convert it to RGB first",
    )
