"""An estimate of how noisy a picture is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.image import Image
from bbcu_cli.image.image import Pixels

_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# The side of a block in pixels. Texture fills many blocks of a photograph but hardly ever all of them, so the calmest
# tell the noise.
_SIDE: Final = 32
_CALM: Final = 0.05
# The median of |x| of a normal distribution of deviation 1 is 0.6745; the calm quantile of such medians, each over a
# block, is 7 % less, and 15 % at half the size.
_OF_CALM: Final = 0.6745 * 0.925
_OF_CALM_AT_HALF: Final = 0.6745 * 0.852
# More pixels change little; larger pictures are looked at in strips.
_MOST: Final = 4_000_000
# Less is what sums of float32 leave.
_LEAST: Final = 0.01
# White noise has a correlation of 1, and hardly ever more than 1.5 below a photograph.
_CORRELATED: Final = 2.0
# Of normally distributed numbers, the 95 % quantile of |x| is 2.9 medians; in blocks of texture it is more.
_TAIL: Final = 3.8
# Samples of a block that may be black or white; beyond, the noise is cut off.
_CLIPPED: Final = 0.1


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of a picture.

    Attributes:
        sigma: standard deviation of the noise in 8-bit units, as detail at half the size tells it: a camera or a JPEG
            smooths noise away in the finest detail, not there. But where that detail is not distributed like noise, it
            is texture, and the finest detail tells.
        correlation: how many times as strong noise is at half the size as in the finest detail; 1 for white noise, 2 to
            4 for what a camera or a JPEG has smoothed, and for the detail of a photograph without noise.
    """

    sigma: float
    correlation: float = 1.0

    @property
    def correlated(self) -> bool:
        """Whether it is the noise of a camera, or of a lossy file, rather than white noise."""
        return self.correlation >= _CORRELATED


def estimate_noise(image: Image) -> Noise:
    """The noise of the calmest blocks of a picture.

    From the diagonal Haar coefficients of luma (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage",
    1994), for one channel's noise. Blocks that are largely black or white, such as bars or a blown-out sky, tell
    nothing and are left out, if there are enough others; so are those of one colour, such as a frame, if they are the
    lesser part.

    Returns:
        No noise for a picture of fewer than 4 x 4 pixels.
    """
    height, width = image.size
    if min(height, width) < 4:
        return Noise(0.0)
    rows, columns = (min(_SIDE, length // 4 * 4) for length in image.size)
    step = max(1, -(-height * width // _MOST))
    tops = range(0, height - rows + 1, rows)[::step]
    blocks = np.hstack([_blocks(image.pixels[top : top + rows], columns) for top in tops])
    told = blocks[2] <= _CLIPPED
    plain = blocks[3] == 0
    if plain.mean() < 0.5:
        told &= ~plain
    if told.mean() > _CALM:
        blocks = blocks[:, told]
    fine, coarse = np.quantile(blocks[:2], _CALM, axis=1)
    texture = np.median(blocks[4, blocks[1] <= coarse]) > _TAIL
    level = 257 if image.depth == 16 else 1
    fine, coarse = fine / level / _OF_CALM, coarse / level / _OF_CALM_AT_HALF
    if coarse < _LEAST:
        return Noise(0.0)
    fine = max(fine, _LEAST)
    of_luma = fine if texture else coarse
    return Noise(float(of_luma if image.channels == 1 else of_luma / np.linalg.norm(_LUMA)), float(coarse / fine))


def _blocks(strip: Pixels, columns: int) -> NDArray[np.float32]:
    """What the blocks of a strip tell.

    Args:
        strip: one row of blocks, (rows, W, C).
        columns: of a block.

    Returns:
        float32 (5, W // columns): the median magnitude of the finest detail, and of that at half the size; the share of
        samples at an end of their range; the range of luma; how many medians the 95 % quantile of the detail at half
        the size has.
    """
    count = strip.shape[1] // columns
    cut = strip[:, : count * columns].reshape(len(strip), count, columns, -1).swapaxes(0, 1)
    seen = cut.astype(np.float32)
    luma: NDArray[np.float32] = seen[..., 0] if seen.shape[3] == 1 else seen @ _LUMA
    half = (luma[:, ::2, ::2] + luma[:, ::2, 1::2] + luma[:, 1::2, ::2] + luma[:, 1::2, 1::2]) / 2
    ends = ((cut == 0) | (cut == np.iinfo(cut.dtype).max)).mean(axis=(1, 2, 3))
    # White noise is as strong at half the size.
    fine, coarse = (_detail(blocks) for blocks in (luma, half))
    medians = np.median(coarse, axis=1)
    tails = np.quantile(coarse, 0.95, axis=1) / np.maximum(medians, _LEAST)
    return np.array([np.median(fine, axis=1), medians, ends, np.ptp(luma, axis=(1, 2)), tails], np.float32)


def _detail(blocks: NDArray[Any]) -> NDArray[np.float32]:
    """Of each block, (B, H, W), the magnitudes of its diagonal Haar coefficients at every place, (B, (H-1) * (W-1))."""
    detail = blocks[:, :-1, :-1] - blocks[:, :-1, 1:] - blocks[:, 1:, :-1] + blocks[:, 1:, 1:]
    magnitudes: NDArray[np.float32] = (np.abs(detail) / 2).reshape(len(blocks), -1)
    return magnitudes
