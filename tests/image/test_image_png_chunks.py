"""PNG chunks beside the picture, damaged, cut or too large, never cost the picture; what is left out is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import (
    as_png,
    chunk,
    deep,
    exif,
    gray_photo,
    photo,
    png,
    rgb_profile,
    saved,
    soft_mask,
    turned_away,
)
from PIL import Image as Pillow
from PIL import PngImagePlugin

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, Metadata, decode, encode, probe
from bbcu_cli.image.formats import is_image_name

LARGE = np.random.default_rng(0).bytes(3 << 20)
BOMB = zlib.compress(bytes(100 << 20), 1)
PHYS = struct.pack(">LLB", 3780, 3780, 1)
KINDS = {
    "RGB": (as_png(photo()), photo()),
    "gray": (as_png(gray_photo()), gray_photo()[..., None]),
    "16 bit": (png(deep(photo()), 2, 16), deep(photo())),
    "16-bit gray with alpha": (png(deep(photo()[..., :2]), 4, 16), deep(photo()[..., :2])),
    "RGBA": (as_png(np.dstack([photo(), soft_mask()])), np.dstack([photo(), soft_mask()])),
    "interlaced": (png(photo(), 2, 8, interlaced=True), photo()),
}


def read(data: bytes) -> Image:
    """Decode with a modest limit."""
    return decode(data, max_pixels=10**6)


def damaged(name: bytes, data: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    return chunk(name, data)[:-4] + b"\0\1\2\3"


def with_chunk(data: bytes, added: bytes, *, behind: bool = False) -> bytes:
    """A PNG with a chunk behind its header, or in front of its end."""
    at = len(data) - 12 if behind else 33
    return data[:at] + added + data[at:]


BESIDE = {
    "pHYs, bad checksum": (damaged(b"pHYs", PHYS), "pHYs"),
    "pHYs, too short": (chunk(b"pHYs", PHYS[:5]), "pHYs"),
    "gAMA, bad checksum": (damaged(b"gAMA", struct.pack(">L", 45455)), "gAMA"),
    "gAMA, too short": (chunk(b"gAMA", b"\0"), "gAMA"),
    "cHRM, too short": (chunk(b"cHRM", bytes(7)), "cHRM"),
    "sRGB, empty": (chunk(b"sRGB", b""), "sRGB"),
    "tEXt, bad checksum": (damaged(b"tEXt", b"Comment\0hello"), "tEXt"),
    "zTXt, much inflated": (chunk(b"zTXt", b"Comment\0\0" + BOMB), "zTXt"),
    "zTXt, cut": (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello")[:-3]), "zTXt"),
    "zTXt, another compression": (chunk(b"zTXt", b"Comment\0\7" + zlib.compress(b"hello")), "zTXt"),
    "iTXt, much inflated": (chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB), "iTXt"),
    "iTXt, cut": (chunk(b"iTXt", b"Comment\0\1"), "iTXt"),
    "iCCP, bad checksum": (damaged(b"iCCP", b"x\0\0" + zlib.compress(rgb_profile())), "iCCP"),
    "iCCP, garbage": (chunk(b"iCCP", b"x\0\0garbage"), "iCCP"),
    "iCCP, without a name": (chunk(b"iCCP", b"x"), "iCCP"),
    "iCCP, another compression": (chunk(b"iCCP", b"x\0\1" + zlib.compress(rgb_profile())), "iCCP"),
    "eXIf, bad checksum": (damaged(b"eXIf", exif(6).removeprefix(b"Exif\0\0")), "eXIf"),
    "acTL, bad checksum": (damaged(b"acTL", struct.pack(">LL", 7, 0)), "acTL"),
    "acTL, too short": (chunk(b"acTL", b"\0\0\0\7"), "acTL"),
    "a chunk that nobody knows, bad checksum": (damaged(b"quUx", b"hello"), ""),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_damaged_chunk_beside_the_picture_costs_a_note(name: str) -> None:
    """In front of the pixels and behind them, in every kind of PNG: exact pixels, and the chunk is named."""
    added, word = BESIDE[name]
    for data, expected in KINDS.values():
        for behind in (False, True):
            image = read(with_chunk(data, added, behind=behind))
            found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
            np.testing.assert_array_equal(found, expected)
            assert [note for note in image.notes if word in note] or not word, image.notes
            assert probe(with_chunk(data, added, behind=behind)).size == (48, 64)


def test_a_good_chunk_beside_a_damaged_one_is_kept() -> None:
    """Only what is damaged goes."""
    whole = as_png(photo(), dpi=(300, 300), icc_profile=rgb_profile())
    image = read(with_chunk(whole, damaged(b"eXIf", b"II*\0")))
    assert image.metadata.icc == rgb_profile()
    assert image.metadata.dpi == pytest.approx((300, 300), abs=0.1)
    assert image.metadata.exif is None


@pytest.mark.parametrize("keyword", ["transparency", "gamma", "dpi", "icc_profile", "exif", "bbox", "interlace"])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_text_is_a_text_whatever_its_keyword(keyword: str, kind: bytes) -> None:
    """Pillow keeps what chunks say under such names, and a text must not take their place."""
    parts = {b"tEXt": b"\0no", b"zTXt": b"\0\0" + zlib.compress(b"no"), b"iTXt": b"\0\0\0\0\0no"}
    for data, expected in KINDS.values():
        for behind in (False, True):
            added = with_chunk(data, chunk(kind, keyword.encode() + parts[kind]), behind=behind)
            image = read(added)
            found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
            np.testing.assert_array_equal(found, expected)
            assert image.metadata.text == ((keyword, "no"),)
            assert probe(added).alpha == (image.alpha is not None)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("keyword", [b"exif", b"APP1"])
def test_exif_in_hexadecimal_turns_the_picture(keyword: bytes, behind: bool) -> None:  # noqa: FBT001
    """As ImageMagick wrote it before PNG had a place for EXIF; the header promises it."""
    block = exif(6)
    text = b"Raw profile type %s\0\n%s\n%8d\n%s\n" % (keyword, keyword, len(block), block.hex().encode())
    data = with_chunk(as_png(turned_away(photo(), 6)), chunk(b"tEXt", text), behind=behind)
    assert probe(data).size == (48, 64)
    np.testing.assert_array_equal(read(data).pixels, photo())


def test_a_png_that_we_wrote_is_read_whatever_is_in_it() -> None:
    """A profile over Pillow's limit of a megabyte, long texts, much EXIF."""
    icc = rgb_profile()
    icc = (len(icc) + len(LARGE)).to_bytes(4, "big") + icc[4:] + LARGE
    for about in (Metadata(icc=icc), Metadata(text=(("Comment", "x" * (3 << 20)),)), Metadata(xmp=b"x" * (3 << 20))):
        for samples in (photo(), deep(photo())):
            image = read(encode(Image(samples, metadata=about), "PNG"))
            np.testing.assert_array_equal(image.pixels, samples)


