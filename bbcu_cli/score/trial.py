"""Data sets in, scores out: two folders paired by name, or a row of the paper's tables made from ground truth alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.errors import UsageError
from bbcu_cli.image import Image, decode, probe
from bbcu_cli.image.formats import is_image_name
from bbcu_cli.score.camera import Camera, camera_noise
from bbcu_cli.score.degrade import add_noise, jpeg_luma, resize_bicubic
from bbcu_cli.score.metrics import Convention, Scores, luma, score
from bbcu_cli.score.photos import Sampling, compress_jpeg
from bbcu_cli.score.report import ReportRow
from bbcu_cli.spec import Task

Pixels = NDArray[Any]
RestoreArray = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""float32 (H, W, C) in 0..1 -> float32 (S*H, S*W, C), not clipped."""

MAX_PIXELS: Final = 500_000_000
# What tools hang behind the name of a ground truth: photo_x4, photox4, photo_bbcu-m, photo_denoised.
_MARK: Final = re.compile(r"([_-]?x[234]|[_-]bbcu.*|_denoised|_deblocked)$", re.IGNORECASE)
_SCALE: Final = re.compile(r"x([234])(?![0-9a-z])", re.IGNORECASE)
_NAMED: Final = 5  # as many files an error names


@dataclass(frozen=True, slots=True)
class Pair:
    """A ground truth and the result that is to be compared with it."""

    truth: Path
    restored: Path


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """One scored image with its pictures, uint8 or uint16 (H, W, C), all of one size.

    Attributes:
        given: what the network was given, brought to the size of the result (the baseline); None when unknown.
    """

    row: ReportRow
    truth: Pixels
    restored: Pixels
    given: Pixels | None = None


def convention_of(task: Task, scale: int = 1) -> Convention:
    """How the paper's tables count a task."""
    if task == "sr":
        return Convention(border=scale)
    if task == "denoise":
        return Convention(gray_is_luma=True, headline="rgb")
    return Convention(round_luma=True, gray_is_luma=True)


def images_at(path: Path) -> list[Path]:
    """The file itself, or the images of a folder in name order.

    Raises:
        UsageError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{str(path)!r} does not exist.")
    found = sorted(p for p in path.iterdir() if p.is_file() and is_image_name(p) and not p.name.startswith("."))
    if not found:
        raise UsageError(f"No image in {str(path)!r}.")
    return found


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Ground truths by their names without extension.

    Raises:
        UsageError: two have the same.
    """
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise UsageError(f"{str(stems[path.stem])!r} and {str(path)!r} are both ground truth for {path.stem!r}.")
        stems[path.stem] = path
    return stems


def find_truth(stem: str, truths: Mapping[str, Path]) -> Path | None:
    """The ground truth of a result: that of its own name, or of the name before `_x4`, `_bbcu...`, `_denoised`."""
    while stem not in truths:
        shorter = _MARK.sub("", stem)
        if shorter in ("", stem):
            return None
        stem = shorter
    return truths[stem]


def pair(truth: Path, restored: Path) -> list[Pair]:
    """Pair two folders by name, or two files as they are; never by position.

    Raises:
        UsageError: a file is missing, has no partner, or has several.
    """
    if truth.is_file() and restored.is_file():
        return [Pair(truth, restored)]
    truths = by_stem(images_at(truth))
    partners: dict[Path, list[Path]] = {path: [] for path in truths.values()}
    strangers = []
    for path in images_at(restored):
        if found := find_truth(path.stem, truths):
            partners[found].append(path)
        else:
            strangers.append(path.name)
    alone = [path.name for path, found in partners.items() if not found]
    rivals = [path.name for found in partners.values() if len(found) > 1 for path in found]
    for complaint, names in (
        (f"No ground truth in {str(truth)!r} for", strangers),
        (f"No result in {str(restored)!r} for", alone),
        ("Several results for one ground truth:", rivals),
    ):
        if names:
            raise UsageError(f"{complaint} {_some(names, ', ')}.")
    return [Pair(path, found[0]) for path, found in partners.items()]


def _some(items: Sequence[str], separator: str) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return separator.join(items[:_NAMED]) + more


