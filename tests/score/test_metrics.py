"""PSNR, SSIM and PSNR-B against published figures, scikit-image and plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bbcu_cli.errors import UsageError
from bbcu_cli.score.degrade import jpeg_luma, resize_bicubic
from bbcu_cli.score.metrics import Convention, Scores, crop_border, luma, mean_scores, psnr, psnr_b, score, ssim


def _read(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def _noisy_pair(shape, seed=0, spread=20):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, shape).astype(np.uint8)
    return truth, np.clip(truth + rng.integers(-spread, spread + 1, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("scale", "decibels", "similarity"), [(2, 33.68, 0.9305), (4, 28.43, 0.8113)])
def test_bicubic_on_set5_scores_what_the_literature_says(shared, scale, decibels, similarity):
    """The whole chain (MATLAB bicubic, uint8 LR and SR, border, studio Y) gives the published baseline."""
    rows = []
    for image in _read(shared / "data/test/Set5"):
        height, width = (n // scale * scale for n in image.shape[:2])
        truth = image[:height, :width]
        small = resize_bicubic(truth, (height // scale, width // scale))
        rows.append(score(truth, resize_bicubic(small, (height, width)), Convention(border=scale)))
    mean = mean_scores(rows)
    assert round(mean.psnr_y, 2) == decibels
    assert round(mean.ssim_y, 4) == similarity


def test_jpeg_quality_10_on_classic5_scores_what_the_literature_says(shared):
    """PSNR 27.82, SSIM .7595 and PSNR-B 25.21 are the published scores of the undeblocked images."""
    convention = Convention(round_luma=True, gray_is_luma=True)
    mean = mean_scores(
        [score(y, jpeg_luma(y, 10), convention, blocking=True) for y in _read(shared / "data/test/Classic5")]
    )
    assert (round(mean.psnr_y, 2), round(mean.ssim_y, 4), round(mean.psnrb_y, 2)) == (27.82, 0.7595, 25.21)


@pytest.mark.parametrize("shape", [(11, 11), (12, 40), (150, 139), (300, 61)])
def test_ssim_agrees_with_scikit_image(shape):
    """The valid region of scikit-image's map has our mean, also where our blocks of the image meet."""
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    truth, restored = _noisy_pair(shape)
    _, full = structural_similarity(
        truth.astype(np.float64), restored.astype(np.float64), data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    # Both are float64; only the order of the sums differs.
    assert ssim(truth, restored) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-12)


def test_ssim_of_colour_is_the_mean_over_the_channels():
    """Three channels weigh the same."""
    truth, restored = _noisy_pair((20, 30, 3))
    assert ssim(truth, restored) == pytest.approx(np.mean([ssim(truth[..., c], restored[..., c]) for c in range(3)]))


def test_ssim_of_an_image_below_the_window_is_nan():
    """10 pixels cannot hold an 11-pixel window, and 11 can."""
    assert math.isnan(ssim(np.zeros((10, 50)), np.zeros((10, 50))))
    assert ssim(np.zeros((11, 11)), np.zeros((11, 11))) == 1.0


@given(st.integers(1, 255), st.integers(1, 40), st.integers(1, 40))
def test_psnr_of_a_constant_offset_is_its_decibels(offset, height, width):
    """A difference of d everywhere is 20 log10(255 / d), whatever the size."""
    truth = np.zeros((height, width, 3), np.uint8)
    assert psnr(truth, truth + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))


def test_psnr_does_not_wrap_unsigned_differences():
    """uint8 1 - 2 is -1, not 255."""
    assert psnr(np.full((4, 4), 1, np.uint8), np.full((4, 4), 2, np.uint8)) == pytest.approx(48.13, abs=0.01)


def test_psnr_sees_every_band_of_a_tall_image():
    """One changed sample in the last row counts once."""
    truth = np.zeros((1000, 500), np.uint8)
    restored = truth.copy()
    restored[-1, -1] = 255
    assert psnr(truth, restored) == pytest.approx(10 * math.log10(500_000))


def test_identical_images_score_infinity_and_one():
    """No difference: inf dB, SSIM 1, also after the arithmetic of luma."""
    truth, _ = _noisy_pair((40, 40, 3))
    scores = score(truth, truth.copy(), Convention())
    assert (scores.psnr_y, scores.ssim_y, scores.psnr_rgb, scores.ssim_rgb) == (math.inf, 1.0, math.inf, 1.0)


def test_sixteen_bit_scores_as_eight_bit_of_the_same_picture():
    """Samples times 257 with peak 65535 are the same picture."""
    truth, restored = _noisy_pair((24, 24, 3))
    wide = [image.astype(np.uint16) * 257 for image in (truth, restored)]
    eight, sixteen = score(truth, restored, Convention()), score(*wide, Convention(), peak=65535)
    for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        assert getattr(sixteen, name) == pytest.approx(getattr(eight, name), abs=1e-9)


