"""The teacher: a better network whose pictures are the larger part of the target.

What no network can know of the truth is noise in every gradient; a teacher's picture lacks it. For super-resolution the
teacher sees each training picture once, whole, and what it makes of it is kept in a folder that any run may share.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.errors import TrainingError
from bbcu_cli.files import remove_stale_parts, write_atomic
from bbcu_cli.hub import locate
from bbcu_cli.models.binary import Simulation, simulate
from bbcu_cli.models.build import build_model
from bbcu_cli.restoration.memory import bytes_per_pixel
from bbcu_cli.restoration.model import open_model
from bbcu_cli.restoration.pipeline import run_tiled
from bbcu_cli.restoration.tiling import fit, plan
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.arithmetic import Arithmetic
from bbcu_cli.train.checkpoint import placed, read_checkpoint
from bbcu_cli.train.data import reduce_whole

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Restore = Callable[[Floats], Floats]
"""float32 (H, W, C) in 0..1 -> float32 (S*H, S*W, C), not clipped."""

# How many flips and rotations may be averaged, and which come first. On withheld pictures sr-m-x2 gains 0.09 dB by two,
# 0.12 by four, 0.14 by eight.
VIEWS: Final = (1, 2, 4, 8)
_ORDER: Final = (0, 7, 3, 4, 1, 6, 2, 5)

# Of the tiles that a picture is cut into; torch holds about this many feature maps at once.
_MEMORY: Final = 1 << 30
_FEATURE_MAPS: Final = 5


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network that is done with learning.

    Attributes:
        name: as the user gave it.
        sha256: of its weights.
        spec: of a network of the student's task and scale.
        module: on the device, for evaluation.
        packed: the same as a packed model; None for a twin.
    """

    name: str
    sha256: str
    spec: ModelSpec
    module: nn.Module
    packed: PackedModel | None

    @contextmanager
    def opened(self, views: int = 1, stop: Callable[[], None] = lambda: None) -> Iterator[Restore]:
        """A function that gives the mean of what the network makes of some flips and rotations of a picture.

        A packed model runs on the fastest engine there is, a twin in torch; tile by tile, each with its halo.

        Args:
            views: how many of the eight; see `VIEWS`.
            stop: called now and then; raises to end it.
        """
        device = next(self.module.parameters()).device
        if self.packed is None:
            yield partial(_mean, partial(_run_twin, self, device, stop), views)
            return
        with open_model(self.packed, self.name, device=str(device), threads=torch.get_num_threads()) as model:
            yield partial(_mean, partial(run_tiled, model), views)


def _mean(restore: Restore, views: int, image: Floats) -> Floats:
    """The mean of what becomes of the first views, each turned back."""
    total = sum(turned_back(restore(np.ascontiguousarray(turned(image, way))), way) for way in _ORDER[:views])
    mean: Floats = total / np.float32(views)
    return mean


def turned(image: Floats, way: int) -> Floats:
    """One of the eight views of (H, W, C): bit 0 of `way` transposes, then 1 flips the rows and 2 the columns."""
    x = image.transpose(1, 0, 2) if way & 1 else image
    return x[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]


def turned_back(image: Floats, way: int) -> Floats:
    """Inverse of `turned`."""
    x = image[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]
    return x.transpose(1, 0, 2) if way & 1 else x


@torch.inference_mode()
def _run_twin(teacher: Teacher, device: torch.device, stop: Callable[[], None], image: Floats) -> Floats:
    """See `Restore`."""
    height, width, scale = *image.shape[:2], teacher.spec.scale
    out = np.empty((height * scale, width * scale, image.shape[2]), np.float32)
    cost = bytes_per_pixel(teacher.spec, _FEATURE_MAPS)
    for core in plan(height, width, fit(height, width, teacher.spec, cost, _MEMORY, 1 << 30)):
        stop()
        padded = core.grown(teacher.spec.halo, height, width)
        x = torch.from_numpy(image[padded.slices]).to(device).permute(2, 0, 1)[None]
        block = teacher.module(x)[0].permute(1, 2, 0).cpu().numpy()
        out[core.scaled(scale).slices] = block[core.relative_to(padded).scaled(scale).slices]
    return out


@dataclass(frozen=True, slots=True)
class Lesson:
    """How far a teacher is with the training pictures.

    Attributes:
        picture, pictures: pictures that are done, and all.
        pixels, total: their pixels.
        restored: those that this process has done itself.
        seconds: that it took.
    """

    picture: int
    pictures: int
    pixels: int
    total: int
    restored: int
    seconds: float


