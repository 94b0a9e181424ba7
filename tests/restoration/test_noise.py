"""The estimated noise level."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from bbcu_cli.image import Image
from bbcu_cli.restoration.noise import estimate_noise
from bbcu_cli.score.camera import MID_GRAY, Camera, camera_noise, read_noise
from bbcu_cli.score.photos import compress_jpeg, to_pixels


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_known_noise_is_estimated(sigma: float) -> None:
    """Within a tenth and one level, in 8 and 16 bits, gray and colour."""
    rng = np.random.default_rng(sigma)
    flat = np.full((256, 256, 3), 128.0)
    for levels, dtype in ((1, np.uint8), (257, np.uint16)):
        noisy = np.clip(flat + sigma * rng.standard_normal(flat.shape), 0, 255)
        samples = np.rint(noisy * levels).astype(dtype)
        for pixels in (samples, samples[..., :1]):
            assert estimate_noise(Image(pixels)).sigma == pytest.approx(sigma, rel=0.06, abs=0.3)


def test_a_photo_adds_little_to_the_estimate() -> None:
    """Edges and texture hardly move it."""
    photo = astronaut()
    assert estimate_noise(Image(photo)).sigma < 4
    noisy = np.clip(photo + 20 * np.random.default_rng(0).standard_normal(photo.shape), 0, 255)
    assert estimate_noise(Image(np.rint(noisy).astype(np.uint8))).sigma == pytest.approx(20, abs=2.5)


@pytest.mark.parametrize("quality", [85, 90, 96])
def test_a_jpeg_hides_little_of_the_noise(quality: int) -> None:
    """Of a usual one; a worse one leaves little of weak noise."""
    photo, rng = astronaut(), np.random.default_rng(2)
    for sigma in (8, 15, 25):
        noisy = to_pixels(photo + sigma * rng.standard_normal(photo.shape))
        assert estimate_noise(Image(compress_jpeg(noisy, quality))).sigma == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("sigma", [5, 10, 20])
def test_the_noise_of_a_camera_is_estimated_in_spite_of_its_smoothing(sigma: float) -> None:
    """Where the picture is of the brightness for which its level is stated."""
    card = np.full((256, 256, 3), MID_GRAY, np.uint8)
    for smoothing in (0.4, 1.0):
        camera = Camera(shot=2e-3, read=read_noise(2e-3), luma=smoothing, chroma=2 * smoothing)
        noisy = to_pixels(card + camera_noise(card, sigma, camera, np.random.default_rng(3)))
        assert estimate_noise(Image(noisy)).sigma == pytest.approx(sigma, rel=0.35)


def test_a_large_picture_is_looked_at_in_strips() -> None:
    """And gives the same figure, to the half level that whole samples leave a median; the smallest give 0."""
    rng = np.random.default_rng(1)
    large = np.clip(128 + 10 * rng.standard_normal((3001, 4001, 1)), 0, 255).round().astype(np.uint8)
    assert estimate_noise(Image(large)).sigma == pytest.approx(10, abs=0.5)
    for size in ((1, 1, 3), (1, 9, 1), (9, 1, 3)):
        assert estimate_noise(Image(np.zeros(size, np.uint8))).sigma == 0


def test_calm_places_tell_the_noise_of_a_textured_picture() -> None:
    """Texture on three quarters of a picture counts little."""
    rng = np.random.default_rng(4)
    picture = 128 + 4 * rng.standard_normal((256, 256, 1))
    picture[:192] += rng.choice([-40, 40], (192, 256, 1))
    assert estimate_noise(Image(np.rint(picture).astype(np.uint8))).sigma == pytest.approx(4, abs=0.8)


def test_black_bars_and_blown_out_places_tell_nothing() -> None:
    """Noise is cut off at both ends; what is left of the picture tells it."""
    rng = np.random.default_rng(5)
    picture = 128 + 12 * rng.standard_normal((256, 320, 3))
    picture[:64] = 0
    picture[:, :64] = 255 + 12 * rng.standard_normal((256, 64, 3))
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    assert estimate_noise(Image(pixels)).sigma == pytest.approx(12, rel=0.1)
    assert estimate_noise(Image(np.zeros((64, 64, 3), np.uint8))).sigma == 0


def test_a_drawing_on_white_paper_is_not_noise() -> None:
    """Where nearly every block is white, the few others, full of lines, do not speak for the picture."""
    rng = np.random.default_rng(8)
    picture = np.full((1024, 1024, 1), 255.0)
    picture[:64, :64] = rng.choice([0, 255], (64, 64, 1))
    noisy = picture + 5 * rng.standard_normal(picture.shape)
    assert estimate_noise(Image(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))).sigma < 6


def test_texture_is_told_from_noise() -> None:
    """Sparse detail all over a picture has longer tails than noise; then the finest detail tells."""
    rng = np.random.default_rng(9)
    noise = 4 * rng.standard_normal((128, 128))
    sparse = noise * (rng.random(noise.shape) < 0.3)
    for detail, least, most in ((noise, 7, 9), (sparse, 0, 2)):
        picture = 128 + np.kron(detail, np.ones((2, 2)))[..., None]
        assert least <= estimate_noise(Image(np.rint(picture).astype(np.uint8))).sigma <= most


def test_white_noise_is_told_from_that_of_a_camera() -> None:
    """Noise that was blurred is stronger at half the size than white noise, whatever lies below it."""
    rng = np.random.default_rng(6)
    noise = 10 * rng.standard_normal((514, 514, 3))
    blurred = sum(noise[y : y + 512, x : x + 512] for y in (0, 1) for x in (0, 1)) / 2
    for below in (128.0, astronaut() * 0.5 + 64):
        white, camera = (
            estimate_noise(Image(np.rint(below + n).astype(np.uint8))) for n in (noise[:512, :512], blurred)
        )
        assert white.correlation < 1.5
        assert camera.correlation > 2.4
    assert estimate_noise(Image(np.full((64, 64, 3), 77, np.uint8))).correlation == 1