def test_luma_is_studio_swing():
    """White is 235 and black 16; full-range Y would cost 1.3 dB."""
    assert luma(np.full((1, 1, 3), 255, np.uint8)) == pytest.approx(235)
    assert luma(np.zeros((1, 1, 3), np.uint8)) == pytest.approx(16)


def test_rounded_luma_is_the_nearest_whole_number():
    """Pure red is 81.48, pure green 144.55: one goes down, the other up."""
    pure = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    assert luma(pure) == pytest.approx(np.array([[81.481, 144.553]]))
    assert luma(pure, rounded=True).tolist() == [[81, 145]]


def test_gray_is_rgb_of_equal_channels_or_itself():
    """The two conventions of gray differ by the studio swing, 219 / 255."""
    gray = np.array([[0, 100, 255]], np.uint8)
    assert luma(gray) == pytest.approx(luma(np.dstack([gray] * 3)))
    assert np.array_equal(luma(gray, gray_is_luma=True), gray)


def test_gray_against_rgb_compares_in_one_convention():
    """A gray ground truth and an RGB result of equal channels are identical, whatever the convention of gray."""
    gray, _ = _noisy_pair((16, 16))
    for gray_is_luma in (False, True):
        assert score(gray, np.dstack([gray] * 3), Convention(gray_is_luma=gray_is_luma)).psnr_y == math.inf


def test_two_gray_images_taken_as_luma_have_no_rgb_scores():
    """Where only luma exists an RGB figure would be a fiction."""
    truth, restored = _noisy_pair((16, 16))
    scores = score(truth, restored, Convention(gray_is_luma=True))
    assert math.isnan(scores.psnr_rgb)
    assert scores.psnr_y == pytest.approx(psnr(truth, restored))


def test_border_pixels_do_not_count():
    """Damage within the border is invisible, one pixel further in it is not."""
    truth, _ = _noisy_pair((30, 30, 3))
    restored = truth.copy()
    restored[:4] = 0
    assert score(truth, restored, Convention(border=4)).psnr_rgb == math.inf
    assert score(truth, restored, Convention(border=3)).psnr_rgb < 40
    assert crop_border(truth, 0).shape == truth.shape


def test_psnr_b_looks_for_blocks_in_the_restored_image():
    """A blocky result of a smooth truth is penalised; a blocky truth is not."""
    smooth = np.full((64, 64), 100, np.uint8)
    blocky = smooth.copy()
    blocky[:, 8:16] += 20
    assert psnr_b(smooth, blocky) < psnr(smooth, blocky)
    assert psnr_b(blocky, smooth) == psnr(blocky, smooth)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (8, 8), (40, 1)])
def test_psnr_b_of_tiny_images_is_finite_arithmetic(shape):
    """No block edge, or none along an axis, is no error."""
    assert math.isfinite(psnr_b(np.zeros(shape), np.arange(np.prod(shape)).reshape(shape) + 1))


def test_sizes_that_differ_are_refused_by_name():
    """The message names both sizes, width first, as people write them."""
    with pytest.raises(UsageError, match="ground truth is 20x10, the restored image 10x20"):
        score(np.zeros((10, 20)), np.zeros((20, 10)), Convention())


def test_a_border_that_leaves_nothing_is_refused():
    """Half the image on both sides is everything."""
    with pytest.raises(UsageError, match="border of 4 px leaves nothing of a 9x8"):
        score(np.zeros((8, 9)), np.zeros((8, 9)), Convention(border=4))


def test_the_mean_skips_undefined_ssim_and_keeps_infinity():
    """An image too small for SSIM does not spoil the mean of the others; an identical one makes PSNR infinite."""
    mean = mean_scores([Scores(30, math.nan, 20, math.nan), Scores(40, 0.5, math.inf, math.nan)])
    assert (mean.psnr_y, mean.ssim_y, mean.psnr_rgb) == (35, 0.5, math.inf)
    assert math.isnan(mean.ssim_rgb)
    assert math.isnan(mean.psnrb_y)


def test_the_convention_prints_what_moves_the_numbers():
    """Border, rounding and gray are said in words and in the JSON values."""
    convention = Convention(border=4, round_luma=True, note="LR by MATLAB bicubic")
    for word in ("border 4 px", "rounded", "studio swing", "gray taken as RGB", "11x11", "LR by MATLAB bicubic"):
        assert word in str(convention)
    assert convention.to_dict()["border"] == 4
