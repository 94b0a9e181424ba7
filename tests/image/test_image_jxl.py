"""JPEG XL: what the plugin writes, and files by cjxl for what it cannot (tests/data/README.md has the commands)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import XMP_SIDEWAYS, deep, exif, gray_photo, photo, rgb_profile, saved, soft_mask
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, probe
from bbcu_cli.image.color import to_8_bit
from bbcu_cli.image.compression import Compression, compression_of
from bbcu_cli.image.jxl_header import read_header

FILES = Path(__file__).parents[1] / "data" / "jxl"
PHOTO, MASK, GRAY = photo(24, 32), soft_mask(24, 32), gray_photo(24, 32)
RGBA = np.dstack([PHOTO, MASK])
SAMPLES = {"L": RGBA[..., :1], "LA": RGBA[..., [0, 3]], "RGB": RGBA[..., :3], "RGBA": RGBA}


@pytest.fixture(autouse=True)
def _packages() -> None:
    for module in ("pillow_jxl", "brotli"):
        pytest.importorskip(module, reason="the extra jxl is not installed")


def read(source: bytes | str) -> Image:
    """The decoded picture; the header has promised what it is."""
    data = (FILES / source).read_bytes() if isinstance(source, str) else source
    info, image = probe(data), decode(data, max_pixels=10**6)
    promised = (info.format, info.size, info.channels, info.depth, info.alpha)
    assert promised == (image.format, image.size, image.channels, image.depth, image.alpha is not None)
    assert image.format == "JPEG XL"
    return image


def samples_of(image: Image) -> np.ndarray:
    """Alpha last."""
    return image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("mode", SAMPLES)
def test_what_the_plugin_writes_is_read(mode: str, *, boxed: bool) -> None:
    """Losslessly, with boxes and without."""
    source = Pillow.fromarray(np.squeeze(SAMPLES[mode]), mode)
    data = saved(source, "JXL", lossless=True, use_container=boxed)
    image = read(data)
    np.testing.assert_array_equal(samples_of(image), SAMPLES[mode])
    assert (image.notes, image.metadata.icc) == ((), None)
    assert compression_of(data) is None
    assert compression_of(saved(source, "JXL")) == Compression("JPEG XL")


@pytest.mark.parametrize("size", [(1, 1), (8, 16), (9, 300), (300, 256), (720, 1280), (40, 7)])
def test_sizes_are_read_from_the_header(size: tuple[int, int]) -> None:
    """Sides in eights, in one of the ratios, and in any number of bits."""
    data = saved(Pillow.new("L", size[::-1]), "JXL")
    assert probe(data).size == size


def test_gray_keeps_16_bits_and_colour_does_not() -> None:
    """Which has a note, as the plugin has no more; cjxl gave the opacity 8."""
    gray = deep(GRAY)
    np.testing.assert_array_equal(read(saved(Pillow.fromarray(gray), "JXL", lossless=True)).pixels[..., 0], gray)
    image = read("deep-gray-alpha.jxl")
    np.testing.assert_array_equal(samples_of(image), np.dstack([gray, to_8_bit(deep(MASK)).astype(np.uint16) * 257]))
    image = read("deep.jxl")
    assert np.abs(image.pixels.astype(int) - PHOTO).max() <= 1  # libjxl may cut the low bits off
    assert image.notes == ("16-bit colours were reduced to 8 bits",)


@pytest.mark.parametrize("packed", [False, True])
def test_exif_and_xmp_are_read(*, packed: bool) -> None:
    """As they are, and compressed by Brotli; the picture says itself how it is turned, and EXIF is not asked."""
    about = {"exif": exif(6)[6:], "xmp": XMP_SIDEWAYS, "compress_metadata": packed}
    image = read(saved(Pillow.fromarray(PHOTO), "JXL", lossless=True, **about))
    np.testing.assert_array_equal(image.pixels, PHOTO)
    plain = decode(saved(Pillow.fromarray(PHOTO), "PNG", exif=exif(1)), max_pixels=10**6)
    assert image.metadata.exif is not None
    assert plain.metadata.exif is not None
    assert len(image.metadata.exif) == len(plain.metadata.exif)
    assert image.metadata.xmp is not None
    assert b'tiff:Orientation="1"' in image.metadata.xmp


def test_metadata_that_brotli_cannot_read_are_left_out() -> None:
    """With a note; and so are those that would grow without end."""
    import brotli

    about = {"exif": exif(1)[6:], "xmp": XMP_SIDEWAYS, "compress_metadata": True}
    data = saved(Pillow.fromarray(PHOTO), "JXL", lossless=True, **about)
    at = data.index(b"brobxml ")
    damaged = data[: at + 8] + b"\xff" * 9 + data[at + 17 :]
    image = read(damaged)
    assert image.metadata.exif is not None
    assert image.notes == ("the XMP data could not be read (Brotli cannot decompress it) and was left out",)
    bomb = b"brobxml " + brotli.compress(bytes(1 << 25))
    whole = data[: at - 4] + (len(bomb) + 4).to_bytes(4, "big") + bomb
    after = at - 4 + int.from_bytes(data[at - 4 : at], "big")
    assert "it is too large" in read(whole + data[after:]).notes[0]


def test_profiles_travel() -> None:
    """That of a lossless file as it is; of a lossy one the primaries and curves that libjxl has taken from it."""
    image = read("profile.jxl")
    np.testing.assert_array_equal(image.pixels, PHOTO)
    assert image.metadata.icc == rgb_profile()
    image = read("lossy.jxl")
    assert np.abs(image.pixels.astype(int) - PHOTO).mean() < 2
    assert image.metadata.icc is not None
    assert image.metadata.icc != rgb_profile()


def test_a_recompressed_jpeg_is_read_as_that_jpeg() -> None:
    """With its EXIF, turned upright, its profile and its tables; it counts as lossy."""
    image = read("jpeg.jxl")
    assert np.abs(image.pixels.astype(int) - np.rot90(PHOTO, 3)).mean() < 3
    assert image.metadata.icc == rgb_profile()
    assert image.metadata.exif is not None
    assert image.jpeg_tables is not None
    assert compression_of(FILES / "jpeg.jxl") == Compression("JPEG XL")


def test_a_picture_that_lies_sideways_is_turned() -> None:
    """By its own header."""
    with (FILES / "sideways.jxl").open("rb") as stream:
        assert read_header(stream).orientation == 6
    assert np.abs(read("sideways.jxl").pixels.astype(int) - np.rot90(PHOTO, 3)).mean() < 3


def test_multiplied_colours_are_divided_by_their_opacity() -> None:
    """To the rounding that they were stored with."""
    image = read("premultiplied.jxl")
    np.testing.assert_array_equal(image.alpha, MASK)
    error = np.abs(image.pixels.astype(float) - PHOTO)[MASK > 0]
    assert (error <= (0.5 * 255 / MASK[MASK > 0] + 0.5)[:, None]).all()


@pytest.mark.parametrize(("name", "whole"), [("lossy.jxl", False), ("deep.jxl", True), ("profile.jxl", True)])
def test_what_libjxl_may_hold_whole_is_told_by_the_header(name: str, *, whole: bool) -> None:
    """Modular frames, and those that lie behind a profile; the account of memory goes by it."""
    with (FILES / name).open("rb") as stream:
        assert read_header(stream).whole == whole


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("animation.jxl", "JPEG XL animation"),
        ("float.jxl", "floating-point samples"),
        ("gray-profile-lossy.jxl", "a profile of its own kind"),
        ("pq.jxl", "HDR picture coded in PQ"),
    ],
)
def test_other_kinds_are_refused_in_words(name: str, words: str) -> None:
    """From the header alone; never "damaged"."""
    with pytest.raises(ImageError, match=words) as caught:
        probe(FILES / name)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["deep.jxl", "profile.jxl", "lossy.jxl", "jpeg.jxl", "deep-gray-alpha.jxl"])
def test_truncated_and_damaged_files_are_errors(name: str) -> None:
    """Wherever they end; a sentence, and no word of the library's on how to build it."""
    data = (FILES / name).read_bytes()
    rng = np.random.default_rng(0)
    for cut in (12, 15, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(ImageError, match=r"truncated|damaged") as caught:
            decode(data[:cut], max_pixels=10**6)
        assert "build" not in str(caught.value)
    for _ in range(20):
        broken = bytearray(data)
        broken[int(rng.integers(2, len(data)))] ^= 1 << int(rng.integers(8))
        try:  # some bits may change without harm
            decode(bytes(broken), max_pixels=10**6)
        except ImageError as error:
            assert "build" not in str(error)


def test_the_limit_of_pixels_holds_before_decoding() -> None:
    """The plugin alone would decode all of them to know the size."""
    with pytest.raises(ImageError, match="more than the limit"):
        decode(saved(Pillow.new("L", (300, 200)), "JXL"), max_pixels=59_999)
