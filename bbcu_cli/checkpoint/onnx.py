"""A network as an ONNX file, for other runtimes: float32 operators that give what the engines give."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.models.binary import BinaryUnit
from bbcu_cli.models.build import build_model

OPSET: Final = 17
INPUT: Final = "x"
OUTPUT: Final = "y"


class FoldedUnit(nn.Module):
    """A binary unit for export: weights are the constants +-alpha, signs a comparison."""

    weight: Tensor

    def __init__(self, unit: BinaryUnit) -> None:
        super().__init__()
        self.unit = unit
        weight = unit.binary_conv.weight.detach()
        alpha = weight.abs().mean((1, 2, 3), keepdim=True)
        self.register_buffer("weight", torch.where(weight >= 0, alpha, -alpha))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, S*H, S*W)."""
        unit = self.unit
        signs = torch.where(unit.move0(x) >= 0, 1.0, -1.0)
        y = unit.relu(F.conv2d(signs, self.weight, unit.binary_conv.bias, padding=1))
        return add_residual(x, y, unit.step)


def add_residual(x: Tensor, y: Tensor, step: int) -> Tensor:
    """The end of a unit: (N, C, H, W) and (N, C*S*S, H, W) -> (N, C, S*H, S*W)."""
    if step == 1:
        return x + y
    return F.pixel_shuffle(y, step) + F.interpolate(x, scale_factor=step, mode="nearest")


def network_of(packed: PackedModel, unit: Callable[[BinaryUnit], nn.Module]) -> nn.Module:
    """The float simulation with every binary unit replaced."""
    module = build_model(packed.spec)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in unpack(packed).items()})

    def replace(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            if isinstance(child, BinaryUnit):
                setattr(parent, name, unit(child))
            else:
                replace(child)

    replace(module)
    return module.eval()


def to_onnx(packed: PackedModel, size: tuple[int, int] | None = None) -> bytes:
    """The content of an ONNX file of that network.

    Its input "x" is float32 (N, C, H, W) in 0..1 and its output "y" (N, C, S*H, S*W), not clipped.

    Args:
        packed: the network.
        size: (H, W) of the only input that it takes, one at a time; by default it takes any N, H and W.
    """
    buffer = io.BytesIO()
    axes = {INPUT: {0: "N", 2: "H", 3: "W"}, OUTPUT: {0: "N", 2: "SH", 3: "SW"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        torch.onnx.export(
            network_of(packed, FoldedUnit),
            (torch.zeros(1, packed.spec.channels, *(size or (24, 32))),),
            buffer,  # type: ignore[arg-type]  # it takes files as well
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=None if size else axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()
