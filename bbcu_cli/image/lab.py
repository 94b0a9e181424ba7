"""CIE L*a*b* -> RGB of 16 bits: sRGB where it has all colours of a picture, else ROMM RGB (ProPhoto).

Source: CIE 15 (L*a*b*); TIFF 6.0, section 23, and Adobe's technical notes of 2002 (CIELab, ICCLab, their 16 bits); RFC
3949 (ITULab); ISO 22028-2 (ROMM RGB). An ICC profile of Lab counts from D50, and so does a TIFF that names no white.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

from bbcu_cli.image.image import Pixels
from bbcu_cli.image.profile import ColourSpace, Curve, Point, adaptation, icc_space, to_d50

CIE, ICC, ITU = 8, 9, 10
"""Photometric interpretations of TIFF."""
D50: Final[Point] = (0.34567, 0.3585)
ROMM: Final = ColourSpace(
    "ROMM RGB (ProPhoto)",
    ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)),
    D50,
    (Curve(1.8, slope=1 / 16, start=1 / 32),),
)
_SRGB: Final = ColourSpace("sRGB")
_TOLERATED: Final = 1.0
"""How far a colour may be moved (CIE 1976): one step of a* or b* in 8 bits. Colours of sRGB that were rounded to such
steps are up to 0.83 beyond it."""
_BAND_PIXELS: Final = 1 << 16
_BAND_BYTES: Final = 240  # ten times three numbers, for each pixel
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How numbers stand for L*, a* and b*: number * factor + offset.

    Attributes:
        signed: a* and b* are numbers with a sign.
        factors, offsets: of each.
        white: what L* 100 looks like.
    """

    signed: bool
    factors: Floats
    offsets: Floats
    white: Point = D50

    def values(self, samples: Pixels) -> Floats:
        """uint8 or uint16 (..., 3) as stored -> L*, a*, b* (..., 3)."""
        numbers = samples.astype(np.float64)
        if self.signed:
            numbers[..., 1:] = samples[..., 1:].view(samples.dtype.str.replace("u", "i"))
        return numbers * self.factors + self.offsets


def encoding(kind: int, bits: int, white: Sequence[float] = (), decode: Sequence[float] = ()) -> Encoding:
    """That of a TIFF.

    Args:
        kind: `CIE`, `ICC` or `ITU`.
        bits: of a sample, 8 or 16.
        white: the chromaticity that the file names; D50 where there is none that makes sense.
        decode: least and most L*, a* and b* of ITU, where the file names them.
    """
    step, most = 1 / (1 << (bits - 8)), (1 << bits) - 1
    if kind == ICC:  # white is 0xFF00 of 16 bits
        return Encoding(signed=False, factors=np.array([100 / 255, 1, 1]) * step, offsets=np.array([0.0, -128, -128]))
    point = D50
    if len(white) == 2 and np.isfinite(white).all() and min(white) > 0.1 and sum(white) < 0.9:
        point = (float(white[0]), float(white[1]))
    if kind == CIE:
        return Encoding(signed=True, factors=np.array([100 / most, step, step]), offsets=np.zeros(3), white=point)
    if len(decode) != 6 or not np.isfinite(decode).all():
        middle = np.array([0, 1 << (bits - 1), 3 << (bits - 3)])
        factors = np.array([100.0, 170, 200]) / most
        return Encoding(signed=False, factors=factors, offsets=-middle * factors, white=point)
    least, top = np.array(decode[::2], np.float64), np.array(decode[1::2], np.float64)
    return Encoding(signed=False, factors=(top - least) / most, offsets=least, white=point)


def changes(icc: bytes) -> bool:
    """Whether a profile of Lab changes its colours, which hardly any does.

    Raises:
        ValueError: this is no ICC profile of Lab.
    """
    if (space := icc_space(icc)) != b"Lab ":
        raise ValueError(f"it is for {space.decode('ascii', 'replace').strip()}, the image is Lab")
    steps = np.linspace(16, 240, 8).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 8, 3)
    try:
        to_lab = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("LAB"), "LAB", "LAB"
        )
        picture = Pillow.frombytes("LAB", (8, 64), grid.tobytes())
        ImageCms.applyTransform(picture, to_lab, inPlace=True)
    except ImageCms.PyCMSError as error:
        raise ValueError(str(error)) from error
    moved = np.frombuffer(picture.tobytes(), np.uint8).reshape(grid.shape).astype(int) - grid
    return bool(np.abs(moved).max() > 1)


