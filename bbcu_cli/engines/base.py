"""The one interface that every engine has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import PackedModel


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, and whether it can run here.

    Attributes:
        name: "packed" or "reference".
        device: "cpu", "cuda:0", ...
        detail: kernel set or library with its version, and the precision ("avx2, float32 residual").
        unavailable: why it cannot run here; None when it can.
        feature_maps: whole feature maps, in units of one float32 map of all features at output resolution, that
            a run holds at once; what tiles are planned with. 0 for an engine that streams rows.
        bands: bands of rows that an engine without feature maps works on at once, one a thread.
        max_width: widest tile in pixels that runs at full speed.
        concurrency: how many threads should call `Session.run` at once for the device to have no gaps.
    """

    name: str
    device: str
    detail: str
    unavailable: str | None = None
    feature_maps: int = 0
    bands: int = 1
    max_width: int = 1 << 30
    concurrency: int = 1

    def __str__(self) -> str:
        return f"{self.name} on {self.device}, {self.detail}"


Progress = Callable[[float], None]


class Session(Protocol):
    """A model opened on an engine. Holds no state of any image."""

    info: EngineInfo

    def run(self, x: NDArray[np.float32], progress: Progress | None = None) -> NDArray[np.float32]:
        """float32 (N, C, H, W) in 0..1, C-contiguous -> float32 (N, C, S*H, S*W), not clipped.

        Args:
            x: the input.
            progress: told now and then how much is done, 0..1, if the engine knows; by the thread that calls.

        Raises:
            EngineError: out of memory, or the device failed.
        """
        ...

    def close(self) -> None:
        """Give back what the session holds; calling it twice is harmless."""
        ...


class Engine(Protocol):
    """A way to run networks on one device."""

    info: EngineInfo

    def open(self, packed: PackedModel) -> Session:
        """Prepare a model.

        Raises:
            EngineUnavailableError: this engine cannot run that spec here.
        """
        ...


_S = TypeVar("_S", bound="SessionContext")


class SessionContext:
    """`with` for sessions: closes on the way out."""

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Overridden by sessions that hold something."""
