"""Degradations are those of the published tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pictures import gray_photo, photo
from PIL import Image

from bbcu_cli.errors import UsageError
from bbcu_cli.image.color import rgb_to_y
from bbcu_cli.score.degrade import add_noise, bicubic_matrix, jpeg_luma, resize_bicubic


@pytest.mark.parametrize(("n_in", "n_out"), [(8, 8), (12, 3), (3, 12), (7, 5), (1, 4), (40, 10)])
def test_every_row_of_the_matrix_sums_to_one(n_in: int, n_out: int) -> None:
    """A flat image stays flat at any ratio, also when the kernel is wider than the image."""
    np.testing.assert_allclose(bicubic_matrix(n_in, n_out).sum(axis=1), 1, rtol=1e-12)


def test_matrix_of_the_same_size_is_the_identity() -> None:
    """Nothing is resampled when the size stays."""
    np.testing.assert_allclose(bicubic_matrix(9, 9), np.eye(9), atol=1e-12)


def test_doubling_has_the_weights_of_keys_kernel() -> None:
    """Doubling samples a = -0.5 at a quarter and three quarters; beyond the edge the first pixel comes again."""
    weights = np.array([-0.0703125, 0.8671875, 0.2265625, -0.0234375])
    matrix = bicubic_matrix(6, 12)
    np.testing.assert_allclose(matrix[5, 1:5], weights, atol=1e-12)
    np.testing.assert_allclose(matrix[0, :3], [0.8671875 + 0.2265625, -0.0703125 - 0.0234375, 0], atol=1e-12)


def test_resizing_bytes_rounds_and_clips() -> None:
    """uint8 in, uint8 out: the float result rounded, overshoot clipped."""
    image = np.zeros((8, 8), np.uint8)
    image[:, 4:] = 255
    exact = resize_bicubic(image.astype(np.float64), (16, 16))
    assert exact.min() < 0
    assert exact.max() > 255
    np.testing.assert_array_equal(resize_bicubic(image, (16, 16)), np.clip(np.floor(exact + 0.5), 0, 255))


def test_resizing_treats_channels_and_axes_alike() -> None:
    """Each channel is resized by itself, and transposing the image transposes the result."""
    image = photo(24, 36)
    small = resize_bicubic(image, (8, 9))
    assert small.shape == (8, 9, 3)
    np.testing.assert_array_equal(small[..., 1], resize_bicubic(image[..., 1], (8, 9)))
    np.testing.assert_array_equal(small.transpose(1, 0, 2), resize_bicubic(image.transpose(1, 0, 2), (9, 8)))


def test_resizing_to_nothing_is_refused() -> None:
    """A size of zero names both lengths."""
    with pytest.raises(UsageError, match="8 pixels to 0"):
        resize_bicubic(np.zeros((8, 8)), (0, 4))


def test_noise_is_the_papers() -> None:
    """One draw of normal(0, sigma / 255) in the image's shape, not clipped."""
    image = np.full((5, 6, 3), 0.99)
    noisy = add_noise(image, 25, np.random.RandomState(0))
    np.random.seed(0)  # noqa: NPY002 - the published test seeds the global stream
    np.testing.assert_array_equal(noisy, image + np.random.normal(0, 25 / 255, (5, 6, 3)))  # noqa: NPY002
    assert noisy.max() > 1


def test_jpeg_is_pillows_grayscale_jpeg() -> None:
    """The pixels are those that a grayscale file of that quality decodes to."""
    y = gray_photo(41, 53)
    buffer = io.BytesIO()
    Image.fromarray(y).save(buffer, "JPEG", quality=10)
    np.testing.assert_array_equal(jpeg_luma(y, 10), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("quality", [0, 101])
def test_impossible_quality_is_refused(quality: int) -> None:
    """Left alone, libjpeg would clamp it in silence."""
    with pytest.raises(UsageError, match=str(quality)):
        jpeg_luma(np.zeros((8, 8), np.uint8), quality)


@pytest.mark.parametrize(("scale", "published"), [(2, 33.68), (3, 30.40), (4, 28.43)])
def test_bicubic_scores_on_set5_are_the_published_ones(shared: Path, scale: int, published: float) -> None:
    """Down and up again by MATLAB's bicubic gives the score that every paper prints."""
    scores = []
    for path in sorted((shared / "data" / "test" / "Set5").glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"))
        height, width = (n // scale * scale for n in image.shape[:2])
        image = image[:height, :width]
        up = resize_bicubic(resize_bicubic(image, (height // scale, width // scale)), (height, width))
        error = (rgb_to_y(up / 255) - rgb_to_y(image / 255))[scale:-scale, scale:-scale]
        scores.append(10 * np.log10(255**2 / np.mean(error**2)))
    assert np.mean(scores) == pytest.approx(published, abs=0.006)
