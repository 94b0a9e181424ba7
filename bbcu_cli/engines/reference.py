"""The reference engine: runs a PackedModel by float simulation in torch, on the CPU or on CUDA.

Slow, and the truth that the packed engines are compared with.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.engines.base import EngineInfo, Progress, SessionContext
from bbcu_cli.errors import EngineUnavailableError, OutOfMemoryError
from bbcu_cli.models.build import build_model


class ReferenceSession(SessionContext):
    """A torch module on one device, in float32."""

    def __init__(self, packed: PackedModel, info: EngineInfo) -> None:
        self.info = info
        self._device = torch.device(info.device)
        module = build_model(packed.spec)
        module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in unpack(packed).items()})
        self._module = module.eval().to(self._device)

    @torch.inference_mode()
    def run(self, x: NDArray[np.float32], progress: Progress | None = None) -> NDArray[np.float32]:  # noqa: ARG002 - it does not know
        try:
            return self._module(torch.from_numpy(x).to(self._device)).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{self.info.device} ran out of memory on a {x.shape[-2]}x{x.shape[-1]} tile."
            ) from error


class ReferenceEngine:
    """Float simulation on `device` ("cpu", "cuda" or "cuda:N"), `threads` CPU threads (None: torch's choice)."""

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        reason = None
        if torch.device(device).type == "cuda":
            if not torch.cuda.is_available():
                reason = "torch sees no CUDA device"
            elif (torch.device(device).index or 0) >= torch.cuda.device_count():
                reason = f"there are only {torch.cuda.device_count()} CUDA devices"
        if threads is not None:
            torch.set_num_threads(threads)
        self.info = EngineInfo(
            "reference", device, f"torch {torch.__version__}, float32 simulation", reason, feature_maps=6
        )

    def open(self, packed: PackedModel) -> ReferenceSession:
        if self.info.unavailable:
            raise EngineUnavailableError(f"Engine reference on {self.info.device}: {self.info.unavailable}.")
        return ReferenceSession(packed, self.info)
