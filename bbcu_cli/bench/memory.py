"""The account of memory against what a process really takes: the command line, in processes of its own.

``python -m bbcu_cli.bench.memory`` prints a table in Markdown. Every row is run with the smallest --memory that is
accepted, and its peak is the largest resident size of that process as the system counted it (ru_maxrss). Linux and
macOS.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final

import numpy as np

from bbcu_cli.bench.memory_sources import SOURCES
from bbcu_cli.errors import UsageError
from bbcu_cli.image import FORMATS, Bands, EncodeOptions, Image, encode, write
from bbcu_cli.image.encode_frames import Reel, write_frames
from bbcu_cli.score import markdown

TITLES: Final = ("run", "output", "MB planned", "MB at the peak", "peak / planned")
FORMATS_MEASURED: Final = ("PNG", "TIFF", "JPEG", "WebP", "AVIF")
_EXTRAS: Final = ((), ("--compare",), ("--gt",), ("--compare", "--gt"))
# A process inherits the peak of the one that starts it, so this small one stands between.
_LAUNCHER: Final = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A command and its picture.

    Attributes:
        command: such as ("denoise",) or ("sr", "--scale", "2").
        extras: of --compare, --gt (the picture itself) and other options.
        form: of the output, a name of `FORMATS`.
        source: format of the picture, a name of `FORMATS` or of `SOURCES`.
        alpha: it has an alpha channel, with transparent pixels.
        depth: 8 or 16 bits.
        megapixels: of the picture.
        frames: how many of them the file has, as an animation or as pages.
    """

    command: tuple[str, ...] = ("denoise",)
    extras: tuple[str, ...] = ()
    form: str = "PNG"
    source: str = "PNG"
    alpha: bool = False
    depth: int = 8
    megapixels: float = 3.0
    frames: int = 1

    def __str__(self) -> str:
        kind = f"{'RGBA' if self.alpha else 'RGB'} {self.depth} bit"
        kind += f", {self.frames} of {self.megapixels:g} megapixels" if self.frames > 1 else ""
        return f"`{' '.join((*self.command, *self.extras))}`, {self.source}, {kind}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes that were planned for a case, and that its process took at the most."""

    case: Case
    planned: int
    peak: int

    def __str__(self) -> str:
        planned, peak = self.planned / 2**20, self.peak / 2**20
        figures = (f"{planned:.0f}", f"{peak:.0f}", f"{peak / planned:.2f}")
        return markdown.row((str(self.case), self.case.form, *figures))


def measure(case: Case, folder: Path) -> Measured:
    """Run a case with the smallest --memory that is accepted.

    Args:
        folder: for its files.

    Raises:
        UsageError: the command failed.
    """
    kind = f"{'rgba' if case.alpha else 'rgb'}{case.depth}-{case.megapixels:g}-{case.frames}"
    source = folder / f"{kind}-{case.source.replace(' ', '-')}{_suffix(case.source)}"
    if not source.exists():
        with source.open("wb") as file:
            _write_source(case, file)
    truth = _truth(case, source)
    extras = [argument for extra in case.extras for argument in ((extra, str(truth)) if extra == "--gt" else (extra,))]
    command = [case.command[0], str(source), *case.command[1:], *extras, "--background", "#ffffff"]
    command += ["-o", str(folder / f"out{_suffix(case.form)}"), "--overwrite"]
    [refused] = _plan(command, "1MB")
    memory = re.search(r"at least (\d+MB)", str(refused.get("error")))
    if memory is None:
        raise UsageError(f"{case}: no plan, but {refused}.")
    [plan] = _plan(command, memory[1])
    _, peak = _run([*command, "--memory", memory[1], "--quiet"])
    return Measured(case, int(plan["memory_bytes"]), peak)


def cases(megapixels: float) -> Iterator[Case]:
    """Every output with every kind of picture; then other pictures, networks and options."""
    for extras, alpha, depth, form in itertools.product(_EXTRAS, (False, True), (8, 16), FORMATS_MEASURED):
        yield Case(extras=extras, form=form, alpha=alpha, depth=depth, megapixels=megapixels)
    for source, alpha in (("TIFF", False), ("JPEG", False), ("WebP", False), ("WebP", True), ("AVIF", False)):
        yield Case(source=source, alpha=alpha, megapixels=megapixels)
    yield from _read_only(megapixels)
    for extras in _EXTRAS:
        yield Case(("sr", "--scale", "2"), extras, megapixels=megapixels / 4)
    yield Case(("sr", "--scale", "2"), alpha=True, depth=16, megapixels=megapixels / 4)
    for scale, extras, pixels in (
        ("1.5", (), megapixels / 4),
        ("3.7", (), megapixels / 10),
        ("6", ("--compare",), 0.1),
    ):
        yield Case(("sr", "--scale", scale), extras, megapixels=pixels)
    yield Case(("sr", "--scale", "8"), alpha=True, depth=16, megapixels=0.1)
    yield Case(("sr", "--width", "500", "--reduce"), megapixels=megapixels)
    for source in ("PNG", "JPEG"):  # a JPEG goes through two networks, or is held against its quantisation
        yield Case(("deblock",), source=source, megapixels=megapixels)
    yield Case(("sr", "--scale", "2"), source="JPEG", megapixels=megapixels / 4)
    yield Case(extras=("--self-ensemble",), megapixels=megapixels / 4)
    for frames, source, form in (
        (200, "PNG", "PNG"),
        (200, "WebP", "WebP"),
        (20, "AVIF", "AVIF"),
        (300, "TIFF", "TIFF"),
    ):
        yield Case(source=source, form=form, frames=frames, megapixels=megapixels / 10)
    yield Case(source="AVIF", form="AVIF", alpha=True, frames=20, megapixels=megapixels / 10)


