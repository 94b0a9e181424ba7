"""PSNR, SSIM and PSNR-B as the paper's tables count them, and the convention that a number goes with.

Images are (H, W) or (H, W, C), of whole or float samples in 0..`peak` (255 for 8 bit, 65535 for 16).
Everything is computed in float64 on the 8-bit scale, so one picture in 8 and in 16 bit scores the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.errors import UsageError
from bbcu_cli.image.color import rgb_to_y

# SSIM of Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5, the map taken where the window fits.
_RADIUS: Final = 5
_WINDOW: Final = 2 * _RADIUS + 1
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2
# Images are walked in pieces, so that the float64 temporaries stay in the cache and small for any image.
_SSIM_BLOCK: Final = 64
_BAND_PIXELS: Final = 1 << 15
_JPEG_BLOCK: Final = 8


@dataclass(frozen=True, slots=True)
class Convention:
    """How scores are made; printed beside them, since every field moves the numbers.

    Attributes:
        border: pixels ignored along each edge.
        round_luma: whether Y is rounded to whole numbers before it is compared.
        gray_is_luma: two gray images are compared as they stand, as in the tables of deblocking, and not as
            RGB of equal channels, whose studio-swing Y spans only 16..235, as in those of super-resolution.
        headline: the channels that the paper's tables are about.
        note: how the inputs were made and the outputs rounded; empty when bbcu did not make them.
    """

    border: int = 0
    round_luma: bool = False
    gray_is_luma: bool = False
    headline: Literal["y", "rgb"] = "y"
    note: str = ""

    def __str__(self) -> str:
        rounding = "rounded" if self.round_luma else "not rounded"
        gray = "gray taken as Y" if self.gray_is_luma else "gray taken as RGB"
        text = (
            f"Y: BT.601 studio swing, {rounding}, {gray}; border {self.border} px ignored; peak 255; "
            "SSIM: 11x11 Gaussian, sigma 1.5, valid region; means are of the per-image values"
        )
        return f"{text}; {self.note}" if self.note else text

    def to_dict(self) -> dict[str, Any]:
        """The convention as plain JSON values, the fixed parts included."""
        return {
            **asdict(self),
            "luma": "BT.601 studio swing",
            "peak": 255,
            "ssim_window": "11x11 Gaussian, sigma 1.5, valid region, C1=(0.01*255)^2, C2=(0.03*255)^2",
            "mean": "of the per-image values",
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """What one image scored, or the mean of several.

    PSNR in dB is `inf` for identical images. `nan` is what is not defined: SSIM of an image too small for its
    window, RGB where there is only luma, PSNR-B where it was not asked for.
    """

    psnr_y: float = math.nan
    ssim_y: float = math.nan
    psnr_rgb: float = math.nan
    ssim_rgb: float = math.nan
    psnrb_y: float = math.nan


def score(
    truth: NDArray[Any], restored: NDArray[Any], convention: Convention, *, peak: float = 255.0, blocking: bool = False
) -> Scores:
    """Score a restored image against its ground truth.

    Args:
        truth: (H, W), (H, W, 1) or (H, W, 3), samples in 0..peak.
        restored: the same height and width; gray and RGB may be mixed.
        convention: border, luma and gray.
        peak: the largest sample value of both.
        blocking: add PSNR-B.

    Raises:
        UsageError: the sizes differ, or the border leaves nothing.
    """
    if truth.shape[:2] != restored.shape[:2]:
        raise UsageError(f"Sizes differ: ground truth is {_size(truth)}, the restored image {_size(restored)}.")
    if 2 * convention.border >= min(truth.shape[:2]):
        raise UsageError(f"A border of {convention.border} px leaves nothing of a {_size(truth)} image.")
    a, b = (crop_border(_channels_last(image), convention.border) for image in (truth, restored))
    # Gray against RGB has one meaning only: the gray image is RGB of equal channels.
    luma_only = convention.gray_is_luma and a.shape[2] == b.shape[2] == 1
    y_a, y_b = (luma(image, peak, rounded=convention.round_luma, gray_is_luma=luma_only) for image in (a, b))
    return Scores(
        psnr_y=psnr(y_a, y_b),
        ssim_y=ssim(y_a, y_b),
        psnr_rgb=math.nan if luma_only else psnr(a, b, peak),
        ssim_rgb=math.nan if luma_only else ssim(a, b, peak),
        psnrb_y=psnr_b(y_a, y_b) if blocking else math.nan,
    )


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Mean of the per-image values: what is not defined (`nan`) is left out, one `inf` makes its mean `inf`."""

    def mean(name: str) -> float:
        values = [value for value in (getattr(s, name) for s in scores) if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan

    return Scores(**{field.name: mean(field.name) for field in fields(Scores)})


def crop_border(image: NDArray[Any], border: int) -> NDArray[Any]:
    """The view of an (H, W, ...) image without `border` pixels along each edge."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def luma(
    image: NDArray[Any], peak: float = 255.0, *, rounded: bool = False, gray_is_luma: bool = False
) -> NDArray[np.float64]:
    """Y of an (H, W), (H, W, 1) or (H, W, 3) image as float64 (H, W) on the 8-bit scale.

    RGB gives BT.601 studio swing, 16..235. Gray counts as RGB of equal channels, or is Y itself with `gray_is_luma`.
    """
    image = _channels_last(image)
    if image.shape[2] == 1 and gray_is_luma:
        y = _to_8bit_scale(image[..., 0], peak)
    else:
        rgb = np.broadcast_to(image, (*image.shape[:2], 3))
        y = np.empty(image.shape[:2])
        for rows in _bands(*image.shape[:2]):
            y[rows] = rgb_to_y(rgb[rows] / peak)
    return np.round(y, out=y) if rounded else y


def psnr(truth: NDArray[Any], restored: NDArray[Any], peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB over all samples; `inf` when there is no difference."""
    return _decibels(_mse(truth, restored, peak))


def psnr_b(truth: NDArray[Any], restored: NDArray[Any], peak: float = 255.0) -> float:
    """PSNR with a penalty for steps at the 8x8 block edges of the *restored* image, both (H, W); in dB.

    Source: Yim and Bovik, "Quality assessment of deblocked images", 2011.
    """
    return _decibels(_mse(truth, restored, peak) + _blocking_effect(_to_8bit_scale(restored, peak)))


def ssim(truth: NDArray[Any], restored: NDArray[Any], peak: float = 255.0) -> float:
    """Structural similarity, the mean over the channels; `nan` for an image below 11 pixels on a side.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
    """
    a, b = np.broadcast_arrays(_channels_last(truth), _channels_last(restored))
    height, width, channels = a.shape
    if min(height, width) < _WINDOW:
        return math.nan
    total = 0.0
    for top in range(0, height - _WINDOW + 1, _SSIM_BLOCK):
        for left in range(0, width - _WINDOW + 1, _SSIM_BLOCK):
            reach = np.s_[top : top + _SSIM_BLOCK + _WINDOW - 1, left : left + _SSIM_BLOCK + _WINDOW - 1]
            for channel in range(channels):
                x, y = (_to_8bit_scale(image[reach][..., channel], peak) for image in (a, b))
                total += float(_ssim_map(x, y).sum())
    return total / float(channels * (height - _WINDOW + 1) * (width - _WINDOW + 1))


def _ssim_map(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """SSIM at every position of the window: (H, W) twice -> (H - 10, W - 10)."""
    # The formula needs the two variances only as their sum, so four filtered planes do.
    mean_a, mean_b, squares, product = _gaussian(np.stack([a, b, a * a + b * b, a * b]))
    means = mean_a * mean_b
    power = mean_a * mean_a + mean_b * mean_b
    similarity: NDArray[np.float64] = 2 * means + _C1
    similarity *= 2 * (product - means) + _C2
    similarity /= (power + _C1) * (squares - power + _C2)
    return similarity


def _gaussian(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter (N, H, W) with the window where it fits -> (N, H - 10, W - 10)."""
    # On blocks this small two dense products are five times as fast as adding shifted copies.
    filtered: NDArray[np.float64] = _window_matrix(planes.shape[1]) @ planes @ _window_matrix(planes.shape[2]).T
    return filtered


@functools.lru_cache(maxsize=8)
def _window_matrix(size: int) -> NDArray[np.float64]:
    """The window along one axis as a matrix, (size - 10, size)."""
    distance = np.arange(size) - np.arange(size - _WINDOW + 1)[:, None] - _RADIUS
    weights: NDArray[np.float64] = np.where(np.abs(distance) <= _RADIUS, np.exp(-0.5 * (distance / 1.5) ** 2), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _blocking_effect(image: NDArray[np.float64]) -> float:
    """Blocking effect factor of an (H, W) image: how much the steps across block edges exceed those inside."""
    edge, inside = [], []
    for steps in (np.diff(image, axis=0) ** 2, np.diff(image.T, axis=0) ** 2):
        at_edge = np.arange(1, len(steps) + 1) % _JPEG_BLOCK == 0
        edge.append(steps[at_edge].ravel())
        inside.append(steps[~at_edge].ravel())
    across, within = np.concatenate(edge), np.concatenate(inside)
    if not across.size:
        return 0.0
    excess = float(across.mean() - within.mean())
    return excess * math.log2(_JPEG_BLOCK) / math.log2(min(image.shape)) if excess > 0 and min(image.shape) > 1 else 0.0


def _mse(truth: NDArray[Any], restored: NDArray[Any], peak: float) -> float:
    """Mean squared difference on the 8-bit scale."""
    a, b = np.broadcast_arrays(_channels_last(truth), _channels_last(restored))
    total = 0.0
    for rows in _bands(*a.shape[:2]):
        difference = np.subtract(a[rows], b[rows], dtype=np.float64).ravel()
        total += float(difference @ difference)
    return total / float(a.size) * (255 / peak) ** 2


def _bands(height: int, width: int) -> Iterator[slice]:
    """Consecutive row ranges that cover 0..height."""
    step = max(1, _BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _decibels(mse: float) -> float:
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def _to_8bit_scale(image: NDArray[Any], peak: float) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = np.multiply(image, 255 / peak, dtype=np.float64)
    return scaled


def _channels_last(image: NDArray[Any]) -> NDArray[Any]:
    return image[..., None] if image.ndim == 2 else image


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
