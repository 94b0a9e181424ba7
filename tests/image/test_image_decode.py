"""Reading what people have: every kind of picture comes out upright, in full depth and in its own colours."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import (
    REFUSED_FILES,
    XMP_SIDEWAYS,
    animation,
    as_jpeg,
    as_png,
    awkward_files,
    chunk,
    cmyk_profile,
    deep,
    exif,
    gray_photo,
    gray_profile,
    phone_jpeg,
    photo,
    png,
    rgb_profile,
    saved,
    soft_mask,
    turned_away,
)
from PIL import Image as Pillow
from PIL import ImageCms
from test_image_formats import described

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, encode, jpeg_quality, probe


def read(source: bytes | Path) -> Image:
    """Decode with a modest limit."""
    return decode(source, max_pixels=10**6)


def bits(samples: np.ndarray, depth: int) -> np.ndarray:
    """8-bit samples cut to `depth` bits."""
    return samples >> (8 - depth)


@pytest.mark.parametrize(("name", "data"), awkward_files().items(), ids=awkward_files())
def test_the_header_promises_what_the_pixels_keep(name: str, data: bytes) -> None:
    """`probe` and `decode` agree on size, channels, depth and alpha, or both or the second refuse."""
    if name in REFUSED_FILES:
        with pytest.raises(ImageError, match=name):
            decode(data, max_pixels=10**6, name=name)
        return
    info, image = probe(data), read(data)
    assert (info.format, info.size, info.channels, info.depth) == (
        image.format,
        image.size,
        image.channels,
        image.depth,
    )
    assert info.alpha == (image.alpha is not None)
    assert info.size == (48, 64)
    assert info.nbytes == image.pixels.nbytes + (0 if image.alpha is None else image.alpha.nbytes)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_pictures_come_out_upright(form: str, orientation: int) -> None:
    """Each EXIF orientation is applied to the pixels, and the tag that is handed on says 1."""
    stored = Pillow.fromarray(turned_away(photo(), orientation))
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95}, "JPEG": {"quality": 98}}.get(
        form, {}
    )
    image = read(saved(stored, form, exif=exif(orientation), **options))
    assert image.size == (48, 64)
    np.testing.assert_allclose(image.pixels.astype(int).mean(2), photo().astype(int).mean(2), atol=60)
    if form in ("PNG", "TIFF", "WEBP"):
        np.testing.assert_array_equal(image.pixels, photo())
    assert described(image.metadata.exif).get("Orientation", 1) == 1


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_16_bit_pictures_come_out_upright(orientation: int) -> None:
    """The same for samples that are decoded in two halves, alpha included."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    rgba = deep(np.dstack([photo(), soft_mask()]))
    stored = turned_away(rgba, orientation)
    file = io.BytesIO()
    tifffile.imwrite(
        file, stored, photometric="rgb", extrasamples=["unassalpha"], extratags=[(274, 3, 1, orientation, True)]
    )
    block = exif(orientation).removeprefix(b"Exif\0\0")
    data = png(stored, 6, 16)
    for source in (
        file.getvalue(),
        data[:33] + chunk(b"eXIf", block) + data[33:],
        data[:-12] + chunk(b"eXIf", block) + data[-12:],
    ):
        image = read(source)
        np.testing.assert_array_equal(np.dstack([image.pixels, image.alpha]), rgba)


