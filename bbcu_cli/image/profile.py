"""ICC profiles built for colour spaces that files name by numbers: primaries, a white point and transfer curves.

Pillow's ImageCms builds sRGB, Lab and XYZ only.

Source: ICC.1:2010 (version 4.3); chromatic adaptation by Bradford, its annex E.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Point: TypeAlias = tuple[float, float]
"""A chromaticity, CIE 1931 x and y."""

_Matrix: TypeAlias = NDArray[np.float64]

D65: Final[Point] = (0.3127, 0.3290)
SRGB_PRIMARIES: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SAME_POINT, _SAME_LIGHT = 0.002, 0.01
"""Colours nearer than this are alike: a gamma of 2.2 is within 0.0084 of sRGB's curve everywhere."""

_MADE: Final = struct.pack(">6H", 2024, 1, 1, 0, 0, 0)  # one date for all: equal inputs give equal files
_MOST_LIGHT = 100.0  # of a colorant; the numbers of a profile end at 32,768
_HEADER_BYTES, _ENTRY_BYTES = 128, 12


@dataclass(frozen=True, slots=True)
class Curve:
    """From samples v to light, both 0..1: (a*v + b)**gamma from `start` on, `slope` * v below.

    Attributes:
        table: light at evenly spaced samples instead, uint16 of any number; the other attributes do not count.
    """

    gamma: float
    a: float = 1.0
    b: float = 0.0
    slope: float = 0.0
    start: float = 0.0
    table: tuple[int, ...] = ()

    def light(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """The curve at samples in 0..1."""
        if self.table:
            return np.interp(samples, np.linspace(0, 1, len(self.table)), np.array(self.table) / 65535)
        power = np.maximum(self.a * samples + self.b, 0) ** self.gamma
        return np.where(samples >= self.start, power, self.slope * samples)

    def of_narrow_range(self, depth: int) -> Curve:
        """The same for samples of `depth` bits in narrow range: 16 is black and 235 white, times 2**(depth - 8)."""
        unit = (1 << (depth - 8)) / ((1 << depth) - 1)
        samples = np.clip((np.linspace(0, 1, 4096) - 16 * unit) / (219 * unit), 0, 1)
        return Curve(1, table=tuple(np.rint(self.light(samples) * 65535).astype(int).tolist()))


SRGB_CURVE: Final = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """What samples of red, green and blue, or of gray, mean.

    Attributes:
        name: for people.
        primaries: of red, green and blue.
        white: what equal samples of all three look like.
        curves: one for all samples, or one each for red, green and blue.
    """

    name: str
    primaries: tuple[Point, Point, Point] = SRGB_PRIMARIES
    white: Point = D65
    curves: tuple[Curve, ...] = (SRGB_CURVE,)

    def is_srgb(self, channels: int) -> bool:
        """Nobody could tell it from sRGB; gray samples (`channels` 1) have no primaries."""
        grid = np.linspace(0, 1, 65)
        curves = [np.abs(curve.light(grid) - SRGB_CURVE.light(grid)).max() for curve in self.curves]
        points = np.abs(np.subtract((*self.primaries, self.white), (*SRGB_PRIMARIES, D65))).max()
        return bool(max(curves) < _SAME_LIGHT and (channels == 1 or points < _SAME_POINT))

    def icc(self, channels: int) -> bytes:
        """Its ICC profile, for gray (`channels` 1) or RGB.

        Raises:
            ValueError: as `to_d50`.
        """
        curves = [_curve(curve) for curve in self.curves]
        if channels == 1:
            return _profile(b"GRAY", self.name, {b"kTRC": curves[0]})
        return _rgb_profile(self.name, self.primaries, self.white, curves)


def to_d50(primaries: tuple[Point, Point, Point], white: Point) -> _Matrix:
    """The matrix (3, 3) from linear RGB to CIE XYZ as seen under D50, whose columns are the colorants of a profile.

    Raises:
        ValueError: the primaries span no triangle, the white lies outside it, or they are far from any colour.
    """
    points = np.array([_xyz(point) for point in primaries]).T
    if not np.isfinite((*points.ravel(), *white)).all():
        raise ValueError("the primaries are no numbers")
    if min(white) <= 0 or abs(np.linalg.det(points)) < 1e-4 * np.abs(points).max() ** 3:
        raise ValueError("the primaries span no triangle")
    amounts = np.linalg.solve(points, _xyz(white) / white[1])
    if amounts.min() <= 0:
        raise ValueError("the white point lies outside the primaries")
    matrix: _Matrix = adaptation(white) @ (points * amounts)
    if np.abs(matrix).max() > _MOST_LIGHT:
        raise ValueError("the primaries are no colours")
    return matrix


def icc_space(icc: bytes) -> bytes:
    """The colour space that a profile describes: b"RGB ", b"GRAY", b"CMYK", ...

    Raises:
        ValueError: this is no ICC profile.
    """
    if len(icc) < _HEADER_BYTES + 4 or icc[36:40] != b"acsp":
        raise ValueError("it is not an ICC profile")
    return icc[16:20]


def gray_as_rgb(icc: bytes) -> bytes | None:
    """The profile of gray samples for the same samples written three times; None when it has no curve to light."""
    curve = _tag(icc, b"kTRC")
    if curve is None or icc[20:24] != b"XYZ ":
        return None
    return _rgb_profile("Gray as RGB", SRGB_PRIMARIES, D65, [curve])


def _rgb_profile(name: str, primaries: tuple[Point, Point, Point], white: Point, curves: list[bytes]) -> bytes:
    colorants = to_d50(primaries, white)
    tags = {b"chad": b"sf32" + bytes(4) + _fixed(*adaptation(white).ravel())}
    for index, letter in enumerate((b"r", b"g", b"b")):
        tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(*colorants[:, index])
        tags[letter + b"TRC"] = curves[index % len(curves)]
    return _profile(b"RGB ", name, tags)


def _xyz(point: Point) -> NDArray[np.float64]:
    x, y = point
    return np.array([x, y, 1 - x - y])


def adaptation(white: Point) -> _Matrix:
    """The matrix (3, 3) from XYZ under a white point to XYZ under D50."""
    cones = _BRADFORD @ _xyz(white) / white[1]
    matrix: _Matrix = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    return matrix


def _fixed(*values: float) -> bytes:
    """Numbers as s15Fixed16."""
    return struct.pack(f">{len(values)}l", *(round(value * 65536) for value in values))


def _curve(curve: Curve) -> bytes:
    if curve.table:
        return b"curv" + struct.pack(f">2L{len(curve.table)}H", 0, len(curve.table), *curve.table)
    if curve.start:
        parameters = (curve.gamma, curve.a, curve.b, curve.slope, curve.start)
        return b"para" + struct.pack(">L2H", 0, 3, 0) + _fixed(*parameters)
    return b"para" + struct.pack(">L2H", 0, 0, 0) + _fixed(curve.gamma)


def _text(text: str) -> bytes:
    """A multilocalized text with one entry, English."""
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">3L2s2s2L", 0, 1, 12, b"en", b"US", len(data), 28) + data


