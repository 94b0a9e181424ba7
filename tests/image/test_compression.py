"""What a file says about its compression."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from skimage.data import chelsea

from bbcu_cli.image.compression import Compression, compression_of


def saved(form: str, **options: object) -> bytes:
    """A photo in that format."""
    file = io.BytesIO()
    Pillow.fromarray(chelsea()[:96, :120]).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("quality", [5, 40, 75, 90, 98])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_tells_its_quality(quality: int, sampling: str) -> None:
    """It is what the encoder was asked for."""
    found = compression_of(saved("JPEG", quality=quality, subsampling=sampling))
    assert found == Compression("JPEG", quality)


def test_a_gray_and_a_progressive_jpeg_tell_their_quality() -> None:
    """By their first table, as others."""
    gray = io.BytesIO()
    Pillow.fromarray(chelsea()[:64, :64, 1]).save(gray, "JPEG", quality=63)
    assert compression_of(gray.getvalue()) == Compression("JPEG", 63)
    assert compression_of(saved("JPEG", quality=88, progressive=True)) == Compression("JPEG", 88)


def test_lossy_and_lossless_webp_are_told_apart() -> None:
    """Also behind a colour profile, and in an animation."""
    assert compression_of(saved("WEBP", quality=80)) == Compression("WebP")
    assert compression_of(saved("WEBP", quality=80, icc_profile=b"\0" * 129)) == Compression("WebP")
    assert compression_of(saved("WEBP", lossless=True)) is None
    assert compression_of(saved("WEBP", lossless=True, icc_profile=b"\0" * 129)) is None
    frames = [Pillow.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (0, 255)]
    for lossless in (True, False):
        file = io.BytesIO()
        frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=lossless)
        assert (compression_of(file.getvalue()) is None) == lossless


def test_avif_is_lossy_and_the_others_are_not(tmp_path: Path) -> None:
    """PNG, TIFF, BMP and GIF keep what they were given; so does what is no image at all."""
    assert compression_of(saved("AVIF", quality=80)) == Compression("AVIF")
    for form in ("PNG", "TIFF", "BMP", "GIF"):
        assert compression_of(saved(form)) is None
    (tmp_path / "text").write_bytes(b"no image")
    assert compression_of(tmp_path / "text") is None
    assert compression_of(tmp_path / "missing") is None


def test_a_damaged_header_says_nothing() -> None:
    """What is wrong with it is found when it is decoded."""
    whole = saved("JPEG", quality=80)
    for end in (3, 20, 100, 300):
        found = compression_of(whole[:end])
        assert found is None or found.format == "JPEG"
