"""Colour arithmetic: exact round trips, and the standards' own figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import as_jpeg, deep, photo, soft_mask
from PIL import Image as Pillow

from bbcu_cli.image import color, jpeg_quality


@pytest.mark.parametrize("depth", [8, 16])
def test_integers_survive_floats(depth: int) -> None:
    """All 256 and all 65,536 values come back."""
    values = np.arange(1 << depth, dtype=np.dtype(f"u{depth // 8}"))
    floats = color.to_float(values)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0, 1)
    np.testing.assert_array_equal(color.to_integer(floats, depth), values)


def test_floats_outside_the_range_are_clipped() -> None:
    """What a network gives beyond black and white is black and white."""
    np.testing.assert_array_equal(color.to_integer(np.array([-0.5, 1.5, 0.5]), 8), [0, 255, 128])


def test_16_bits_are_rounded_to_8() -> None:
    """The nearest of v / 257 for every value, not the high byte."""
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(color.to_8_bit(values), np.rint(values / 257).astype(np.uint8))


def test_studio_swing_is_matlabs() -> None:
    """White is (235, 128, 128), black (16, 128, 128), red (81.5, 90.2, 240); and back."""
    rgb = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]])
    expected = [[235, 128, 128], [16, 128, 128], [81.481, 90.203, 240]]
    np.testing.assert_allclose(color.rgb_to_ycbcr(rgb), expected, atol=1e-3)
    np.testing.assert_allclose(color.rgb_to_y(rgb), np.array(expected)[:, 0], atol=1e-3)
    np.testing.assert_allclose(color.ycbcr_to_rgb(color.rgb_to_ycbcr(rgb)), rgb, atol=1e-12)


def test_full_range_is_that_of_a_jpeg_file() -> None:
    """The same Y, Cb and Cr as Pillow's (libjpeg's) conversion, to its rounding; and back."""
    pixels = photo()
    found = color.rgb_to_jfif(color.to_float(pixels)) * 255
    np.testing.assert_allclose(found, np.asarray(Pillow.fromarray(pixels).convert("YCbCr")), atol=1.01)
    back = color.jfif_to_rgb(color.rgb_to_jfif(color.to_float(pixels)))
    np.testing.assert_array_equal(color.to_integer(back, 8), pixels)


def test_premultiplied_colour_comes_back_where_something_is_visible() -> None:
    """Floats and integers; where nothing is visible the colour is black."""
    colour, alpha = color.to_float(photo()), color.to_float(soft_mask())
    back = color.unpremultiply(color.premultiply(colour, alpha), alpha)
    np.testing.assert_allclose(back[alpha > 0], colour[alpha > 0], atol=1e-6)
    assert (back[alpha == 0] == 0).all()
    integers = color.unpremultiply(deep(photo()), np.full((48, 64), 65535, np.uint16))
    np.testing.assert_array_equal(integers, deep(photo()))


@given(st.integers(1, 100))
def test_quality_of_a_libjpeg_file_is_found_exactly(quality: int) -> None:
    """Whatever quality a libjpeg file was written with (1 and 2 have one table, all 255)."""
    tables = Pillow.open(__import__("io").BytesIO(as_jpeg(photo(8, 8), quality=quality))).quantization
    assert abs((jpeg_quality(list(tables.values())) or 0) - quality) <= (quality < 3)


def test_quality_of_foreign_tables_is_the_nearest() -> None:
    """A table that quantises twice as hard as that of quality 50 is about that of quality 25; no table, no answer."""
    tables = Pillow.open(__import__("io").BytesIO(as_jpeg(photo(8, 8), quality=50))).quantization
    noise = np.random.default_rng(0).integers(-1, 2, 64)
    assert jpeg_quality([tuple(2 * np.array(tables[0]) + noise)]) == 25
    assert jpeg_quality([]) is None
