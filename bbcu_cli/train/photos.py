"""Training pairs from photographs as people have them, drawn at random.

Everything random comes from one numpy generator, which is seeded by the batch's own stream: a batch remains a function
of (seed, step, process), and drawing it touches no global state, so that any thread may draw ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bbcu_cli.errors import TrainingError
from bbcu_cli.score.camera import SHOT, Camera, Demosaicing, camera_noise, read_noise
from bbcu_cli.score.photos import (
    BLOCK,
    Kernel,
    Pixels,
    Read,
    Sampling,
    blur,
    compress_jpeg,
    compress_webp,
    decoded,
    reduce,
    to_pixels,
)
from bbcu_cli.spec import ModelSpec, Task
from bbcu_cli.train.recipes import Recipe

T = TypeVar("T", bound=str)

# Pixels of the network's input around a patch: those of any block of the encoder that reaches into it, and two more,
# which reduction and resizing need.
MARGIN: Final = BLOCK + 2

# Chroma sampling as files have it: web sites, phones and chats halve it along both axes, cameras in part along one.
SAMPLINGS: Final[dict[Sampling, float]] = {"4:2:0": 0.65, "4:4:4": 0.25, "4:2:2": 0.10}

# Shares of the inputs that no encoder has touched; a deblocking network is never given one.
LOSSLESS: Final[dict[Task, float]] = {"sr": 0.1, "denoise": 0.3, "deblock": 0.0}
# Of those that are compressed: by WebP; by JPEG, after a first JPEG of such a quality on another grid.
WEBP: Final = 0.05
TWICE: Final = 0.1
FIRST_QUALITY: Final = (60, 98)

# Super-resolution: how the picture was reduced; blurred before it, by a Gaussian in pixels of the input; and noisy
# before it was compressed.
KERNELS: Final[dict[Kernel, float]] = {"bicubic": 0.8, "lanczos": 0.08, "area": 0.06, "bilinear": 0.06}
BLURRED: Final = 0.15
BLUR: Final = (0.3, 0.8)
NOISY: Final = 0.25
NOISE: Final = (0.5, 5.0)

# Denoising: camera noise, or else white Gaussian noise; and how often the noisy picture was resized, by such factors.
CAMERA: Final = 0.6
RESIZED: Final = 0.25
FACTORS: Final = (0.75, 2.0)


def photo_inputs(
    crops: Tensor, spec: ModelSpec, recipe: Recipe, generator: torch.Generator, read: Read = decoded
) -> Tensor:
    """The network's inputs for one batch of sharp crops.

    Args:
        crops: uint8 (N, 3, S * (patch + 2 * MARGIN), ...), squares.
        spec: its task decides how the crops are degraded.
        recipe: patch, and the ranges of `quality` and `sigma`.
        generator: the stream of this batch.
        read: what makes the picture of a compressed file.

    Returns:
        float32 (N, 3, patch, patch) in 0..1, whole 8-bit values, on the device of the crops.

    Raises:
        TrainingError: the network sees luma only.
    """
    if spec.channels != 3:
        raise TrainingError(f"A photo recipe trains networks of 3 channels, and this {spec.task} network has 1.")
    seed = int(torch.randint(1 << 62, (), generator=generator, device=crops.device))
    rng = np.random.default_rng(seed)
    sharp = crops.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    inputs = np.stack([degrade(one, spec.task, spec.scale, recipe, rng, read) for one in sharp])
    patches = torch.from_numpy(inputs[:, MARGIN:-MARGIN, MARGIN:-MARGIN].transpose(0, 3, 1, 2).copy())
    return patches.to(crops.device).float() / 255


def degrade(
    sharp: Pixels, task: Task, scale: int, recipe: Recipe, rng: np.random.Generator, read: Read = decoded
) -> Pixels:
    """A random input for one sharp picture: uint8 (S*H, S*W, 3) -> uint8 (H, W, 3); `read` as of `photo_inputs`."""
    if task == "sr":
        seen = _reduced(sharp, scale, rng)
        if rng.random() < NOISY:
            seen = _noisy(seen, NOISE, rng)
    elif task == "denoise":
        seen = _noisy(sharp, recipe.sigma, rng, resized=rng.random() < RESIZED)
    else:
        seen = sharp
    return seen if rng.random() < LOSSLESS[task] else _compressed(seen, recipe.quality, rng, read)


def _choose(shares: Mapping[T, float], rng: np.random.Generator) -> T:
    """One of the keys, with the probability that stands beside it."""
    index = np.searchsorted(np.cumsum(list(shares.values())), rng.random(), side="right")
    return list(shares)[min(int(index), len(shares) - 1)]  # a sum of shares may end just below 1


def _reduced(sharp: Pixels, scale: int, rng: np.random.Generator) -> Pixels:
    if rng.random() < BLURRED:
        sharp = blur(sharp, scale * rng.uniform(*BLUR))
    return reduce(sharp, scale, _choose(KERNELS, rng))


def _compressed(seen: Pixels, quality: tuple[int, int], rng: np.random.Generator, read: Read) -> Pixels:
    def phase() -> tuple[int, int]:
        top, left = rng.integers(0, BLOCK, 2)
        return int(top), int(left)

    low, high = quality
    level = int(rng.integers(low, high + 1))
    if rng.random() < WEBP:
        return compress_webp(seen, level, phase(), read)
    if rng.random() < TWICE:
        first = int(rng.integers(FIRST_QUALITY[0], FIRST_QUALITY[1] + 1))
        seen = compress_jpeg(seen, first, _choose(SAMPLINGS, rng), phase())
    return compress_jpeg(seen, level, _choose(SAMPLINGS, rng), phase(), read)


def draw_camera(rng: np.random.Generator) -> Camera:
    """A camera at random: noise as in Brooks et al., white balance from lamp to shade, smoothing as measured.

    The smoothing spans what finished pictures of five settings show (Nam et al., CVPR 2016): luma noise is correlated
    by 0.4 to 0.6 at one pixel and not at all at three; chroma noise by 0.8 to 0.9 at one pixel and 0.1 to 0.4 at four.
    """
    shot = float(np.exp(rng.uniform(*np.log(SHOT))))
    demosaicing: Demosaicing = "malvar" if rng.random() < 0.7 else "bilinear"
    return Camera(
        shot=shot,
        read=read_noise(shot) * float(np.exp(rng.normal(0, 0.26))),
        red=rng.uniform(1.3, 2.4),
        blue=rng.uniform(1.3, 2.4),
        colour=rng.uniform(0.3, 1.2),
        contrast=rng.uniform(3, 11),
        middle=rng.uniform(0.2, 0.45),
        demosaicing=demosaicing,
        luma=rng.uniform(0.2, 1.1),
        chroma=rng.uniform(0.5, 3.2),
        tail=rng.uniform(1, 2),
    )


def _noisy(clean: Pixels, levels: tuple[float, float], rng: np.random.Generator, *, resized: bool = False) -> Pixels:
    """With noise of a level in that range; `resized`: as if it had been added at another size.

    Gaussian noise is equally likely at any level, while that of cameras is mostly weak.
    """
    camera = rng.random() < CAMERA
    share = rng.random()
    sigma = levels[0] + (levels[1] - levels[0]) * (share * share if camera else share)
    height, width, _ = clean.shape
    size = (height, width)
    there = clean
    if resized:
        factor = rng.uniform(*FACTORS)
        size = (round(height * factor), round(width * factor))
        there = _resized(clean, size)
    if camera:
        noise = camera_noise(there, sigma, draw_camera(rng), rng)
    else:
        noise = sigma * rng.standard_normal(there.shape, dtype=np.float32)
    if resized:
        noise = np.stack([_resized(noise[..., c], (height, width)) for c in range(3)], axis=2)
    return to_pixels(clean + noise)


def _resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
