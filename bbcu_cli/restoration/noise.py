"""An estimate of how noisy a picture is."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import Image
from bbcu_cli.image.image import Pixels

_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# The side of a block in pixels. Texture fills many blocks of a photograph but hardly ever all of them, so the calm ones
# tell the noise: at the median, clean photographs of 481 x 321 pixels measure 5.3 on average, at the tenth percentile
# 2.7; noise of sigma 5 saved as JPEG 90 measures 7.7 and 4.4.
_SIDE: Final = 32
_CALM: Final = 0.1
# The median of |x| of a normal distribution of deviation 1 is 0.6745, and the tenth percentile of such medians, each of
# 16 x 16 values, 9 % less.
_OF_CALM: Final = 0.6745 * 0.907
# More pixels change little; larger pictures are looked at in strips.
_MOST: Final = 4_000_000
# Samples of a block that may be black or white; beyond, the noise is cut off.
_CLIPPED: Final = 0.1


def estimate_sigma(image: Image) -> float:
    """Standard deviation of white noise that would explain a picture's finest detail, in 8-bit units.

    From the diagonal Haar coefficients of luma (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage",
    1994) of its calmest blocks, for one channel's noise. Noise that a camera or a JPEG has smoothed shows less than it
    has. Blocks that are largely black or white, such as bars or a blown-out sky, tell nothing and are left out, if
    there are others.

    Returns:
        0 for a picture of fewer than 2 x 2 pixels.
    """
    height, width = image.size
    if min(height, width) < 2:
        return 0.0
    rows, columns = (min(_SIDE, length // 2 * 2) for length in image.size)
    step = max(1, -(-height * width // _MOST))
    tops = range(0, height - rows + 1, rows)[::step]
    medians, clipped = np.hstack([_blocks(image.pixels[top : top + rows], columns) for top in tops])
    told = medians[clipped <= _CLIPPED] if (clipped <= _CLIPPED).any() else medians
    of_luma = float(np.quantile(told, _CALM)) / _OF_CALM / (257 if image.depth == 16 else 1)
    return of_luma if image.channels == 1 else of_luma / float(np.linalg.norm(_LUMA))


def _blocks(strip: Pixels, columns: int) -> NDArray[np.float32]:
    """The median magnitude of the coefficients of each block of a strip, and its share of black and white samples.

    Args:
        strip: one row of blocks, (rows, W, C).
        columns: of a block.

    Returns:
        float32 (2, W // columns).
    """
    cut = strip[:, : strip.shape[1] // columns * columns]
    seen = cut.astype(np.float32)
    luma: NDArray[np.float32] = seen[..., 0] if seen.shape[2] == 1 else seen @ _LUMA
    detail = np.abs(luma[::2, ::2] - luma[::2, 1::2] - luma[1::2, ::2] + luma[1::2, 1::2]) / 2
    ends = (cut == 0) | (cut == np.iinfo(cut.dtype).max)

    def split(samples: NDArray[Any]) -> NDArray[Any]:
        count = strip.shape[1] // columns
        blocks: NDArray[Any] = samples.reshape(len(samples), count, -1).transpose(1, 0, 2).reshape(count, -1)
        return blocks

    return np.array([np.median(split(detail), axis=1), split(ends).mean(axis=1)], np.float32)
