"""What computes the units of a training run on its device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import torch

from bbcu_cli.errors import UsageError
from bbcu_cli.models.native import training_kernels

KERNEL_VARIABLE: Final = "BBCU_KERNEL"  # as for the engine; here also "torch"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Fields of `Simulation` that follow from the machine.

    Attributes:
        kernels: set of native training kernels; None: torch.
        half_products: torch multiplies in half precision.
    """

    kernels: str | None = None
    half_products: bool = False

    def __str__(self) -> str:
        if self.kernels is not None:
            return f"native {self.kernels} training kernels"
        return "torch, half-precision products" if self.half_products else "torch, float32 products"

    def of_twin(self) -> Arithmetic:
        """What computes a full-precision twin where this computes a binary network: torch, as fast as it can."""
        return Arithmetic(half_products=self.half_products or _multiplies_bfloat16())


def choose_arithmetic(device: torch.device, *, compiled: bool) -> Arithmetic:
    """The fastest arithmetic there is, or what the environment variable BBCU_KERNEL names.

    Args:
        device: where the network is trained.
        compiled: torch.compile is used, which sees only what torch computes.

    Raises:
        UsageError: BBCU_KERNEL names no training kernel set that runs here.
    """
    if device.type != "cpu":
        return Arithmetic(half_products=True)
    wanted = os.environ.get(KERNEL_VARIABLE, "")
    try:
        kernels = None if compiled or wanted == "torch" else training_kernels(wanted)
    except ValueError as error:
        raise UsageError(f"{KERNEL_VARIABLE}: {error}.") from error
    return Arithmetic(kernels, half_products=kernels is None and _multiplies_bfloat16())


def _multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32; torch before 2.6 does not tell."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16", False))