def open_teacher(name: str, spec: ModelSpec, device: torch.device, arithmetic: Arithmetic) -> Teacher:
    """Open the checkpoint of a twin, or a packed model by path, by name, or on the hub.

    Raises:
        TrainingError: it does not do what the student is to learn, or it is the checkpoint of a binary network.
        CheckpointError: the packed model cannot be read.
        WeightsUnavailableError: there is no model of that name here.
    """
    if name.endswith((".pt", ".pth")):
        state = read_checkpoint(Path(name))
        if not state["recipe"].get("twin", False):
            raise TrainingError(f"{name} is no full-precision twin; a binary network teaches by its packed model.")
        packed, own, weights = None, ModelSpec.from_dict(state["spec"]), state["ema"]
    else:
        packed = locate(name).file.model
        own, weights = packed.spec, {key: torch.from_numpy(array.copy()) for key, array in unpack(packed).items()}
    wanted = spec.task, spec.scale, spec.channels
    if (own.task, own.scale, own.channels) != wanted:
        raise TrainingError(
            f"The teacher {name} is for {own.task} x{own.scale}, and the student for {spec.task} x{spec.scale}; "
            "give one that does the same."
        )
    module = build_model(own)
    module.load_state_dict(weights)
    twin = packed is None
    how = arithmetic.of_twin() if twin else arithmetic
    simulate(module, Simulation(twin=twin, half_products=how.half_products and twin, kernels=how.kernels))
    return Teacher(name, _sha256_of(own, weights), own, placed(module, device).eval(), packed)


def taught_pictures(
    teacher: Teacher,
    images: Sequence[NDArray[np.uint8]],
    folder: Path,
    *,
    views: int = 8,
    share: float = 0.0,
    report: Callable[[Lesson], None] = lambda _: None,
    stop: Event | None = None,
) -> Iterator[Halves]:
    """The teacher's picture of each training picture, from the folder, or made and kept there.

    Every file is complete or absent, so that a run which was stopped goes on where it was, and several runs share the
    work: each makes what it does not find.

    Args:
        teacher: for super-resolution.
        images: uint8 (S*H, S*W, 3) each, reduced by MATLAB's bicubic for the teacher.
        folder: of any teachers' pictures; each has a folder of its own in it.
        views: flips and rotations that are averaged.
        share: where in the list to begin, 0..1, so that processes do not begin with the same picture.
        report: told about every picture.
        stop: set to end it.

    Returns:
        float16 (S*H, S*W, 3) each in 0..1, in the order of the images, read when they are asked for. Float16 is within
        0.06 levels of 255 of what the network gave; bytes would be 0.29 off (root mean square).

    Raises:
        TrainingError: a picture of the folder cannot be read; when it is asked for.
        OutputError: a picture cannot be written there.
        KeyboardInterrupt: `stop` was set; it says what is kept.
    """
    own = folder / f"{teacher.sha256[:16]}-x{views}"
    own.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(own)
    files = [own / f"{_sha256_of_picture(image)[:32]}.npy" for image in images]
    total, done, restored, started = sum(image[..., 0].size for image in images), 0, 0, time.perf_counter()

    def stopping() -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt("the pictures that the teacher finished are kept for the next run.")

    first = int(share * len(images))
    with teacher.opened(views, stopping) as restore:
        for count, i in enumerate([*range(first, len(images)), *range(first)], start=1):
            stopping()
            pixels = images[i][..., 0].size
            if not files[i].exists():
                reduced = reduce_whole(images[i], teacher.spec.scale).astype(np.float32) / np.float32(255)
                picture = restore(reduced).clip(0, 1).astype(np.float16)
                write_atomic(files[i], partial(np.save, arr=picture))
                restored += pixels
            done += pixels
            report(Lesson(count, len(images), done, total, restored, time.perf_counter() - started))
    return (_read(file, image.shape) for file, image in zip(files, images, strict=True))


def _read(file: Path, shape: tuple[int, ...]) -> Halves:
    try:
        picture = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"The teacher's picture {file} cannot be read ({error}); remove it.") from error
    if (picture.dtype, picture.shape) != (np.float16, shape):
        raise TrainingError(f"{file} is no teacher's picture of {shape[1]}x{shape[0]} pixels; remove it.")
    return picture


def _sha256_of_picture(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _sha256_of(spec: ModelSpec, weights: dict[str, Tensor]) -> str:
    """Of all that decides what the network computes."""
    digest = hashlib.sha256(repr(sorted(spec.to_dict().items())).encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
