"""Colours mean in the result what they meant in the file: declared by a profile, by numbers, or not at all."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from described import ADOBE, BT709, BT2020, D65, P3, bmp, with_chunks
from directories import EXIF, INTEROPERABILITY, rationals, shorts, text, tiff_file, tree
from fuzz import mutated
from pictures import as_jpeg, as_png, deep, gray_photo, gray_profile, photo, png, rgb_profile, saved
from PIL import Image as Pillow
from PIL import ImageCms

from bbcu_cli.errors import ImageError
from bbcu_cli.image import FORMATS, Image, Metadata, decode, encode, isobmff, losses, png_metadata, probe
from bbcu_cli.image.profile import ColourSpace, Curve, gray_as_rgb

SRGB = ImageCms.createProfile("sRGB")


@pytest.fixture(params=[name for name, fmt in FORMATS.items() if fmt.writable and fmt.icc])
def form(request: pytest.FixtureRequest) -> str:
    """Each format that holds profiles, HEIC only where pillow-heif is installed."""
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    return str(request.param)


def read(data: bytes) -> Image:
    return decode(data, max_pixels=10**6)


def srgb_light(v: Any) -> Any:
    """IEC 61966-2-1."""
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def bt709_light(v: Any) -> Any:
    """ITU-R BT.709, inverse of its camera curve."""
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def power(gamma: float) -> Callable[[Any], Any]:
    return lambda v: v**gamma


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Any:
    """The matrix from linear RGB of white D65 to XYZ (SMPTE RP 177)."""
    x, y = np.array(primaries).T
    columns = np.array([x / y, np.ones(3), (1 - x - y) / y])
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    return columns * np.linalg.solve(columns, white)


def expected_srgb(samples: Any, primaries: Any, light: Callable[[Any], Any]) -> Any:
    """What samples 0..1 of a space with the white of sRGB are in sRGB, 0..255."""
    linear = np.clip(np.linalg.solve(to_xyz(BT709), to_xyz(primaries) @ light(samples)), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


COLOURS = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (30, 30, 30), (200, 150, 120), (90, 110, 150), (120, 180, 140)]


def assert_means(icc: bytes | None, primaries: Any, light: Callable[[Any], Any]) -> None:
    """What littlecms shows through the profile is what the standard says, to the rounding of 8 bits."""
    assert icc is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    gray = icc[16:20] == b"GRAY"
    for colour in COLOURS[:4] if gray else COLOURS:
        swatch = Pillow.new("L" if gray else "RGB", (1, 1), colour[0] if gray else colour)
        shown = ImageCms.profileToProfile(swatch, profile, SRGB, renderingIntent=1, outputMode="RGB")
        assert shown is not None
        wanted = expected_srgb(np.array(colour) / 255, primaries, light)
        np.testing.assert_allclose(shown.getpixel((0, 0)), wanted, atol=1.6)


def cicp(*codes: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes(codes)


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">L", round(100_000 / gamma))


def chrm(primaries: Any, white: Any = D65) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8L", *(round(100_000 * v) for point in (white, *primaries) for v in point))


def avif(primaries: int, transfer: int, *, gray: bool = False) -> bytes:
    """An AVIF whose colr box has other code points."""
    data = saved(Pillow.fromarray(gray_photo() if gray else photo()), "AVIF", quality=90)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">2H", primaries, transfer) + data[at + 4 :]


def heic(primaries: int, transfer: int) -> bytes:
    """A HEIC of these code points."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_pillow(Pillow.fromarray(photo())).save(
        file, color_primaries=primaries, transfer_characteristics=transfer, matrix_coefficients=1, full_range_flag=1
    )
    return file.getvalue()


def tagged_tiff(**changes: Any) -> bytes:
    """A TIFF with primaries of its own."""
    x_y = [round(v * 10_000) for point in changes.get("primaries", P3) for v in point]
    fields = {318: rationals(3127, 10_000, 3290, 10_000), 319: rationals(*(n for v in x_y for n in (v, 10_000)))}
    return tiff_file(photo(), {**fields, **changes.get("fields", {})})


