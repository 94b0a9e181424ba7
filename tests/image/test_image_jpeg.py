"""JPEG as people have it: complete without an end marker, and kinds that no decoder here reads, called by name."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import as_jpeg, cmyk_profile, gray_photo, phone_jpeg, photo, saved
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, probe
from bbcu_cli.image.jpeg_stream import segments

COMPLETE = {
    "baseline": as_jpeg(photo()),
    "4:2:0": as_jpeg(photo(53, 75), subsampling="4:2:0"),
    "gray": as_jpeg(gray_photo()),
    "progressive": as_jpeg(photo(53, 75), progressive=True),
    "progressive gray": as_jpeg(gray_photo(), progressive=True),
    "restart markers": as_jpeg(photo(), restart_marker_blocks=2),
    "CMYK": saved(Pillow.fromarray(photo()).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
}


def read(data: bytes) -> Image:
    """Decode with a modest limit."""
    return decode(data, max_pixels=10**6)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_jpeg_without_its_end_marker_is_read(name: str) -> None:
    """All of EOI missing, or its second byte; the pixels are those of the whole file, and the user is told."""
    whole = COMPLETE[name]
    expected = read(whole)
    for cut in (1, 2):
        image = read(whole[:-cut])
        np.testing.assert_array_equal(image.pixels, expected.pixels)
        assert image.metadata == expected.metadata
        assert any("end marker" in note for note in image.notes)
        assert probe(whole[:-cut]).size == image.size


@pytest.mark.parametrize("name", COMPLETE)
def test_a_jpeg_that_misses_more_than_its_end_marker_is_an_error(name: str) -> None:
    """From a few bytes of its last scan on: a decoder would make them up."""
    whole = COMPLETE[name]
    for cut in (6, 7, 8, 12, 20, 50, 100, len(whole) // 3):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            read(whole[:-cut])


def test_a_progressive_jpeg_that_misses_whole_scans_is_an_error() -> None:
    """Cut between two scans nothing else is missing, and yet the picture is a coarse one."""
    whole = as_jpeg(photo(), progressive=True)
    found = [(marker, start) for marker, start, _ in segments(whole, scans=True)]
    first = next(start for marker, start in found if marker == 0xDA)
    for start in (start for _, start in found if start > first):
        with pytest.raises(ImageError, match="truncated"):
            read(whole[:start])


def test_a_phone_jpeg_with_a_cut_second_picture_is_read() -> None:
    """MPO: the first picture has its end marker."""
    assert read(phone_jpeg()[:-200]).size == (48, 64)


def frame(marker: int, precision: int = 8, components: int = 3) -> bytes:
    """A JPEG whose frame header says another kind; its scan is not looked at."""
    data = bytearray(as_jpeg(photo()))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4], data[at + 9] = marker, precision, components
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(0xC1, 12), ("12 bits per sample", "djpeg")),
        (frame(0xC2, 12), ("12 bits per sample", "djpeg")),
        (frame(0xC3, 16), ("lossless JPEG", "djpeg")),
        (frame(0xC3), ("lossless JPEG", "djpeg")),
        (frame(0xCB), ("lossless JPEG", "djpeg")),
        (frame(0xC5), ("hierarchical JPEG",)),
        (frame(0xC0, components=2), ("2 components",)),
        (frame(0xF7), ("JPEG-LS", "ffmpeg")),
    ],
)
def test_an_intact_jpeg_that_is_not_read_is_called_by_its_kind(data: bytes, words: tuple[str, ...]) -> None:
    """Never damaged: what it is and what converts it."""
    with pytest.raises(ImageError) as caught:
        read(data)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"II\xbc\x01", ("JPEG XR", "JxrDecApp")),
        (b"8BPS\0\1", ("Photoshop", "magick")),
        (b"gimp xcf file\0", ("GIMP",)),
        (b"qoif\0\0\0\1", ("QOI", "magick")),
        (bytes(128) + b"DICM", ("DICOM", "dcm2img")),
        (b"<?xml version='1.0'?><svg>", ("SVG",)),
        (b"\0\0\0\x20ftypisom\0\0\2\0", ("video",)),
    ],
)
def test_other_kinds_under_a_familiar_name_are_called_what_they_are(head: bytes, words: tuple[str, ...]) -> None:
    """JPEG XR called .jpg, and the like."""
    with pytest.raises(ImageError) as caught:
        decode(head + bytes(200 * (b"<" not in head)), max_pixels=10**6, name="photo.jpg")
    assert all(word in str(caught.value) for word in words), caught.value
    assert "damaged" not in str(caught.value)
