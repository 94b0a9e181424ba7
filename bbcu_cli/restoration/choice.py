"""Which network serves a file: by what the user asked for, and by what the file says about itself.

The networks of the paper were made for clean reductions, white noise and gray JPEGs; those for photos were made for
files that a camera, a phone or a web site has compressed. Which of them is better where is a figure of the catalogue
(`Serves`), measured on withheld pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal

from bbcu_cli.hub import Catalogue, Entry, Serves, denoise_model
from bbcu_cli.image.compression import Compression
from bbcu_cli.restoration.noise import Noise
from bbcu_cli.spec import SCALES, Task

InputKind = Literal["auto", "clean", "photo"]

# A lossy file that does not tell how hard it was compressed (WebP, AVIF, HEIC, JPEG XL) is taken for a JPEG of this
# quality, the usual one of cameras, phones and web sites.
UNTOLD_QUALITY: Final = 80
# A lossless file that counts as a photo was a JPEG of a camera, most likely.
LOSSLESS_QUALITY: Final = 90
_WHITE: Final = Noise(0.0)
# What the larger network for super-resolution should gain on the smaller one, in dB (Y) on this test set.
_WORTH: Final = 0.12
_JUDGE: Final = "Set14"


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
        first: name of the network that deblocks the file before the other sees it; None: nothing does.
    """

    model: str | None
    reason: str
    first: str | None = None

    def __str__(self) -> str:
        names = ", then ".join(name for name in (self.first, self.model) if name)
        return f"{names or 'left as it is'}: {self.reason}"


def choose(
    wish: Wish, compression: Compression | None, catalogue: Catalogue | None = None, noise: Noise | None = None
) -> Choice:
    """The network for one file.

    Args:
        wish: what the command asks for.
        compression: as `compression_of` found it; None for a lossless file.
        catalogue: by default the one that ships with bbcu.
        noise: as `estimate_noise` found it; None where the picture was not looked at.
    """
    catalogue = catalogue or Catalogue.load()
    level = wish.sigma if wish.sigma is not None else noise.sigma if noise else None
    kind = "a lossless file" if compression is None else str(compression)
    first = _deblocking(wish, compression, catalogue)
    if wish.input == "auto" and wish.sigma is None and noise is not None and (first or _good(compression)):
        floor = _floor(contenders(wish, compression, catalogue), noise if compression is None else None)
        if noise.sigma < floor:
            helps = "; no denoiser helps" if first else ", and no network helps"
            return Choice(first, f"{kind}{helps} where the noise is below {floor:g}")
    if entries := contenders(wish, compression, catalogue, noise or _WHITE):
        why = "a lossless file, for its noise" if compression is None else str(compression)
        if wish.input == "photo":
            why = f"--input photo{_sigma(wish)}"
        entry = _narrowest(entries, level)
        return Choice(entry.name, why, first)
    clean = preferred(wish, catalogue)
    best = max((high for _, high in _qualities(_photo_entries(Wish("deblock"), catalogue))), default=100)
    if wish.input != "auto":
        why = f"--input {wish.input}"
        why += "" if wish.input == "clean" or first else ", for which no network was trained"
    elif compression is None:
        why = "the file does not say how it was compressed" if wish.task == "deblock" else "a lossless file"
    elif wish.sigma is not None or first:
        why = str(compression)
    elif wish.task == "deblock" and _quality(compression) > best:
        return Choice(None, f"{compression}, and no network helps above quality {best}")
    elif _quality(compression) > best:
        why = f"{compression}, good enough for the network for clean pictures"
    else:
        why = f"{compression}, for which no network was trained"
    return Choice(clean, why + _sigma(wish, clean), first)


def _deblocking(wish: Wish, compression: Compression | None, catalogue: Catalogue) -> str | None:
    """The network that deblocks a file first, where something else is wished for.

    For super-resolution and for denoising that is worth more than a network that takes the blocks as they come
    (`weights/README.md`). A level of noise that the user gives takes the networks of the paper, and the file as it is.
    """
    if wish.task == "deblock" or (wish.sigma is not None and wish.input == "auto"):
        return None
    if compression is None and wish.input != "photo":
        return None
    deblock = Wish("deblock", input=wish.input)
    return choose(deblock, compression, catalogue).model if contenders(deblock, compression, catalogue) else None


