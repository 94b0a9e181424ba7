"""The noise of a camera's finished picture: weak, signal-dependent, long in chroma.

A sensor counts light through a Bayer mosaic: shot noise grows with the light, read noise does not. White balance,
demosaicing and the colour matrix spread that noise over pixels and channels, the camera smooths it (chroma far more
than luma), and the tone curve scales it with the brightness. All of this but the tone curve is linear, so the noise
is made alone and added to the picture: the picture itself has been through a camera already and is not harmed again.

Sources: Brooks et al., "Unprocessing Images for Learned Raw Denoising" (CVPR 2019), for shot and read noise and the
gains; Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned
color images" (ICASSP 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.errors import UsageError

Floats = NDArray[np.float32]
Demosaicing = Literal["bilinear", "malvar"]

# The brightness, in 8-bit units of the finished picture, at which a noise level is stated.
MID_GRAY: Final = 118

# Brooks et al.: shot noise is uniform in its logarithm over this range, and read noise lies about a line over it.
SHOT: Final = (1e-4, 1.2e-2)
_READ_SLOPE: Final = 2.18
_READ_OFFSET: Final = 1.20

# A colour matrix from camera to sRGB of usual strength; each row sums to 1, so gray stays gray.
_COLOUR: Final = np.array([[1.75, -0.60, -0.15], [-0.20, 1.55, -0.35], [0.02, -0.52, 1.50]])

# Full-range BT.601, as in a JPEG file.
_TO_YCC: Final = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB: Final = np.linalg.inv(_TO_YCC)


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera and its setting, apart from the level of its noise.

    Attributes:
        shot: variance of the shot noise over the light, full scale being 1.
        read: variance of the read noise.
        red, blue: white-balance gains of those channels; green has 1.
        colour: strength of the colour matrix; 0 is none, 1 is usual.
        contrast: slope of the S-shaped tone curve, a sigmoid of sRGB-encoded light; 0 is sRGB's curve alone.
        middle: where that sigmoid is steepest, in encoded light.
        demosaicing: how missing colours are interpolated.
        luma: scale, in pixels, of the smoothing of noise in Y; 0 is none.
        chroma: likewise in Cb and Cr.
        tail: exponent of the smoothing kernel exp(-|d / scale| ** tail): 2 is a Gaussian, 1 has long tails.
    """

    shot: float
    read: float
    red: float = 2.0
    blue: float = 1.7
    colour: float = 1.0
    contrast: float = 5.0
    middle: float = 0.4
    demosaicing: Demosaicing = "malvar"
    luma: float = 0.0
    chroma: float = 0.0
    tail: float = 2.0


def read_noise(shot: float) -> float:
    """The read noise that goes with a shot noise, on the line of Brooks et al."""
    return float(np.exp(_READ_SLOPE * np.log(shot) + _READ_OFFSET))


def noise_curve(camera: Camera) -> Floats:
    """Standard deviation of the noise by brightness, relative to that at `MID_GRAY`.

    Variance `shot * x + read` of linear light x, times the squared slope of the tone curve.

    Returns:
        float32 (256,), by the 8-bit value of the finished picture.
    """
    light = np.linspace(0, 1, 257) ** 2  # dense where the curve is steep
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    if camera.contrast > 0:
        sigmoid = 1 / (1 + np.exp(-camera.contrast * (encoded - camera.middle)))
        encoded = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    by_light = np.gradient(encoded, light) * np.sqrt(camera.shot * light + camera.read)
    deviation = np.interp(np.arange(256) / 255, encoded, by_light)
    relative: Floats = (deviation / deviation[MID_GRAY]).astype(np.float32)
    return relative


def camera_noise(rgb: NDArray[np.uint8], sigma: float, camera: Camera, rng: np.random.Generator) -> Floats:
    """Noise of that camera for one picture.

    Args:
        rgb: uint8 (H, W, 3), the clean finished picture.
        sigma: standard deviation at `MID_GRAY` in 8-bit units, over the three channels.
        camera: how the noise is made.
        rng: of the noise, and of where the Bayer pattern begins.

    Returns:
        float32 (H, W, 3) in 8-bit units, to be added to the picture.

    Raises:
        UsageError: the level is negative.
    """
    if sigma < 0:
        raise UsageError(f"The noise level is {sigma:g}, expected 0 or more.")
    height, width, _ = rgb.shape
    # The pattern repeats every 2 pixels, and an even field can be filtered in a circle, without edges.
    field = _gray_noise((height + height % 2, width + width % 2), camera, rng)[:height, :width]
    noise: Floats = sigma * noise_curve(camera)[rgb] * field
    return noise