def dcf(details: dict[int, Any], kind: str = "JPEG") -> bytes:
    """A camera's JPEG, or a TIFF, with these EXIF fields."""
    if kind == "TIFF":
        return tiff_file(photo(), {EXIF: details})
    return as_jpeg(photo(), exif=b"Exif\0\0" + tree({271: text(b"Maker"), EXIF: details}))


table16 = shorts(*(round(65535 * (i / 255) ** 1.5) for i in range(256)))
DECLARED: dict[str, tuple[Callable[[], bytes], Any, Callable[[Any], Any]]] = {
    "PNG cICP Display P3": (lambda: with_chunks(as_png(photo()), cicp(12, 13, 0, 1)), P3, srgb_light),
    "PNG cICP BT.2020": (lambda: with_chunks(as_png(photo()), cicp(9, 14, 0, 1)), BT2020, bt709_light),
    "PNG cICP BT.709": (lambda: with_chunks(as_png(photo()), cicp(1, 1, 0, 1)), BT709, bt709_light),
    "PNG cICP linear": (lambda: with_chunks(as_png(photo()), cicp(1, 8, 0, 1)), BT709, power(1)),
    "PNG cICP P3, gamma 2.2": (lambda: with_chunks(as_png(photo()), cicp(12, 4, 0, 1)), P3, power(2.2)),
    "PNG cICP, curve unspecified": (lambda: with_chunks(as_png(photo()), cicp(9, 2, 0, 1)), BT2020, srgb_light),
    "PNG cICP before iCCP": (
        lambda: with_chunks(as_png(photo(), icc_profile=rgb_profile()), cicp(12, 13, 0, 1)), P3, srgb_light,
    ),
    "PNG cICP before sRGB": (
        lambda: with_chunks(as_png(photo()), (b"sRGB", b"\0"), cicp(12, 13, 0, 1)), P3, srgb_light,
    ),
    "PNG cICP 16 bit": (lambda: with_chunks(png(deep(photo()), 2, 16), cicp(12, 13, 0, 1)), P3, srgb_light),
    "PNG cICP narrow range": (
        lambda: with_chunks(as_png(photo()), cicp(12, 13, 0, 0)), P3,
        lambda v: srgb_light(np.clip((255 * v - 16) / 219, 0, 1)),
    ),
    "PNG gAMA 1.0": (lambda: with_chunks(as_png(photo()), gama(1.0)), BT709, power(1.0)),
    "PNG gAMA 1.8": (lambda: with_chunks(as_png(photo()), gama(1.8)), BT709, power(1.8)),
    "PNG gAMA 1.4 gray": (lambda: with_chunks(as_png(gray_photo()), gama(1.4)), BT709, power(1.4)),
    "PNG cHRM": (lambda: with_chunks(as_png(photo()), chrm(P3)), P3, srgb_light),
    "PNG cHRM and gAMA": (lambda: with_chunks(as_png(photo()), gama(2.2), chrm(ADOBE)), ADOBE, power(2.2)),
    "AVIF Display P3": (lambda: avif(12, 13), P3, srgb_light),
    "AVIF BT.2020": (lambda: avif(9, 15), BT2020, bt709_light),
    "AVIF linear": (lambda: avif(1, 8), BT709, power(1)),
    "HEIC Display P3": (lambda: heic(12, 13), P3, srgb_light),
    "HEIC BT.2020": (lambda: heic(9, 14), BT2020, bt709_light),
    "TIFF primaries": (tagged_tiff, P3, srgb_light),
    "TIFF transfer function": (lambda: tagged_tiff(fields={301: table16}), P3, power(1.5)),
    "TIFF in Adobe RGB": (lambda: dcf({INTEROPERABILITY: {1: text(b"R03")}}, "TIFF"), ADOBE, power(563 / 256)),
    "JPEG of DCF": (lambda: dcf({40961: shorts(65535), INTEROPERABILITY: {1: text(b"R03")}}), ADOBE, power(563 / 256)),
    "JPEG of Windows": (lambda: dcf({40961: shorts(2)}), ADOBE, power(563 / 256)),
    "BMP calibrated": (lambda: bmp(kind=bytes(4), primaries=P3, gamma=1.8), P3, power(1.8)),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_space_becomes_a_profile_of_the_same_colours(name: str) -> None:
    """Code points, chromaticities, gammas and tables: littlecms finds the standard's colours, and a note says so."""
    make, primaries, light = DECLARED[name]
    image = read(make())
    assert_means(image.metadata.icc, primaries, light)
    assert any("carried over as an ICC profile" in note for note in image.notes)


@pytest.mark.parametrize("name", ["PNG cICP Display P3", "AVIF BT.2020", "PNG cHRM and gAMA", "TIFF primaries"])
def test_the_profile_reaches_every_format(name: str, form: str) -> None:
    """Whatever the output, it says what its colours are; and a second round trip changes nothing."""
    image = read(DECLARED[name][0]())
    back = read(encode(image, form)).metadata.icc
    assert back == image.metadata.icc
    assert any("profile" in loss for loss in losses(image, "BMP"))


@pytest.mark.parametrize(
    "data",
    [
        lambda: as_png(photo()),
        lambda: with_chunks(as_png(photo()), cicp(1, 13, 0, 1)),
        lambda: with_chunks(as_png(photo()), cicp(2, 2, 0, 1)),
        lambda: with_chunks(as_png(photo(), icc_profile=rgb_profile()), cicp(1, 13, 0, 1)),
        lambda: with_chunks(as_png(photo()), gama(2.2)),
        lambda: with_chunks(as_png(photo()), (b"gAMA", struct.pack(">L", 45_000))),
        lambda: with_chunks(as_png(photo()), gama(2.2), chrm(BT709)),
        lambda: with_chunks(as_png(photo()), chrm(BT709)),
        lambda: with_chunks(as_png(photo()), (b"sRGB", b"\1"), gama(1.0), chrm(P3)),
        lambda: with_chunks(as_png(gray_photo()), chrm(P3)),
        lambda: with_chunks(as_png(gray_photo()), cicp(12, 13, 0, 1)),
        lambda: saved(Pillow.fromarray(photo()), "AVIF"),
        lambda: avif(2, 2),
        lambda: heic(1, 13),
        lambda: tagged_tiff(primaries=BT709),
        lambda: dcf({40961: shorts(1)}),
        lambda: dcf({40961: shorts(65535), INTEROPERABILITY: {1: text(b"R98")}}),
        lambda: bmp(kind=b"sRGB"),
        lambda: bmp(kind=b"Win ", gamma=1.0),
        lambda: bmp(kind=bytes(4), primaries=[(0, 0)] * 3, gamma=0),
    ],
)
def test_what_is_srgb_or_says_nothing_needs_no_profile(data: Callable[[], bytes]) -> None:
    """No profile, and no word about it."""
    image = read(data())
    assert image.metadata.icc is None
    assert image.notes == ()


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize(
    "make", [lambda t: with_chunks(as_png(photo()), cicp(9, t, 0, 1)), lambda t: avif(9, t), lambda t: heic(9, t)]
)
def test_hdr_is_rejected_in_words(make: Callable[[int], bytes], transfer: int) -> None:
    """PQ and HLG samples are no display values: said before a pixel is decoded, with what to do."""
    data = make(transfer)
    for look in (probe, read):
        with pytest.raises(ImageError, match=r"HDR picture coded in (PQ|HLG).*convert it to SDR"):
            look(data)


def test_xyz_samples_are_rejected_in_words() -> None:
    """They are no RGB."""
    with pytest.raises(ImageError, match="CIE XYZ"):
        read(with_chunks(as_png(photo()), cicp(10, 8, 0, 1)))


def test_codes_that_nobody_knows_are_said() -> None:
    """A reserved code is taken for sRGB, aloud."""
    for data in (with_chunks(as_png(photo()), cicp(77, 13, 0, 1)), avif(1, 99)):
        image = read(data)
        assert image.metadata.icc is None
        assert any("unknown code" in note for note in image.notes)


def test_numbers_that_are_no_colours_cost_a_note_not_the_picture() -> None:
    """Primaries on one line, a white outside, a gamma of zero, a table that leads nowhere."""
    for data in (
        with_chunks(as_png(photo()), chrm([(0.3, 0.3), (0.4, 0.4), (0.5, 0.5)])),
        with_chunks(as_png(photo()), chrm(P3, white=(0.9, 0.05))),
        with_chunks(as_png(photo()), (b"cHRM", bytes(32))),
        with_chunks(as_png(photo()), (b"cHRM", b"\xff" * 32)),
        with_chunks(as_png(photo()), (b"gAMA", bytes(4))),
        with_chunks(as_png(photo()), (b"gAMA", b"\xff" * 4)),
        tagged_tiff(fields={319: rationals(*[1, 0] * 6)}),
        tagged_tiff(fields={319: rationals(1, 3)}),
        tagged_tiff(fields={301: shorts(*range(256))}),
        bmp(kind=bytes(4), primaries=[(0.3, 0.3)] * 3),
    ):
        image = read(data)
        assert image.metadata.icc is None
        assert len(image.notes) == 1
        assert "colour space" in image.notes[0]
        assert "left out" in image.notes[0]


def test_a_profile_within_a_bmp_is_read_and_one_elsewhere_is_missed() -> None:
    """Version 5 embeds profiles, or names a file."""
    assert read(bmp(kind=b"MBED", profile=rgb_profile())).metadata.icc == rgb_profile()
    assert any("file elsewhere" in note for note in read(bmp(kind=b"LINK", profile=b"c:\\a.icm\0")).notes)


def test_cmyk_takes_no_colours_from_tags() -> None:
    """Converted colours are sRGB whatever EXIF said of the file's."""
    block = b"Exif\0\0" + tree(
        {EXIF: {40961: shorts(2), 33434: rationals(1, 250), INTEROPERABILITY: {1: text(b"R03")}}}
    )
    image = read(saved(Pillow.new("CMYK", (8, 8)), "JPEG", exif=block))
    assert image.metadata.icc is None
    assert image.metadata.exif is not None
    assert b"R03" not in image.metadata.exif


def test_a_gray_profile_becomes_one_for_rgb_where_gray_does(form: str) -> None:
    """WebP, AVIF and HEIC hold no gray: the profile of the samples, written three times, shows the same grays."""
    image = Image(gray_photo()[..., None], metadata=Metadata(icc=gray_profile()))
    back = read(encode(image, form))
    assert losses(image, form) == (() if FORMATS[form].gray else (f"{form} stores the gray image as RGB",))
    if FORMATS[form].gray:
        assert back.metadata.icc == gray_profile()
        return
    assert back.channels == 3
    assert_means(back.metadata.icc, BT709, power(2.2))


def test_a_gray_profile_without_a_curve_to_light_is_missed() -> None:
    """One that leads to Lab, or has no curve, cannot be one of RGB."""
    for profile in (gray_profile().replace(b"kTRC", b"kXXX"), gray_profile().replace(b"XYZ mntr", b"Lab mntr")):
        assert profile == gray_profile() or gray_as_rgb(profile) is None
    nowhere = Image(gray_photo()[..., None], metadata=Metadata(icc=gray_profile().replace(b"kTRC", b"kXXX")))
    assert any("profile" in loss for loss in losses(nowhere, "WebP"))
    assert read(encode(nowhere, "WebP")).metadata.icc is None


def test_16_bit_gray_with_alpha_has_a_profile_for_rgb_in_tiff() -> None:
    """TIFF stores it as RGB."""
    image = Image(deep(gray_photo()[..., None]), deep(gray_photo()), metadata=Metadata(icc=gray_profile()))
    assert_means(read(encode(image, "TIFF")).metadata.icc, BT709, power(2.2))


def test_built_profiles_are_equal_and_sound() -> None:
    """Equal spaces give equal bytes; the white is exact; a curve as a table is that curve."""
    space = ColourSpace("test", P3, D65, (Curve(2.2),))
    assert space.icc(3) == space.icc(3)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(space.icc(3))).profile
    assert profile.profile_description == "test"
    assert profile.version == pytest.approx(4.3)
    total = np.sum([profile.red_colorant[0], profile.green_colorant[0], profile.blue_colorant[0]], axis=0)
    np.testing.assert_allclose(total, (0.9642, 1, 0.8249), atol=5e-5)
    tables = tuple(
        Curve(1, table=tuple(round(65535 * (i / 1023) ** gamma) for i in range(1024))) for gamma in (1.0, 1.5, 2.0)
    )
    icc = ColourSpace("tables", BT709, D65, tables).icc(3)
    swatch = Pillow.new("RGB", (1, 1), (128, 128, 128))
    shown = ImageCms.profileToProfile(swatch, ImageCms.ImageCmsProfile(io.BytesIO(icc)), SRGB, renderingIntent=1)
    assert shown is not None
    linear = np.array([(128 / 255) ** gamma for gamma in (1.0, 1.5, 2.0)])
    np.testing.assert_allclose(shown.getpixel((0, 0)), 255 * (1.055 * linear ** (1 / 2.4) - 0.055), atol=1.1)


