"""CIE Lab TIFF against independent conversions: scikit-image's numbers and LittleCMS."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from pictures import photo, rgb_profile, saved, soft_mask
from PIL import Image as Pillow
from PIL import ImageCms
from skimage.color import lab2xyz, xyz2rgb
from tiff_files import deflate, tiff, written

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, probe

LAB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
TO_D65 = np.array(
    [[0.9555766, -0.0230393, 0.0631636], [-0.0282895, 1.0099416, 0.0210077], [0.0122982, -0.0204830, 1.3299098]]
)  # Bradford from D50, as Bruce Lindbloom prints it


def colours() -> np.ndarray:
    """L*, a*, b* (19, 30, 3) of grays and many colours of sRGB, in steps of 8 bits."""
    lightness, hue = np.meshgrid(np.linspace(20, 90, 19), np.linspace(0, 2 * np.pi, 30), indexing="ij")
    chroma = 20 * np.sin(np.pi * lightness / 110)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    lab[:, :3, 1:] = 0
    return np.rint(lab / STEP) * STEP


STEP = np.array([100 / 255, 1, 1])


def stored(lab: np.ndarray, kind: int, bits: int) -> np.ndarray:
    """The numbers of a TIFF for colours: CIELab (8), ICCLab (9), ITULab (10)."""
    most, shift = (1 << bits) - 1, 1 << (bits - 8)
    light, a, b = np.moveaxis(lab, -1, 0)
    if kind == 8:
        numbers = [light / 100 * most, a * shift % (1 << bits), b * shift % (1 << bits)]
    elif kind == 9:
        numbers = [light / 100 * 255 * shift, (a + 128) * shift, (b + 128) * shift]
    else:
        numbers = [light / 100 * most, a / 170 * most + 128 * shift, b / 200 * most + 96 * shift]
    return np.rint(np.stack(numbers, axis=-1)).astype(f"u{bits // 8}")


def srgb(lab: np.ndarray, *, adapted: bool = True) -> np.ndarray:
    """What scikit-image makes of L*, a*, b* under D50 (D65 if not `adapted`): 0..1."""
    if not adapted:
        return xyz2rgb(lab2xyz(lab, illuminant="D65"))
    return xyz2rgb(lab2xyz(lab, illuminant="D50") @ TO_D65.T)


def read(data: bytes) -> Image:
    """The decoded picture; the header has promised what it is."""
    info, image = probe(data), decode(data, max_pixels=10**6)
    assert (info.size, info.channels, info.depth, info.alpha) == (image.size, 3, 16, image.alpha is not None)
    return image


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [8, 9, 10])
def test_lab_becomes_srgb(kind: int, bits: int) -> None:
    """All three encodings; to the rounding of four digits in scikit-image's matrices, half a step of ITU's 8 bits."""
    image = read(tiff(stored(colours(), kind, bits), bits, photometric=kind))
    tolerance = 0.009 if (kind, bits) == (10, 8) else 0.0005
    assert np.abs(image.pixels / 65535 - srgb(colours())).max() < tolerance
    assert image.metadata.icc is None
    assert image.notes == ("CIE Lab was converted to sRGB",)


def test_black_white_and_grays_are_exactly_that() -> None:
    """L* alone, and nothing else, decides."""
    for kind, bits in ((8, 8), (8, 16), (9, 8), (9, 16)):
        lab = np.zeros((2, 64, 3))
        lab[..., 0] = np.linspace(0, 100, 64)
        pixels = read(tiff(stored(lab, kind, bits), bits, photometric=kind)).pixels.astype(int)
        assert np.abs(np.diff(pixels, axis=-1)).max() <= 1
        assert (pixels[:, 0] == 0).all()
        assert (pixels[:, -1] == 65535).all()


@pytest.mark.parametrize("kind", [8, 10])
def test_a_white_point_that_is_named_counts(kind: int) -> None:
    """Under D65 nothing is adapted; a profile of Lab, which counts from D50, comes first; nonsense does not count."""
    samples = stored(colours(), kind, 16)
    about = {"photometric": kind, "tags": {318: [Fraction(3127, 10000), Fraction(3290, 10000)]}}
    by_white = read(tiff(samples, 16, **about)).pixels / 65535
    assert np.abs(by_white - srgb(colours(), adapted=False)).max() < 0.0005
    plain = read(tiff(samples, 16, photometric=kind)).pixels
    about["tags"] |= {34675: LAB_PROFILE}
    np.testing.assert_array_equal(read(tiff(samples, 16, **about)).pixels, plain)
    about["tags"] = {318: [Fraction(0), Fraction(1)]}
    np.testing.assert_array_equal(read(tiff(samples, 16, **about)).pixels, plain)


def test_the_range_of_itu_may_be_named() -> None:
    """The tag Decode of RFC 3949: least and most of each."""
    least, most = np.array([0, -128, -100]), np.array([100, 127, 99])
    samples = np.rint((colours() - least) / (most - least) * 65535).astype(np.uint16)
    named = [Fraction(int(value)) for pair in zip(least, most, strict=True) for value in pair]
    image = read(tiff(samples, 16, photometric=10, tags={433: named}))
    assert np.abs(image.pixels / 65535 - srgb(colours())).max() < 0.0005


def test_what_pillow_and_tifffile_write_is_read() -> None:
    """Pillow's 8 bits against LittleCMS's own way back; tifffile's signed 16 bits, deflated, with differences."""
    srgb_profile, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(srgb_profile, lab, "RGB", "LAB", renderingIntent=1, flags=0x0100)
    to_rgb = ImageCms.buildTransform(lab, srgb_profile, "LAB", "RGB", renderingIntent=1, flags=0x0100)
    picture = ImageCms.applyTransform(Pillow.fromarray(photo()), to_lab)
    expected = np.asarray(ImageCms.applyTransform(picture, to_rgb)).astype(int)
    image = read(saved(picture, "TIFF", icc_profile=LAB_PROFILE))
    assert np.abs(image.pixels / 257 - expected).max() < 1
    assert ImageCms.ImageCmsProfile(io.BytesIO(image.metadata.icc or b"")).profile.xcolor_space == "RGB "
    samples = stored(colours(), 8, 16)
    for data in (
        written([(samples.view(np.int16), {"photometric": "cielab"})]),
        written([(samples, {"photometric": "cielab", "compression": "zlib"})]),
        tiff(samples, 16, photometric=8, predictor=2, compression=8, encode=deflate, chunk=(16, 16), order=">"),
        tiff(samples, 16, photometric=8, planar=True, tags={339: [1, 2, 2]}),
    ):
        np.testing.assert_array_equal(read(data).pixels, read(tiff(samples, 16, photometric=8)).pixels)


