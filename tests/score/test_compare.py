"""Side-by-side pictures."""

from __future__ import annotations

import numpy as np
import pytest

from bbcu_cli.image import Image
from bbcu_cli.score import compare


def side_by_side(*pictures):
    """Drawn from arrays; a fourth channel is alpha."""
    images = [Image(pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None) for pixels in pictures]
    return compare.side_by_side(*images).pixels


def _enlarged(pixels, scale):
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def test_every_column_shows_its_picture():
    """Red input, green result and blue ground truth stand in that order, whole above and crop below."""
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    source, result, truth = (
        np.tile(colour, (size, size, 1)) for colour, size in zip(colours, (50, 200, 200), strict=True)
    )
    sheet = side_by_side(source, result, truth)
    step = sheet.shape[1] // 3
    for index, colour in enumerate(colours):
        for row in (sheet.shape[0] // 4, sheet.shape[0] * 3 // 4):
            assert tuple(sheet[row, index * step + step // 3]) == tuple(colour)


def test_the_crop_is_where_the_detail_is():
    """The magnified part shows the only textured corner, each pixel of the file as a square of pixels."""
    result = np.full((400, 400, 1), 128, np.uint8)
    result[300:360, 300:360, 0] = np.random.default_rng(0).integers(0, 2, (60, 60)) * 255
    sheet = side_by_side(result, result)
    lower = sheet[sheet.shape[0] // 2 + 40 : -20, 20 : sheet.shape[1] // 2 - 20]
    assert lower.std() > 50


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (2000, 5), (3, 50), (9, 9)])
@pytest.mark.parametrize("scale", [1, 4])
def test_any_size_gives_a_sheet_of_bounded_width(size, scale):
    """One pixel, thin strips and large images all fit."""
    source = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    sheet = side_by_side(source, _enlarged(source, scale), _enlarged(source, scale))
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] <= 1800
    assert sheet.shape[0] <= 1400


def test_a_ground_truth_that_is_a_little_larger_is_cropped():
    """A ground truth that is no multiple of the scale has rows and columns beyond the result."""
    source = np.zeros((10, 10, 3), np.uint8)
    truth = np.full((43, 42, 3), 255, np.uint8)
    truth[:40, :40] = 0
    sheet = side_by_side(source, _enlarged(source, 4), truth)
    # Black panels hold nothing of the white rim: the last column of panels is as dark as the first.
    third = sheet.shape[1] // 3
    assert abs(sheet[40:-20, :third].mean() - sheet[40:-20, 2 * third : 3 * third].mean()) < 4


def test_a_ground_truth_that_is_a_little_smaller_is_continued():
    """Its input was rounded up to whole pixels; the sheet is that of a truth of the right size."""
    pixels = np.full((40, 44, 3), 90, np.uint8)
    sheet = side_by_side(pixels[::4, ::4], pixels, pixels[:37, :42])
    np.testing.assert_array_equal(sheet, side_by_side(pixels[::4, ::4], pixels, pixels))


def test_sixteen_bit_gray_and_alpha_are_shown():
    """16 bit is reduced to 8, gray becomes RGB, transparency shows a checkerboard."""
    gray = np.full((80, 80, 1), 0x8000, np.uint16)
    assert (side_by_side(gray, gray) == 128).any()
    clear = np.zeros((80, 80, 4), np.uint8)
    assert {204, 255} <= set(np.unique(side_by_side(clear, clear)))


def test_16_bit_samples_are_shown_by_their_nearest_8_bit_ones():
    """As in every 8-bit file that bbcu writes: 255 of 65535 is 1 of 255, not 0."""
    pixels = np.full((32, 32, 3), 255, np.uint16)
    shown = side_by_side(pixels, pixels)
    assert (shown == 1).all(axis=2).any()