def _profile(space: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """A display profile, version 4.3, connected through XYZ; tags of one content share it."""
    tags = {b"desc": _text(name), b"cprt": _text("No copyright"), b"wtpt": b"XYZ " + bytes(4) + _fixed(*_D50), **tags}
    start = _HEADER_BYTES + 4 + _ENTRY_BYTES * len(tags)
    table, data, places = struct.pack(">L", len(tags)), b"", dict[bytes, int]()
    for tag, content in tags.items():
        if content not in places:
            places[content] = start + len(data)
            data += content + bytes(-len(content) % 4)
        table += tag + struct.pack(">2L", places[content], len(content))
    head = struct.pack(">L4xL4s4s4s", start + len(data), 0x04300000, b"mntr", space, b"XYZ ") + _MADE + b"acsp"
    return (head + bytes(28) + _fixed(*_D50)).ljust(_HEADER_BYTES, b"\0") + table + data


def _tag(icc: bytes, wanted: bytes) -> bytes | None:
    """The content of a tag of a profile; None when it has none, or a damaged table."""
    (count,) = struct.unpack_from(">L", icc, _HEADER_BYTES)
    for index in range(min(count, 100)):
        entry = icc[_HEADER_BYTES + 4 + _ENTRY_BYTES * index :][:_ENTRY_BYTES]
        if len(entry) == _ENTRY_BYTES and entry[:4] == wanted:
            at, length = struct.unpack(">2L", entry[4:])
            return icc[at : at + length] if at + length <= len(icc) else None
    return None
