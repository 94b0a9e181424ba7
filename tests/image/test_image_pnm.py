"""PBM, PGM, PPM and PAM: every sample of the file, 16 bits included; damaged ones are rejected in a sentence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu, size_of
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode, probe


def by_pillow(mode: str, rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """A file that Pillow writes, and its samples."""
    picture = Pillow.fromarray(rng.integers(0, 256, (13, 21, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "PPM")
    samples = np.asarray(picture.convert("L") if mode == "1" else picture)
    return file.getvalue(), samples.reshape(13, 21, -1)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_what_pillow_writes_is_read(mode: str, rng: np.random.Generator) -> None:
    """PBM, PGM and PPM of bytes, sample by sample."""
    data, samples = by_pillow(mode, rng)
    image = decode(data, max_pixels=999)
    np.testing.assert_array_equal(image.pixels, samples)
    assert (image.format, probe(data).size) == ("PNM", (13, 21))


def test_sixteen_bits_stay_sixteen(rng: np.random.Generator) -> None:
    """As Pillow writes gray, and as the format has colour; other largest samples are spread over all of 16 or 8."""
    gray = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    file = io.BytesIO()
    Pillow.fromarray(gray).save(file, "PPM")
    np.testing.assert_array_equal(decode(file.getvalue(), max_pixels=99).pixels[..., 0], gray)
    colour = rng.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    data = b"P6\n# a comment 99\n7 5\n65535\n" + colour.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(data, max_pixels=99).pixels, colour)
    twelve = rng.integers(0, 4096, (5, 7, 3), dtype=np.uint16)
    read = decode(b"P6 7 5 4095 " + twelve.astype(">u2").tobytes(), max_pixels=99).pixels
    np.testing.assert_array_equal(read, np.floor(twelve / 4095 * 65535 + 0.5))
    np.testing.assert_array_equal(decode(b"P5 3 1 2\n\0\1\2", max_pixels=9).pixels[0, :, 0], [0, 128, 255])


def test_text_is_read_as_bytes_are(rng: np.random.Generator) -> None:
    """P1 without spaces, P2 and P3 with comments."""
    bits = decode(b"P1\n3 2\n010\n1 0 1\n", max_pixels=9).pixels[..., 0]
    np.testing.assert_array_equal(bits, [[255, 0, 255], [0, 255, 0]])
    samples = rng.integers(0, 1001, (4, 3, 3))
    text = "\n".join(" ".join(map(str, row.ravel())) + " # row" for row in samples)
    read = decode(f"P3\n3 4\n1000\n{text}".encode(), max_pixels=99).pixels
    np.testing.assert_array_equal(read, np.floor(samples / 1000 * 65535 + 0.5))
    gray = decode(b"P2 2 1 255 7\n9", max_pixels=9).pixels
    np.testing.assert_array_equal(gray[..., 0], [[7, 9]])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pam_has_alpha(count: int, rng: np.random.Generator) -> None:
    """Of gray and of colour, 8 and 16 bits."""
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535)):
        samples = rng.integers(0, most, (4, 3, count), dtype=dtype, endpoint=True)
        head = f"P7\n# made by a test\nWIDTH 3\nHEIGHT 4\nDEPTH {count}\nMAXVAL {most}\nTUPLTYPE ANY\nENDHDR\n"
        image = decode(head.encode() + samples.astype(samples.dtype.newbyteorder(">")).tobytes(), max_pixels=99)
        np.testing.assert_array_equal(image.pixels, samples[..., : 1 if count < 3 else 3])
        assert (image.alpha is not None) == (count % 2 == 0)
        if image.alpha is not None:
            np.testing.assert_array_equal(image.alpha, samples[..., -1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P6\n3 2\n255\n" + bytes(17), "truncated"),
        (b"P5\n3 2\n", "no number"),
        (b"P5\n0 2\n255\n", "0x2 pixels"),
        (b"P5\n3 2\n70000\n" + bytes(12), "up to 70000"),
        (b"P5\n3 1\n9\n\x01\x02\x0a", "a sample is 10, more than the 9"),
        (b"P2\n3 1\n9\n1 2", "truncated"),
        (b"P2\n3 1\n9\n1 2 x", "something else than numbers"),
        (b"P2\n2 1\n9\n1 99999999999999999999", "damaged"),
        (b"P7\nWIDTH 3\n", "no end"),
        (b"P7\nWIDTH 3\nHEIGHT 4\nDEPTH 7\nMAXVAL 255\nENDHDR\n", "7 samples"),
        (b"P5\n99999 99999\n255\n", "more than the limit"),
    ],
)
def test_damaged_ones_are_rejected_in_a_sentence(data: bytes, message: str) -> None:
    """Whatever is wrong with header or pixels."""
    with pytest.raises(ImageError, match=message):
        decode(data, max_pixels=1000)


def test_the_command_line_restores_one(bbcu: Bbcu) -> None:
    """Found in a folder by any of its endings; the result is a PNG, with --format same as well."""
    Path("in").mkdir()
    for ending in ("ppm", "pgm", "pbm", "pnm", "pam"):
        Path(f"in/{ending}.{ending}").write_bytes(b"P6 2 2 255\n" + bytes(12))
    assert bbcu("sr", "in", "--weights", "m-x4.safetensors", "-o", "out", "--format", "same").code == 0
    assert size_of("out/ppm.png") == (8, 8)
    assert len(list(Path("out").glob("*.png"))) == 5
