"""The binary units of BBCU (Xia et al., ICLR 2023), in float simulation.

All convolutions are 3x3, stride 1, with zero padding that is added AFTER the sign: a tap outside the image
contributes 0. Attribute names (``move0``, ``pr_bias0``, ...) are those of the published code, so that a
published state dict loads as it is.

sign(0) is +1 here and in every engine: ``torch.sign(0)`` is 0 in the published code, and a packed bit
cannot hold 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; same shape and dtype."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class _SignActivation(torch.autograd.Function):
    """sign(x) with the piecewise-polynomial gradient of Bi-Real / ReActNet: 2 - 2|x| where |x| < 1, else 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (2 - 2 * x.abs()).clamp_min(0)


class _BinaryWeight(torch.autograd.Function):
    """alpha * sign(W) with alpha = mean |W| per output channel; the gradient passes to W where |W| <= 1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.abs().mean(dim=(1, 2, 3), keepdim=True) * sign(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return grad * (weight.abs() <= 1)


class LearnableBias(nn.Module):
    """x + bias, per channel; the published shape of the bias is (1, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class BinaryConv2d(nn.Module):
    """conv2d(b, alpha * sign(W)) of activations b that are already signs, (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def forward(self, signs: Tensor) -> Tensor:
        return F.conv2d(signs, _BinaryWeight.apply(self.weight), self.bias, padding=1)


class RPReLU(nn.Module):
    """PReLU(y + b0) + b1, all three per channel (ReActNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pr_bias0 = LearnableBias(channels)
        self.pr_prelu = nn.PReLU(channels)
        self.pr_bias1 = LearnableBias(channels)

    def forward(self, y: Tensor) -> Tensor:
        return self.pr_bias1(self.pr_prelu(self.pr_bias0(y)))


class BinaryUnit(nn.Module):
    """r(BinConv(sign(x + m))): what BBCU-B and BBCU-U have in common, (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.move0 = LearnableBias(c_in)
        self.binary_conv = BinaryConv2d(c_in, c_out, bias=bias)
        self.relu = RPReLU(c_out)

    def transform(self, x: Tensor) -> Tensor:
        return self.relu(self.binary_conv(_SignActivation.apply(self.move0(x))))


class BBCUB(BinaryUnit):
    """BBCU-B, the body unit: x + r(BinConv(x)), (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__(channels, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.transform(x)


class BBCUU(BinaryUnit):
    """BBCU-U, up-sampling by s: PixelShuffle(r(BinConv(x))) + nearest(x), (N, C, H, W) -> (N, C, s*H, s*W)."""

    def __init__(self, channels: int, step: int) -> None:
        super().__init__(channels, channels * step * step)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.transform(x), self.step) + F.interpolate(x, scale_factor=self.step, mode="nearest")


class BinaryBlock(nn.Module):
    """Two BBCU-B in a row; exists because published SR checkpoints are nested this way."""

    def __init__(self, channels: int, units: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(*(BBCUB(channels) for _ in range(units)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