def test_colours_of_srgb_that_were_rounded_to_8_bits_stay_in_srgb() -> None:
    """All around its edge: steps of Lab lead a little out of it, and nobody sees that."""
    edge = np.indices((2, 52, 52)).reshape(3, -1).T * [255, 5, 5]
    edge = np.concatenate([edge, edge[:, [1, 0, 2]], edge[:, [1, 2, 0]]]).reshape(-1, 52, 3).astype(np.uint8)
    profile, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(profile, lab, "RGB", "LAB", renderingIntent=1, flags=0x0100)
    image = read(saved(ImageCms.applyTransform(Pillow.fromarray(edge), to_lab), "TIFF", icc_profile=None))
    assert image.notes == ("CIE Lab was converted to sRGB",)
    assert image.metadata.icc is None


def test_colours_beyond_srgb_become_romm_rgb_with_its_profile() -> None:
    """LittleCMS finds the same L*, a* and b* in the result by the profile that is written."""
    lab = colours()
    lab[0, 0] = 60, -70, 40
    image = read(tiff(stored(lab, 8, 16), 16, photometric=8))
    assert image.notes == ("CIE Lab was converted to ROMM RGB (ProPhoto), because sRGB lacks some of its colours",)
    to_lab = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(image.metadata.icc or b"")),
        ImageCms.createProfile("LAB"),
        "RGB",
        "LAB",
        renderingIntent=1,
        flags=0x0100,
    )
    shown = ImageCms.applyTransform(Pillow.fromarray(np.rint(image.pixels / 257).astype(np.uint8)), to_lab)
    found = np.frombuffer(shown.tobytes(), np.uint8).reshape(lab.shape).astype(int)
    found = np.dstack([found[..., 0] * 100 / 255, (found[..., 1:] + 128) % 256 - 128])
    assert np.abs(found - lab).max() < 2.5  # 8 bits of so wide a space


def test_colours_that_are_none_are_clipped_with_a_note() -> None:
    """Beyond ROMM RGB, and how many of them."""
    lab = colours()
    lab[0, 0] = 20, 120, -120
    image = read(tiff(stored(lab, 8, 16), 16, photometric=8))
    assert image.notes[1] == "0.18% of its pixels have colours beyond that, which were clipped"


def test_alpha_and_orientation_of_lab_are_kept() -> None:
    """The fourth sample is spread to 16 bits."""
    samples = np.dstack([stored(np.resize(colours(), (48, 64, 3)), 8, 8), soft_mask()])
    image = read(tiff(samples, 8, photometric=8, extras=[2], tags={274: 6}))
    np.testing.assert_array_equal(image.alpha, np.rot90(soft_mask().astype(np.uint16) * 257, 3))
    plain = read(tiff(samples[..., :3], 8, photometric=8))
    np.testing.assert_array_equal(image.pixels, np.rot90(plain.pixels, 3))


def test_a_profile_that_is_not_of_lab_is_left_out() -> None:
    """With a note; the colours are those of Lab."""
    image = read(tiff(stored(colours(), 8, 8), 8, photometric=8, tags={34675: rgb_profile()}))
    assert "the colour profile could not be read (it is for RGB, the image is Lab) and was left out" in image.notes
    np.testing.assert_array_equal(image.pixels, read(tiff(stored(colours(), 8, 8), 8, photometric=8)).pixels)


REFUSED = {
    "lightness": (tiff(stored(colours(), 8, 8)[..., :1], 8, photometric=8), "the lightness of CIE Lab alone"),
    "12 bits": (tiff(stored(colours(), 8, 16) >> 4, 12, photometric=8), "another kind than 8 or 16 bits"),
    "floats": (
        tiff(colours().astype(np.float32), 32, photometric=8, tags={339: [3, 3, 3]}),
        "another kind than 8 or 16 bits",
    ),
    "multiplied": (
        tiff(np.dstack([photo(), soft_mask()]), 8, photometric=8, extras=[1]),
        "multiplied by their opacity",
    ),
    "a profile that changes": (
        tiff(photo(), 8, photometric=8, tags={34675: LAB_PROFILE[:-14] + b"\x80\0" + LAB_PROFILE[-12:]}),
        "that its profile changes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lab_that_is_not_read_is_refused_in_words(name: str) -> None:
    """Never "damaged"."""
    data, words = REFUSED[name]
    with pytest.raises(ImageError) as caught:
        read(data)
    assert words in str(caught.value)
    assert "damaged" not in str(caught.value)