def _read_only(megapixels: float) -> Iterator[Case]:
    """Pictures of the kinds that are read and not written."""
    for name, source in SOURCES.items():
        if not source.available:
            continue
        if name == "float TIFF":
            yield Case(source=name, extras=("--range", "0", "255"), megapixels=megapixels)
        elif name == "Lab TIFF":
            for depth in (8, 16):
                yield Case(source=name, depth=depth, megapixels=megapixels)
        else:
            for alpha in (False, True):
                yield Case(source=name, alpha=alpha, megapixels=megapixels)


def _suffix(form: str) -> str:
    return SOURCES[form].suffix if form in SOURCES else FORMATS[form].suffixes[0]


def _write_source(case: Case, file: BinaryIO) -> None:
    picture = _picture(case)
    if case.source in SOURCES:
        SOURCES[case.source].write(picture, file)
        return
    if case.frames == 1:
        write(Bands.of(picture), case.source, file)
        return
    turned = (np.roll(picture.pixels, 7 * number, axis=0) for number in range(case.frames))
    alpha = picture.alpha
    frames = ((Bands.of(Image(pixels, alpha)), Fraction(40)) for pixels in turned)
    write_frames(frames, Reel(case.frames, pages=case.source == "TIFF", plays=0), case.source, file)


def _picture(case: Case) -> Image:
    """Slopes and noise, as wide as 4:3 has it; alpha is such a plane, too."""
    height = round((case.megapixels * 750_000) ** 0.5) // 2 * 2
    width = height * 4 // 3 // 2 * 2
    rng = np.random.default_rng(1)
    samples = np.empty((height, width, 3 + case.alpha), np.dtype(f"u{case.depth // 8}"))
    across = np.linspace(0, 200, width)[:, None]
    for y, row in enumerate(samples):
        values = across * (height - y) / height + rng.integers(0, 40, row.shape)
        row[:] = values * (257 if case.depth == 16 else 1)
    return Image(samples[..., :3], samples[..., 3] if case.alpha else None)


def _truth(case: Case, source: Path) -> Path:
    """The picture itself, or for an enlargement each of its pixels several times."""
    if "--gt" not in case.extras or case.command[0] != "sr":
        return source
    scale = int(case.command[case.command.index("--scale") + 1])
    path = source.with_name(f"{source.stem}-x{scale}.png")
    if not path.exists():
        picture = _picture(case)
        large = np.repeat(np.repeat(picture.pixels, scale, axis=0), scale, axis=1)
        path.write_bytes(encode(Image(large), "PNG", EncodeOptions()))
    return path


def _plan(command: list[str], memory: str) -> list[dict[str, Any]]:
    lines, _ = _run([*command, "--memory", memory, "--dry-run", "--json"])
    return [json.loads(line) for line in lines]


def _run(arguments: list[str]) -> tuple[list[str], int]:
    """What the command line printed, and the most bytes that its process held."""
    python = sys.executable
    command = [python, "-S", "-c", _LAUNCHER, python, "-m", "bbcu_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this package
    if done.returncode:
        raise UsageError(f"bbcu {' '.join(arguments)} failed: {done.stderr.strip()}")
    *lines, peak = done.stdout.splitlines()
    return lines, int(peak) * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Planned and real memory of the command line.")
    parser.add_argument("--megapixels", type=float, default=3.0, help="size of the pictures")
    parser.add_argument("--match", default="", help="only rows that hold this text")
    options = parser.parse_args()
    sys.stdout.write("".join(f"{line}\n" for line in markdown.head(TITLES)))
    with TemporaryDirectory(prefix="bbcu-bench-") as folder:
        for case in cases(options.megapixels):
            if options.match in f"{case} to {case.form}":
                sys.stdout.write(f"{measure(case, Path(folder))}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
