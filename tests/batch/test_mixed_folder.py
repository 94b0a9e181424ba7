"""A folder as people have them: all kinds of images, broken ones, other files; one run, and runs that are killed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pictures import bmp, chunk
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from tiff_files import lzw, tiff

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.files import TEMP_PREFIX
from bbcu_cli.image import Image, decode, encode

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and symbolic links")

Maker = Callable[[np.random.Generator], bytes]


def saved(mode: str, form: str, **options: object) -> Maker:
    """Noise in one of Pillow's modes and formats."""

    def make(rng: np.random.Generator) -> bytes:
        height, width = rng.integers(9, 80, 2)
        picture = Pillow.fromarray(rng.integers(0, 255, (height, width, 4), dtype=np.uint8)).convert("RGB")
        file = io.BytesIO()
        source = picture.convert("RGBA").convert(mode) if mode in ("LA", "RGBA") else picture.convert(mode)
        source.save(file, form, **options)
        return file.getvalue()

    return make


def deep(channels: int, form: str, *, alpha: bool = False) -> Maker:
    """16-bit noise."""

    def make(rng: np.random.Generator) -> bytes:
        shape = tuple(rng.integers(9, 60, 2))
        mask = rng.integers(0, 65535, shape, dtype=np.uint16) if alpha else None
        return encode(Image(rng.integers(0, 65535, (*shape, channels), dtype=np.uint16), mask), form)

    return make


def turned(rng: np.random.Generator) -> bytes:
    """A JPEG that is to be shown upright by its EXIF orientation."""
    exif = Pillow.Exif()
    exif[274] = int(rng.integers(2, 9))
    return saved("RGB", "JPEG", exif=exif)(rng)


def damaged_beside(data: bytes) -> bytes:
    """A PNG with a resolution whose checksum is wrong."""
    return data[:33] + chunk(b"pHYs", bytes(9))[:-1] + b"?" + data[33:]