PNG_KINDS = [(kind, depth) for kind in (0, 3) for depth in (1, 2, 4, 8)] + [
    (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)
]  # fmt: skip


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), PNG_KINDS)
def test_every_kind_of_png_is_read_exactly(colour_type: int, depth: int, interlaced: bool) -> None:  # noqa: FBT001
    """All 15 kinds of the specification, plain and interlaced, against files built by its letter."""
    rgba = np.dstack([photo(13, 21), soft_mask(13, 21)])
    bands = {0: [1], 2: [0, 1, 2], 3: [1], 4: [1, 3], 6: [0, 1, 2, 3]}[colour_type]
    samples = deep(rgba[..., bands]) if depth == 16 else bits(rgba[..., bands], depth)
    palette = np.random.default_rng(1).integers(0, 256, (1 << min(depth, 8), 3), np.uint8)
    image = read(
        png(samples, colour_type, depth, interlaced=interlaced, palette=palette.tobytes() if colour_type == 3 else b"")
    )
    expected = (
        samples
        if depth == 16
        else palette[samples[..., 0]]
        if colour_type == 3
        else samples * (255 // ((1 << depth) - 1))
    )
    found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("colour_type", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_a_transparent_colour_becomes_alpha(colour_type: int, depth: int) -> None:
    """PNG's tRNS: exactly the pixels of that colour are transparent, in the file's own depth."""
    samples = photo(13, 21)[..., : 3 if colour_type == 2 else 1]
    samples = deep(samples) if depth == 16 else bits(samples, depth)
    colour = samples[5, 7]
    image = read(png(samples, colour_type, depth, transparent=struct.pack(f">{len(colour)}H", *colour)))
    assert image.alpha is not None
    np.testing.assert_array_equal(image.alpha == 0, (samples == colour).all(axis=2))
    assert set(np.unique(image.alpha)) <= {0, 255 if depth <= 8 else 65535}


def test_palettes_keep_colour_gray_and_transparency() -> None:
    """A palette gives RGB, a gray one gray, one with opacities alpha as well."""
    index = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[::-1, None], 3, axis=1)
    gray = read(png(index, 3, 8, palette=ramp.tobytes()))
    assert gray.channels == 1
    np.testing.assert_array_equal(gray.pixels[..., 0], 255 - index[..., 0])
    see_through = read(png(index, 3, 8, palette=ramp.tobytes(), transparent=bytes(range(256))))
    assert see_through.channels == 1
    np.testing.assert_array_equal(see_through.alpha, index[..., 0])
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    colour = read(png(index, 3, 8, palette=colours.tobytes(), transparent=bytes(range(256))))
    np.testing.assert_array_equal(colour.pixels, colours[index[..., 0]])
    np.testing.assert_array_equal(colour.alpha, index[..., 0])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_16_bit_tiff_is_read_exactly(bands: int, compression: str | None, byteorder: str) -> None:
    """Gray, RGB and RGBA, both byte orders, plain and deflated with differences."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    samples = deep(np.dstack([photo(), soft_mask()])[..., :bands])
    file = io.BytesIO()
    options: dict[str, Any] = {"photometric": "rgb" if bands > 1 else "minisblack"}
    if bands == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(
        file,
        samples.squeeze(),
        byteorder=byteorder,
        compression=compression,
        predictor=bool(compression),
        rowsperstrip=5,
        **options,
    )
    image = read(file.getvalue())
    found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    np.testing.assert_array_equal(found, samples)


def test_tiff_specials() -> None:
    """White-is-zero is turned round, premultiplied alpha is divided out, a thumbnail page is no second page."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    gray, rgb, mask = deep(gray_photo()), deep(photo()), deep(soft_mask())
    file = io.BytesIO()
    tifffile.imwrite(file, gray, photometric="miniswhite")
    np.testing.assert_array_equal(read(file.getvalue()).pixels[..., 0], 65535 - gray)
    file = io.BytesIO()
    premultiplied = np.rint(rgb * (mask[..., None] / 65535)).astype(np.uint16)
    tifffile.imwrite(file, np.dstack([premultiplied, mask]), photometric="rgb", extrasamples=["assocalpha"])
    image = read(file.getvalue())
    seen = mask > 40000
    assert np.abs(image.pixels[seen].astype(int) - rgb[seen]).max() <= 1
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(photo(), photometric="rgb")
        writer.write(photo(12, 16), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read(file.getvalue()).pixels, photo())


def test_cmyk_goes_through_its_profile() -> None:
    """Cyan of a press is not (0, 255, 255); the result says sRGB and the user is told."""
    cyan = Pillow.new("CMYK", (16, 16), (255, 0, 0, 0))
    for form in ("JPEG", "TIFF"):
        image = read(saved(cyan, form, icc_profile=cmyk_profile()))
        # Lab (55, -37, -50), the corner of the profile, is (0, 147, 217) in sRGB, with red clipped.
        np.testing.assert_allclose(image.pixels[8, 8], [0, 147, 217], atol=4)
        assert image.metadata.icc is not None
        assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(image.metadata.icc)))
        assert "profile" in image.notes[0]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_not_inverted(form: str) -> None:
    """Full ink is dark, no ink is white: Adobe's JPEG stores the inverse and is turned round, TIFF is not."""
    for ink, expected in (
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ):
        image = read(saved(Pillow.new("CMYK", (16, 16), ink), form))
        np.testing.assert_allclose(image.pixels[8, 8], expected, atol=3)
        assert image.metadata.icc is None
        assert "formula" in image.notes[0]


