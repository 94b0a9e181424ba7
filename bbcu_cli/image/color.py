"""Colour arithmetic on numpy arrays: YCbCr in both swings, alpha, integers <-> floats.

Two YCbCr are in use. Studio swing (Y in 16..235), MATLAB's rgb2ycbcr, is what the papers' tables are counted in and
what the deblocking network was trained on. Full range (0..255) is what a JPEG file itself holds (JFIF).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# ITU-R BT.601, studio swing, for RGB in 0..1 -> Y in 16..235, Cb and Cr in 16..240 (MATLAB's rgb2ycbcr).
_TO_YCBCR: Final = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_OFFSET: Final = np.array([16.0, 128.0, 128.0])

# The same standard, full range: R, G, B in 0..1 -> Y in 0..1, Cb and Cr in 0..1 around 0.5 (JFIF 1.02, section 7).
_TO_JFIF: Final = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_JFIF_OFFSET: Final = np.array([0.0, 0.5, 0.5])


_BAND_SAMPLES: Final = 1 << 18  # that are widened at a time


def rgb_to_ycbcr(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """RGB (..., 3) in 0..1 -> studio-swing YCbCr (..., 3) in 8-bit units, not rounded. Source: MATLAB's rgb2ycbcr."""
    ycbcr: NDArray[np.float64] = rgb.astype(np.float64) @ _TO_YCBCR.T + _OFFSET
    return ycbcr


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """RGB (..., 3) in 0..1 -> studio-swing luma (...) in 16..235, not rounded: the Y of the paper's tables."""
    luma: NDArray[np.float64] = rgb.astype(np.float64) @ _TO_YCBCR[0] + _OFFSET[0]
    return luma


def ycbcr_to_rgb(ycbcr: NDArray[Any]) -> NDArray[np.float64]:
    """Inverse of `rgb_to_ycbcr`; not clipped."""
    rgb: NDArray[np.float64] = (ycbcr.astype(np.float64) - _OFFSET) @ np.linalg.inv(_TO_YCBCR).T
    return rgb


def rgb_to_jfif(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """RGB (..., 3) in 0..1 -> full-range YCbCr (..., 3) in 0..1, as in a JPEG file; not rounded. Source: JFIF 1.02."""
    ycbcr: NDArray[np.float32] = rgb.astype(np.float32) @ _TO_JFIF.T.astype(np.float32) + np.float32(_JFIF_OFFSET)
    return ycbcr


def jfif_to_rgb(ycbcr: NDArray[Any]) -> NDArray[np.float32]:
    """Inverse of `rgb_to_jfif`; not clipped."""
    rgb: NDArray[np.float32] = (ycbcr - np.float32(_JFIF_OFFSET)) @ np.linalg.inv(_TO_JFIF).T.astype(np.float32)
    return rgb


def to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 or uint16 of any shape -> float32 in 0..1."""
    floats: NDArray[np.float32] = samples.astype(np.float32)
    floats /= np.iinfo(samples.dtype).max
    return floats


def to_integer(values: NDArray[Any], depth: int) -> NDArray[Any]:
    """Floats of any shape, clipped to 0..1 -> uint8 or uint16 (`depth` 8 or 16), rounded; the inverse of `to_float`."""
    dtype = np.dtype(f"u{depth // 8}")
    scaled: NDArray[Any] = np.rint(np.clip(values, 0, 1) * np.float32(np.iinfo(dtype).max))
    return scaled.astype(dtype)


def to_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 -> the nearest uint8 (v / 257, rounded); uint8 as it is."""
    if samples.dtype == np.uint8:
        return samples
    small = np.empty(samples.shape, np.uint8)
    step = max(1, _BAND_SAMPLES * len(samples) // max(1, samples.size))
    for top in range(0, len(samples), step):
        # Exact in 32 bits: (v + 128) / 257 rounded down is v / 257 rounded, as 257 is odd.
        small[top : top + step] = (samples[top : top + step].astype(np.uint32) + 128) // 257
    return small


def premultiply(rgb: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float32]:
    """Float colour (H, W, C) times opacity (H, W), all in 0..1: what may be filtered without coloured fringes."""
    colour: NDArray[np.float32] = rgb.astype(np.float32) * alpha[..., None].astype(np.float32)
    return colour


def unpremultiply(rgb: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Inverse of `premultiply` for floats in 0..1 or integers of one dtype; where alpha is 0 the colour is 0."""
    most = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    opacity = alpha[..., None].astype(np.float32) / np.float32(most)
    colour: NDArray[Any] = np.zeros(rgb.shape, np.float32)
    np.divide(rgb, opacity, out=colour, where=opacity > 0)
    np.clip(colour, 0, most, out=colour)
    if rgb.dtype.kind == "u":
        np.rint(colour, out=colour)
    return colour.astype(rgb.dtype)