def test_a_profile_too_long_for_readers_of_png_is_not_written() -> None:
    """Pillow opens no PNG with a profile of more than 1 MiB: it is left out with a word; other formats hold it."""
    big = rgb_profile() + random.Random(0).randbytes(2 << 20)  # noqa: S311 - no secrets here
    big = struct.pack(">L", len(big)) + big[4:]
    image = Image(photo(), metadata=Metadata(icc=big))
    assert any("profile" in loss and "PNG" in loss for loss in losses(image, "PNG"))
    data = encode(image, "PNG")
    Pillow.open(io.BytesIO(data)).load()
    np.testing.assert_array_equal(read(data).pixels, photo())
    for form in ("JPEG", "TIFF", "WebP", "AVIF"):
        assert losses(image, form) == ()
        assert read(encode(image, form)).metadata.icc == big


def test_the_largest_profile_of_a_png_comes_back() -> None:
    """One MiB is written and read."""
    icc = rgb_profile()
    icc = struct.pack(">L", 1 << 20) + icc[4:] + random.Random(0).randbytes((1 << 20) - len(icc))  # noqa: S311
    image = Image(photo(), metadata=Metadata(icc=icc))
    assert losses(image, "PNG") == ()
    data = encode(image, "PNG")
    Pillow.open(io.BytesIO(data)).load()
    assert read(data).metadata.icc == icc