def working_of(size: tuple[int, int]) -> int:
    """Bytes that `to_rgb` takes at the most beside its argument and its result, of a picture (height, width)."""
    return _BAND_BYTES * min(max(_BAND_PIXELS, size[1]), size[0] * size[1])


def to_rgb(samples: Pixels, how: Encoding) -> tuple[Pixels, ColourSpace, list[str]]:
    """Colours as stored -> RGB, its space and notes.

    Args:
        samples: uint8 or uint16 (H, W, 3 or more), of which those behind the third stay; those of 16 bits are changed
            in place.
        how: what the first three mean.

    Returns:
        uint16 of the same shape; the space; what to tell.
    """
    srgb, romm = _Space(_SRGB, how.white), _Space(ROMM, how.white)
    fits = all(srgb.misses(how.values(band[..., :3])) == 0 for band, _ in _bands(samples, samples))
    space = srgb if fits else romm
    out = samples if samples.dtype == np.uint16 else np.empty(samples.shape, np.uint16)
    beyond = 0
    for band, result in _bands(samples, out):
        lab = how.values(band[..., :3])
        if not fits:
            beyond += space.misses(lab)
        result[..., 3:] = band[..., 3:] if out is samples else band[..., 3:].astype(np.uint16) * 257
        result[..., :3] = np.rint(space.coded(space.light(lab)) * 65535)
    notes = [
        f"CIE Lab was converted to {space.about.name}" + ("" if fits else ", because sRGB lacks some of its colours")
    ]
    if beyond:
        share = max(beyond / (samples.shape[0] * samples.shape[1]), 0.0001)
        notes.append(f"{share:.2%} of its pixels have colours beyond that, which were clipped")
    return out, space.about, notes


class _Space:
    """A space of RGB, to which colours under a white are converted."""

    def __init__(self, about: ColourSpace, white: Point) -> None:
        self.about = about
        self._curve = about.curves[0]
        self._white = np.array([white[0], white[1], 1 - sum(white)]) / white[1]
        self._matrix = np.linalg.inv(to_d50(about.primaries, about.white)) @ adaptation(white)

    def light(self, lab: Floats) -> Floats:
        """L*, a*, b* (..., 3) -> linear RGB, which is beyond 0..1 for colours that the space lacks."""
        middle = (lab[..., 0] + 16) / 116
        f = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], axis=-1)
        cubes = np.where(f > 6 / 29, f**3, (f - 4 / 29) * (108 / 841))
        light: Floats = (cubes * self._white) @ self._matrix.T
        return light

    def coded(self, light: Floats) -> Floats:
        """Linear RGB -> samples in 0..1, clipped: the inverse of the space's curve."""
        light, curve = np.clip(light, 0, 1), self._curve
        power = (light ** (1 / curve.gamma) - curve.b) / curve.a
        return np.where(light < curve.slope * curve.start, light / curve.slope, power)

    def misses(self, lab: Floats) -> int:
        """How many colours would be moved by more than nobody sees."""
        light = self.light(lab).reshape(-1, 3)
        out = ((light < 0) | (light > 1)).any(axis=1)
        if not out.any():
            return 0
        moved = self._lab(np.clip(light[out], 0, 1)) - lab.reshape(-1, 3)[out]
        return int((np.sqrt((moved**2).sum(axis=1)) > _TOLERATED).sum())

    def _lab(self, light: Floats) -> Floats:
        """The inverse of `light`."""
        share = np.maximum((light @ np.linalg.inv(self._matrix).T) / self._white, 0)
        f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share * (841 / 108) + 4 / 29)
        return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def _bands(samples: Pixels, result: Pixels) -> Iterator[tuple[Any, Any]]:
    step = max(1, _BAND_PIXELS // samples.shape[1])
    for top in range(0, len(samples), step):
        yield samples[top : top + step], result[top : top + step]