def scale_of(pairs: Sequence[Pair]) -> int:
    """The super-resolution scale that the results' names, or else the name of their folder, tell; 1 when none does.

    Raises:
        UsageError: the names tell several.
    """
    scales = set()
    for one in pairs:
        mark = one.restored.stem.removeprefix(one.truth.stem)
        found = _SCALE.search(mark) or re.search(r"x([234])$", one.restored.parent.name, re.IGNORECASE)
        scales.add(int(found[1]) if found else 1)
    if len(scales) > 1:
        told = ", ".join(f"x{scale}" for scale in sorted(scales))
        raise UsageError(f"The names of the results tell several scales ({told}); evaluate them one at a time.")
    return scales.pop()


def check_sizes(pairs: Sequence[Pair], scale: int) -> None:
    """Compare the sizes that the headers promise, before any work.

    Raises:
        UsageError: a pair differs; a ground truth may exceed its result by less than the scale.
        ImageError: a file is no image.
    """
    wrong = []
    for one in pairs:
        truth, restored = probe(one.truth).size, probe(one.restored).size
        if restored not in (truth, _multiple(truth, scale)):
            sizes = f"{restored[1]}x{restored[0]}, its ground truth {truth[1]}x{truth[0]}"
            wrong.append(f"{one.restored.name} is {sizes}")
    if wrong:
        raise UsageError(f"Sizes differ: {_some(wrong, '; ')}.")


def score_images(truth: Image, restored: Image, convention: Convention, scale: int = 1) -> Scores:
    """Score a decoded image; depths may differ, and alpha is ignored.

    A ground truth that exceeds the result by less than `scale` is cropped to a multiple of it.

    Raises:
        UsageError: the sizes differ, or the border leaves nothing.
    """
    a, b, peak = _comparable(truth, restored, scale)
    return score(a, b, convention, peak=peak)


def evaluate_pairs(pairs: Iterable[Pair], convention: Convention, scale: int = 1) -> Iterator[Evaluated]:
    """Score existing results.

    Raises:
        UsageError: as `score_images`.
        ImageError: a file cannot be decoded.
    """
    for one in pairs:
        images = [decode(path, max_pixels=MAX_PIXELS) for path in (one.truth, one.restored)]
        truth, restored, peak = _comparable(images[0], images[1], scale)
        with _named(one.restored):
            scores = score(truth, restored, convention, peak=peak)
        yield Evaluated(ReportRow(one.truth.stem, scores), truth, restored)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in an error which file it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _comparable(truth: Image, restored: Image, scale: int) -> tuple[Pixels, Pixels, float]:
    """Pixels of both in one depth and one size, and their peak."""
    a, b = truth.pixels, restored.pixels
    if restored.size == _multiple(truth.size, scale):
        a = a[: restored.size[0], : restored.size[1]]
    if a.dtype != b.dtype:
        # 0..255 times 257 is 0..65535 exactly.
        a, b = (np.multiply(x, 257, dtype=np.uint16) if x.dtype == np.uint8 else x for x in (a, b))
    return a, b, float(np.iinfo(a.dtype).max)


def _multiple(size: tuple[int, int], scale: int) -> tuple[int, int]:
    return size[0] // scale * scale, size[1] // scale * scale


