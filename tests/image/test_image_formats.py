"""What each format keeps: every cell of docs/formats.md is a test here, on a file written and read again."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import XMP_SIDEWAYS, as_jpeg, deep, exif, gray_photo, gray_profile, photo, rgb_profile, soft_mask
from PIL import ExifTags
from PIL import Image as Pillow
from PIL.Image import Exif
from PIL.JpegImagePlugin import get_sampling

from bbcu_cli.errors import ImageError
from bbcu_cli.image import (
    FORMATS,
    Bands,
    EncodeOptions,
    Image,
    Metadata,
    decode,
    encode,
    format_of,
    jpeg_quality,
    losses,
    write,
)
from bbcu_cli.image.color import to_8_bit

WRITABLE = [name for name, fmt in FORMATS.items() if fmt.writable]
EXACT = ["PNG", "TIFF", "BMP"]


@pytest.fixture(params=WRITABLE)
def form(request: pytest.FixtureRequest) -> str:
    """Each format that we write, HEIC only where pillow-heif is installed."""
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    return str(request.param)


def again(image: Image, form: str, options: EncodeOptions = EncodeOptions()) -> Image:  # noqa: B008 - frozen value
    """The image after one trip through a file."""
    return decode(encode(image, form, options), max_pixels=10**6)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Alike to 30 dB: what every lossy format reaches at its default quality."""
    peak = np.iinfo(expected.dtype).max
    error = np.mean((found.astype(float) / peak - expected.astype(float) / peak) ** 2)
    assert found.shape == expected.shape
    assert error < 1e-3


def described(block: bytes | None) -> dict[str, Any]:
    """The facts of an EXIF block by name."""
    if block is None:
        return {}
    parsed = Exif()
    parsed.load(block)
    facts = {ExifTags.TAGS[tag]: value for tag, value in parsed.items() if tag not in (0x8769, 0x8825)}
    facts |= {ExifTags.TAGS[tag]: value for tag, value in parsed.get_ifd(0x8769).items()}
    return facts | {ExifTags.GPSTAGS[tag]: value for tag, value in parsed.get_ifd(0x8825).items()}


def test_rgb_comes_back(form: str) -> None:
    """Lossless formats give back every sample, the others nearly."""
    back = again(Image(photo()), form)
    assert back.format == form
    assert back.alpha is None
    if form in EXACT:
        np.testing.assert_array_equal(back.pixels, photo())
    else:
        assert_near(back.pixels, photo())


def test_16_bit_is_kept_or_rounded_with_a_warning(form: str) -> None:
    """PNG and TIFF keep all 16 bits; elsewhere the loss is said and the samples are rounded, not cut."""
    image = Image(deep(photo()))
    back, said = again(image, form), losses(image, form)
    if FORMATS[form].depth == 16:
        assert back.depth == 16
        np.testing.assert_array_equal(back.pixels, image.pixels)
        assert said == ()
    else:
        assert back.depth == 8
        assert any("16" in loss for loss in said)
        assert_near(back.pixels, to_8_bit(image.pixels))
    if form == "BMP":
        np.testing.assert_array_equal(back.pixels, np.rint(image.pixels / 257).astype(np.uint8))


@pytest.mark.parametrize("depth", [8, 16])
def test_gray_stays_gray_where_the_format_can(form: str, depth: int) -> None:
    """One channel in, one channel out, or a word about it."""
    gray = gray_photo()[..., None]
    image = Image(gray if depth == 8 else deep(gray))
    back = again(image, form)
    assert back.channels == (1 if FORMATS[form].gray else 3)
    assert any("gray" in loss for loss in losses(image, form)) != FORMATS[form].gray
    assert_near(to_8_bit(back.pixels[..., :1]), to_8_bit(image.pixels))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_comes_back(form: str, depth: int, channels: int) -> None:
    """Opacity survives, with colour or gray; a format without it refuses transparent pixels and says what to do."""
    colour, mask = photo()[..., :channels], soft_mask()
    image = Image(colour, mask) if depth == 8 else Image(deep(colour), deep(mask))
    if not FORMATS[form].alpha:
        assert f"{form} has no transparency" in losses(image, form)
        with pytest.raises(ImageError, match="--background"):
            encode(image, form)
        return
    back = again(image, form)
    assert back.alpha is not None
    assert_near(to_8_bit(back.alpha), to_8_bit(mask if depth == 8 else deep(mask)))
    if form in EXACT:
        np.testing.assert_array_equal(back.alpha, image.alpha)
        np.testing.assert_array_equal(back.pixels, np.broadcast_to(image.pixels, back.pixels.shape))


def test_colour_profile_is_kept(form: str) -> None:
    """The profile comes back byte for byte where the format has a place for it, and its loss is said elsewhere."""
    for image in (
        Image(photo(), metadata=Metadata(icc=rgb_profile())),
        Image(gray_photo()[..., None], metadata=Metadata(icc=gray_profile())),
    ):
        if image.channels == 1 and not FORMATS[form].gray:
            continue
        assert again(image, form).metadata.icc == (image.metadata.icc if FORMATS[form].icc else None)
        assert any("profile" in loss for loss in losses(image, form)) != FORMATS[form].icc


