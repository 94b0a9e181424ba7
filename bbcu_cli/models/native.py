"""A binary unit in one piece, forward and backward, by the compiled module's training kernels; on the CPU."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbcu_cli.errors import EngineUnavailableError
from bbcu_cli.native import compiled
from bbcu_cli.spec import FEATURES


def training_kernels(name: str = "") -> str | None:
    """The training kernel set of that name, or with an empty name the best that this CPU supports.

    Returns:
        The set's name; None where torch is the better choice: not compiled, or nothing but the slow scalar set.

    Raises:
        ValueError: there is no such set, or this CPU cannot run it.
    """
    if compiled is None:
        return None
    chosen: str = compiled.choose_training_kernels(name)
    return None if chosen == "scalar" != name else chosen


class NativeUnit(torch.autograd.Function):
    """PixelShuffle(r(BinConv(sign(x + m)))) + nearest(x) with the published gradients; step 1 is BBCU-B.

    Values are those of every engine: the sums of signs are exact, and alpha comes after. Gradients differ from
    torch's by rounding only: products are exact sums of 9-bit numbers. Nothing depends on the number of threads.
    """

    @staticmethod
    def forward(
        ctx: Any,
        settings: tuple[str, int, int, float, bool],
        x: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        bias0: Tensor,
        slope: Tensor,
        bias1: Tensor,
    ) -> Tensor:
        """The unit's value, channels last.

        Args:
            ctx: torch's.
            settings: kernel set, CPU threads, step S, window, and whether a gradient will be asked for.
            x: (N, 64, H, W), fastest when it is channels last; the result is (N, 64, S*H, S*W).
            shift: (1, 64, 1, 1), m.
            weight: (64*S*S, 64, 3, 3), fastest when it is channels last.
            bias, bias0, slope, bias1: 64*S*S values each, of the convolution and the RPReLU.
        """
        kernels, threads, step, _, differentiable = settings
        x = _channels_last(x)
        n, height, width, _ = x.shape
        parts = (x, shift, _channels_last(weight), bias, bias0, slope, bias1)
        out = x.new_empty(n, step * height, step * width, FEATURES)
        words = torch.empty(n, height, width, dtype=torch.int64)
        sums = torch.empty(n, height, width, step * step, FEATURES, dtype=torch.int16) if differentiable else None
        _module().unit_forward(kernels, step, threads, *_arrays(*parts), *_arrays(out, words, sums))
        ctx.save_for_backward(*parts, words, sums)
        ctx.settings = settings
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors that `forward` takes."""
        *parts, words, sums = ctx.saved_tensors
        x, shift, weight, bias, bias0, slope, bias1 = parts
        kernels, threads, step, window, _ = ctx.settings
        grads = [torch.empty_like(part) for part in (x, shift, weight, bias0, slope, bias1)]
        given = _arrays(*parts, words, sums, _channels_last(grad))
        _module().unit_backward(kernels, step, threads, window, *given, *_arrays(*grads))
        to_x, to_shift, to_weight, to_bias0, to_slope, to_bias1 = grads
        to_bias = None if bias is None else to_bias0.view_as(bias).clone()
        to_x, to_weight = to_x.permute(0, 3, 1, 2), to_weight.permute(0, 3, 1, 2)
        return None, to_x, to_shift, to_weight, to_bias, to_bias0, to_slope, to_bias1


def _module() -> ModuleType:
    if compiled is None:
        raise EngineUnavailableError("Training kernels: the compiled module is missing.")
    return compiled


def _channels_last(x: Tensor) -> Tensor:
    """(A, B, C, D) -> (A, C, D, B), contiguous."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


def _arrays(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.detach().numpy() for tensor in tensors)