@dataclass(frozen=True, slots=True)
class Trial:
    """A column of the paper's tables, or of one for photos: a task and how hard its input is degraded.

    Attributes:
        sigma: noise of the input in 8-bit units, for denoising.
        quality: JPEG quality of the input, for deblocking.
        colour: whether a colour JPEG is deblocked, scored on RGB, and not the luma plane of the paper.
        jpeg: quality of the colour JPEG that the input of super-resolution or denoising is saved as; None: none.
        sampling: of chroma in colour JPEGs.
        camera: what makes the noise, in place of the paper's white Gaussian.
        border: pixels to ignore along the edges instead of what the paper ignores.
    """

    task: Task
    scale: int = 1
    sigma: float = 0
    quality: int = 0
    border: int | None = None
    colour: bool = False
    jpeg: int | None = None
    sampling: Sampling = "4:2:0"
    camera: Camera | None = None

    @property
    def strength(self) -> str:
        """The degradation in words."""
        words = {"sr": f"x{self.scale}", "denoise": f"sigma {self.sigma:g}", "deblock": f"quality {self.quality}"}
        marks = (
            "camera" if self.camera else "",
            "colour" if self.colour else "",
            f"JPEG {self.jpeg}" if self.jpeg else "",
        )
        return ", ".join((words[self.task], *filter(None, marks)))

    @property
    def baseline(self) -> str:
        """What the result has to beat."""
        return {"sr": "bicubic", "denoise": "noisy", "deblock": "JPEG"}[self.task]

    @property
    def convention(self) -> Convention:
        """The paper's, with how bbcu makes the input."""
        note = {
            "sr": f"HR cropped to a multiple of {self.scale}; LR and baseline by MATLAB's bicubic, rounded to 8 bit",
            "denoise": f"noise of sigma {self.sigma:g} by numpy's RandomState(0) for each image, input not clipped",
            "deblock": f"rounded Y through a grayscale JPEG of quality {self.quality}",
        }[self.task]
        if self.camera:
            note = f"camera noise of sigma {self.sigma:g} at mid-gray by numpy's default_rng(0) for each image"
        if self.colour:
            note = f"RGB through a colour JPEG of quality {self.quality}, {self.sampling}"
        if self.jpeg is not None:
            note += f"; then 8-bit RGB through a colour JPEG of quality {self.jpeg}, {self.sampling}"
        usual = convention_of("denoise" if self.colour else self.task, self.scale)
        return replace(
            usual,
            border=usual.border if self.border is None else self.border,
            # Only the luma network is given gray images as they are.
            gray_is_luma=self.task == "deblock" and not self.colour,
            note=f"{note}; outputs rounded to 8 bit",
        )

    def degrade(self, truth: Image) -> tuple[Pixels, NDArray[np.float32], Pixels]:
        """Make the network's input.

        Returns:
            (truth, x, given): the truth as it is compared, uint8 (H, W, C); the network's input, float32
            (H / S, W / S, C) in about 0..1; the baseline, uint8 like the truth.

        Raises:
            UsageError: the image is smaller than the scale, or the quality is out of range.
        """
        pixels = truth.pixels if truth.depth == 8 else np.rint(truth.pixels / 257).astype(np.uint8)
        if self.task == "deblock" and not self.colour:
            y = luma(pixels, rounded=True, gray_is_luma=True).astype(np.uint8)
            given = jpeg_luma(y, self.quality)[..., None]
            return y[..., None], _to_float(given), given
        height, width = _multiple(truth.size, self.scale)
        rgb = np.repeat(pixels, 3 // truth.channels, axis=2)[:height, :width]
        if self.task == "deblock":
            given = compress_jpeg(rgb, self.quality, self.sampling)
            return rgb, _to_float(given), given
        if self.task == "denoise":
            noisy = self._noisy(rgb)
            given = self._saved(_to_uint8(noisy))
            return rgb, noisy.astype(np.float32) if self.jpeg is None else _to_float(given), given
        small = self._saved(resize_bicubic(rgb, (height // self.scale, width // self.scale)))
        return rgb, _to_float(small), resize_bicubic(small, (height, width))

    def _noisy(self, rgb: Pixels) -> NDArray[np.float64]:
        if self.camera is None:
            return add_noise(rgb / 255, self.sigma, np.random.RandomState(0))
        return (rgb + camera_noise(rgb, self.sigma, self.camera, np.random.default_rng(0))) / 255

    def _saved(self, pixels: Pixels) -> Pixels:
        """What the file of the input holds, uint8 (H, W, 3)."""
        return pixels if self.jpeg is None else compress_jpeg(pixels, self.jpeg, self.sampling)

    def run(self, name: str, image: Image, restore: RestoreArray) -> Evaluated:
        """Degrade one image, restore it, and score the result and the baseline.

        Raises:
            UsageError: the image is too small, or the network does not fit the task.
            EngineError: the engine failed.
        """
        truth, x, given = self.degrade(image)
        restored = _to_uint8(restore(x))
        scores, baseline = (
            score(truth, result, self.convention, blocking=self.task == "deblock") for result in (restored, given)
        )
        return Evaluated(ReportRow(name, scores, baseline), truth, restored, given)


def evaluate_trial(trial: Trial, truths: Iterable[Path], restore: RestoreArray) -> Iterator[Evaluated]:
    """Run a trial on files.

    Raises:
        ImageError: a file cannot be decoded.
        UsageError, EngineError: as `Trial.run`.
    """
    for path in truths:
        image = decode(path, max_pixels=MAX_PIXELS)
        with _named(path):
            evaluated = trial.run(path.stem, image, restore)
        yield evaluated


def _to_float(pixels: Pixels) -> NDArray[np.float32]:
    x: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    return x


def _to_uint8(image: NDArray[Any]) -> Pixels:
    """0..1 -> 0..255, clipped and rounded."""
    samples: Pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return samples
