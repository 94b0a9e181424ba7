"""How a sharp image becomes the input of each task: MATLAB's bicubic, Gaussian noise, grayscale JPEG.

These are the conventions of the published tables; training in batches (`train.data`) uses the same ones.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bbcu_cli.errors import UsageError


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(n_in: int, n_out: int) -> NDArray[np.float64]:
    """MATLAB's ``imresize(..., 'bicubic')`` along one axis, as a matrix.

    Antialiased when it shrinks (the kernel is widened by n_in / n_out); edges are mirrored (symmetric).

    Returns:
        float64 (n_out, n_in); each row sums to 1.

    Raises:
        UsageError: a length is not positive.
    """
    if n_in < 1 or n_out < 1:
        raise UsageError(f"Cannot resize {n_in} pixels to {n_out}: both must be at least 1.")
    scale = n_out / n_in
    width = 4 / min(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    taps = np.floor(centre - width / 2)[:, None] + np.arange(np.ceil(width) + 2)
    weights = _cubic((centre[:, None] - taps) * min(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    # Symmetric edges: -1 is 0, -2 is 1, ..., n is n - 1; periodic with 2n, so any kernel width is covered.
    index = taps.astype(np.int64) % (2 * n_in)
    index = np.where(index < n_in, index, 2 * n_in - 1 - index)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], index), weights)
    return matrix


def resize_bicubic(image: NDArray[Any], out_hw: tuple[int, int]) -> NDArray[Any]:
    """Resize as MATLAB does.

    Args:
        image: (H, W) or (H, W, C), uint8, or float in 0..1.
        out_hw: the size asked for, (height, width).

    Returns:
        The same kind of array: uint8 is rounded and clipped, float is float64 and not clipped.

    Raises:
        UsageError: a size is not positive.
    """
    rows, columns = (bicubic_matrix(n_in, n_out) for n_in, n_out in zip(image.shape[:2], out_hw, strict=True))
    resized = np.tensordot(rows, image.astype(np.float64), axes=(1, 0))
    resized = np.moveaxis(np.tensordot(columns, resized, axes=(1, 1)), 0, 1)
    # MATLAB rounds halves away from zero, and what is below zero is clipped anyway.
    return np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else resized


def add_noise(
    image: NDArray[Any], sigma: float, rng: np.random.RandomState | np.random.Generator
) -> NDArray[np.float64]:
    """Additive white Gaussian noise, neither clipped nor rounded.

    Args:
        image: float (H, W, C) in 0..1.
        sigma: standard deviation in 8-bit units (25 is 25 / 255).
        rng: the paper's test uses ``numpy.random.RandomState(0)`` anew for each image.
    """
    return image + rng.normal(0, sigma / 255, image.shape)


def jpeg_luma(y: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Encode as a grayscale baseline JPEG and decode again.

    Args:
        y: uint8 (H, W), in this field the rounded studio-swing luma.
        quality: libjpeg's 1..100.

    Raises:
        UsageError: the quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"JPEG quality is {quality}, expected 1..100.")
    buffer = io.BytesIO()
    Image.fromarray(y).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded)
