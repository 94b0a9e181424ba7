"""Training pictures: uint8 in memory, crops and degradations in batches, on whatever device the pictures are.

Every batch draws from a generator that belongs to (seed, step, process) alone, so that a resumed run goes on
with the same random streams without any state having been saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbcu_cli.errors import ImageError, TrainingError
from bbcu_cli.image import decode
from bbcu_cli.image.color import to_8_bit
from bbcu_cli.score.degrade import bicubic_matrix, resize_bicubic
from bbcu_cli.score.photos import Read, decoded
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train import photos
from bbcu_cli.train.recipes import Recipe

Drawn = TypeVar("Drawn")

# Context, in input pixels, that bicubic reduction needs on each side of a patch: its kernel reaches 2 of them.
_MARGIN: Final = 2

# Reduced values are whole multiples of 2^-10, 1/2916 or 2^-24 (x2, x3, x4). So this rounds as 0.5 does, and a half goes
# up in whatever order its terms were added in float64.
_HALF: Final = 0.5 + 1e-9

# A training picture larger than this is skipped; it alone would take more than a gigabyte.
_MAX_PIXELS: Final = 400_000_000

# The luminance table of the JPEG standard (ITU-T T.81, annex K.1), which libjpeg scales by quality.
_LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def generator_for(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random stream of one batch."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed >> 1)


class Pictures:
    """RGB pictures of any sizes, packed into one uint8 tensor.

    Attributes:
        pixels: uint8 (sum of H*W, 3).
        taught: float16 of the same shape in 0..1, a teacher's picture of each; None without a teacher.
        sizes: int64 (P, 2), height and width of each picture.
        starts: int64 (P,), the first pixel of each picture.
        grid: crops begin at multiples of this.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        device: torch.device,
        taught: Iterable[NDArray[np.float16]] | None = None,
        grid: int = 1,
    ) -> None:
        """Args: images: uint8 (H, W, 3) each; taught: float16 of the same shapes, in the same order."""
        self.pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images])).to(device)
        self.sizes = torch.tensor([image.shape[:2] for image in images], device=device)
        self.starts = (areas := self.sizes.prod(1)).cumsum(0) - areas
        self.grid = grid
        self.taught: Tensor | None = None
        if taught is not None:
            self.taught = torch.empty(self.pixels.shape, dtype=torch.float16, device=device)
            for start, picture in zip(self.starts.tolist(), taught, strict=True):
                flat = torch.from_numpy(picture.reshape(-1, 3))
                self.taught[start : start + len(flat)] = flat.to(device)

    def places(self, count: int, size: int, generator: torch.Generator, candidates: int = 1) -> Tensor:
        """Random squares, each turned and mirrored at random; every position in every picture is equally likely.

        Args:
            candidates: squares that are drawn for each one that is kept; the more detail, the more likely.

        Returns:
            int64 (count, size, size), the pixels of each square.
        """
        device, drawn = self.pixels.device, count * candidates
        room = (self.sizes - size).div(self.grid, rounding_mode="floor") + 1
        positions = room.clamp_min(0).prod(1).cumsum(0)
        draw = torch.rand(drawn, generator=generator, device=device, dtype=torch.float64)
        place = (draw * positions[-1]).long()
        picture = torch.searchsorted(positions, place, right=True)
        place = place - (positions - room.clamp_min(0).prod(1))[picture]
        top, left = self.grid * (place // room[picture, 1]), self.grid * (place % room[picture, 1])

        turn = torch.randint(0, 8, (drawn, 3), generator=generator, device=device) & 1
        corner, down, right = self._oriented(picture, top, left, turn, size)
        if candidates > 1:
            detail = self._detail(corner, down, right, size).view(count, candidates)
            kept = torch.multinomial(detail, 1, generator=generator)[:, 0]
            kept += candidates * torch.arange(count, device=device)
            corner, down, right = corner[kept], down[kept], right[kept]
        return _squares(corner, down, right, torch.arange(size, device=device), torch.arange(size, device=device))

    def _oriented(
        self, picture: Tensor, top: Tensor, left: Tensor, turn: Tensor, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Squares, turned and mirrored: their first pixels, and what leads to the pixel below and to the right of it.

        Args: turn: (N, 3) of 0 and 1: transposed or not, and then flipped down and right or not.
        """
        swap, flip_rows, flip_columns = turn.unbind(1)
        width, end = self.sizes[picture, 1], size - 1
        row, column = width * (1 - 2 * flip_rows), 1 - 2 * flip_columns
        corner = self.starts[picture] + (top + end * flip_rows) * width + left + end * flip_columns
        return corner, torch.where(swap == 1, column, row), torch.where(swap == 1, row, column)

    def _detail(self, corner: Tensor, down: Tensor, right: Tensor, size: int) -> Tensor:
        """The mean absolute difference of neighbours in green, along every fourth row and column of each square."""
        green, all_, few = self.pixels[:, 1], *(torch.arange(0, size, n, device=corner.device) for n in (1, 4))
        across = green[_squares(corner, down, right, few, all_)].short().diff(dim=2)
        along = green[_squares(corner, down, right, all_, few)].short().diff(dim=1)
        mean = [lines.abs_().float().mean((1, 2)) for lines in (across, along)]
        return mean[0] + mean[1] + 1e-3  # flat squares too, where there is nothing else


def _squares(corner: Tensor, down: Tensor, right: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """The pixels in rows i and columns j of each square, int64 (N, len(i), len(j))."""
    return (corner[:, None] + down[:, None] * i)[:, :, None] + (right[:, None] * j)[:, None]


def crops_of(pixels: Tensor, places: Tensor) -> Tensor:
    """(pixels, 3) and int64 (N, size, size) -> (N, 3, size, size)."""
    return pixels.index_select(0, places.flatten()).view(*places.shape, 3).permute(0, 3, 1, 2)


def read_images(folder: Path, smallest: int = 1) -> list[NDArray[np.uint8]]:
    """Every image below a folder with both sides at least `smallest`, as uint8 (H, W, 3), sorted by path.

    Raises:
        TrainingError: the folder does not exist or has no usable image.
    """
    if not folder.is_dir():
        raise TrainingError(f"No training pictures: {folder} is not a folder.")
    images, small = [], 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            image = decode(path, max_pixels=_MAX_PIXELS)
        except ImageError:
            continue
        if min(image.size) < smallest:
            small += 1
            continue
        pixels = to_8_bit(image.pixels)
        images.append(np.repeat(pixels, 3 // image.channels, axis=2))
    if not images:
        why = f"its {small} image(s) are smaller than {smallest} pixels" if small else "it holds no image"
        raise TrainingError(f"No training pictures in {folder}: {why}; give a folder of images, or a smaller --patch.")
    return images


def crop_size(spec: ModelSpec, recipe: Recipe) -> int:
    """Side of the sharp crop that one patch is made of, in pixels of the picture."""
    if recipe.photo:
        return (recipe.patch + 2 * photos.MARGIN) * spec.scale
    return (recipe.patch + 2 * _MARGIN) * spec.scale if spec.task == "sr" else recipe.patch


def draw_batch(
    pictures: Pictures, spec: ModelSpec, recipe: Recipe, generator: torch.Generator, read: Read = decoded
) -> tuple[Tensor, Tensor]:
    """One batch of training pairs.

    Args:
        pictures: to draw crops of.
        spec: the network.
        recipe: how they are degraded.
        generator: the stream of this batch.
        read: of a photo recipe: what makes the picture of a compressed file.

    Returns:
        Input (N, C, patch, patch) and target (N, C, S*patch, S*patch), float32 in 0..1 (noise goes beyond). Where the
        pictures have a teacher's beside them, the target is a mixture.
    """
    places = pictures.places(recipe.batch, crop_size(spec, recipe), generator, recipe.candidates)
    crops = crops_of(pictures.pixels, places)
    if recipe.photo:
        edge = photos.MARGIN * spec.scale
        target = _target(pictures, places, edge, recipe)
        return photos.photo_inputs(crops, spec, recipe, generator, read), target
    crops = crops.float()
    if spec.task == "sr":
        return reduce_bicubic(crops, spec.scale) / 255, _target(pictures, places, _MARGIN * spec.scale, recipe)
    if spec.task == "denoise":
        low, high = recipe.sigma
        sigma = low + (high - low) * torch.rand(len(crops), 1, 1, 1, generator=generator, device=crops.device)
        noise = torch.randn(crops.shape, generator=generator, device=crops.device)
        return (crops + sigma * noise) / 255, crops / 255
    low_q, high_q = recipe.quality
    quality = torch.randint(low_q, high_q + 1, (len(crops),), generator=generator, device=crops.device)
    luma = studio_luma(crops)
    return jpeg_luma(luma, quality) / 255, luma / 255


def ahead(draw: Callable[[int], Drawn], steps: Sequence[int]) -> Generator[Drawn, None, None]:
    """draw(step) for each of the steps, in order: on a thread, while the one before is used.

    Closing it waits for the thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="draw") as pool:
        coming: Future[Drawn] | None = None
        for step in steps:
            drawn, coming = coming, pool.submit(draw, step)
            if drawn is not None:
                yield drawn.result()
        if coming is not None:
            yield coming.result()


def _target(pictures: Pictures, places: Tensor, edge: int, recipe: Recipe) -> Tensor:
    """The sharp middle of crops, mixed with the teacher's where there is one: float32 (N, 3, ...) in 0..1."""
    inner = places[:, edge:-edge, edge:-edge]
    target = crops_of(pictures.pixels, inner).float() / 255
    return target if pictures.taught is None else target.lerp(crops_of(pictures.taught, inner).float(), recipe.distill)


def reduce_bicubic(images: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic reduction, of the part that does not see the border.

    Args:
        images: (N, C, S*(H + 4), S*(W + 4)) in 0..255.
        scale: S.

    Returns:
        float32 (N, C, H, W), rounded and clipped to 0..255: that part of the larger picture's `reduce_whole`, to the
        bit, if the crop was taken at a multiple of S.
    """

    def inner(n: int) -> Tensor:
        return torch.from_numpy(bicubic_matrix(n, n // scale)[_MARGIN:-_MARGIN]).to(images.device)

    n, channels, height, width = images.shape
    # Crops are (N, H, W, C) in memory, and stay so until they are small.
    lines = inner(height) @ images.permute(0, 2, 3, 1).double().reshape(n, height, width * channels)
    lines = lines.view(n, -1, width, channels).transpose(2, 3)
    return (lines @ inner(width).T).add_(_HALF).floor_().clamp_(0, 255).float().transpose(1, 2)


def reduce_whole(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """MATLAB's bicubic reduction of a picture, uint8 (S*H, S*W, 3) -> (H, W, 3)."""
    reduced = resize_bicubic(image.astype(np.float64), (image.shape[0] // scale, image.shape[1] // scale))
    return np.clip(np.floor(reduced + _HALF), 0, 255).astype(np.uint8)


def studio_luma(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..255 -> rounded BT.601 studio-swing luma (N, 1, H, W) in 16..235, float32."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=rgb.device) / 255
    return ((rgb * weights.view(1, 3, 1, 1)).sum(1, keepdim=True) + 16).round()


def quantisation_tables(quality: Tensor) -> Tensor:
    """The luminance tables of libjpeg: int64 (N,) in 1..100 -> float32 (N, 8, 8)."""
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    table = torch.tensor(_LUMINANCE, device=quality.device)
    return ((table * scale[:, None, None] + 50) // 100).clamp(1, 255).float()


def jpeg_luma(luma: Tensor, quality: Tensor) -> Tensor:
    """Grayscale JPEG, encoded and decoded, with the exact cosine transform.

    The fixed-point transform of libjpeg rounds a little differently: up to quality 50 some 97% of a photograph's
    pixels are equal, and a coefficient halfway between two multiples of its step may go the other way.

    Args:
        luma: float32 (N, 1, H, W), whole numbers in 0..255; H and W are multiples of 8.
        quality: int64 (N,), one for each image.
    """
    n, _, height, width = luma.shape
    angle = torch.arange(8, device=luma.device, dtype=torch.float64)
    cosine = (((2 * angle + 1)[None] * angle[:, None]) * (math.pi / 16)).cos() / 2
    cosine[0] *= math.sqrt(0.5)
    cosine = cosine.float()
    tables = quantisation_tables(quality)[:, None, None]
    blocks = (luma - 128).view(n, height // 8, 8, width // 8, 8).transpose(2, 3)
    # libjpeg's transform ends in whole eighths, and its quantisation rounds halves away from zero.
    eighths = (8 * (cosine @ blocks @ cosine.T)).round()
    coefficients = eighths.sign() * (eighths.abs() / (8 * tables) + 0.5).floor() * tables
    decoded = (cosine.T @ coefficients @ cosine).add(128).round().clamp(0, 255)
    return decoded.transpose(2, 3).reshape(n, 1, height, width)