def test_a_profile_that_cannot_belong_is_left_out_with_a_note() -> None:
    """An RGB profile in a gray file, a gray one in an RGB file, and bytes that are no profile at all."""
    for data in (
        as_png(gray_photo(), icc_profile=rgb_profile()),
        as_jpeg(photo(), icc_profile=gray_profile()),
        as_png(photo(), icc_profile=b"not a profile"),
    ):
        image = read(data)
        assert image.metadata.icc is None
        assert any("colour profile could not be read" in note for note in image.notes)


def test_exif_loses_thumbnail_and_sizes_and_nothing_else() -> None:
    """What is stale beside new pixels goes: the thumbnail's bytes, the old width and height; the rest stays."""
    image = read(as_jpeg(turned_away(photo(), 6), exif=exif(6)))
    facts, given = described(image.metadata.exif), described(exif(6))
    assert image.metadata.exif is not None
    assert b"\xff\xd8\xff" not in image.metadata.exif
    stale = {"ExifImageWidth", "ExifImageHeight"}
    assert facts == {name: value for name, value in given.items() if name not in stale} | {"Orientation": 1}


def test_xmp_orientation_is_reset() -> None:
    """A program that believes XMP must not turn the picture again; in either way of writing it."""
    element = XMP_SIDEWAYS.replace(b'tiff:Orientation="6"', b"").replace(
        b"<dc:", b"<tiff:Orientation>8</tiff:Orientation><dc:", 1
    )
    for packet in (XMP_SIDEWAYS, element):
        image = read(saved(Pillow.fromarray(photo()), "WEBP", xmp=packet))
        assert image.metadata.xmp == packet.replace(b'="6"', b'="1"').replace(b">8<", b">1<")


def test_damaged_metadata_cost_a_note_not_the_picture() -> None:
    """EXIF and XMP that cannot be read are left out, and the user is told."""
    garbage = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow speaks of it as well
        for data in (as_jpeg(photo(), exif=garbage), saved(Pillow.fromarray(photo()), "PNG", exif=garbage)):
            image = read(data)
            assert image.size == (48, 64)
            assert described(image.metadata.exif) == {}
    image = read(saved(Pillow.fromarray(photo()), "WEBP", xmp=b"\xff\xfe\xfd"))
    assert image.metadata.xmp is None
    assert any("XMP" in note for note in image.notes)


@pytest.mark.parametrize(
    ("form", "word"), [("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("AVIF", "frames"), ("TIFF", "pages")]
)
def test_animations_and_pages_are_refused_with_their_number(form: str, word: str) -> None:
    """One picture out of many would be a silent loss."""
    data = animation(form, 5)
    assert probe(data).frames == 5
    with pytest.raises(ImageError, match=f"5 {word}"):
        read(data)


def test_a_phone_jpeg_is_a_picture_not_an_animation() -> None:
    """MPO: the main picture is read, and the user is told that the second one is not carried over."""
    image = read(phone_jpeg())
    assert image.format == "JPEG"
    assert image.size == (48, 64)
    assert any("MPO" in note for note in image.notes)


def test_samples_of_unknown_range_are_refused_in_words() -> None:
    """Floating point, 32-bit integers: no guess is made."""
    for mode, word in (("F", "floating-point"), ("I", "32-bit")):
        with pytest.raises(ImageError, match=word):
            read(saved(Pillow.new(mode, (8, 8)), "TIFF"))


def test_jpeg_xl_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional dependency is named."""
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    for head in (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a\x7a"):
        with pytest.raises(ImageError, match="pip install pillow-jxl-plugin brotli"):
            probe(head + bytes(40))


def test_the_limit_of_pixels_is_checked_before_decoding_and_says_how_to_raise_it() -> None:
    """The header alone decides; Pillow's own global limit plays no part."""
    data = as_png(photo())
    with pytest.raises(ImageError, match=r"64x48 = 0\.0 million pixels.*--max-pixels 3072"):
        decode(data, max_pixels=3071)
    decode(data, max_pixels=3072)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "AVIF", "GIF"])