def test_exif_is_kept(form: str) -> None:
    """Camera, date, exposure, maker's note and place come back."""
    image = Image(photo(), metadata=Metadata(exif=decode_exif()))
    facts = described(again(image, form).metadata.exif)
    assert any("EXIF" in loss for loss in losses(image, form)) != FORMATS[form].exif
    if not FORMATS[form].exif:
        assert facts == {}
        return
    assert facts["Make"] == "Photo Maker"
    assert facts["DateTime"] == "2024:02:29 12:00:00"
    assert facts["ISOSpeedRatings"] == 400
    assert facts["ExposureTime"] == pytest.approx(1 / 250)
    assert facts["MakerNote"] == b"MakerNote\0private bytes"
    assert facts["GPSLatitude"] == (52.0, 30.0, 0.0)


def decode_exif() -> bytes:
    """A camera's EXIF as `decode` hands it over."""
    block = decode(as_jpeg(photo(), exif=exif(1)), max_pixels=10**6).metadata.exif
    assert block is not None
    return block


def test_xmp_is_kept(form: str) -> None:
    """The packet comes back byte for byte where the format has a place for it."""
    packet = XMP_SIDEWAYS.replace(b'Orientation="6"', b'Orientation="1"')
    image = Image(photo(), metadata=Metadata(xmp=packet))
    assert again(image, form).metadata.xmp == (packet if FORMATS[form].xmp else None)
    assert any("XMP" in loss for loss in losses(image, form)) != FORMATS[form].xmp


def test_resolution_is_kept(form: str) -> None:
    """Dots per inch come back, through EXIF where the format has nothing else."""
    back = again(Image(photo(), metadata=Metadata(dpi=(300.0, 240.0), exif=decode_exif())), form).metadata
    if FORMATS[form].dpi == "exif":
        facts = described(back.exif)
        assert (facts["XResolution"], facts["YResolution"], facts["ResolutionUnit"]) == (300, 240, 2)
    else:
        assert back.dpi == pytest.approx((300, 240), abs=0.02)


def test_text_is_kept_by_png_and_comments_by_jpeg(form: str) -> None:
    """PNG keeps all text (image generators store their prompt in it), JPEG its comment; the others say the loss."""
    image = Image(photo(), metadata=Metadata(text=(("parameters", "a cat, 猫, 20 steps"), ("Comment", "ünterwegs"))))
    for depth16 in (False, True):
        given = replace(image, pixels=deep(photo())) if depth16 else image
        found = again(given, form).metadata.text
        assert found == {"PNG": given.metadata.text, "JPEG": given.metadata.text[1:]}.get(form, ())
    assert any("parameters" in loss for loss in losses(image, form)) == (form != "PNG")


def test_strip_leaves_only_what_the_colours_need(form: str) -> None:
    """--metadata strip takes away who, when and where, and keeps the profile."""
    metadata = Metadata(rgb_profile(), decode_exif(), XMP_SIDEWAYS, (300, 300), (("Comment", "private"),))
    for pixels in (photo(), deep(photo())):
        back = again(Image(pixels, metadata=metadata), form, EncodeOptions(metadata="strip")).metadata
        assert back == Metadata(icc=rgb_profile() if FORMATS[form].icc else None)


def test_transparent_pixels_go_onto_the_background_if_one_is_given() -> None:
    """JPEG with a background: the colour shows through in proportion; gray gets a gray background."""
    image = Image(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 51, np.uint8))  # 20 % opaque black
    options = EncodeOptions(background=(255, 0, 0))
    np.testing.assert_allclose(again(image, "BMP", options).pixels, np.broadcast_to([204, 0, 0], (8, 8, 3)), atol=1)
    gray = Image(image.pixels[..., :1], image.alpha)
    assert again(gray, "BMP", EncodeOptions(background=(255, 255, 255))).pixels[0, 0, 0] == 204


def test_an_opaque_alpha_channel_is_no_obstacle_for_jpeg() -> None:
    """Nothing is visible of it, so nothing is asked and nothing warned."""
    image = Image(photo(), np.full((48, 64), 255, np.uint8))
    assert losses(image, "JPEG") == ()
    assert again(image, "JPEG").alpha is None


def test_jpeg_options_reach_the_file() -> None:
    """Quality and subsampling are what was asked for; the default keeps full colour resolution."""
    for options, quality, sampling in (
        (EncodeOptions(), 95, 0),
        (EncodeOptions(quality=40, subsampling="4:2:0"), 40, 2),
        (EncodeOptions(quality=77, subsampling="4:2:2"), 77, 1),
    ):
        data = encode(Image(photo()), "JPEG", options)
        tables = decode(data, max_pixels=10**6).jpeg_tables
        assert tables is not None
        assert jpeg_quality(tables) == quality
        assert get_sampling(Pillow.open(io.BytesIO(data))) == sampling


