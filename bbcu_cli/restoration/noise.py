"""An estimate of how noisy a picture is."""

from __future__ import annotations

from typing import Final

import numpy as np

from bbcu_cli.image import Image

# The median of |x| of a normal distribution with standard deviation 1.
_MEDIAN: Final = 0.6745
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# More pixels change nothing in a median; larger pictures are looked at in strips.
_MOST: Final = 4_000_000


def estimate_sigma(image: Image) -> float:
    """Standard deviation of white noise that would explain a picture's finest detail, in 8-bit units.

    The median magnitude of the diagonal Haar coefficients of luma, which edges and texture hardly move (Donoho and
    Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994), for one channel's noise. Noise that a camera or a
    JPEG has smoothed shows less than it has.

    Returns:
        0 for a picture of fewer than 2 x 2 pixels.
    """
    height, width = image.size
    if min(height, width) < 2:
        return 0.0
    step = max(1, -(-height * width // _MOST))
    pixels = image.pixels[: height // 2 * 2, : width // 2 * 2]
    rows = pixels.reshape(-1, 2, *pixels.shape[1:])[::step].astype(np.float32) / (257 if image.depth == 16 else 1)
    luma = rows[..., 0] if image.channels == 1 else rows @ _LUMA
    detail = (luma[:, 0, ::2] - luma[:, 0, 1::2] - luma[:, 1, ::2] + luma[:, 1, 1::2]) / 2
    of_luma = float(np.median(np.abs(detail))) / _MEDIAN
    return of_luma if image.channels == 1 else of_luma / float(np.linalg.norm(_LUMA))
