"""The binary units of BBCU (Xia et al., ICLR 2023), in float simulation.

All convolutions are 3x3, stride 1, with zero padding that is added AFTER the sign: a tap outside the image
contributes 0. Attribute names (``move0``, ``pr_bias0``, ...) are those of the published code, so that a
published state dict loads as it is.

sign(0) is +1 here and in every engine: ``torch.sign(0)`` is 0 in the published code, and a packed bit
cannot hold 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from bbcu_cli.models.native import NativeUnit
from bbcu_cli.spec import FEATURES

# Pixels of a band: 4 MB of 64 features. A picture of 400 x 250 takes a third less time than in one piece.
_BAND = 1 << 14


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; same shape and dtype."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


@dataclass(frozen=True, slots=True)
class Simulation:
    """How training simulates a unit. The default has the published gradients, and the values every engine computes.

    Attributes:
        window: half-width of the sign's gradient; 1 is published.
        twin: be the full-precision twin: nothing is binary, x + m and the latent weights act as they are.
        half_products: multiply signs in half precision, see `_HalfProduct`, and gradients in bfloat16; a twin
            multiplies everything in bfloat16, and adds in float32.
        kernels: training kernel set that runs whole units on the CPU, see `training_kernels`; None: torch.
        threads: CPU threads of these kernels; None: as many as torch has.
    """

    window: float = 1.0
    twin: bool = False
    half_products: bool = False
    kernels: str | None = None
    threads: int | None = None


class _SignActivation(torch.autograd.Function):
    """sign(x) with the gradient (2 - 2|x / w|) / w where |x| < w, else 0: Bi-Real's and ReActNet's at window w = 1.

    Its integral is the sign's step, 2, at every w: a wider window spreads it over more values.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window = window
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        peak = 2 / ctx.window
        return grad * (peak - (peak / ctx.window) * x.abs()).clamp_min(0), None


def _alpha(weight: Tensor) -> Tensor:
    """Mean |W| per output channel, (C_out, 1, 1, 1)."""
    return weight.abs().mean(dim=(1, 2, 3), keepdim=True)


class _BinaryWeight(torch.autograd.Function):
    """alpha * sign(W), alpha detached; the gradient passes to W where |W| <= 1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _alpha(weight) * sign(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return grad * (weight.abs() <= 1)


class _HalfProduct(torch.autograd.Function):
    """conv2d(signs, alpha * sign(W)) with the signs multiplied in half precision and alpha applied after, in float32.

    Sums of signs are whole numbers, which float16 holds exactly up to 2,048. CPUs multiply bfloat16 instead, which
    holds the sums, all even for 64 channels, up to 512 of the 576 taps, and every fourth number above. Gradients need
    range more than digits, so they are multiplied in bfloat16; they are those of `_BinaryWeight`.
    """

    @staticmethod
    def forward(ctx: Any, signs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(signs.to(torch.int8), weight)
        half = torch.bfloat16 if signs.device.type == "cpu" else torch.float16
        sums = F.conv2d(signs.to(half), sign(weight).to(half), padding=1)
        return sums.float() * _alpha(weight).view(1, -1, 1, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        signs, weight = ctx.saved_tensors
        scaled = (grad * _alpha(weight).view(1, -1, 1, 1)).bfloat16()
        to_signs = F.conv_transpose2d(scaled, sign(weight).bfloat16(), padding=1)
        to_weight = conv2d_weight(signs.bfloat16(), weight.shape, grad.bfloat16(), padding=1)
        return to_signs.float(), to_weight.float() * (weight.abs() <= 1)


def _bfloat16_product(x: Tensor, weight: Tensor) -> Tensor:
    """conv2d(x, W) of a twin, multiplied in bfloat16 forward and backward."""
    return F.conv2d(x.bfloat16(), weight.bfloat16(), padding=1).float()


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
        self.simulation = Simulation()

    def forward(self, signs: Tensor) -> Tensor:
        twin = self.simulation.twin
        if self.simulation.half_products:
            product = _bfloat16_product(signs, self.weight) if twin else _HalfProduct.apply(signs, self.weight)
            return product if self.bias is None else product + self.bias.view(1, -1, 1, 1)
        weight = self.weight if twin else _BinaryWeight.apply(self.weight)
        return F.conv2d(signs, weight, self.bias, padding=1)


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
    """PixelShuffle(r(BinConv(sign(x + m)))) + nearest(x), (N, C, H, W) -> (N, C, S*H, S*W); with step 1, x + r(...)."""

    def __init__(self, channels: int, step: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.step = step
        self.move0 = LearnableBias(channels)
        self.binary_conv = BinaryConv2d(channels, channels * step * step, bias=bias)
        self.relu = RPReLU(channels * step * step)

    def forward(self, x: Tensor) -> Tensor:
        if self._fits_native(x):
            return self._native(x)
        if self.binary_conv.simulation.twin and not torch.is_grad_enabled():
            return self._in_bands(x)
        return self._beside(x, self._transform(x))

    def _beside(self, x: Tensor, y: Tensor) -> Tensor:
        if self.step == 1:
            return x + y
        return F.pixel_shuffle(y, self.step) + F.interpolate(x, scale_factor=self.step, mode="nearest")

    def _in_bands(self, x: Tensor) -> Tensor:
        """The same, a few rows at a time, so that what is between two layers stays in the cache."""
        height, s = x.shape[2], self.step
        size = x.shape[0], x.shape[1], s * height, s * x.shape[3]
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        rows = max(1, _BAND // x.shape[3])
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = max(top - 1, 0), min(bottom + 1, height)  # what the convolution sees beyond the band
            y = self._transform(x[:, :, above:below])[:, :, top - above : bottom - above]
            out[:, :, s * top : s * bottom] = self._beside(x[:, :, top:bottom], y)
        return out

    def _transform(self, x: Tensor) -> Tensor:
        simulation = self.binary_conv.simulation
        shifted = self.move0(x)
        signs = shifted if simulation.twin else _SignActivation.apply(shifted, simulation.window)
        y: Tensor = self.relu(self.binary_conv(signs))
        return y

    def _fits_native(self, x: Tensor) -> bool:
        how = self.binary_conv.simulation
        if how.kernels is None or how.twin:
            return False
        return x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[1] == FEATURES

    def _native(self, x: Tensor) -> Tensor:
        conv, relu = self.binary_conv, self.relu
        how = conv.simulation
        settings = how.kernels, how.threads or torch.get_num_threads(), self.step, how.window, torch.is_grad_enabled()
        rprelu = relu.pr_bias0.bias, relu.pr_prelu.weight, relu.pr_bias1.bias
        y: Tensor = NativeUnit.apply(settings, x, self.move0.bias, conv.weight, conv.bias, *rprelu)
        return y


class BBCUB(BinaryUnit):
    """BBCU-B, the body unit: x + r(BinConv(x)), (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__(channels, bias=bias)


class BBCUU(BinaryUnit):
    """BBCU-U, up-sampling by s: PixelShuffle(r(BinConv(x))) + nearest(x), (N, C, H, W) -> (N, C, s*H, s*W)."""

    def __init__(self, channels: int, step: int) -> None:
        super().__init__(channels, step)


class BinaryBlock(nn.Module):
    """Two BBCU-B in a row; exists because published SR checkpoints are nested this way."""

    def __init__(self, channels: int, units: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(*(BBCUB(channels) for _ in range(units)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def simulate(model: nn.Module, simulation: Simulation) -> None:
    """Set how every binary unit of a network is simulated."""
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.simulation = simulation
