"""Which network serves a file: by what the user asked for, and by what the file says about itself.

The networks of the paper were made for clean reductions, white noise and gray JPEGs; those for photos were made for
files that a camera, a phone or a web site has compressed. Which of them is better where is a figure of the catalogue
(`Serves`), measured on withheld pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from bbcu_cli.hub import Catalogue, Entry, denoise_model
from bbcu_cli.image.compression import Compression
from bbcu_cli.spec import Task

InputKind = Literal["auto", "clean", "photo"]

# A lossy file that does not tell how hard it was compressed (WebP, AVIF, HEIC) is taken for a JPEG of this quality,
# the usual one of cameras, phones and web sites.
UNTOLD_QUALITY: Final = 80


@dataclass(frozen=True, slots=True)
class Wish:
    """What a command asks for.

    Attributes:
        task: what is to be restored.
        scale: of super-resolution, else 1.
        size: of the super-resolution network, "m" or "l".
        sigma: noise level in 8-bit units, if the user knows it.
        input: "clean" and "photo" take every file for such, "auto" looks at it.
    """

    task: Task
    scale: int = 1
    size: Literal["m", "l"] = "m"
    sigma: float | None = None
    input: InputKind = "auto"


@dataclass(frozen=True, slots=True)
class Choice:
    """The network that serves a file.

    Attributes:
        model: its name in the catalogue; None leaves the file as it is, since no network helps.
        reason: why, in words to be put behind the name.
    """

    model: str | None
    reason: str

    def __str__(self) -> str:
        return f"left as it is: {self.reason}" if self.model is None else f"{self.model}: {self.reason}"


def choose(wish: Wish, compression: Compression | None, catalogue: Catalogue | None = None) -> Choice:
    """The network for one file.

    Args:
        wish: what the command asks for.
        compression: as `compression_of` found it; None for a lossless file.
        catalogue: by default the one that ships with bbcu.
    """
    catalogue = catalogue or Catalogue.load()
    clean = preferred(wish, catalogue)
    if wish.input == "clean":
        return Choice(clean, "--input clean")
    if wish.task == "deblock":
        return _deblocking(wish, compression, catalogue, clean)
    if compression is None and wish.input == "auto":
        return Choice(clean, f"a lossless file{_level(wish)}")
    if wish.task == "denoise" and wish.sigma is not None and wish.input == "auto":
        return Choice(clean, f"--sigma {wish.sigma:g}")
    why = "--input photo" if wish.input == "photo" else str(compression)
    quality = UNTOLD_QUALITY if compression is None or compression.quality is None else compression.quality
    entry = _serving(_photo_entries(wish, catalogue), quality)
    if entry is not None:
        return Choice(entry.name, why)
    return Choice(clean, f"{why}, for which no network was trained")


def preferred(wish: Wish, catalogue: Catalogue) -> str:
    """Name of the network of the paper for a wish: for lossless files, and where no other was trained."""
    if wish.task == "sr":
        return f"sr-{wish.size}-x{wish.scale}"
    return "deblock" if wish.task == "deblock" else denoise_model(wish.sigma, catalogue)


def _level(wish: Wish) -> str:
    return "" if wish.sigma is None else f", --sigma {wish.sigma:g}"


def _deblocking(wish: Wish, compression: Compression | None, catalogue: Catalogue, clean: str) -> Choice:
    entries = _photo_entries(wish, catalogue)
    if compression is None:
        return Choice(clean, "the file does not say how it was compressed")
    quality = UNTOLD_QUALITY if compression.quality is None else compression.quality
    entry = _serving(entries, quality)
    if entry is not None:
        return Choice(entry.name, str(compression))
    best = max((entry.serves.quality[1] for entry in entries if entry.serves), default=0)
    if entries and quality > best and wish.input == "auto":
        return Choice(None, f"{compression}, and no network helps above quality {best}")
    return Choice(clean, f"{compression}, for which no network was trained")


def _photo_entries(wish: Wish, catalogue: Catalogue) -> list[Entry]:
    """Networks of the task that say what they serve, and that are at hand."""
    arch = f"bbcu-{wish.size}" if wish.task == "sr" else "bbcu-dncnn"
    return [
        entry
        for entry in catalogue
        if entry.serves and (entry.spec.task, entry.spec.scale, entry.spec.arch) == (wish.task, wish.scale, arch)
        if entry.embedded
    ]


def _serving(entries: Iterable[Entry], quality: int) -> Entry | None:
    """The network with the narrowest range of qualities that holds that one."""
    within = [(high - low, entry) for entry in entries if entry.serves
              for low, high in [entry.serves.quality] if low <= quality <= high]  # fmt: skip
    return min(within, key=lambda pair: pair[0], default=(0, None))[1]
