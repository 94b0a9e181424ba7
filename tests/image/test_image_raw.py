"""Camera raw files: never their thumbnails; refused by name, or developed with rawpy."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import photo
from tiff_files import tiff

from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode, probe
from bbcu_cli.image.formats import format_of, is_image_name

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

# XYZ -> linear sRGB: the camera of these files sees in sRGB's own primaries (IEC 61966-2-1).
MATRIX = (32404542, -15371385, -4985314, -9692660, 18760108, 415560, 556434, -2040259, 10572252)
WHITE = 16000


def dng(orientation: int = 1, *, make: bytes = b"Maker", version: bool = True, below: bool = True) -> bytes:
    """A raw file of the photo, its mosaic below a thumbnail or the first page itself."""
    light = np.where(photo(64, 96) <= 10, photo(64, 96) / 3294.6, ((photo(64, 96) / 255 + 0.055) / 1.055) ** 2.4)
    mosaic = np.empty((64, 96))
    for channel, (y, x) in zip((0, 1, 1, 2), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        mosaic[y::2, x::2] = light[y::2, x::2, channel]
    matrix = tuple(number for value in MATRIX for number in (value, 10_000_000))
    about = [(274, 3, 1, orientation, True), (271, 2, len(make), make, True), (272, 2, 6, b"Model\0", True)]
    about += [(50706, 1, 4, b"\1\4\0\0", True), (50708, 2, 6, b"Model\0", True)] * version
    about += [(50721, 10, 9, matrix, True), (50728, 5, 3, (1, 1, 1, 1, 1, 1), True), (50778, 3, 1, 21, True)]
    sensor = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True), (50717, 4, 1, WHITE, True)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        if below:
            writer.write(photo(8, 12), photometric="rgb", subfiletype=1, subifds=1, extratags=about)
            about = []
        writer.write(np.rint(mosaic * WHITE).astype(np.uint16), photometric=32803, extratags=[*about, *sensor])
    return file.getvalue()


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_raw_file_is_developed_upright_in_16_bits(orientation: int, below: bool) -> None:  # noqa: FBT001
    """The picture, not the thumbnail, in sRGB, with the EXIF that can be read; the header promises it."""
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    data = dng(orientation, below=below)
    info, image = probe(data), decode(data, max_pixels=10**6)
    expected = np.rot90(photo(64, 96), {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    assert (info.format, info.size, info.channels, info.depth) == ("RAW", expected.shape[:2], 3, 16)
    assert image.size == info.size
    assert image.depth == 16
    inner = slice(4, -4)
    assert np.abs(image.pixels / 257 - expected)[inner, inner].mean() < 6  # what interpolating the mosaic costs
    assert image.metadata.exif is not None
    assert b"Maker" in image.metadata.exif
    assert any("developed" in note for note in image.notes)


def test_a_raw_file_on_the_disk_is_developed(tmp_path: Path) -> None:
    """LibRaw reads it itself."""
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    path = tmp_path / "photo é.dng"
    path.write_bytes(dng())
    np.testing.assert_array_equal(decode(path, max_pixels=10**6).pixels, decode(dng(), max_pixels=10**6).pixels)


def test_a_cut_raw_file_is_an_error() -> None:
    """No half picture."""
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    data = dng()
    for length in (20, 100, len(data) // 2, len(data) - 500):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data[:length], max_pixels=10**6)


def with_magic(data: bytes, *pieces: tuple[int, bytes]) -> bytes:
    """A file with other bytes at some places."""
    out = bytearray(data)
    for at, piece in pieces:
        out[at : at + len(piece)] = piece
    return bytes(out)


THUMBNAIL = tiff(photo(8, 12), 8)
RAWS = {
    "DNG": dng(),
    "Nikon NEF": dng(make=b"NIKON CORPORATION\0", version=False),
    "Sony ARW": dng(make=b"SONY\0", version=False),
    "Pentax PEF": dng(make=b"PENTAX\0", version=False, below=False),
    "Samsung SRW": dng(make=b"SAMSUNG\0", version=False),
    "of an unknown maker": dng(make=b"Nobody\0", version=False),
    "Canon CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tiff(photo(8, 12), 8)[8:],
    "Phase One IIQ": with_magic(THUMBNAIL, (8, b"IIIITwaR")),
    "Canon CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "Canon CRW": b"II\x1a\0\0\0HEAPCCDR",
    "Olympus ORF": with_magic(THUMBNAIL, (0, b"IIRO")),
    "Panasonic RW2": with_magic(THUMBNAIL, (0, b"IIU\0")),
    "Fujifilm RAF": b"FUJIFILMCCD-RAW 0201",
    "Sigma X3F": b"FOVb\0\0\2\0",
}


@pytest.mark.parametrize("kind", RAWS)
def test_without_rawpy_a_raw_file_is_refused_by_its_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never its thumbnail; the sentence names the kind and what to install."""
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for look in (probe, lambda data: decode(data, max_pixels=10**6)):
        with pytest.raises(ImageError, match=r"camera raw file.*bbcu-cli\[raw\]") as caught:
            look(RAWS[kind] + bytes(64))
        assert kind in str(caught.value)


def test_a_raw_file_that_libraw_does_not_know_is_not_called_damaged() -> None:
    """A new camera, say."""
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    with pytest.raises(ImageError, match="LibRaw does not know"):
        probe(RAWS["Sigma X3F"] + bytes(1000))


def test_an_rgb_tiff_of_a_scanner_is_no_raw_file() -> None:
    """A maker's name alone says nothing; what counts is that a sensor's mosaic is inside."""
    data = tiff(photo(), 8, tags={271: b"NIKON CORPORATION\0"})
    np.testing.assert_array_equal(decode(data, max_pixels=10**6).pixels, photo())


@pytest.mark.parametrize("first", [b"CR\2", b"IIIIII", b"MMMMMM"])
def test_pixels_that_look_like_the_mark_of_a_raw_file_are_pixels(first: bytes) -> None:
    """Where such marks stand other TIFFs keep their pixels."""
    samples = photo().copy()
    samples.reshape(-1)[: len(first)] = list(first)
    np.testing.assert_array_equal(decode(tiff(samples, 8), max_pixels=10**6).pixels, samples)


def test_names_of_raw_files_are_images_that_we_do_not_write() -> None:
    """In a folder they are found; as an output they are refused."""
    for suffix in (".dng", ".NEF", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf"):
        assert is_image_name(Path(f"a{suffix}"))
        with pytest.raises(ImageError, match="cannot be written"):
            format_of(Path(f"a{suffix}"))
    for suffix in (".mpo", ".apng"):
        with pytest.raises(ImageError, match="cannot be written"):
            format_of(Path(f"a{suffix}"))


def test_a_page_below_may_lead_nowhere() -> None:
    """Damaged SubIFDs do not cost a good first page."""
    for places in ([10**6], [8, 9], [2**32 - 1] * 40):
        data = tiff(photo(), 8, tags={330: places})
        np.testing.assert_array_equal(decode(data, max_pixels=10**6).pixels, photo())
    assert struct.unpack_from("<L", data, 4)[0] > 8