def test_descriptions_of_any_bytes_are_read_or_refused() -> None:
    """Mutated boxes of an AVIF give a description, or a ValueError, at once."""
    data = saved(Pillow.fromarray(photo()), "AVIF", exif=b"Exif\0\0" + tree({271: text(b"Maker")}))
    found = isobmff.read(io.BytesIO(data))
    assert found.codes == (1, 13)
    assert found.exif is not None
    assert b"Maker" in found.exif
    rng = random.Random(5)  # noqa: S311 - no secrets here
    for _ in range(3000):
        try:
            isobmff.read(io.BytesIO(mutated(data[:600], rng)))
        except ValueError:
            continue


def test_a_chunk_of_a_wrong_length_or_checksum_says_nothing() -> None:
    """It is left out and listed, and the others count."""
    sound = with_chunks(as_png(photo()), gama(1.0), chrm(P3))
    at = sound.index(b"gAMA") + 4
    wrong = sound[:at] + struct.pack(">L", 55_555) + sound[at + 4 :]
    for data, name in (
        (wrong, "gAMA"),
        (with_chunks(sound, (b"cICP", b"\x0c\x0d\0")), "cICP"),
        (with_chunks(sound, (b"iCCP", b"name\0\0no deflate")), "iCCP"),
        (with_chunks(sound, (b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 25)))), "zTXt"),
    ):
        found = png_metadata.read(io.BytesIO(data))
        assert found.faults == (name,)
        assert found.chromaticities == (D65, *P3)
