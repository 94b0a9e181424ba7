"""The score of a network on withheld pictures while it trains, with the conventions of the published tables."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bbcu_cli.image import Image
from bbcu_cli.score.metrics import crop_border, luma, psnr
from bbcu_cli.score.trial import Trial
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.data import read_images
from bbcu_cli.train.recipes import Recipe

# What denoising and deblocking are compared at: the levels that the paper's tables are read by.
SIGMA: Final = 25.0
QUALITY: Final = 10
# Larger pictures are cut to their centre, so that a validation costs seconds.
_SIDE: Final = 240


class Validation:
    """Pairs of input and truth, made once."""

    def __init__(self, spec: ModelSpec, recipe: Recipe, folder: Path) -> None:
        """Degrade the pictures at the level of the tables, or the nearest to it that the recipe trains for.

        Raises:
            TrainingError: the folder has no usable image.
        """
        sigma, quality = float(np.clip(SIGMA, *recipe.sigma)), int(np.clip(QUALITY, *recipe.quality))
        self.trial = Trial(spec.task, spec.scale, sigma=sigma, quality=quality)
        images = [Image(_centre(pixels)) for pixels in read_images(folder, 8 * spec.scale)]
        self.pairs = [self.trial.degrade(image)[:2] for image in images]

    def score(self, model: nn.Module) -> float:
        """Mean PSNR in dB: on Y (sr, deblock) or on RGB (denoise)."""
        device = next(model.parameters()).device
        convention, scores = self.trial.convention, []
        for truth, x in self.pairs:
            with torch.no_grad():
                output = model(torch.from_numpy(x.transpose(2, 0, 1)[None].copy()).to(device))
            restored = (output[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
            a, b = (crop_border(image, convention.border) for image in (truth, restored))
            if convention.headline == "y":
                a, b = (luma(i, rounded=convention.round_luma, gray_is_luma=convention.gray_is_luma) for i in (a, b))
            scores.append(psnr(a, b))
        return float(np.mean(scores))


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a picture, at most _SIDE by _SIDE."""
    top, left = (max(0, n - _SIDE) // 2 for n in pixels.shape[:2])
    return pixels[top : top + _SIDE, left : left + _SIDE]
