"""What a network is, as one small value. Everything else about a model follows from its spec."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast, get_args

from bbcu_cli.errors import CheckpointError

Arch = Literal["bbcu-l", "bbcu-m", "bbcu-dncnn"]
Task = Literal["sr", "denoise", "deblock"]

ARCHES: Final[tuple[Arch, ...]] = get_args(Arch)
TASKS: Final[tuple[Task, ...]] = get_args(Task)
SCALES: Final = (2, 3, 4)
FEATURES: Final = 64  # channels between the layers of every published network
LEAK: Final = 0.1  # negative slope of the LeakyReLUs of bbcu-l and bbcu-m

# The best residual alignment fits k* = 130 n / 64 for n feature channels (BBCU, section 3.4).
PUBLISHED_K: Final = 130.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The architecture of one network.

    Attributes:
        arch: "bbcu-l" and "bbcu-m" are the super-resolution networks, "bbcu-dncnn" the one of
            denoising and deblocking.
        task: what the network restores.
        scale: how many output pixels stand for one input pixel along an axis; 1 unless task is "sr".
        channels: colour channels of the image, 3 (RGB) or 1 (luma).
        features: width of the residual stream.
        blocks: number of BBCU-B units in the body (a published "BinaryBlock" is two of them).
        k: residual alignment; the image in 0..1 is multiplied by it on the way in.
        bias: whether the convolutions of a bbcu-dncnn carry a bias (also the binary ones); the head,
            tail and float convolutions of bbcu-l and bbcu-m always do.
    """

    arch: Arch
    task: Task
    scale: int
    channels: int
    features: int = FEATURES
    blocks: int = 32
    k: float = PUBLISHED_K
    bias: bool = False

    def __post_init__(self) -> None:
        """Refuse a combination that is no network.

        Raises:
            CheckpointError: a field is out of range or contradicts another.
        """
        sr = self.task == "sr"
        for holds, complaint in (
            (self.arch in ARCHES, f"arch {self.arch!r} is none of {', '.join(ARCHES)}"),
            (self.task in TASKS, f"task {self.task!r} is none of {', '.join(TASKS)}"),
            (sr == (self.arch != "bbcu-dncnn"), f"arch {self.arch} does not do task {self.task}"),
            (self.scale in SCALES if sr else self.scale == 1, f"scale {self.scale} is impossible for task {self.task}"),
            (self.channels in (1, 3), f"channels is {self.channels}, expected 1 or 3"),
            (1 <= self.features <= 256, f"features is {self.features}, expected 1..256"),
            (1 <= self.blocks <= 256, f"blocks is {self.blocks}, expected 1..256"),
            (math.isfinite(self.k) and self.k > 0, f"k is {self.k}, expected a positive number"),
            (not (sr and self.bias), f"arch {self.arch} has no bias in its binary convolutions"),
        ):
            if not holds:
                raise CheckpointError(f"Impossible model spec: {complaint}.")

    @property
    def up_steps(self) -> tuple[int, ...]:
        """Factors of the up-sampling steps in order: x4 is two steps of 2; none at scale 1."""
        return {1: (), 2: (2,), 3: (3,), 4: (2, 2)}[self.scale]

    @property
    def words(self) -> int:
        """Number of 64-bit words that hold the signs of one pixel's features."""
        return -(-self.features // 64)

    @property
    def halo(self) -> int:
        """Radius of the receptive field in input pixels: the context that a tile needs on every side.

        After the body of `bbcu-l` each layer counts a whole pixel: the packed CPU engine makes the outputs of a pixel
        together, and the rounding of each has something of the others.
        """
        radius = 1.0 + self.blocks
        if self.arch == "bbcu-l":
            return int(radius) + len(self.up_steps) + 2
        size = 1
        for step in self.up_steps:
            radius += 1 / size
            size *= step
        # After the body: conv_hr and the last convolution (sr), or the last convolution alone.
        radius += (2 if self.task == "sr" else 1) / size
        return math.ceil(radius - 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> ModelSpec:
        """Inverse of `to_dict`.

        Raises:
            CheckpointError: a field is missing, unknown, of the wrong type or out of range.
        """
        types: dict[str, type | tuple[type, ...]] = {
            "arch": str, "task": str, "scale": int, "channels": int, "features": int, "blocks": int,
            "k": (int, float), "bias": bool,
        }  # fmt: skip
        if set(fields) != set(types):
            odd = ", ".join(sorted(set(fields) ^ set(types)))
            raise CheckpointError(f"Impossible model spec: missing or unknown field(s) {odd}.")
        for name, kind in types.items():
            value = fields[name]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise CheckpointError(f"Impossible model spec: field {name} is {value!r}.")
        return ModelSpec(**{**fields, "k": float(cast("float", fields["k"]))})


def sr_spec(model: Literal["l", "m"], scale: int) -> ModelSpec:
    """The published super-resolution network of that size and scale."""
    return ModelSpec(arch="bbcu-l" if model == "l" else "bbcu-m", task="sr", scale=scale, channels=3)


DENOISE_SPEC: Final = ModelSpec(arch="bbcu-dncnn", task="denoise", scale=1, channels=3, blocks=18)
DEBLOCK_SPEC: Final = ModelSpec(arch="bbcu-dncnn", task="deblock", scale=1, channels=1, blocks=18, bias=True)
COLOUR_DEBLOCK_SPEC: Final = ModelSpec(arch="bbcu-dncnn", task="deblock", scale=1, channels=3, blocks=18, bias=True)