def _gray_noise(size: tuple[int, int], camera: Camera, rng: np.random.Generator) -> Floats:
    """Noise of a gray card, float32 (H, W, 3) with standard deviation 1 over all channels; H and W are even."""
    gains = np.array([camera.red, 1.0, camera.blue])
    light = (MID_GRAY / 255) ** 2.2
    # Gains scale what the sensor saw, light / gain with its noise, back to gray.
    deviation = np.sqrt(camera.shot * light * gains + camera.read * gains**2)
    mosaic = rng.standard_normal(size, dtype=np.float32)
    for top, left, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[top::2, left::2] *= np.float32(deviation[channel])
    matrix = np.eye(3) + camera.colour * (_COLOUR - np.eye(3))
    interpolated = demosaic(mosaic, camera.demosaicing)
    ycc = (_TO_YCC @ matrix).astype(np.float32) @ interpolated.reshape(-1, 3).T
    scales = (camera.luma, camera.chroma, camera.chroma)
    planes = [smooth(plane.reshape(size), scale, camera.tail) for plane, scale in zip(ycc, scales, strict=True)]
    field: Floats = (np.stack(planes, axis=2).reshape(-1, 3) @ _TO_RGB.T.astype(np.float32)).reshape(*size, 3)
    top, left = rng.integers(0, 2, 2)
    return np.roll(field / field.std(), (int(top), int(left)), (0, 1))


def demosaic(mosaic: Floats, how: Demosaicing) -> Floats:
    """Interpolate the missing colours of an RGGB mosaic, in a circle.

    Args:
        mosaic: float32 (H, W), H and W even; red is at (0, 0), blue at (1, 1).
        how: "bilinear", or the 5 x 5 linear filters of Malvar, He and Cutler.

    Returns:
        float32 (H, W, 3).
    """
    height, width = mosaic.shape
    around = np.pad(mosaic, 2, mode="wrap")

    def at(down: int, right: int) -> Floats:
        """The mosaic's neighbour at that offset, for every pixel."""
        return around[2 + down : 2 + down + height, 2 + right : 2 + right + width]

    beside, above = at(0, -1) + at(0, 1), at(-1, 0) + at(1, 0)
    corners = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
    green, row, column, cross = (beside + above) / 4, beside / 2, above / 2, corners / 4
    if how == "malvar":
        far_row, far_column = at(0, -2) + at(0, 2), at(-2, 0) + at(2, 0)
        far = far_row + far_column
        green = green + mosaic / 2 - far / 8
        row = row + (5 * mosaic - corners - far_row + far_column / 2) / 8
        column = column + (5 * mosaic - corners - far_column + far_row / 2) / 8
        cross = cross + 3 / 4 * mosaic - 3 / 16 * far
    rgb = np.repeat(mosaic[..., None], 3, axis=2)
    red, blue = (slice(0, None, 2), slice(0, None, 2)), (slice(1, None, 2), slice(1, None, 2))
    on_red_row, on_blue_row = (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))
    for site, filters in (
        (red, {1: green, 2: cross}),
        (blue, {1: green, 0: cross}),
        (on_red_row, {0: row, 2: column}),
        (on_blue_row, {2: row, 0: column}),
    ):
        for channel, filtered in filters.items():
            rgb[..., channel][site] = filtered[site]
    return rgb


def smooth(plane: Floats, scale: float, tail: float = 2.0) -> Floats:
    """Filter with exp(-|d / scale| ** tail) along both axes, in a circle.

    Args:
        plane: float32 (H, W).
        scale: in pixels; 0 gives the plane itself.
        tail: 2 is a Gaussian of standard deviation scale / sqrt(2), 1 an exponential.

    Returns:
        float32 (H, W).
    """
    if scale == 0:
        return plane

    def circulant(count: int) -> Floats:
        """The filter along an axis as a symmetric matrix: of patches it is faster than any loop or transform."""
        index = np.arange(count)
        kernel = np.exp(-((np.minimum(index, count - index) / scale) ** tail))
        matrix: Floats = (kernel / kernel.sum()).astype(np.float32)[index[:, None] - index]
        return matrix

    rows, columns = (circulant(count) for count in plane.shape)
    return np.asarray(rows @ plane @ columns, dtype=np.float32)
