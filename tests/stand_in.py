"""A model whose engine is a stand-in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from small import SMALL_SPECS

from bbcu_cli.engines.base import EngineInfo, SessionContext
from bbcu_cli.errors import OutOfMemoryError
from bbcu_cli.restoration.model import Model

Floats = NDArray[np.float32]


class Doubling(SessionContext):
    """A stand-in engine that enlarges plainly: what the pipeline does around an engine can be told exactly."""

    info = EngineInfo("stub", "cpu", "nearest")

    def __init__(self, scale: int, limit: int = 1 << 30, value: float | None = None) -> None:
        self.scale, self.limit, self.value = scale, limit, value
        self.areas: list[int] = []

    def run(self, x: Floats, progress: Callable[[float], None] | None = None) -> Floats:
        if progress:
            progress(0.5)
        if x.shape[2] * x.shape[3] > self.limit:
            raise OutOfMemoryError("too large")
        self.areas.append(x.shape[2] * x.shape[3])
        y = x.repeat(self.scale, axis=2).repeat(self.scale, axis=3)
        return y if self.value is None else np.full_like(y, self.value)


def stub(name: str = "m-x2", **options: object) -> Model:
    """A model whose network is the stand-in."""
    spec = SMALL_SPECS[name]
    return Model(name, spec, {}, Doubling(spec.scale, **options))  # type: ignore[arg-type]
