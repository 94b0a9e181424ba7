"""BMP by whatever masks its header gives."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import bmp, photo, saved
from PIL import Image as Pillow
from tiff_files import spread

from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode, probe


@pytest.mark.parametrize(
    ("bits", "masks", "compression", "header"),
    [
        (16, (0x7C00, 0x3E0, 0x1F), 0, 40),
        (16, (0x7C00, 0x3E0, 0x1F), 3, 40),
        (16, (0xF800, 0x7E0, 0x1F), 3, 40),
        (16, (0xF800, 0x7E0, 0x1F), 3, 124),
        (16, (0xF00, 0xF0, 0xF), 3, 40),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 3, 56),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000), 3, 108),
        (16, (0xF, 0xF0, 0xF00, 0xF000), 6, 40),
        (32, (0xFF0000, 0xFF00, 0xFF), 0, 40),
        (32, (0xFF, 0xFF00, 0xFF0000), 3, 40),
        (32, (0xFF00, 0xFF0000, 0xFF000000, 0xFF), 3, 124),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), 3, 40),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000), 3, 108),
    ],
)
@pytest.mark.parametrize("top_down", [False, True])
def test_masks_cut_pixels_into_channels(
    bits: int,
    masks: tuple[int, ...],
    compression: int,
    header: int,
    top_down: bool,  # noqa: FBT001
) -> None:
    """5-5-5, 5-6-5, 4-4-4-4, 10-10-10-2 and others: each channel spread over 8 bits, or over 16 where it has more."""
    pixels = np.random.default_rng(0).integers(0, 1 << bits, (13, 7), np.uint64)
    data = bmp(pixels, bits, masks, compression=compression, header=header, top_down=top_down)
    counts = [mask.bit_count() for mask in masks]
    depth = 16 if max(counts) > 8 else 8
    top = (1 << depth) - 1
    channels = [
        (
            2 * top * (pixels >> np.uint64((mask & -mask).bit_length() - 1) & np.uint64((1 << count) - 1)).astype(int)
            + most
        )
        // (2 * most)
        for mask, count, most in ((mask, count, (1 << count) - 1) for mask, count in zip(masks, counts, strict=True))
    ]
    image = decode(data, max_pixels=10**6)
    assert (probe(data).depth, image.depth) == (depth, depth)
    assert (image.alpha is not None) == (len(masks) == 4)
    found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    np.testing.assert_array_equal(found, np.dstack(channels))
    assert image.metadata.dpi == pytest.approx((300, 300), abs=0.01)


def test_rgb565_is_8_bit_and_right() -> None:
    """The 16 bits are those of a pixel, not of a sample."""
    five, six = photo(13, 21) >> 3, photo(13, 21) >> 2
    pixels = five[..., 0].astype(int) << 11 | six[..., 1].astype(int) << 5 | five[..., 2]
    image = decode(bmp(pixels, 16, (0xF800, 0x7E0, 0x1F)), max_pixels=10**6)
    expected = np.dstack([spread(five[..., 0], 5), spread(six[..., 1], 6), spread(five[..., 2], 5)])
    np.testing.assert_array_equal(image.pixels, expected)


def test_bmps_that_are_not_read_are_called_by_their_kind() -> None:
    """A JPEG inside, an unknown depth, an unknown header: not damaged."""
    whole = bytearray(saved(Pillow.fromarray(photo()), "BMP"))
    for at, value, words in ((30, 4, "JPEG"), (30, 5, "PNG"), (28, 64, "depth"), (14, 16, "header")):
        data = bytearray(whole)
        data[at] = value
        with pytest.raises(ImageError) as caught:
            probe(bytes(data))
        assert words in str(caught.value)
        assert "damaged" not in str(caught.value)


def test_truncated_and_hostile_bmps_are_refused() -> None:
    """Cut, of no size, of masks with holes."""
    pixels = np.zeros((5, 5), np.uint16)
    whole = bmp(pixels, 16, (0xF800, 0x7E0, 0x1F))
    for data in (
        whole[:-9],
        bmp(pixels, 16, (0xF0F0, 0x7E0, 0x1F)),
        bmp(pixels, 16, (0xF0000, 0x7E0, 0x1F)),
        whole[:18] + bytes(4) + whole[22:],
    ):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data, max_pixels=10**6)
    np.testing.assert_array_equal(decode(whole[:-2], max_pixels=10**6).pixels, np.zeros((5, 5, 3)))
