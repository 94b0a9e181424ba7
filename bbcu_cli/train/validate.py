"""The score of a network on withheld pictures while it trains, with the conventions of the published tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bbcu_cli.image import Image
from bbcu_cli.score.metrics import Convention, crop_border, luma, psnr
from bbcu_cli.score.trial import Trial
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.data import read_images
from bbcu_cli.train.recipes import Recipe

# What denoising and deblocking are compared at: the levels of the catalogue's tables.
SIGMAS: Final = (15.0, 25.0, 50.0)
QUALITIES: Final = (10, 20, 30, 40)
# Larger pictures are cut to their centre, so that a validation costs seconds.
_SIDE: Final = 240


class Validation:
    """Pairs of input and truth at each level, made once; `scores` is what the latest validation found, by level."""

    def __init__(self, spec: ModelSpec, recipe: Recipe, folder: Path) -> None:
        """Degrade the pictures at the levels of the tables, or the nearest to them that the recipe trains for.

        Raises:
            TrainingError: the folder has no usable image.
        """
        images = [Image(centre(pixels, _SIDE)) for pixels in read_images(folder, 8 * spec.scale)]
        self.levels = [(trial, [trial.degrade(image)[:2] for image in images]) for trial in _trials(spec, recipe)]
        self.scores: dict[str, float] = {}

    def score(self, model: nn.Module) -> float:
        """Mean PSNR in dB over pictures and levels: on Y (sr, deblock) or on RGB (denoise)."""
        self.scores = {trial.strength: mean_psnr(model, pairs, trial.convention) for trial, pairs in self.levels}
        return fmean(self.scores.values())


def _trials(spec: ModelSpec, recipe: Recipe) -> list[Trial]:
    """What the network is measured by, once each where several levels of the tables come down to one."""
    if spec.task == "denoise":
        return [Trial("denoise", sigma=sigma) for sigma in sorted(set(np.clip(SIGMAS, *recipe.sigma).tolist()))]
    if spec.task == "deblock":
        return [Trial("deblock", quality=q) for q in sorted(set(np.clip(QUALITIES, *recipe.quality).tolist()))]
    return [Trial("sr", spec.scale)]


def mean_psnr(
    model: nn.Module, pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]], convention: Convention
) -> float:
    """What a network scores on pairs of truth (S*H, S*W, C) and input (H, W, C), in dB."""
    device = next(model.parameters()).device
    scores = []
    for truth, x in pairs:
        with torch.no_grad():
            output = model(torch.from_numpy(x.transpose(2, 0, 1)[None].copy()).to(device))
        restored = (output[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        scores.append(headline_psnr(truth, restored, convention))
    return float(np.mean(scores))


def headline_psnr(truth: NDArray[np.uint8], restored: NDArray[np.uint8], convention: Convention) -> float:
    """The one figure that a convention is about, in dB."""
    a, b = (crop_border(image, convention.border) for image in (truth, restored))
    if convention.headline == "y":
        a, b = (luma(i, rounded=convention.round_luma, gray_is_luma=convention.gray_is_luma) for i in (a, b))
    return psnr(a, b)


def centre(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of a picture, at most `side` by `side`."""
    top, left = (max(0, n - side) // 2 for n in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]
