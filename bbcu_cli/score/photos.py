"""How files that people have came to be: the encoders of cameras and web sites, other reductions, noise of a camera.

Pure functions of one picture, for training pairs and for the inputs of an evaluation alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bbcu_cli.errors import UsageError
from bbcu_cli.score.degrade import bicubic_matrix

Pixels = NDArray[np.uint8]
Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Kernel = Literal["bicubic", "lanczos", "area", "bilinear"]
Read = Callable[[bytes], Pixels]
"""The content of a file -> the picture that is made of it."""

# How far a compressed block reaches: an MCU of 4:2:0, and a macroblock of WebP, have 16 x 16 pixels.
BLOCK: Final = 16

_FILTERS: Final = {
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
}


def decoded(file: bytes) -> Pixels:
    """The picture of a file, uint8 (H, W, 3), by its decoder."""
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened.convert("RGB"))


def jpeg_bytes(rgb: Pixels, quality: int, sampling: Sampling = "4:2:0") -> bytes:
    """The file of a colour JPEG.

    Args:
        rgb: uint8 (H, W, 3).
        quality: libjpeg's 1..100.
        sampling: of chroma.

    Raises:
        UsageError: the quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"JPEG quality is {quality}, expected 1..100.")
    return _file(rgb, format="JPEG", quality=quality, subsampling=sampling)


def compress_jpeg(
    rgb: Pixels,
    quality: int,
    sampling: Sampling = "4:2:0",
    phase: tuple[int, int] = (0, 0),
    read: Read = decoded,
) -> Pixels:
    """A picture after a colour JPEG.

    Args:
        rgb: uint8 (H, W, 3).
        quality: libjpeg's 1..100.
        sampling: of chroma.
        phase: rows and columns that the picture is away from the encoder's grid, as if so many had been cropped
            from the top and the left after compression; its edge stands in for them.
        read: what makes the picture of the file.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UsageError: the quality is out of range.
    """
    return read(jpeg_bytes(_shifted(rgb, phase), quality, sampling))[phase[0] :, phase[1] :]


def compress_webp(rgb: Pixels, quality: int, phase: tuple[int, int] = (0, 0), read: Read = decoded) -> Pixels:
    """A picture after a lossy WebP.

    Args:
        rgb: uint8 (H, W, 3).
        quality: libwebp's 0..100.
        phase, read: as for `compress_jpeg`.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UsageError: the quality is out of range.
    """
    if not 0 <= quality <= 100:
        raise UsageError(f"WebP quality is {quality}, expected 0..100.")
    # Method 2 searches less than the usual 4: the same artefacts in half the time.
    return read(_file(_shifted(rgb, phase), format="WEBP", quality=quality, method=2))[phase[0] :, phase[1] :]


def _shifted(rgb: Pixels, phase: tuple[int, int]) -> Pixels:
    return np.pad(rgb, ((phase[0], 0), (phase[1], 0), (0, 0)), mode="edge") if any(phase) else rgb


def _file(rgb: Pixels, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, **how)
    return buffer.getvalue()


def reduce(rgb: Pixels, scale: int, kernel: Kernel = "bicubic") -> Pixels:
    """Reduce by a whole factor, antialiased.

    Args:
        rgb: uint8 (S*H, S*W, 3).
        scale: S.
        kernel: "bicubic" is MATLAB's, `degrade.resize_bicubic` in float32; the others are Pillow's.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = rgb.shape[0] // scale, rgb.shape[1] // scale
    if kernel == "bicubic":
        rows, columns = (bicubic_matrix(n * scale, n).astype(np.float32) for n in (height, width))
        planes = rgb[: height * scale, : width * scale].transpose(2, 0, 1).astype(np.float32)
        small: Pixels = to_pixels(np.floor(rows @ planes @ columns.T + np.float32(0.5))).transpose(1, 2, 0)
        return small
    return np.asarray(Image.fromarray(rgb).resize((width, height), _FILTERS[kernel]))


def blur(rgb: Pixels, sigma: float) -> Pixels:
    """A Gaussian blur of that standard deviation in pixels (Pillow's, by three box filters)."""
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def to_pixels(samples: NDArray[np.floating]) -> Pixels:
    """Samples in 0..255 as a file holds them: rounded and clipped."""
    pixels: Pixels = np.clip(np.rint(samples), 0, 255).astype(np.uint8)
    return pixels
