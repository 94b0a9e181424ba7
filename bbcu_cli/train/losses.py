"""What a network is trained to make small."""

from __future__ import annotations

from torch import Tensor

from bbcu_cli.train.recipes import LossName

# Below this error (in 0..1) Charbonnier is quadratic; a quarter of an 8-bit step.
_EPSILON = 1e-3


def reconstruction_loss(output: Tensor, target: Tensor, name: LossName) -> Tensor:
    """Mean distance of two images (N, C, H, W) in 0..1, a scalar: L1, or Charbonnier sqrt(d^2 + eps^2)."""
    difference = output - target
    return difference.abs().mean() if name == "l1" else (difference.square() + _EPSILON**2).sqrt().mean()
