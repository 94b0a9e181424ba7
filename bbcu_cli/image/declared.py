"""The colour space that a file declares by numbers instead of a profile.

Source: ITU-T H.273 (code points, also those of PNG's cICP and of nclx in AVIF and HEIC); PNG, third edition; TIFF 6.0,
section 20; Exif 2.32 and DCF 2.0; Windows' BITMAPV4HEADER and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO, Final

from bbcu_cli.errors import ImageError
from bbcu_cli.image import exif, ifd
from bbcu_cli.image.ifd import Block, Field
from bbcu_cli.image.profile import D65, SRGB_CURVE, SRGB_PRIMARIES, ColourSpace, Curve, Point

_C: Final[Point] = (0.310, 0.316)
_P3: Final = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_NTSC: Final = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_PRIMARIES: Final[Mapping[int, tuple[str, tuple[Point, Point, Point], Point]]] = MappingProxyType(
    {
        1: ("BT.709", SRGB_PRIMARIES, D65),
        4: ("BT.470 M", ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
        5: ("BT.601 (625 lines)", ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
        6: ("BT.601 (525 lines)", _NTSC, D65),
        7: ("SMPTE 240M", _NTSC, D65),
        8: ("film", ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), _C),
        9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
        11: ("DCI-P3", _P3, (0.314, 0.351)),
        12: ("Display P3", _P3, D65),
        22: ("EBU Tech 3213", ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), D65),
    }
)
_BT709: Final = Curve(1 / 0.45, 1 / 1.099297, 0.099297 / 1.099297, 1 / 4.5, 4.5 * 0.018054)
_SMPTE240M: Final = Curve(1 / 0.45, 1 / 1.111572, 0.111572 / 1.111572, 1 / 4, 4 * 0.022822)
_TRANSFERS: Final[Mapping[int, tuple[str, Curve]]] = MappingProxyType(
    {
        **dict.fromkeys((1, 6, 11, 12, 14, 15), ("BT.709 curve", _BT709)),
        4: ("gamma 2.2", Curve(2.2)),
        5: ("gamma 2.8", Curve(2.8)),
        7: ("SMPTE 240M curve", _SMPTE240M),
        8: ("linear", Curve(1)),
        9: ("logarithmic 100:1", Curve(1, table=tuple(round(65535 * 10 ** (i / 512 - 2)) for i in range(1025)))),
        10: ("logarithmic 316:1", Curve(1, table=tuple(round(65535 * 10 ** (i / 409.6 - 2.5)) for i in range(1025)))),
        13: ("sRGB curve", SRGB_CURVE),
        17: ("gamma 2.6", Curve(2.6)),  # SMPTE ST 428-1, relative to its white
    }
)
_UNSPECIFIED, _BT709_CODE, _SRGB_CODE, _XYZ = 2, 1, 13, 10
_HDR: Final = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}

ADOBE_RGB: Final = ColourSpace("Adobe RGB (1998)", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, (Curve(563 / 256),))
_LEAST_GAMMA, _MOST_GAMMA = 0.2, 5.0
_DARK, _BRIGHT = 6_000, 60_000  # of 65,535

_TRANSFER_FUNCTION, _WHITE_POINT, _CHROMATICITIES = 301, 318, 319
TIFF_TAGS: Final = frozenset({_TRANSFER_FUNCTION, _WHITE_POINT, _CHROMATICITIES})


def by_codes(name: str, primaries: int, transfer: int, *, narrow: int | None = None) -> tuple[ColourSpace | None, str]:
    """The colour space of two code points of ITU-T H.273, and a note about codes that are not known.

    Args:
        name: how to call the file in errors.
        primaries: ColourPrimaries.
        transfer: TransferCharacteristics.
        narrow: bits per sample if the samples of red, green and blue are in narrow range.

    Raises:
        ImageError: the picture is HDR, or its samples are CIE XYZ.
    """
    if transfer in _HDR:
        raise ImageError(
            f"{name} is an HDR picture coded in {_HDR[transfer]}, which bbcu does not restore; "
            "convert it to SDR first, to sRGB or Display P3 for example"
        )
    if primaries == _XYZ:
        raise ImageError(f"{name} holds CIE XYZ samples, which bbcu does not restore; convert it to RGB first")
    unknown = [
        f"{what} {code}"
        for what, code, table in (("primaries", primaries, _PRIMARIES), ("transfer", transfer, _TRANSFERS))
        if code != _UNSPECIFIED and code not in table
    ]
    note = f"colours of an unknown code ({', '.join(unknown)} of H.273) are taken for sRGB's" if unknown else ""
    if primaries not in _PRIMARIES and transfer not in _TRANSFERS and narrow is None:
        return None, note
    space, points, white = _PRIMARIES.get(primaries, _PRIMARIES[_BT709_CODE])
    curve_name, curve = _TRANSFERS.get(transfer, _TRANSFERS[_SRGB_CODE])
    if narrow is not None:
        curve_name, curve = f"{curve_name}, narrow range", curve.of_narrow_range(narrow)
    return ColourSpace(f"{space}, {curve_name}", points, white, (curve,)), note


def by_chromaticities(points: tuple[Point, ...] | None, gamma: float | None) -> ColourSpace | None:
    """The colour space of a white point and three primaries and the exponent from samples to light, where given.

    Raises:
        ValueError: the exponent is none of a picture.
    """
    if points is None and gamma is None:
        return None
    if gamma is not None and not _LEAST_GAMMA <= gamma <= _MOST_GAMMA:
        raise ValueError(f"a gamma of {gamma:.4g} is none of a picture")
    white, red, green, blue = points or (D65, *SRGB_PRIMARIES)
    curve = SRGB_CURVE if gamma is None else Curve(gamma)
    tone = "sRGB curve" if gamma is None else f"gamma {gamma:.4g}"
    return ColourSpace(f"{'own' if points else 'sRGB'} primaries, {tone}", (red, green, blue), white, (curve,))


def by_exif(block: Block) -> ColourSpace | None:
    """The colour space that a main directory of EXIF or TIFF declares.

    Raises:
        ValueError: its numbers are damaged.
    """
    if said := exif.colour_space(block):
        return ADOBE_RGB if said == "Adobe RGB" else None
    white, primaries, function = (
        block.directory.get(tag) for tag in (_WHITE_POINT, _CHROMATICITIES, _TRANSFER_FUNCTION)
    )
    points = None
    if isinstance(primaries, Field):
        x_y = block.numbers(primaries)
        w = block.numbers(white) if isinstance(white, Field) else D65
        if len(x_y) != 6 or len(w) != 2:
            raise ValueError("it has not three primaries and a white point")
        points = ((w[0], w[1]), (x_y[0], x_y[1]), (x_y[2], x_y[3]), (x_y[4], x_y[5]))
    space = by_chromaticities(points, None)
    if isinstance(function, Field) and function.kind == ifd.SHORT:
        light = [int(value) for value in block.numbers(function)]
        tables = 3 if len(light) % 3 == 0 else 1  # the length of each is a power of two
        length = len(light) // tables
        if length < 2 or any(light[i * length] > _DARK or light[(i + 1) * length - 1] < _BRIGHT for i in range(tables)):
            raise ValueError("its transfer function does not lead from black to white")
        curves = tuple(Curve(1, table=tuple(light[i * length :][:length])) for i in range(tables))
        return ColourSpace(
            "primaries and curves of a TIFF",
            space.primaries if space else SRGB_PRIMARIES,
            space.white if space else D65,
            curves,
        )
    return space


def by_bmp(file: BinaryIO) -> tuple[ColourSpace | None, bytes | None, str]:
    """The colour space of a BMP of version 4 or 5, the profile within it, and a note about a profile outside it.

    Windows gives no white point; Firefox and Chrome take sRGB's.

    Raises:
        ValueError: its numbers are damaged.
    """
    file.seek(14)
    head = file.read(124)
    length = int.from_bytes(head[:4], "little")
    if len(head) < 108 or length < 108:
        return None, None, ""
    kind = head[56:60][::-1]
    if kind == b"LINK":
        return None, None, "the colour profile is a file elsewhere, which is not read: the colours are taken for sRGB's"
    if kind == b"MBED" and length >= 124:
        at, size = struct.unpack_from("<2L", head, 112)
        file.seek(14 + at)
        return None, file.read(min(size, 1 << 24)), ""
    ends = [value / (1 << 30) for value in struct.unpack_from("<9l", head, 60)]
    gammas = [value / (1 << 16) for value in struct.unpack_from("<3L", head, 96)]
    if kind != bytes(4) or not any(ends) or not all(gammas):
        return None, None, ""
    totals = [sum(ends[i : i + 3]) for i in (0, 3, 6)]
    if min(totals) <= 0:
        raise ValueError("its primaries are no colours")
    points = tuple((ends[3 * i] / total, ends[3 * i + 1] / total) for i, total in enumerate(totals))
    spaces = [by_chromaticities((D65, *points), gamma) for gamma in gammas]
    curves = tuple(space.curves[0] for space in spaces if space)
    return ColourSpace("primaries and gammas of a BMP", (points[0], points[1], points[2]), D65, curves), None, ""
