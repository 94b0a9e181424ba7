"""How each network is trained, as frozen values; every field can be overridden by an option of `bbcu train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal

from bbcu_cli.errors import UsageError
from bbcu_cli.spec import Task

StartName = Literal["centred", "published"]
RecipeName = Literal["full", "quick"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run computes, apart from the pictures.

    Attributes:
        steps: optimiser steps; the cosine ends there.
        batch: patches per step and process.
        patch: side of a patch of the network's input, in its pixels; for deblock a multiple of 8.
        rate: Adam's peak learning rate.
        warmup: steps over which the rate rises linearly.
        ema: decay of the exponential moving average that is validated and shipped.
        start: where weights that no `init` gives begin: "centred", see `train.start`, or "published", as initialised.
        window: half-width of the sign's gradient, whose integral stays; 1 is published.
        twin: train the full-precision twin, to distil from; nothing is binary, and nothing is packed.
        distill: share of the target that is the teacher's picture, if there is a teacher; the truth is the rest.
        candidates: crops drawn for each place of the batch, one of which is kept, by its detail.
        seed: of the initial weights and of every crop, flip and degradation.
        sigma: range of the noise level in 8-bit units, drawn uniformly per patch (denoise).
        quality: range of the JPEG quality, drawn uniformly per patch, both ends included (deblock, photo).
        photo: degrade as the files that people have are, see `train.photos`, and not as in the paper's tables.
    """

    steps: int
    batch: int
    patch: int
    rate: float = 1e-3
    warmup: int = 100
    ema: float = 0.999
    start: StartName = "centred"
    window: float = 4.0
    twin: bool = False
    distill: float = 0.7
    candidates: int = 1
    seed: int = 0
    sigma: tuple[float, float] = (0.0, 75.0)
    quality: tuple[int, int] = (10, 50)
    photo: bool = False

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be run.

        Raises:
            UsageError: a field is out of range.
        """
        for holds, complaint in (
            (self.steps >= 1, f"steps is {self.steps}, expected at least 1"),
            (self.batch >= 1, f"batch is {self.batch}, expected at least 1"),
            (self.patch >= 4, f"patch is {self.patch}, expected at least 4"),
            (math.isfinite(self.rate) and self.rate > 0, f"rate is {self.rate}, expected a positive number"),
            (self.warmup >= 0, f"warmup is {self.warmup}, expected 0 or more"),
            (0 <= self.ema < 1, f"ema is {self.ema}, expected 0 or more and below 1"),
            (self.start in ("centred", "published"), f"start is {self.start!r}, expected centred or published"),
            (self.window > 0, f"window is {self.window}, expected a positive number"),
            (0 <= self.distill <= 1, f"distill is {self.distill}, expected 0..1"),
            (self.candidates >= 1, f"candidates is {self.candidates}, expected at least 1"),
            (0 <= self.sigma[0] <= self.sigma[1], f"sigma is {self.sigma}, expected 0 <= low <= high"),
            (1 <= self.quality[0] <= self.quality[1] <= 100, f"quality is {self.quality}, expected 1..100 in order"),
        ):
            if not holds:
                raise UsageError(f"Impossible training recipe: {complaint}.")

    def require_task(self, task: Task) -> None:
        """Refuse a task that the recipe does not suit.

        Raises:
            UsageError: deblocking, with a patch that is not made of whole JPEG blocks.
        """
        if task == "deblock" and self.patch % 8:
            raise UsageError(
                f"Impossible training recipe: patch is {self.patch}, and for deblock it is made of whole JPEG blocks; "
                "give a multiple of 8."
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, then half a cosine down to a hundredth of the peak."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    def ema_at(self, step: int) -> float:
        """Decay of the moving average after that step; short at first, so that the start is soon forgotten."""
        return min(self.ema, (1 + step) / (10 + step))

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_dict`, also after a trip through JSON; a field of `ADDED` may be missing.

        Raises:
            UsageError: a value is out of range, or a field unknown or missing, as between versions.
        """
        completed = {**ADDED, **saved}
        if strange := set(completed) ^ {field.name for field in fields(Recipe)}:
            raise UsageError(
                f"The recipe of this run is of another version of bbcu, which differs in {', '.join(sorted(strange))}; "
                "finish the run with that version, or start a new one from its checkpoint by --init."
            )
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in completed.items()}
        return Recipe(**values)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)


# What runs did before a field existed, so that one which began then goes on as it was. A new field has its line here.
ADDED: Final[Mapping[str, Any]] = {"candidates": 1, "photo": False}

# "full" is for a data-centre GPU. "quick" made the first weights that ship, on a CPU: a short schedule wants a rate
# far above the published 1e-4, and many small batches rather than few large ones.
RECIPES: Final[dict[tuple[RecipeName, Task], Recipe]] = {
    ("full", "sr"): Recipe(steps=60_000, batch=32, patch=48, rate=1e-3, warmup=500),
    ("full", "denoise"): Recipe(steps=60_000, batch=32, patch=96, rate=1e-3, warmup=500),
    ("full", "deblock"): Recipe(steps=60_000, batch=32, patch=96, rate=1e-3, warmup=500),
    ("quick", "sr"): Recipe(steps=2_000, batch=4, patch=24, rate=2e-3, ema=0.995),
    ("quick", "denoise"): Recipe(steps=1_600, batch=4, patch=40, rate=2.5e-3, ema=0.995),
    ("quick", "deblock"): Recipe(steps=900, batch=4, patch=40, rate=2.5e-3, ema=0.995),
}

# What a photo recipe trains for where nothing else is said: what files on web sites and from cameras have.
_PHOTO_RANGES: Final[dict[Task, dict[str, Any]]] = {
    "sr": {"quality": (30, 96)},
    "denoise": {"quality": (60, 100), "sigma": (0.0, 50.0)},
    "deblock": {"quality": (10, 96)},
}


def photo_recipe(recipe: Recipe, task: Task) -> Recipe:
    """That recipe for photographs."""
    return replace(recipe, photo=True, **_PHOTO_RANGES[task])
