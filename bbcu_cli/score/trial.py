"""Data sets in, scores out: two folders paired by name, or a row of the paper's tables made from ground truth alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.errors import UsageError
from bbcu_cli.image import EncodeOptions, Image, decode, encode
from bbcu_cli.image.color import to_8_bit
from bbcu_cli.score.camera import Camera, camera_noise
from bbcu_cli.score.degrade import add_noise, jpeg_luma, resize_bicubic
from bbcu_cli.score.metrics import Convention, Scores, luma, score
from bbcu_cli.score.pairs import Pair, fits, multiple_of
from bbcu_cli.score.photos import Sampling, jpeg_bytes
from bbcu_cli.score.report import ReportRow
from bbcu_cli.spec import Task

Pixels = NDArray[Any]
RestoreArray = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""float32 (H, W, C) in 0..1 -> float32 (S*H, S*W, C), not clipped."""

MAX_PIXELS: Final = 500_000_000


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


def score_images(truth: Image, restored: Image, convention: Convention, scale: int | Fraction = 1) -> Scores:
    """Score a decoded image; depths may differ, and alpha is ignored.

    Of two sizes that differ as `fits` allows, the larger is cropped.

    Raises:
        UsageError: the sizes differ, or the border leaves nothing.
    """
    a, b, peak = comparable(truth, restored, scale)
    return score(a, b, convention, peak=peak)


def evaluate_pairs(pairs: Iterable[Pair], convention: Convention, scale: int = 1) -> Iterator[Evaluated]:
    """Score existing results.

    Raises:
        UsageError: as `score_images`.
        ImageError: a file cannot be decoded.
    """
    for one in pairs:
        images = [decode(path, max_pixels=MAX_PIXELS) for path in (one.truth, one.restored)]
        truth, restored, peak = comparable(images[0], images[1], scale)
        with named(one.restored):
            scores = score(truth, restored, convention, peak=peak)
        yield Evaluated(ReportRow(one.called, scores), truth, restored)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Say in an error which file it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def comparable(truth: Image, restored: Image, scale: int | Fraction) -> tuple[Pixels, Pixels, float]:
    """Pixels of both in one depth and one size, and their peak."""
    a, b = truth.pixels, restored.pixels
    if fits(truth.size, restored.size, scale):
        height, width = map(min, truth.size, restored.size)
        a, b = a[:height, :width], b[:height, :width]
    if a.dtype != b.dtype:
        # 0..255 times 257 is 0..65535 exactly.
        a, b = (np.multiply(x, 257, dtype=np.uint16) if x.dtype == np.uint8 else x for x in (a, b))
    return a, b, float(np.iinfo(a.dtype).max)


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

    @property
    def of_files(self) -> bool:
        """Whether the input is a file that people could have, and not what the paper's tables take."""
        return self.colour or self.jpeg is not None

    def degrade(self, truth: Image) -> tuple[Pixels, NDArray[np.float32], Pixels]:
        """Make the network's input.

        Returns:
            (truth, x, given): the truth as it is compared, uint8 (H, W, C); the network's input, float32
            (H / S, W / S, C) in about 0..1; the baseline, uint8 like the truth.

        Raises:
            UsageError: the image is smaller than the scale, or the quality is out of range.
        """
        if self.of_files:
            rgb, file, given = self.encode(truth)
            return rgb, _to_float(decode(file, max_pixels=MAX_PIXELS).pixels), given
        if self.task == "deblock":
            y = luma(to_8_bit(truth.pixels), rounded=True, gray_is_luma=True).astype(np.uint8)
            given = jpeg_luma(y, self.quality)[..., None]
            return y[..., None], _to_float(given), given
        rgb = self._rgb(truth)
        if self.task == "sr":
            small = self._reduced(rgb)
            return rgb, _to_float(small), resize_bicubic(small, rgb.shape[:2])
        noisy = self._noisy(rgb)
        return rgb, noisy.astype(np.float32), _to_uint8(noisy)

    def encode(self, truth: Image) -> tuple[Pixels, bytes, Pixels]:
        """Make the input as a file: a colour JPEG, or a PNG where the trial has no quality.

        Returns:
            (truth, file, given): the truth as it is compared, uint8 (H, W, 3); the content of the file; the baseline,
            uint8 like the truth.

        Raises:
            UsageError: as `degrade`.
        """
        rgb = self._rgb(truth)
        pixels = rgb
        if self.task != "deblock":
            pixels = self._reduced(rgb) if self.task == "sr" else _to_uint8(self._noisy(rgb))
        quality = self.quality if self.task == "deblock" else self.jpeg
        if quality is None:
            file = encode(Image(pixels), "PNG", EncodeOptions())
        else:
            file = jpeg_bytes(pixels, quality, self.sampling)
            pixels = decode(file, max_pixels=MAX_PIXELS).pixels
        return rgb, file, resize_bicubic(pixels, rgb.shape[:2]) if self.task == "sr" else pixels

    def _rgb(self, truth: Image) -> Pixels:
        """The truth as three channels of 8 bits, cropped to a multiple of the scale."""
        height, width = multiple_of(truth.size, self.scale)
        return np.repeat(to_8_bit(truth.pixels), 3 // truth.channels, axis=2)[:height, :width]

    def _reduced(self, rgb: Pixels) -> Pixels:
        small: Pixels = resize_bicubic(rgb, (rgb.shape[0] // self.scale, rgb.shape[1] // self.scale))
        return small

    def _noisy(self, rgb: Pixels) -> NDArray[np.float64]:
        if self.camera is None:
            return add_noise(rgb / 255, self.sigma, np.random.RandomState(0))
        return (rgb + camera_noise(rgb, self.sigma, self.camera, np.random.default_rng(0))) / 255

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
        with named(path):
            evaluated = trial.run(path.stem, image, restore)
        yield evaluated


def _to_float(pixels: Pixels) -> NDArray[np.float32]:
    x: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    return x


def _to_uint8(image: NDArray[Any]) -> Pixels:
    """0..1 -> 0..255, clipped and rounded."""
    samples: Pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return samples
