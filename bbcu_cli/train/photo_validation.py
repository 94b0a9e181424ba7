"""The score of a photo run on withheld pictures: its gain on the input itself, level by level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bbcu_cli.image import Image
from bbcu_cli.score.camera import Camera, camera_noise, read_noise
from bbcu_cli.score.photos import Pixels, compress_jpeg, to_pixels
from bbcu_cli.score.trial import Trial
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.data import read_images
from bbcu_cli.train.recipes import Recipe
from bbcu_cli.train.validate import centre, headline_psnr, mean_psnr

# Qualities of the JPEG; levels of Gaussian and of camera noise, both saved as a JPEG of NOISY_QUALITY.
SR_QUALITIES: Final = (40, 60, 75, 85, 95)
DEBLOCK_QUALITIES: Final = (10, 30, 50, 70, 80, 90, 95)
SIGMAS: Final = (5.0, 15.0, 25.0, 40.0)
CAMERA_SIGMAS: Final = (3.0, 6.0)
NOISY_QUALITY: Final = 90

# Pictures are cut to their centre of this side, since each is restored at every level.
_SIDE: Final = 144

# A camera of average noise, see `train.photos.draw_camera`.
CAMERA: Final = Camera(shot=2e-3, read=read_noise(2e-3), colour=0.8, contrast=0.8, luma=0.7, chroma=2.4, tail=1.6)


class PhotoValidation:
    """Pairs of truth and input at fixed levels, made once.

    Attributes:
        baseline: mean PSNR of the input itself by level, in dB; of super-resolution, of its bicubic enlargement.
    """

    def __init__(self, spec: ModelSpec, recipe: Recipe, folder: Path) -> None:
        """Degrade the pictures at every level that the recipe trains for, and without any loss.

        Raises:
            TrainingError: the folder has no usable image.
        """
        images = [Image(centre(pixels, _SIDE)) for pixels in read_images(folder, 8 * spec.scale)]
        self.trials = {trial.strength: trial for trial in _trials(spec, recipe)}
        made = {level: [trial.degrade(image) for image in images] for level, trial in self.trials.items()}
        if spec.task == "denoise":
            for sigma in _within(CAMERA_SIGMAS, recipe.sigma):
                level = f"camera {sigma:g}, JPEG {NOISY_QUALITY}"
                self.trials[level] = Trial("denoise", jpeg=NOISY_QUALITY)
                made[level] = [_camera_pair(image, sigma, seed) for seed, image in enumerate(images)]
        self.pairs = {level: [(truth, x) for truth, x, _ in triples] for level, triples in made.items()}
        self.baseline = {
            level: float(np.mean([headline_psnr(t, given, self.trials[level].convention) for t, _, given in triples]))
            for level, triples in made.items()
        }

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Mean PSNR by level, in dB: on Y (sr) or on RGB."""
        return {level: mean_psnr(model, pairs, self.trials[level].convention) for level, pairs in self.pairs.items()}

    def score(self, model: nn.Module) -> float:
        """Mean PSNR over all levels, in dB."""
        return float(np.mean(list(self.measure(model).values())))


def _within(levels: tuple[float, ...], ends: tuple[float, float]) -> list[float]:
    """The levels between the ends; where there is none, the nearest one's end."""
    return [level for level in levels if ends[0] <= level <= ends[1]] or [float(np.clip(levels[0], *ends))]


def _trials(spec: ModelSpec, recipe: Recipe) -> Iterator[Trial]:
    if spec.task == "sr":
        for quality in SR_QUALITIES:
            yield Trial("sr", spec.scale, jpeg=quality)
        yield Trial("sr", spec.scale)
    elif spec.task == "deblock":
        for level in _within(DEBLOCK_QUALITIES, recipe.quality):
            yield Trial("deblock", quality=int(level), colour=True)
    else:
        if recipe.sigma[0] == 0:
            yield Trial("denoise", jpeg=NOISY_QUALITY)
        for sigma in _within(SIGMAS, recipe.sigma):
            yield Trial("denoise", sigma=sigma, jpeg=NOISY_QUALITY)


def _camera_pair(image: Image, sigma: float, seed: int) -> tuple[Pixels, NDArray[np.float32], Pixels]:
    """As `Trial.degrade`, with camera noise."""
    truth = Trial("denoise").degrade(image)[0]
    noisy = to_pixels(truth + camera_noise(truth, sigma, CAMERA, np.random.default_rng(seed)))
    given = compress_jpeg(noisy, NOISY_QUALITY)
    return truth, given.astype(np.float32) / np.float32(255), given
