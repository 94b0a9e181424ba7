"""Animations and pages, read and written: the pictures and timings that Pillow and the specifications give."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pictures import animation, as_png, chunk, deep, gray_photo, photo, png, saved, soft_mask
from PIL import Image as Pillow
from PIL import ImageSequence

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Bands, EncodeOptions, Image, Metadata, decode, probe
from bbcu_cli.image.decode import open_frames
from bbcu_cli.image.encode_frames import Reel, write_frames
from bbcu_cli.image.frames import Frame

DURATIONS = [50, 200, 40, 1000, 70]


def moving(count: int = 5) -> list[np.ndarray]:
    """A still background with a patch that moves over it."""
    pictures = []
    for number in range(count):
        picture = photo()
        picture[10:20, 5 + 8 * number : 15 + 8 * number] = photo()[:10, :10][::-1]
        pictures.append(picture)
    return pictures


def read(data: bytes) -> tuple[list[Frame], int]:
    """All frames, and how often they are played."""
    with open_frames(data, max_pixels=10**6) as frames:
        found = list(frames.each)
        assert len(found) == frames.count == probe(data).frames
        return found, frames.plays


def shown(frame: Frame) -> np.ndarray:
    """RGBA."""
    image = frame.image
    colours = np.broadcast_to(image.pixels, (*image.size, 3))
    alpha = np.full(image.size, 255, np.uint8) if image.alpha is None else image.alpha
    return np.dstack([colours, alpha])


def assert_same_as_pillow(data: bytes, found: list[Frame]) -> None:
    """The same pictures, but for colours that nobody sees."""
    for number, ours in enumerate(found):
        with Pillow.open(
            io.BytesIO(data)
        ) as file:  # anew: of an APNG it takes back nothing from a frame that was loaded
            assert file.n_frames == len(found)
            file.seek(number)
            a, b = shown(ours), np.asarray(file.convert("RGBA"))
            np.testing.assert_array_equal(a[..., 3], b[..., 3])
            np.testing.assert_array_equal(a[a[..., 3] > 0], b[a[..., 3] > 0])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_and_timings_are_those_that_pillow_wrote(form: str) -> None:
    """Every picture, every duration, and the number of plays."""
    pictures = [Pillow.fromarray(picture) for picture in moving()]
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "duration": DURATIONS}
    if form != "AVIF":
        options["loop"] = 3
    data = saved(pictures[0], form, **options)
    found, plays = read(data)
    assert [frame.duration for frame in found] == DURATIONS
    # A GIF says how often it is repeated after the first time; an AVIF by Pillow is played for ever.
    assert plays == {"GIF": 4, "PNG": 3, "WEBP": 3, "AVIF": 0}[form]
    assert_same_as_pillow(data, found)


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_gif_is_disposed_of_as_pillow_does(disposal: int) -> None:
    """Patches with transparent pixels over each other, kept, cleared and taken back."""
    pictures = []
    for number in range(4):
        samples = np.zeros((30, 40, 4), np.uint8)
        samples[4 * number : 4 * number + 12, 6 * number : 6 * number + 15] = (40 * number, 200, 90, 255)
        pictures.append(Pillow.fromarray(samples))
    data = saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:], disposal=disposal, duration=30)
    found, plays = read(data)
    assert plays == 1  # without a word about it
    assert_same_as_pillow(data, found)


def test_what_a_gif_clears_is_transparent() -> None:
    """As browsers show it; also where no palette has a transparent colour, and Pillow shows the background."""

    def frame(colour: int, left: int) -> bytes:
        control = b"!\xf9\x04" + bytes([2 << 2]) + struct.pack("<H", 7) + b"\0\0"
        # One pixel of that colour: LZW of 2 bits, clear (4), colour, end (5).
        code = 4 | colour << 3 | 5 << 6
        return control + struct.pack("<c4HB", b",", left, 0, 1, 1, 0) + b"\x02\x02" + struct.pack("<H", code) + b"\0"

    data = b"GIF89a" + struct.pack("<2H3B", 2, 1, 0x81, 0, 0) + bytes([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    found, _ = read(data + frame(1, 0) + frame(2, 1) + b";")
    np.testing.assert_array_equal(shown(found[0]), [[[200, 0, 0, 255], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(shown(found[1]), [[[0, 0, 0, 0], [0, 200, 0, 255]]])
    assert found[0].duration == 70


def test_a_patch_that_is_far_larger_than_its_animation_is_not_made() -> None:
    """65,535 pixels a side in a picture of 64x48 would take 4 GB."""
    data = bytearray(animation("GIF", 3))
    second = [at for at in range(len(data) - 9) if data[at : at + 5] == b",\0\0\0\0"][1]
    data[second + 5 : second + 9] = b"\xff" * 4
    with open_frames(bytes(data), max_pixels=10**6, name="it") as frames:
        next(frames.each)
        with pytest.raises(ImageError, match="it, frame 2, is damaged"):
            next(frames.each)


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_an_animated_png_is_drawn_as_pillow_does(disposal: int, blend: int) -> None:
    """Patches with holes, that take the place of what is there or lie over it."""
    pictures = []
    for number in range(4):
        samples = np.zeros((30, 40, 4), np.uint8)
        samples[4 * number : 4 * number + 12, 6 * number : 6 * number + 15] = (40 * number, 200, 90, 255)
        pictures.append(Pillow.fromarray(samples))
    data = saved(pictures[0], "PNG", save_all=True, append_images=pictures[1:], disposal=disposal, blend=blend)
    assert_same_as_pillow(data, read(data)[0])


def animated(frames: Iterable[tuple[bytes, bytes]], plays: int = 0) -> bytes:
    """An animated PNG of (fcTL behind its sequence number, PNG) pairs."""
    frames = list(frames)
    content, number = b"", 0
    for index, (control, still) in enumerate(frames):
        content += chunk(b"fcTL", struct.pack(">L", number) + control)
        number += 1
        at = still.index(b"IDAT")
        deflate = still[at + 4 : at + 4 + int.from_bytes(still[at - 4 : at], "big")]
        if index == 0:
            content += chunk(b"IDAT", deflate)
        else:
            content += chunk(b"fdAT", struct.pack(">L", number) + deflate)
            number += 1
    return frames[0][1][:33] + chunk(b"acTL", struct.pack(">LL", len(frames), plays)) + content + chunk(b"IEND", b"")


def control(width: int, height: int, *, delay: tuple[int, int] = (1, 0), over: bool = True) -> bytes:
    """What an fcTL says of a frame at the left and at the top, behind its sequence number."""
    return struct.pack(">LLLLHHBB", width, height, 0, 0, *delay, 0, over)


def test_an_animated_png_keeps_16_bits_and_mixes_by_the_specification() -> None:
    """A half transparent frame over another; Pillow has neither."""
    under = np.full((4, 6, 4), (10_000, 20_000, 30_000, 40_000), np.uint16)
    over = np.full((4, 6, 4), (60_001, 3, 50_000, 20_000), np.uint16)
    data = animated([(control(6, 4), png(under, 6, 16)), (control(6, 4), png(over, 6, 16))], plays=2)
    found, plays = read(data)
    share, below = 20_000 / 65535, 40_000 / 65535
    alpha = share + below * (1 - share)
    expected = (np.array([60_001, 3, 50_000]) * share + np.array([1, 2, 3]) * 10_000 * below * (1 - share)) / alpha
    np.testing.assert_array_equal(found[1].image.pixels[2, 3], np.rint(expected))
    np.testing.assert_array_equal(found[1].image.alpha, np.full((4, 6), round(alpha * 65535)))
    np.testing.assert_array_equal(found[0].image.pixels, under[..., :3])
    assert plays == 2
    assert [frame.duration for frame in found] == [10, 10]  # a denominator of 0 stands for 100


def test_the_picture_in_front_of_an_animation_is_no_frame() -> None:
    """It is said, and it is what `first` takes."""
    pictures = [Pillow.fromarray(picture) for picture in moving(4)]
    data = saved(pictures[0], "PNG", save_all=True, append_images=pictures[1:], default_image=True)
    with open_frames(data, max_pixels=10**6) as frames:
        assert any("still picture" in note for note in frames.notes)
        for frame, expected in zip(frames.each, moving(4)[1:], strict=True):
            np.testing.assert_array_equal(frame.image.pixels, expected)
    np.testing.assert_array_equal(decode(data, max_pixels=10**6, first=True).pixels, moving(4)[0])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_picture_can_be_taken_alone(form: str) -> None:
    """It is that of a file of several."""
    data = animation(form, 3)
    with Pillow.open(io.BytesIO(data)) as file:
        expected = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(decode(data, max_pixels=10**6, first=True).pixels, expected)


def written(pictures: list[Image], form: str, *, plays: int = 0, **options: Any) -> bytes:
    """A file of these pictures, with `DURATIONS` as often as it takes."""
    file = io.BytesIO()
    frames = ((Bands.of(picture), Fraction(DURATIONS[i % 5])) for i, picture in enumerate(pictures))
    write_frames(frames, Reel(len(pictures), form == "TIFF", plays), form, file, EncodeOptions(**options), threads=1)
    return file.getvalue()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("form", ["PNG", "WebP", "AVIF"])
def test_an_animation_is_written_as_pillow_reads_it(form: str, *, alpha: bool) -> None:
    """Pictures of which a part, nothing and all changes, their durations and plays; AVIF is lossy."""
    pictures = [*moving(3), moving(3)[2], photo()[::-1].copy()]
    mask = soft_mask() if alpha else None
    data = written([Image(picture, mask) for picture in pictures], form, plays=7, lossless=True, quality=95)
    with Pillow.open(io.BytesIO(data)) as file:
        assert file.n_frames == 5
        if form != "AVIF":
            assert file.info["loop"] == 7
        for number, theirs in enumerate(ImageSequence.Iterator(file)):
            theirs.load()
            samples = np.asarray(theirs.convert("RGBA")).astype(int)
            assert theirs.info["duration"] == DURATIONS[number]
            if form == "AVIF":
                assert np.abs(samples[..., :3] - pictures[number]).mean() < 4
            else:
                np.testing.assert_array_equal(samples[..., :3], pictures[number])
            if mask is not None and form != "AVIF":
                np.testing.assert_array_equal(samples[..., 3], mask)


@pytest.mark.parametrize(("channels", "alpha", "bits"), [(1, False, 8), (1, True, 16), (3, False, 16), (3, True, 16)])
def test_an_animated_png_of_every_kind_comes_back(channels: int, bits: int, *, alpha: bool) -> None:
    """Gray and colour, with alpha and without, 8 and 16 bits."""
    pictures = []
    for picture in moving():
        pixels = picture[..., :channels].copy()
        mask = soft_mask() if alpha else None
        pictures.append(
            Image(deep(pixels) if bits == 16 else pixels, mask if bits == 8 or mask is None else deep(mask))
        )
    found, _ = read(written(pictures, "PNG"))
    for ours, given in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(ours.image.pixels, given.pixels)
        if given.alpha is not None:
            np.testing.assert_array_equal(ours.image.alpha, given.alpha)


def test_what_does_not_move_is_not_written_again() -> None:
    """Ten frames of a still picture are hardly larger than one."""
    still = Image(photo())
    for form in ("PNG", "WebP"):
        assert len(written([still] * 10, form)) < 1.2 * len(written([still], form)) + 2000


def test_24_frames_a_second_keep_the_pace_in_milliseconds() -> None:
    """1000/24 ms are 41, 42, 42, ...: a second is one; a PNG holds the fraction itself."""
    frames = [(Image(np.full((4, 4, 3), number, np.uint8))) for number in range(24)]
    for form, total in (("PNG", Fraction(1000)), ("WebP", 1000), ("AVIF", 1000)):
        file = io.BytesIO()
        timed = ((Bands.of(frame), Fraction(1000, 24)) for frame in frames)
        write_frames(timed, Reel(24, pages=False, plays=0), form, file, threads=1)
        found, _ = read(file.getvalue())
        assert sum(frame.duration for frame in found) == total
        assert max(abs(frame.duration - Fraction(1000, 24)) for frame in found) < (1 if form != "PNG" else 0.001)


def test_pages_keep_their_sizes_depths_and_metadata() -> None:
    """In a TIFF, whichever byte order their EXIF had; Pillow and our reader find all of them."""
    pictures = [
        Image(photo(), metadata=Metadata(dpi=(300, 300))),
        Image(gray_photo(30, 20)[..., None], metadata=Metadata(dpi=(150, 200))),
        Image(deep(photo(16, 24)), deep(soft_mask()[:16, :24].copy())),
    ]
    data = written(pictures, "TIFF")
    with open_frames(data, max_pixels=10**6) as pages:
        assert pages.pages
        found = list(pages.each)
    for ours, given in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(ours.image.pixels, given.pixels)
        assert (ours.image.alpha is None) == (given.alpha is None)
        assert ours.image.metadata.dpi == given.metadata.dpi
    with Pillow.open(io.BytesIO(data)) as file:
        assert [page.size for page in ImageSequence.Iterator(file)] == [(64, 48), (20, 30), (24, 16)]
        file.seek(1)
        np.testing.assert_array_equal(np.asarray(file), pictures[1].pixels[..., 0])


@pytest.mark.parametrize(("first", "second"), [("MM", "II"), ("II", "MM"), ("MM", None)])
def test_pages_share_the_byte_order_of_the_first(first: str, second: str | None) -> None:
    """EXIF of the other order is turned around, number by number."""
    from bbcu_cli.image import exif, ifd

    def page(order: str | None, name: str) -> Image:
        if order is None:
            return Image(photo())
        block = ifd.Block("<" if order == "II" else ">")
        below = {33434: block.rational(0.01), 34855: block.shorts(400)}
        block = ifd.Block(block.order, {271: ifd.Field(ifd.ASCII, name.encode() + b"\0"), ifd.EXIF: below})
        return Image(photo(), metadata=Metadata(exif=exif.pack(block)))

    data = written([page(first, "one"), page(second, "two")], "TIFF")
    assert data[:2] == first.encode()
    with Pillow.open(io.BytesIO(data)) as file:
        for name in ("one", "two" if second else None):
            assert file.getexif().get(271) == name
            below = file.getexif().get_ifd(ifd.EXIF)
            assert [float(below[33434]), below[34855]] == [0.01, 400] if name else not below
            file.seek(min(1, file.tell() + 1))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_damaged_frame_is_named(form: str) -> None:
    """Those before it come; its number is in the error."""
    pictures = [Pillow.fromarray(np.roll(photo(), shift, axis=1)) for shift in range(4)]
    options = {"lossless": True} if form == "WEBP" else {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    data = bytearray(saved(pictures[0], form, save_all=True, append_images=pictures[1:], **options))
    if form == "TIFF":
        with Pillow.open(io.BytesIO(bytes(data))) as file:
            file.seek(2)
            at = file.tag_v2[273][0]
    elif form == "GIF":
        at = [i for i in range(len(data) - 9) if data[i : i + 5] == b",\0\0\0\0" and data[i + 9 : i + 10] in b"\x87\0"][
            2
        ]
        del data[at + 900 :]
    else:
        marks = [i for i in range(len(data)) if data[i : i + 4] == {"PNG": b"fdAT", "WEBP": b"VP8L"}[form]]
        at = marks[{"PNG": 1, "WEBP": 2}[form]] + 12
    if form != "GIF":
        data[at : at + 60] = bytes(60)
    word = "page" if form == "TIFF" else "frame"
    with open_frames(bytes(data), max_pixels=10**6, name="it") as frames:
        next(frames.each)
        next(frames.each)
        with pytest.raises(ImageError, match=f"it, {word} 3, is (damaged|truncated)"):
            next(frames.each)


def test_an_animation_that_ends_early_says_which_frame_is_missing() -> None:
    """It announces three frames and has two."""
    whole = animation("PNG", 3)
    cut = whole[: whole.rindex(b"fcTL") - 4] + chunk(b"IEND", b"")
    with open_frames(cut, max_pixels=10**6, name="it") as frames, pytest.raises(ImageError, match="it, frame 3, "):
        list(frames.each)


def test_a_page_that_cannot_be_restored_is_named_before_any_is() -> None:
    """The second page has floats; the first alone can be had."""
    data = saved(Pillow.fromarray(gray_photo()), "TIFF", save_all=True, append_images=[Pillow.new("F", (9, 9))])
    with (
        pytest.raises(ImageError, match=r"it, page 2, has floating-point samples"),
        open_frames(data, max_pixels=10**6, name="it"),
    ):
        pass
    assert decode(data, max_pixels=10**6, first=True).size == (48, 64)


def test_a_single_picture_has_no_frames() -> None:
    """It is decoded, not played."""
    with pytest.raises(ImageError, match="not several"), open_frames(as_png(photo()), max_pixels=10**6):
        pass
