"""Where a network starts from.

After the published initialisation most channels of a deep binary network carry a large constant: every unit adds the
mean of its sums, and no later sign can see past it. Signs that never change learn nothing and tell nothing, and the
learnable thresholds move too slowly to reach them. So the constants are taken out once, before the first step.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from bbcu_cli.models.binary import BinaryConv2d, BinaryUnit, LearnableBias, RPReLU, Simulation, simulate

# Smaller first features leave the units more say, smaller latent weights change their signs sooner. Both were found on
# withheld pictures; a factor of 2 either way changed hundredths of a dB.
_HEAD: Final = 0.4
_LATENT: Final = 0.5

# The twin has no signs to bound it: at full size its 32 residual sums would overflow.
_TWIN_LATENT: Final = 0.1


def centre(model: nn.Module, source: Tensor) -> None:
    """Make every unit's input and addition average zero in each channel, and the first layer blind to a flat patch.

    Args:
        model: a network as `build_model` leaves it; changed in place, and simulated as by default.
        source: float32 (N, C, H, W), a batch of its input.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    simulate(model, Simulation())
    hooks = []
    for module in model.modules():
        if isinstance(module, BinaryUnit):
            hooks.append(module.move0.register_forward_pre_hook(_centre_signs))
            hooks.append(module.relu.register_forward_hook(_centre_addition))
    with torch.no_grad():
        first.weight.sub_(first.weight.mean((1, 2, 3), keepdim=True))
        for parameter in first.parameters():
            parameter.mul_(_HEAD)
        _scale_latent(model, _LATENT)
        model(source)
    for hook in hooks:
        hook.remove()


def calm(model: nn.Module) -> None:
    """Bring a full-precision twin near the identity."""
    with torch.no_grad():
        _scale_latent(model, _TWIN_LATENT)


def _scale_latent(model: nn.Module, factor: float) -> None:
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.weight.mul_(factor)


def _channel_mean(x: Tensor) -> Tensor:
    return x.mean((0, 2, 3), keepdim=True)


def _centre_signs(move: LearnableBias, inputs: tuple[Tensor]) -> None:
    move.bias.copy_(-_channel_mean(inputs[0]))


def _centre_addition(relu: RPReLU, _: Any, added: Tensor) -> Tensor:
    mean = _channel_mean(added)
    relu.pr_bias1.bias.sub_(mean)
    return added - mean