def test_webp_lossless_is_lossless() -> None:
    """Every sample comes back, also those under transparent pixels."""
    image = Image(photo(), soft_mask())
    back = again(image, "WebP", EncodeOptions(lossless=True))
    np.testing.assert_array_equal(back.pixels, image.pixels)
    np.testing.assert_array_equal(back.alpha, image.alpha)


def test_too_long_metadata_do_not_stop_a_jpeg() -> None:
    """What does not fit into JPEG's 64 KiB is left out and said; the picture is written."""
    image = Image(photo(), metadata=Metadata(xmp=b"<x>" + b" " * 70_000 + b"</x>", icc=rgb_profile()))
    assert any("XMP" in loss and "too long" in loss for loss in losses(image, "JPEG"))
    assert again(image, "JPEG").metadata == Metadata(icc=rgb_profile())


def test_what_cannot_be_written_is_refused_in_words() -> None:
    """A format that is only read, a side that is too long, an impossible quality, an unknown ending."""
    with pytest.raises(ImageError, match="use one of PNG"):
        encode(Image(photo()), "GIF")
    with pytest.raises(ImageError, match="at most 16383 pixels per side"):
        encode(Image(np.zeros((1, 16384, 1), np.uint8)), "WebP")
    with pytest.raises(ImageError, match="1 to 100"):
        EncodeOptions(quality=0)
    with pytest.raises(ImageError, match=r"ending '\.gif'"):
        format_of(Path("a.gif"))
    with pytest.raises(ImageError, match="without an ending"):
        format_of(Path("picture"))
    assert format_of(Path("Ä b.JPEG")) == "JPEG"


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 5)])
@pytest.mark.parametrize("depth", [8, 16])
def test_odd_shapes_survive_the_exact_formats(shape: tuple[int, int], depth: int) -> None:
    """One pixel, one row, one column."""
    samples = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    image = Image(samples if depth == 8 else deep(samples))
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(again(image, form).pixels, image.pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_other_programs_read_our_16_bit_files(
    channels: int,
    alpha: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Independent readers (pypng, tifffile), which share no code with our writers, find the same samples."""
    pypng = pytest.importorskip("png", reason="pypng is not installed")
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    monkeypatch.setattr("bbcu_cli.image.png._BAND_BYTES", 2000)
    monkeypatch.setattr("bbcu_cli.image.tiff._STRIP_BYTES", 2000)
    image = Image(deep(photo()[..., :channels]), deep(soft_mask()) if alpha else None)
    expected = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    width, height, rows, _ = pypng.Reader(bytes=encode(image, "PNG")).asDirect()
    np.testing.assert_array_equal(np.vstack([np.array(row) for row in rows]).reshape(height, width, -1), expected)
    if alpha and channels == 1:
        expected = np.dstack([*[image.pixels] * 3, mask_of(image)])
    found = tifffile.imread(io.BytesIO(encode(image, "TIFF")))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_bytes_do_not_depend_on_the_number_of_threads(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One band after the other or many at once: the same file, and the same pixels as in one piece."""
    image = Image(photo())
    whole = again(image, form)
    monkeypatch.setattr("bbcu_cli.image.png._BAND_BYTES", 1000)
    monkeypatch.setattr("bbcu_cli.image.tiff._STRIP_BYTES", 1000)
    one = encode(image, form, threads=1)
    assert encode(image, form, threads=7) == one
    np.testing.assert_array_equal(decode(one, max_pixels=10**6).pixels, whole.pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_without_isal_zlib_serves(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no wheel of ISA-L the files have other bytes and the same pixels."""
    for module in ("png", "tiff"):
        monkeypatch.setattr(f"bbcu_cli.image.{module}.zlib", zlib)
    image = Image(deep(photo()), deep(soft_mask()))
    np.testing.assert_array_equal(again(image, form).pixels, image.pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("cuts", [(1, 2, 90), (40, 53), (93,)])
def test_bytes_do_not_depend_on_how_the_rows_come(
    form: str, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of any heights give the file that the whole image gives."""
    monkeypatch.setattr("bbcu_cli.image.png._BAND_BYTES", 3000)
    monkeypatch.setattr("bbcu_cli.image.tiff._STRIP_BYTES", 3000)
    rng = np.random.default_rng(1)
    image = Image(rng.integers(0, 255, (93, 50, 3), np.uint8), rng.integers(0, 255, (93, 50), np.uint8))
    ends = np.cumsum(cuts)
    bands = (
        Image(image.pixels[end - rows : end], image.alpha[end - rows : end])
        for rows, end in zip(cuts, ends, strict=True)
    )
    file = io.BytesIO()
    write(replace(Bands.of(image), rows=bands), form, file)
    assert file.getvalue() == encode(image, form)


def mask_of(image: Image) -> np.ndarray:
    """The alpha of an image that has one."""
    assert image.alpha is not None
    return image.alpha
