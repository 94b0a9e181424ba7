"""Colour arithmetic on numpy arrays: gray / RGB / YCbCr, integer <-> float."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# ITU-R BT.601, studio swing, for RGB in 0..1 -> Y in 16..235, Cb and Cr in 16..240 (MATLAB's rgb2ycbcr).
_TO_YCBCR: Final = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_OFFSET: Final = np.array([16.0, 128.0, 128.0])


def rgb_to_ycbcr(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """RGB (..., 3) in 0..1 -> studio-swing YCbCr (..., 3) in 8-bit units, not rounded. Source: BT.601, MATLAB rgb2ycbcr."""
    return rgb.astype(np.float64) @ _TO_YCBCR.T + _OFFSET


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """RGB (..., 3) in 0..1 -> studio-swing luma (...) in 16..235, not rounded: the Y of the paper's tables."""
    return rgb.astype(np.float64) @ _TO_YCBCR[0] + _OFFSET[0]


def ycbcr_to_rgb(ycbcr: NDArray[Any]) -> NDArray[np.float64]:
    """Inverse of `rgb_to_ycbcr`; not clipped."""
    return (ycbcr.astype(np.float64) - _OFFSET) @ np.linalg.inv(_TO_YCBCR).T
