"""Samples that do not say their black and white: between two stated values they are right, else they are rejected."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Bbcu
from pictures import gray_photo, photo, saved, soft_mask
from PIL import Image as Pillow
from tiff_files import by_libtiff, deflate, lzw, pack_bits, tiff, written

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, Levels, decode, probe
from bbcu_cli.image.decode import open_frames

COMPRESSIONS = {
    "none": (1, lambda data, _: data),
    "deflate": (8, deflate),
    "LZW": (5, lzw),
    "PackBits": (32773, pack_bits),
    "Zstandard": (50000, by_libtiff("zstd")),
}
KINDS = {"f2": 3, "f4": 3, "f8": 3, "u4": 1, "i4": 2, "i2": 2, "i1": 2, "u8": 1, "i8": 2}


def read(data: bytes, low: float, high: float) -> Image:
    """The decoded picture; the header has promised what it is."""
    levels = Levels(low, high)
    info, image = probe(data, levels=levels), decode(data, max_pixels=10**6, levels=levels)
    assert (info.size, info.channels, info.depth) == (image.size, image.channels, 16)
    assert image.depth == 16
    assert info.alpha == (image.alpha is not None)
    return image


def spread(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """What samples are in 16 bits."""
    share = (samples.astype(np.longdouble) - low) / (np.longdouble(high) - low)
    return np.rint(np.clip(share, 0, 1) * 65535).astype(np.uint16)


def numbers(kind: str, channels: int) -> tuple[np.ndarray, float, float]:
    """Samples (20, 37, channels) that use a range, and that range."""
    share = np.dstack([photo(20, 37), soft_mask(20, 37)])[..., :channels] / 255
    if kind.startswith("f"):
        return (share * 3 - 1).astype(kind), -1, 2
    limits = np.iinfo(kind)
    return (share * (limits.max / 2)).astype(kind), 0, float(limits.max // 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
def test_every_kind_of_number_is_spread_between_the_levels(kind: str, order: str, planar: bool) -> None:  # noqa: FBT001
    """Gray and RGB, strips and tiles, both byte orders, classic and big, interleaved and in planes."""
    for channels in (1, 3):
        samples, low, high = numbers(kind, channels)
        for chunk, big in ((None, True), (7, False), ((16, 32), False)):
            stored = samples.view(kind.replace("i", "u"))
            about = {"planar": planar, "chunk": chunk, "order": order, "big": big}
            data = tiff(stored, 8 * samples.itemsize, **about, tags={339: [KINDS[kind]] * channels})
            image = read(data, low, high)
            np.testing.assert_array_equal(image.pixels, spread(samples, low, high))
            assert image.notes == ()


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u4"])
def test_every_compression_of_bytes_is_undone(name: str, kind: str) -> None:
    """As of integers of 16 bits."""
    number, how = COMPRESSIONS[name]
    samples, low, high = numbers(kind, 3)
    for chunk in (9, (16, 16)):
        about = {"compression": number, "encode": how, "chunk": chunk, "tags": {339: [KINDS[kind]] * 3}}
        image = read(tiff(samples, 8 * samples.itemsize, **about), low, high)
        np.testing.assert_array_equal(image.pixels, spread(samples, low, high))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", ["deflate", "LZW", "Zstandard"])
def test_the_predictor_of_floats_is_undone(kind: str, order: str, planar: bool, name: str) -> None:  # noqa: FBT001
    """Predictor 3: bytes by their weight, whatever the order of the file."""
    number, how = COMPRESSIONS[name]
    samples, low, high = numbers(kind, 3)
    for chunk in (9, (16, 16)):
        data = tiff(
            samples, 8 * samples.itemsize, predictor=3, planar=planar, order=order, chunk=chunk,
            compression=number, encode=how, tags={339: [3] * 3},
        )  # fmt: skip
        np.testing.assert_array_equal(read(data, low, high).pixels, spread(samples, low, high))


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "zstd"])
def test_what_libtiff_writes_is_read(predictor: int, compression: str) -> None:
    """Pillow's gray floats and 32-bit integers, by libtiff's own predictors."""
    share = gray_photo() / 255
    floats = Pillow.fromarray((share * 3 - 1).astype(np.float32))
    data = saved(floats, "TIFF", compression=compression, tiffinfo={317: predictor})
    np.testing.assert_array_equal(read(data, -1, 2).pixels[..., 0], spread(np.asarray(floats), -1, 2))
    if predictor < 3:
        whole = Pillow.fromarray((share * 1e9 - 5e8).astype(np.int32))
        data = saved(whole, "TIFF", compression=compression, tiffinfo={317: predictor})
        np.testing.assert_array_equal(read(data, -5e8, 5e8).pixels[..., 0], spread(np.asarray(whole), -5e8, 5e8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("about", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_what_tifffile_writes_is_read(kind: str, options: dict[str, Any], about: dict[str, Any]) -> None:
    """All kinds of numbers."""
    samples, low, high = numbers(kind, 3)
    stored = np.moveaxis(samples, -1, 0) if "planarconfig" in about else samples
    image = read(written([(stored, about)], **options), low, high)
    np.testing.assert_array_equal(image.pixels, spread(samples, low, high))


def test_what_is_beyond_is_clipped_and_counted() -> None:
    """Infinity as well; what is no number becomes black; rounding is no loss."""
    samples = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20, 1)
    samples[0, :3, 0] = -0.25, np.inf, -np.inf
    samples[1, 0] = samples[1, 1] = np.nan
    samples[2, 0] = 1.000001
    image = read(tiff(samples, 32, tags={339: 3}), 0, 1)
    assert image.pixels[0, :3, 0].tolist() == [0, 65535, 0]
    assert image.pixels[1, :2, 0].tolist() == [0, 0]
    assert image.notes == (
        "1.50% of its samples were beyond the range of 0 to 1 and were clipped",
        "2 samples that are no number (NaN) became black",
    )
    many = np.zeros((300, 300, 1), np.float32)
    many[0, 0] = 2
    assert read(tiff(many, 32, tags={339: 3}), 0, 1).notes[0].startswith("0.01% of its samples")


def test_opacity_has_its_own_white() -> None:
    """1 of floats, the largest of integers; multiplied colour is divided, which needs a range from 0."""
    colour, mask = photo() / 255 * 100, soft_mask() / 255
    for extra, stored in ((2, colour), (1, colour * mask[..., None])):
        data = tiff(np.dstack([stored, mask]).astype(np.float32), 32, extras=[extra], tags={339: [3] * 4})
        image = read(data, 0, 100)
        np.testing.assert_array_equal(image.alpha, spread(mask.astype(np.float32), 0, 1))
        seen = mask > 0.6
        assert np.abs(image.pixels[seen].astype(int) - spread(colour, 0, 100)[seen]).max() <= 1
    with pytest.raises(ImageError, match="--range that begins at 0"):
        read(data, -1, 100)
    whole = (np.dstack([photo() / 255, mask]) * (2**32 - 1)).astype(np.uint32)
    data = tiff(whole, 32, extras=[2])
    np.testing.assert_array_equal(read(data, 0, 1000).alpha, spread(whole[..., 3], 0, 2**32 - 1))


def test_white_may_be_zero_and_channels_may_have_no_meaning() -> None:
    """The photometric interpretation and the orientation count as of integers; a channel without a word is left out."""
    samples, low, high = numbers("f4", 1)
    image = read(tiff(samples, 32, photometric=0, tags={339: 3, 274: 3}), low, high)
    np.testing.assert_array_equal(image.pixels, 65535 - spread(samples, low, high)[::-1, ::-1])
    rgba, low, high = numbers("f4", 4)
    for planar in (False, True):
        image = read(tiff(rgba, 32, extras=[0], planar=planar, tags={339: [3] * 4}), low, high)
        np.testing.assert_array_equal(image.pixels, spread(rgba[..., :3], low, high))
        assert image.alpha is None


def test_pages_are_read() -> None:
    """One of 8 bits, which is what it is, then one of floats; without a range the second one is named."""
    page, low, high = numbers("f4", 3)
    data = written([(photo(20, 37), {}), (page, {})])
    with open_frames(data, max_pixels=10**6, levels=Levels(low, high)) as frames:
        first, second = (frame.image for frame in frames.each)
    np.testing.assert_array_equal(first.pixels, photo(20, 37))
    np.testing.assert_array_equal(second.pixels, spread(page, low, high))
    assert {kind.depth for kind in probe(data, levels=Levels(low, high)).each} == {8, 16}
    with pytest.raises(ImageError, match=r"page 2, has floating-point.*--range"), open_frames(data, max_pixels=10**6):
        pass


REFUSED = {
    "24 bits": (tiff(np.zeros((9, 9, 1), np.uint32), 24), "24-bit samples, which"),
    "24-bit floats": (
        tiff(np.zeros((9, 9, 1), np.float32), 24, tags={339: 3}),
        "floating-point samples (24-bit), which",
    ),
    "different kinds": (tiff(np.zeros((9, 9, 3), np.float32), 32, tags={339: [3, 3, 1]}), "different kinds"),
    "CMYK": (tiff(np.zeros((9, 9, 4), np.float32), 32, photometric=5, tags={339: [3] * 4}), "plain gray or RGB"),
    "integers by bytes": (
        tiff(np.zeros((9, 9, 1), np.uint32), 32, predictor=1, compression=8, encode=deflate, tags={317: 3}),
        "predictor 3",
    ),
    "complex": (written([(gray_photo().astype(np.complex64), {"photometric": "minisblack"})]), "complex numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_range_does_not_help_is_refused_in_words(name: str) -> None:
    """Never "damaged", and no --range is advised."""
    data, words = REFUSED[name]
    with pytest.raises(ImageError) as caught:
        read(data, 0, 1)
    assert words in str(caught.value)
    assert "--range" not in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["none", "deflate", "LZW"])
def test_a_truncated_one_is_an_error(name: str) -> None:
    """With its directory in front."""
    number, how = COMPRESSIONS[name]
    samples, low, high = numbers("f4", 3)
    data = tiff(
        samples, 32, compression=number, encode=lambda data, row: how(data, row)[: len(data) // 9], tags={339: [3] * 3}
    )
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read(data, low, high)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1), (-1.7e308, 1.7e308)])
def test_a_range_has_a_black_below_its_white(low: float, high: float) -> None:
    """And both are finite."""
    with pytest.raises(ValueError, match="no black below its white"):
        Levels(low, high)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm_is_read_between_0_and_1(order: str, channels: int) -> None:
    """From its last row to the first, in both byte orders; its scale is its white, unless a range is stated."""
    samples, low, high = numbers("f4", channels)
    for scale, white in (("1.0", 1), ("2", 2), ("5e-1", 0.5)):
        head = f"P{'F' if channels == 3 else 'f'}\n37 20\n{'-' if order == '<' else ''}{scale}\n"
        data = head.encode() + samples[::-1].astype(f"{order}f4").tobytes()
        image = decode(data, max_pixels=999)
        np.testing.assert_array_equal(image.pixels, spread(samples, 0, white))
        assert "were clipped" in image.notes[0]
        np.testing.assert_array_equal(read(data, low, high).pixels, spread(samples, low, high))
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-1], max_pixels=999)


def test_the_pfm_that_pillow_writes_is_read() -> None:
    """Gray."""
    file, share = io.BytesIO(), (gray_photo() / 255).astype(np.float32)
    Pillow.fromarray(share).save(file, "PPM")
    image = decode(file.getvalue(), max_pixels=10**6)
    np.testing.assert_array_equal(image.pixels[..., 0], spread(share, 0, 1))
    assert image.notes == ()


@pytest.mark.parametrize("head", ["PF\n0 9\n1.0\n", "PF\n9 9\n0\n", "PF\n9 9\nx\n", "Pf\n9 9", "PF\n9 9\n1e999\n"])
def test_a_damaged_pfm_is_refused_in_a_sentence(head: str) -> None:
    """Its header is no header."""
    with pytest.raises(ImageError, match=r"is damaged \(its header"):
        decode(head.encode() + bytes(999), max_pixels=999)


def test_the_command_line_takes_a_range(bbcu: Bbcu) -> None:
    """Negative numbers, too; without it the sentence names it; another range is another result on record."""
    samples = (photo(9, 14) / 255 * 3 - 1).astype(np.float32)
    Path("a.tif").write_bytes(tiff(samples, 32, tags={339: [3] * 3}))
    Path("b.tif").write_bytes(tiff(photo(9, 14), 8))
    net = ("--weights", "m-x2.safetensors")
    refused = bbcu("sr", "a.tif", "--scale", "2", *net)
    assert refused.code == 2
    assert "--range LOW HIGH" in refused.err
    both = ("sr", "a.tif", "b.tif", "-o", "out/", "--scale", "2", "--skip-existing", "--json", *net)
    assert "beyond the range" not in bbcu(*both, "--range", "-1", "2").out

    def states(*options: str) -> list[str]:
        return [json.loads(line)["status"] for line in bbcu(*both, *options).out.splitlines()]

    assert states("--range", "-1", "2") == ["skipped", "skipped"]
    assert states("--range", "-1", "1") == ["done", "done"]
    assert decode(Path("out/a.png"), max_pixels=999).depth == 16
    assert decode(Path("out/b.png"), max_pixels=999).depth == 8
    plan = bbcu("sr", "a.tif", "--width", "30", "--dry-run", "--range", "-1", "2", *net)
    assert (plan.code, "30x" in plan.out) == (0, True)
    assert bbcu("sr", "a.tif", "--width", "30", "--range", "-1", "2", *net).code == 0
    for wrong in (("1", "0"), ("0", "nan"), ("0", "inf")):
        run = bbcu("denoise", "a.tif", "--range", *wrong)
        assert run.code == 2
        assert "give two numbers" in run.err
