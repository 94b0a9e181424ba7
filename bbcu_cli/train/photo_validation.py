"""The score of a photo run on withheld pictures: its gain on the input itself, level by level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bbcu_cli.image import Image
from bbcu_cli.score.camera import Camera, read_noise
from bbcu_cli.score.photos import Read, decoded
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
CAMERA: Final = Camera(shot=2e-3, read=read_noise(2e-3), colour=0.8, luma=0.7, chroma=2.4, tail=1.6)


class PhotoValidation:
    """Pairs of truth and input at fixed levels, made once.

    Attributes:
        baseline: mean PSNR of the input itself by level, in dB; of super-resolution, of its bicubic enlargement.
        scores: what the latest validation has gained on that, by level.
    """

    def __init__(self, spec: ModelSpec, recipe: Recipe, folder: Path, read: Read = decoded) -> None:
        """Degrade the pictures at every level that the recipe trains for.

        Args:
            spec: the network.
            recipe: of the run.
            folder: of the pictures.
            read: what makes the picture of a compressed file.

        Raises:
            TrainingError: the folder has no usable image.
        """
        images = [Image(centre(pixels, _SIDE)) for pixels in read_images(folder, 8 * spec.scale)]
        self.trials = {trial.strength: trial for trial in _trials(spec, recipe)}
        self.pairs: dict[str, list[tuple[NDArray[np.uint8], NDArray[np.float32]]]] = {}
        self.baseline: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        for level, trial in self.trials.items():
            made = [_made(trial, image, read) for image in images]
            self.pairs[level] = [(truth, x) for truth, x, _ in made]
            inputs = [headline_psnr(truth, given, trial.convention) for truth, _, given in made]
            self.baseline[level] = float(np.mean(inputs))

    def score(self, model: nn.Module) -> float:
        """Mean PSNR over all levels in dB: on Y (sr) or on RGB."""
        scores = {level: mean_psnr(model, self.pairs[level], trial.convention) for level, trial in self.trials.items()}
        self.scores = {level: score - self.baseline[level] for level, score in scores.items()}
        return float(np.mean(list(scores.values())))


def _made(trial: Trial, image: Image, read: Read) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """(truth, the network's input, the baseline) as of `Trial.degrade`."""
    if not trial.of_files:
        return trial.degrade(image)
    truth, file, given = trial.encode(image)
    return truth, read(file).astype(np.float32) / np.float32(255), given


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
        for sigma in _within(CAMERA_SIGMAS, recipe.sigma):
            yield Trial("denoise", sigma=sigma, jpeg=NOISY_QUALITY, camera=CAMERA)


def _within(levels: tuple[float, ...], ends: tuple[float, float]) -> list[float]:
    """The levels between both ends; if there is none, the first one, moved to the nearer end."""
    return [level for level in levels if ends[0] <= level <= ends[1]] or [float(np.clip(levels[0], *ends))]
