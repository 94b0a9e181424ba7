"""JPEG 2000, TGA, ICO and DDS: what the libraries write is read sample by sample, and what else they hold."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from pictures import XMP_SIDEWAYS, deep, exif, gray_photo, photo, rgb_profile, saved, soft_mask
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, probe
from bbcu_cli.image.compression import Compression, compression_of

RGBA = np.dstack([photo(), soft_mask()])
SAMPLES = {"L": RGBA[..., :1], "LA": RGBA[..., [0, 3]], "RGB": RGBA[..., :3], "RGBA": RGBA}


def picture(mode: str) -> Pillow.Image:
    """The photo in one of Pillow's modes."""
    return Pillow.fromarray(np.squeeze(SAMPLES[mode]), mode)


def read(data: bytes) -> Image:
    """The decoded picture; the header has promised what it is."""
    info, image = probe(data), decode(data, max_pixels=10**6)
    promised = (info.format, info.size, info.channels, info.depth, info.alpha)
    assert promised == (image.format, image.size, image.channels, image.depth, image.alpha is not None)
    return image


def samples_of(image: Image) -> np.ndarray:
    """Alpha last."""
    return image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])


EXACT = [
    *(("JPEG 2000", "JPEG2000", mode, {"no_jp2": bare}) for mode in SAMPLES for bare in (False, True)),
    *(
        ("TGA", "TGA", mode, about)
        for mode in SAMPLES
        for about in ({}, {"compression": "tga_rle"}, {"orientation": 1})
    ),
    *(("DDS", "DDS", mode, {}) for mode in SAMPLES),
    ("ICO", "ICO", "RGBA", {"sizes": [(64, 48)]}),
    ("ICO", "ICO", "RGBA", {"sizes": [(64, 48)], "bitmap_format": "bmp"}),
]


@pytest.mark.parametrize(("name", "form", "mode", "about"), EXACT)
def test_what_pillow_writes_is_read(name: str, form: str, mode: str, about: dict[str, object]) -> None:
    """Every mode that it has, losslessly."""
    image = read(saved(picture(mode), form, **about))
    assert image.format == name
    assert image.notes == ()
    np.testing.assert_array_equal(samples_of(image), SAMPLES[mode])


def test_a_palette_of_a_tga_is_looked_up() -> None:
    """Of colour."""
    source = picture("RGB").convert("P", palette=Pillow.Palette.ADAPTIVE)
    for about in ({}, {"compression": "tga_rle"}):
        np.testing.assert_array_equal(read(saved(source, "TGA", **about)).pixels, np.asarray(source.convert("RGB")))


def test_a_fourth_channel_that_is_not_said_to_be_opacity_is_none() -> None:
    """TGA of 32 bits and no bits of attributes: zeros that would make it invisible; 16 bits likewise."""
    data = bytearray(saved(Pillow.fromarray(RGBA * np.uint8([1, 1, 1, 0])), "TGA"))
    data[17] &= 0xF0
    image = read(bytes(data))
    assert image.alpha is None
    np.testing.assert_array_equal(image.pixels, photo())
    assert image.notes == ("its fourth channel is not said to be opacity and was left out",)
    values = np.arange(0, 1 << 15, 8, dtype="<u2").reshape(64, 64)
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 64, 64, 16, 0x20)
    image = read(head + values.tobytes())
    red = (values >> 10) * 255 // 31
    assert np.abs(image.pixels[..., 0].astype(int) - red).max() <= 1


def test_more_than_8_bits_of_gray_stay_in_jpeg_2000() -> None:
    """16 bits as they are; of 12 bits white is white, not a little darker."""
    gray = deep(gray_photo())
    np.testing.assert_array_equal(read(saved(Pillow.fromarray(gray), "JPEG2000")).pixels[..., 0], gray)
    twelve = gray >> 4
    twelve[0, :2] = 0, 4095
    # The samples are stored around the middle of their depth: 16 bits with another middle are 12.
    data = bytearray(saved(Pillow.fromarray(twelve + np.uint16(32768 - 2048)), "JPEG2000", no_jp2=True))
    data[data.index(b"\xff\x51") + 40] = 11
    read_back = read(bytes(data)).pixels[..., 0]
    np.testing.assert_array_equal(read_back, np.floor(twelve / 4095 * 65535 + 0.5))


def test_colour_of_more_than_8_bits_is_reduced_with_a_note() -> None:
    """Pillow has no more."""
    data = bytearray(saved(picture("RGB"), "JPEG2000", no_jp2=True))
    at = data.index(b"\xff\x51") + 40
    data[at], data[at + 3], data[at + 6] = 11, 11, 11
    assert read(bytes(data)).notes == ("12-bit colours were reduced to 8 bits",)


def with_colours(data: bytes, colr: bytes, *more: bytes) -> bytes:
    """A JP2 with another box of colours, and boxes behind its codestream."""
    at = data.index(b"colr") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    box = struct.pack(">L4s", 8 + len(colr), b"colr") + colr
    header = data.index(b"jp2h") - 4
    longer = int.from_bytes(data[header : header + 4], "big") - length + len(box)
    code = data.index(b"jp2c") - 4
    sized = struct.pack(">L", len(data) - code)
    whole = data[:header] + struct.pack(">L", longer) + data[header + 4 : at] + box + data[at + length : code]
    return whole + sized + data[code + 4 :] + b"".join(more)