def test_the_limit_of_the_process_is_neither_obeyed_nor_changed(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--max-pixels` is the one limit, and a program that uses this library keeps its own for itself."""
    data = saved(Pillow.fromarray(photo()), form)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("bbcu_cli.image.pillow._BAND_SAMPLES", 1000)
    assert read(data).size == (48, 64)
    assert Pillow.MAX_IMAGE_PIXELS == 1000


def test_pixels_fetched_in_bands_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Band by band or at once, for one and for two bytes per sample."""
    monkeypatch.setattr("bbcu_cli.image.pillow._BAND_SAMPLES", 500)
    np.testing.assert_array_equal(read(as_png(photo())).pixels, photo())
    np.testing.assert_array_equal(read(png(deep(photo()), 2, 16)).pixels, deep(photo()))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "AVIF", "GIF"])
def test_a_truncated_file_is_an_error_not_a_half_gray_picture(form: str) -> None:
    """Whereever the end is missing, no pixels come out."""
    whole = saved(Pillow.fromarray(photo()), form)
    for share in (0.1, 0.5, 0.8, 0.95):
        with pytest.raises(ImageError, match=r"truncated|damaged|not an image"):
            read(whole[: int(len(whole) * share)])


def test_strangers_are_named() -> None:
    """A file that is no image that we read is called what it is."""
    for data, word in (
        (b"", "an empty file"),
        ("schön\n".encode() * 9, "a text file"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0\x01\x02\x03", "of an unknown kind"),
    ):
        with pytest.raises(ImageError, match=f"it is {word}"):
            probe(data)


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe (which would block for ever), a missing file, one without permission."""
    pipe = tmp_path / "pipe.png"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
        with pytest.raises(ImageError, match="not a regular file"):
            probe(pipe)
    with pytest.raises(ImageError, match="not a regular file"):
        probe(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        probe(tmp_path / "missing.png")


def test_names_of_files_do_not_matter(tmp_path: Path) -> None:
    """The content decides: a JPEG called .png is a JPEG."""
    path = tmp_path / "ein sehr langer Name mit Ümlauten und 猫 .png"
    path.write_bytes(as_jpeg(photo()))
    assert probe(path).format == "JPEG"


def test_jpeg_tables_are_handed_over() -> None:
    """The quantisation tables of a JPEG, for its quality; other files have none."""
    image = read(as_jpeg(photo(), quality=30))
    assert image.jpeg_tables is not None
    assert jpeg_quality(image.jpeg_tables) == 30
    assert read(as_png(photo())).jpeg_tables is None


def test_heic_in_8_and_10_bit() -> None:
    """HEIC with pillow-heif: pixels, profile and EXIF; more than 8 bits arrive as 16."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_bytes("RGB;16", (64, 48), deep(photo()).tobytes()).save(
        file, quality=100, chroma=444, save_nclx_profile=False
    )
    image = read(file.getvalue())
    assert probe(file.getvalue()).depth == image.depth == 16
    assert np.abs(image.pixels.astype(int) - deep(photo())).mean() < 1500
    data = encode(Image(photo(), soft_mask()), "HEIC")
    assert read(data).alpha is not None


def test_heic_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional package is named."""
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        probe(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))


def test_real_photographs_come_out_right(shared: Path) -> None:
    """A phone's wide-gamut sideways JPEG, alpha, 16 bit, gray, CMYK, WebP: size, depth and profile are as described."""
    folder = shared / "data" / "photos"
    expected = {
        "photo_12mpx_exif6_p3.jpg": ((3024, 4032), 3, 8, False),
        "alpha.png": ((745, 1100), 3, 8, True),
        "rgb16.png": ((675, 900), 3, 16, False),
        "gray.jpg": ((900, 1600), 1, 8, False),
        "cmyk_progressive.jpg": ((933, 1400), 3, 8, False),
        "lossy.webp": ((1200, 1800), 3, 8, False),
    }
    for name, facts in expected.items():
        image = decode(folder / name, max_pixels=20_000_000)
        assert (image.size, image.channels, image.depth, image.alpha is not None) == facts
    phone = decode(folder / "photo_12mpx_exif6_p3.jpg", max_pixels=20_000_000)
    assert jpeg_quality(phone.jpeg_tables or ()) == 88
    assert phone.metadata.icc is not None
    assert b"Display P3" in phone.metadata.icc or len(phone.metadata.icc) == 736
    corner = Image(phone.pixels[:200, :200], metadata=phone.metadata)
    back = read(encode(corner, "PNG")).metadata
    assert (back.icc, back.exif) == (phone.metadata.icc, phone.metadata.exif)
    assert back.dpi == pytest.approx(phone.metadata.dpi, abs=0.02)