def test_a_damaged_transparent_colour_costs_the_transparency_not_the_picture() -> None:
    """TRNS with a bad checksum, and one that is too short for its colour type."""
    for added in (damaged(b"tRNS", bytes(6)), chunk(b"tRNS", bytes(2)), chunk(b"tRNS", b"")):
        image = read(with_chunk(as_png(photo()), added))
        np.testing.assert_array_equal(image.pixels, photo())
        assert image.alpha is None
        assert any("tRNS" in note for note in image.notes)


def test_the_header_tells_the_size_of_a_picture_that_is_turned_by_what_lies_behind_it() -> None:
    """EXIf behind the pixels counts for `probe` as well."""
    stored = as_png(turned_away(photo(), 6))
    data = with_chunk(stored, chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")), behind=True)
    assert probe(data).size == read(data).size == (48, 64)


def test_the_limits_of_pillow_are_neither_changed_nor_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that uses this library has its own."""
    samples = photo()
    data = as_png(samples, icc_profile=rgb_profile())
    for text in (b"Comment\0" + bytes(2000), b"Title\0cat"):
        data = with_chunk(data, chunk(b"tEXt", text))
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 100)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    image = read(data)
    np.testing.assert_array_equal(image.pixels, samples)
    assert ("Title", "cat") in image.metadata.text
    assert (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY) == (100, 1000)


@pytest.mark.parametrize("critical", [b"IHDR", b"IDAT"])
def test_a_damaged_picture_stays_an_error(critical: bytes) -> None:
    """What makes the pixels is not skipped."""
    data = bytearray(as_png(photo()))
    at = data.index(critical)
    length = int.from_bytes(data[at - 4 : at], "big")
    data[at + 4 + length // 2] ^= 0x40
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))


def test_frames_are_counted_by_the_chunks_that_say_so() -> None:
    """A still picture in front of an animation is none of its frames; an animation of one frame is a picture."""
    frames = [Pillow.fromarray(np.roll(photo(), 4 * shift, 1)) for shift in range(4)]
    for count, own, expected in ((4, False, 4), (3, True, 3), (1, False, 1)):
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:count] or None, "default_image": own}
        if own:
            options["append_images"] = frames[1:]
        data = saved(frames[0], "PNG", **{key: value for key, value in options.items() if value is not None})
        if count == 1:
            data = with_chunk(as_png(photo()), chunk(b"acTL", struct.pack(">LL", 1, 0)) + frame_control())
        assert probe(data).frames == expected
        if expected == 1:
            np.testing.assert_array_equal(read(data).pixels, photo())


def frame_control() -> bytes:
    """An fcTL for a first frame that is the whole picture."""
    return chunk(b"fcTL", struct.pack(">LLLLLHHBB", 0, 64, 48, 0, 0, 1, 10, 0, 0))


def test_apples_own_png_is_named() -> None:
    """CgBI is no damage, and Apple's tool turns it back."""
    with pytest.raises(ImageError, match=r"Apple.*pngcrush"):
        read(as_png(photo())[:8] + chunk(b"CgBI", b"\x50\0\x20\6") + as_png(photo())[8:])


def test_apng_and_mpo_are_image_names() -> None:
    """A folder's files of these names are pictures; nothing is written under them."""
    assert is_image_name(Path("moving.apng"))
    assert is_image_name(Path("phone.MPO"))


def test_a_png_from_a_path_is_read_as_from_bytes(tmp_path: Path) -> None:
    """Through a file that is not in memory, in pieces."""
    path = tmp_path / "photo.png"
    path.write_bytes(with_chunk(as_png(photo()), damaged(b"pHYs", PHYS) + chunk(b"zzZz", LARGE)))
    np.testing.assert_array_equal(decode(path, max_pixels=10**6).pixels, photo())
