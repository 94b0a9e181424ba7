"""CMYK -> sRGB: through a file's own profile, or by Pillow's formula."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from bbcu_cli.image.image import Pixels
from bbcu_cli.image.profile import icc_space

_BAND_PIXELS: Final = 1 << 18


def to_srgb(inks: Pillow.Image | Pixels, icc: bytes | None) -> tuple[Pixels, str]:
    """Inks as Pillow's picture or uint8 (H, W, 4), 255 is full ink -> uint8 (H, W, 3), and a note on how."""
    transform, note = _transform(icc)
    width, height = inks.size if isinstance(inks, Pillow.Image) else inks.shape[1::-1]
    rgb = np.empty((height, width, 3), np.uint8)
    for rows, band in _bands(inks, width, height):
        converted = ImageCms.applyTransform(band, transform) if transform is not None else band.convert("RGB")
        rgb[rows] = np.asarray(converted)
    return rgb, note


def srgb_profile() -> bytes:
    """An sRGB profile, without the time of its making: equal inputs give equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def _bands(inks: Pillow.Image | Pixels, width: int, height: int) -> Iterator[tuple[slice, Pillow.Image]]:
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        if isinstance(inks, Pillow.Image):
            yield rows, inks.crop((0, rows.start, width, rows.stop))
        else:
            yield rows, Pillow.frombuffer("CMYK", (width, rows.stop - rows.start), np.ascontiguousarray(inks[rows]))


def _transform(icc: bytes | None) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    try:
        if icc and icc_space(icc) == b"CMYK":
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            return transform, "CMYK was converted to sRGB through the file's profile"
    except (ImageCms.PyCMSError, ValueError) as error:
        return None, f"CMYK was converted by a plain formula: its profile fails ({error})"
    return None, "CMYK was converted by a plain formula: the file has no CMYK profile"
