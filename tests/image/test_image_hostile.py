"""Hostile files: only `ImageError` comes out, soon, and without taking much memory."""

from __future__ import annotations

import functools
import random
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator

import PIL
import pytest
from fuzz import mutated
from fuzz_surfaces import seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import (
    as_jpeg,
    as_png,
    chunk,
    huge_png,
    photo,
    saved,
)
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode, encode, probe

SEEDS = seeds()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Pillow warns of much of what is found here; the command line silences it too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
def test_mutated_files_give_a_picture_or_a_sentence(which: int, seed: int) -> None:
    """No other exception, and what comes out can be written again."""
    data = mutated(SEEDS[which], random.Random(seed))  # noqa: S311 - no secrets here
    try:
        image = decode(data, max_pixels=100_000)
    except ImageError as error:
        assert "\n" not in str(error).strip()
        return
    encode(image, "PNG")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP"]),
    st.binary(),
)
def test_noise_behind_any_signature_is_refused(signature: bytes, noise: bytes) -> None:
    """The first bytes promise a format, the rest is anything."""
    with pytest.raises(ImageError):
        decode(signature + noise, max_pixels=100_000)


def with_size(data: bytes, height: int, width: int) -> bytes:
    """A PNG whose header says another size."""
    header = struct.pack(">LL", width, height) + data[24:29]
    return data[:16] + header + struct.pack(">L", zlib.crc32(b"IHDR" + header)) + data[33:]


def directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A TIFF directory of (tag, type, count, value)."""
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<L", following)


def tiff_page(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The entries of an uncompressed gray page whose only strip is at the start of the file."""
    sizes = [(256, 4, 1, width), (257, 4, 1, height), (278, 4, 1, height), (279, 4, 1, min(width * height, 2**32 - 1))]
    return [*sizes, (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]


def endless_tiff() -> bytes:
    """100,000 pages in a chain."""
    size = len(directory(tiff_page(4, 4)))
    return b"II*\0\x08\0\0\0" + b"".join(directory(tiff_page(4, 4), 8 + (i + 1) * size) for i in range(100_000))


@functools.cache
def bombs() -> dict[str, tuple[bytes, str]]:
    """Name -> small file that asks for much, and a word of the answer."""
    small, jpeg, bmp = as_png(photo()), as_jpeg(photo()), bytearray(as_bmp())
    frame = jpeg.index(b"\xff\xc0") + 5
    bmp[18:26] = struct.pack("<ll", 2**31 - 1, 2**31 - 1)
    big = zlib.compress(bytes(100 << 20), 1)
    vp8x = b"VP8X" + struct.pack("<L", 10) + bytes(4) + b"\xff\xff\xff" * 2 + b"VP8 " + bytes(100)
    gif = (
        b"GIF89a\xff\xff\xff\xff\x80\0\0"
        + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x08"
        + b"\xff"
        + bytes(255)
        + b"\0;"
    )
    tiff = b"II*\0\x08\0\0\0"
    overlapping = tiff_page(4, 4) + [(1000 + tag, 7, 4 << 20, 0) for tag in range(3000)]
    return {
        "a PNG of 400 megapixels in 60 KB": (huge_png(20_000, 20_000), "--max-pixels"),
        "a PNG of 2^62 pixels": (with_size(small, 2**31 - 1, 2**31 - 1), "--max-pixels"),
        "a PNG without pixels": (with_size(small, 0, 0), "damaged"),
        "a profile that inflates to 100 MB": (small[:33] + chunk(b"iCCP", b"x\0\0" + big) + small[33:], "left out"),
        "a text that inflates to 100 MB": (small[:33] + chunk(b"zTXt", b"x\0\0" + big) + small[33:], "left out"),
        "a JPEG of 65,500 squared": (
            jpeg[:frame] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 4 :],
            "--max-pixels",
        ),
        "a GIF of 65,535 squared": (gif, "--max-pixels"),
        "a BMP of 2^62 pixels": (bytes(bmp), "--max-pixels"),
        "a WebP of 2^48 pixels": (b"RIFF" + struct.pack("<L", 100) + b"WEBP" + vp8x, "too large|damaged"),
        "a TIFF of 2^62 pixels": (tiff + directory(tiff_page(2**31 - 1, 2**31 - 1)) + bytes(100), "--max-pixels"),
        "a TIFF of 100,000 pages": (endless_tiff(), "at least 4096 pages"),
        "a TIFF whose directory leads to itself": (tiff + directory(tiff_page(4, 4), 8) + bytes(100), ""),
        "a TIFF of 3,000 tags over the same 4 MB": (tiff + directory(overlapping) + bytes(5 << 20), ""),
        "a TIFF whose EXIF is the TIFF itself": (
            tiff + directory([*tiff_page(4, 4), (34665, 4, 1, 8)]) + bytes(100),
            "",
        ),
    }


def as_bmp() -> bytes:
    """A small BMP."""
    return saved(Pillow.fromarray(photo()), "BMP")


BOUNDED = """
import resource, sys, time, warnings
from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode
warnings.simplefilter("ignore")
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
try:
    answer = " ".join(decode(data, max_pixels=100_000_000).notes)
except ImageError as error:
    answer = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
assert grown < 60, f"{grown} MB"
assert time.process_time() - start < 5, "slow"
print(answer)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
@pytest.mark.parametrize("name", bombs())
def test_bombs_are_answered_at_once_and_cheaply(name: str) -> None:
    """Less than 60 MB and 5 s in a process of its own, and the answer names the way out."""
    if "over the same" in name and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow counts overlapping tags only since version 13, which needs Python 3.11")
    data, word = bombs()[name]
    done = subprocess.run([sys.executable, "-c", BOUNDED], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    if word:
        assert any(part in done.stdout.decode() for part in word.split("|")), done.stdout


def test_probing_a_bomb_tells_its_size_without_opening_it() -> None:
    """--dry-run may look at anything."""
    assert probe(with_size(as_png(photo()), 60_000, 60_000)).pixels == 3_600_000_000