def cut(make: Maker) -> Maker:
    """The first two thirds of a file."""

    def half(rng: np.random.Generator) -> bytes:
        whole = make(rng)
        return whole[: len(whole) * 2 // 3]

    return half


def of_noise(write: Callable[[np.ndarray], bytes]) -> Maker:
    """What a function makes of 16-bit noise (H, W, 3)."""
    return lambda rng: write(rng.integers(0, 65536, (*rng.integers(9, 60, 2), 3)))


def several(form: str) -> Maker:
    """An animation, or pages."""
    frames = [Pillow.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    return saved("RGB", form, save_all=True, append_images=frames)


GOOD: dict[str, list[Maker]] = {
    ".png": [
        *(saved(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        deep(1, "PNG"), deep(3, "PNG"), deep(3, "PNG", alpha=True), deep(1, "PNG", alpha=True),
    ],
    ".jpg": [
        *(saved(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
        saved("RGB", "JPEG", progressive=True), turned, lambda rng: saved("RGB", "JPEG")(rng)[:-2],
    ],
    ".apng": [lambda rng: damaged_beside(saved("RGB", "PNG")(rng))],
    ".mpo": [saved("RGB", "MPO")],
    ".tiff": [
        *(saved(mode, "TIFF", compression="tiff_lzw") for mode in ("RGB", "CMYK", "L")),
        deep(3, "TIFF"), deep(3, "TIFF", alpha=True),
        of_noise(lambda noise: tiff(noise >> 4, 12, compression=5, encode=lzw, chunk=(16, 16))),
        of_noise(lambda noise: tiff(noise, 16, planar=True, order=">", big=True, chunk=5)),
    ],
    ".webp": [saved("RGB", "WEBP"), saved("RGBA", "WEBP", lossless=True)],
    ".avif": [saved("RGB", "AVIF")],
    ".jp2": [saved("RGB", "JPEG2000"), saved("LA", "JPEG2000", irreversible=True)],
    ".tga": [saved("RGBA", "TGA"), saved("L", "TGA", compression="tga_rle")],
    ".ico": [saved("RGBA", "ICO")],
    ".dds": [saved("RGB", "DDS"), saved("RGBA", "DDS", pixel_format="DXT5")],
    ".pfm": [of_noise(lambda noise: b"PF\n%d %d\n-1\n" % noise.shape[1::-1] + (noise / 65535).astype("<f4").tobytes())],
    ".bmp": [saved("RGB", "BMP"), of_noise(lambda noise: bmp(noise[..., 0], 16, (0xF800, 0x7E0, 0x1F)))],
    ".gif": [saved("P", "GIF"), several("GIF")],
    ".JPEG": [saved("RGB", "PNG")],  # the content decides
}  # fmt: skip
BAD: dict[str, list[Maker]] = {
    ".png": [lambda _: b"", lambda _: b"plain text", cut(saved("RGB", "PNG")), cut(deep(3, "PNG"))],
    ".jpg": [lambda rng: rng.bytes(500), cut(saved("RGB", "JPEG")), lambda _: b"\xff\xd8\xff"],
    ".tif": [several("TIFF"), saved("F", "TIFF"), lambda _: b"II*\0\x08\0\0\0"],
    ".gif": [lambda _: b"GIF89a"],
    ".webp": [lambda _: b"RIFF\0\0\0\0WEBPVP8 "],
    ".raf": [lambda _: b"FUJIFILMCCD-RAW 0201"],
}
OTHER = ("notes.txt", "data.json", "README", "archive.zip", "movie.mp4", "Makefile.png.bak")
FOLDERS = ("", "a", "a/b", "a/b/c", "Ünï çødé 日本", "with space", "-dash", "[brackets]")


@dataclass(frozen=True)
class Mixed:
    """What was put into a folder."""

    folder: Path
    good: int
    bad: int
    other: int


def fill(folder: Path, count: int) -> Mixed:
    """Make `count` files: about seven good of ten, with links and strange names among them."""
    rng, good, bad, other = np.random.default_rng(count), 0, 0, 0
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)

    def pick(makers: dict[str, list[Maker]], number: int) -> tuple[str, Maker]:
        pairs = [(suffix, maker) for suffix, some in makers.items() for maker in some]
        return pairs[number % len(pairs)]

    def put(stem: str, number: int) -> Path:
        suffix, maker = pick(GOOD, number)
        path = folder / FOLDERS[number % len(FOLDERS)] / f"{stem}{suffix}"
        path.write_bytes(maker(rng))
        return path

    first = put("Photo", 0)
    put("photo", len(FOLDERS))  # another file, where names are told apart by their case
    same = (folder / "pHOTO.png").exists()
    put("x" * 240, 1)
    put("ひ" * 80, 2)
    put(" space .dots..", 3)
    put("new\nline\x1b[31m", 4)
    put("read-only", 5).chmod(0o444)
    (folder / "link.png").symlink_to(first)
    good += 7 if same else 8
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.png").symlink_to("loop.png")
    bad += 2
    (folder / "a" / "round").symlink_to(folder)  # entered once, not for ever
    (folder / ".hidden.png").write_bytes(b"not looked at")
    for number in range(count - good - bad):
        place = folder / FOLDERS[number % len(FOLDERS)]
        if number % 10 < 7:
            put(f"good{number}", number)
            good += 1
        elif number % 10 < 9:
            suffix, maker = pick(BAD, number // 10 * 2 + number % 10 - 7)
            (place / f"bad{number}{suffix}").write_bytes(maker(rng))
            bad += 1
        else:
            (place / f"{number}-{OTHER[number // 10 % len(OTHER)]}").write_bytes(rng.bytes(100))
            other += 1
    return Mixed(folder, good, bad, other)


def tree(folder: Path) -> dict[str, str]:
    """Relative name -> digest, our own records and temporary files left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(TEMP_PREFIX)
    }


def start(mixed: Mixed, weights: Path, out: Path) -> subprocess.Popen[str]:
    """Restore the folder in a process of its own."""
    command = ["sr", str(mixed.folder), "-r", "-o", str(out), "--scale", "2", "--weights", str(weights)]
    return subprocess.Popen(
        [sys.executable, "-m", "bbcu_cli", *command, "--skip-existing", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], mixed: Mixed) -> int:
    """The run ends with 1, names every failure, and counts everything right; how many it skipped."""
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 1, stderr
    assert len(stdout.splitlines()) == mixed.good + mixed.bad
    counts = re.search(r"(\d+) done, (\d+) skipped, (\d+) failed, (\d+) not images", stderr)
    assert counts, stderr
    done, skipped, failed, other = map(int, counts.groups())
    assert (done + skipped, failed, other) == (mixed.good, mixed.bad, mixed.other)
    assert stderr.count("bbcu: failed: ") == mixed.bad
    assert "Traceback" not in stderr
    assert "\x1b" not in stderr
    return skipped


@pytest.mark.parametrize(("files", "kills"), [(70, 3), pytest.param(200, 10, marks=pytest.mark.long)])
def test_a_mixed_folder_is_restored_whole_and_resumes_to_the_same_bytes(files: int, kills: int, tmp_path: Path) -> None:
    """Every good file is there, every bad one is named; after SIGKILL at random moments the results are the same."""
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    mixed = fill(tmp_path / "in", files)
    before = tree(mixed.folder)
    undisturbed, resumed = tmp_path / "undisturbed", tmp_path / "resumed"
    assert finish(start(mixed, weights, undisturbed), mixed) == 0
    expected = tree(undisturbed)
    assert len(expected) == mixed.good
    for name in expected:
        decode(undisturbed / name, max_pixels=10**6, first=True)

    moments, most = np.random.default_rng(files), mixed.good // (2 * kills)
    for _ in range(kills):
        process = start(mixed, weights, resumed)
        made, enough = 0, moments.integers(1, most)
        assert process.stdout is not None
        for line in process.stdout:  # a number of results, not of seconds: machines differ
            made += '"status": "done"' in line
            if made >= enough:
                break
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        there = tree(resumed)
        assert there.items() <= expected.items()  # whole, or not there
    skipped = finish(start(mixed, weights, resumed), mixed)
    assert 0 < skipped <= len(there)  # what was in place and not yet on record is made again
    assert tree(resumed) == expected
    assert not list(resumed.rglob("*.part"))
    assert tree(mixed.folder) == before