def test_profile_exif_and_xmp_of_jpeg_2000_are_read() -> None:
    """Pillow knows none of them; the orientation turns the picture."""
    uuid = [
        struct.pack(">L4s", 24 + len(content), b"uuid") + name + content
        for name, content in (
            (b"JpgTiffExif->JP2", exif(6)[6:]),
            (bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), XMP_SIDEWAYS),
        )
    ]
    image = read(with_colours(saved(picture("RGB"), "JPEG2000"), b"\2\0\0" + rgb_profile(), *uuid))
    assert image.metadata.icc == rgb_profile()
    assert image.metadata.exif is not None
    assert image.metadata.xmp is not None
    np.testing.assert_array_equal(image.pixels, np.rot90(photo(), 3))


@pytest.mark.parametrize(("number", "word"), [(12, "CMYK"), (14, "CIE Lab"), (99, r"unknown \(number 99\)")])
def test_other_colours_of_jpeg_2000_are_refused_in_words(number: int, word: str) -> None:
    """Shown as RGB they would be wrong."""
    data = with_colours(saved(picture("RGB"), "JPEG2000"), b"\1\0\0" + struct.pack(">L", number))
    with pytest.raises(ImageError, match=f"colours are {word}; convert"):
        probe(data)


def test_lossy_and_lossless_jpeg_2000_are_told_apart() -> None:
    """By the wavelet; the network is chosen by it."""
    for bare in (False, True):
        assert compression_of(saved(picture("RGB"), "JPEG2000", no_jp2=bare)) is None
        lossy = saved(picture("RGB"), "JPEG2000", irreversible=True, no_jp2=bare)
        assert compression_of(lossy) == Compression("JPEG 2000")


def test_the_largest_picture_of_an_icon_is_read() -> None:
    """Whatever its place in the file, with a note."""
    for kind in ("png", "bmp"):
        source = picture("RGBA").resize((64, 64))
        data = saved(source, "ICO", sizes=[(16, 16), (64, 64), (32, 32)], bitmap_format=kind)
        image = read(data)
        np.testing.assert_array_equal(samples_of(image), np.asarray(source))
        assert image.notes == ("of the 3 pictures of the icon the largest one was read",)


@pytest.mark.parametrize("kind", ["DXT1", "DXT3", "DXT5", "BC2", "BC3", "BC5"])
def test_compressed_textures_are_read_as_pillow_reads_them(kind: str) -> None:
    """Nearly the picture."""
    mode = "RGB" if kind == "BC5" else "RGBA"
    data = saved(picture(mode), "DDS", pixel_format=kind)
    with Pillow.open(io.BytesIO(data)) as shown:
        np.testing.assert_array_equal(samples_of(read(data)), np.asarray(shown))


def test_dds_of_other_kinds() -> None:
    """A cube has a note; light and unknown kinds are refused in words."""
    data = bytearray(saved(picture("RGB"), "DDS"))
    data[112:116] = struct.pack("<L", 0x200)
    assert read(bytes(data)).notes == ("of the sides of a cube the first one was read",)
    ten = bytearray(saved(picture("RGBA"), "DDS", pixel_format="BC3"))
    for number, words in ((95, "light without a white"), (2, "does not read .DXGI format 2")):
        ten[128:132] = struct.pack("<L", number)
        with pytest.raises(ImageError, match=words):
            probe(bytes(ten))
    old = bytearray(saved(picture("RGBA"), "DDS", pixel_format="DXT1"))
    old[84:88] = b"UYVY"
    gray = bytearray(saved(picture("L"), "DDS"))
    gray[88:92] = struct.pack("<L", 12)
    for data, words in ((old, "kind UYVY"), (gray, "12 bits per pixel")):
        with pytest.raises(ImageError, match=f"is a DDS that bbcu does not read .{words}"):
            probe(bytes(data))
    for cut in (100, 140):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            probe(bytes(ten[:cut]))


@pytest.mark.parametrize(("name", "form", "mode", "about"), EXACT)
def test_a_truncated_one_is_an_error(name: str, form: str, mode: str, about: dict[str, object]) -> None:
    """Wherever the end is missing, no pixels come out."""
    whole = saved(picture(mode), form, **about)
    for share in (0.1, 0.5, 0.8, 0.95):
        with pytest.raises(ImageError, match=r"truncated|damaged|not an image"):
            read(whole[: int(len(whole) * share)])
    del name


def test_a_huge_one_is_refused_before_memory_is_taken() -> None:
    """By what the header says."""
    data = bytearray(saved(picture("RGB"), "TGA"))
    data[12:16] = b"\xff" * 4
    dds = bytearray(saved(picture("RGB"), "DDS"))
    dds[12:20] = struct.pack("<LL", 1 << 20, 1 << 20)
    for hostile in (data, dds):
        with pytest.raises(ImageError, match="more than the limit"):
            read(bytes(hostile))


def test_other_files_are_no_tga() -> None:
    """It has no signature: zeros, cursors and text are none."""
    for data in (
        bytes(99),
        b"\0\0\2\0\1\0\x20\x20" + bytes(99),
        b"some text that is long enough",
        bytes([0, 0, 2]) * 9,
    ):
        with pytest.raises(ImageError, match="not an image"):
            probe(data)