def contenders(
    wish: Wish, compression: Compression | None, catalogue: Catalogue, noise: Noise | None = None
) -> list[Entry]:
    """The networks for photos that may serve a file: those whose range of qualities holds that of the file.

    Where none does, `--input photo` takes the nearest. A file that does not tell its quality has the network that is
    named for such, if there is one. Lossless files have those denoisers that are for their noise; with no `noise`
    given, those that any noise could have.
    """
    by_sigma = wish.task == "denoise" and wish.sigma is not None and wish.input == "auto"
    if by_sigma or wish.input == "clean":
        return []
    entries = _photo_entries(wish, catalogue)
    if compression is None and wish.input == "auto":
        entries = [entry for entry in entries if _takes_lossless(entry, noise)]
    untold = [entry for entry in entries if entry.serves and entry.serves.untold]
    if untold and (compression is None or compression.quality is None):
        return untold
    quality = _quality(compression)
    away = [_distance(quality, ends) for ends in _qualities(entries)]
    allowed = min(away, default=0) if wish.input == "photo" else 0
    return [entry for entry, distance in zip(entries, away, strict=True) if distance <= allowed]


def preferred(wish: Wish, catalogue: Catalogue) -> str:
    """Name of the network of the paper for a wish: for lossless files, and where no other was trained."""
    if wish.task == "sr":
        return f"sr-{wish.size}-x{wish.scale}"
    return "deblock" if wish.task == "deblock" else denoise_model(wish.sigma, catalogue)


def hardly_pays(wish: Wish, catalogue: Catalogue) -> str:
    """A sentence on the larger network, if by the measured figures it is not worth its time; else an empty one."""
    if wish.task != "sr" or wish.size == "m":
        return ""
    names = (preferred(wish, catalogue), preferred(replace(wish, size="m"), catalogue))
    large, small = (catalogue[name].measured.get(_JUDGE) for name in names)
    if large is None or small is None or large - small >= _WORTH:
        return ""
    return f"--model l does not pay at x{wish.scale}: {large:.2f} dB on {_JUDGE}, --model m {small:.2f} in less time"


def trained_scales(wish: Wish, catalogue: Catalogue) -> tuple[int, ...]:
    """Scales of the networks of the paper for a wish that are at hand."""
    names = {preferred(replace(wish, scale=scale), catalogue): scale for scale in SCALES}
    return tuple(names[entry.name] for entry in catalogue if entry.name in names and entry.embedded)


def _sigma(wish: Wish, model: str = "") -> str:
    """The level that the user gave, and that it changes nothing if so."""
    if wish.sigma is None:
        return ""
    return f", --sigma {wish.sigma:g}" + (", a level that has no network of its own" if model == "denoise" else "")


def _quality(compression: Compression | None) -> int:
    """The quality by which a network for photos is sought."""
    if compression is None:
        return LOSSLESS_QUALITY
    return UNTOLD_QUALITY if compression.quality is None else compression.quality


def _takes_lossless(entry: Entry, noise: Noise | None) -> bool:
    """Whether a network is for the noise of a lossless file; where it is not known, whether for any."""
    if entry.serves is None:
        return False
    if noise is None:
        return entry.serves.white is not None or entry.serves.correlated is not None
    levels = _lossless_levels(entry.serves, noise)
    return levels is not None and _distance(noise.sigma, levels) == 0


def _lossless_levels(serves: Serves, noise: Noise) -> tuple[float, float] | None:
    return serves.correlated if noise.correlated else serves.white


def _photo_entries(wish: Wish, catalogue: Catalogue) -> list[Entry]:
    """Networks of the task that say what they serve, and that are at hand."""
    return [entry for entry in catalogue if entry.serves and entry.spec.task == wish.task and entry.embedded]


def _qualities(entries: Iterable[Entry]) -> list[tuple[int, int]]:
    return [entry.serves.quality for entry in entries if entry.serves]


def _good(compression: Compression | None) -> bool:
    """Whether a file is better than those of cameras; of a worse one a denoiser mends more than noise."""
    return compression is None or _quality(compression) > LOSSLESS_QUALITY


def _floor(entries: Iterable[Entry], lossless: Noise | None) -> float:
    """The least noise that any of the networks helps with, in a lossless file of such noise or else in a lossy one.

    0 without a network.
    """
    serving = [entry.serves for entry in entries if entry.serves]
    if lossless is None:
        return min((serves.sigma[0] if serves.sigma else 0.0 for serves in serving), default=0.0)
    held = (_lossless_levels(serves, lossless) for serves in serving)
    return min((levels[0] for levels in held if levels), default=0.0)


def _distance(value: float, ends: tuple[float, float]) -> float:
    """How far a range is from a value; 0 when it holds it."""
    return max(ends[0] - value, value - ends[1], 0)


def _narrowest(entries: Iterable[Entry], level: float | None) -> Entry:
    """The network whose range of noise levels holds that one, or else is nearest; of several the narrowest.

    An entry without such a range holds every level. Ranges of noise as wide are told apart by those of quality.
    """

    def order(entry: Entry) -> tuple[float, float, float]:
        if entry.serves is None:
            return inf, inf, inf
        low, high = entry.serves.sigma or (0, inf)
        away = 0 if level is None else _distance(level, (low, high))
        return away, high - low, entry.serves.quality[1] - entry.serves.quality[0]

    return min(entries, key=order)
