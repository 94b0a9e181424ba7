"""The denoising and deblocking network: a binary DnCNN that predicts what to subtract."""

from __future__ import annotations

from torch import Tensor, nn

from bbcu_cli.models.binary import BBCUB
from bbcu_cli.spec import ModelSpec


class BinaryDnCNN(nn.Module):
    """conv, ReLU, `blocks` BBCU-B, conv = n; the output is (x*k - n) / k. Published indices: model.0, 2.., last."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = nn.Sequential(
            nn.Conv2d(spec.channels, spec.features, 3, padding=1, bias=spec.bias),
            nn.ReLU(),
            *(BBCUB(spec.features, bias=spec.bias) for _ in range(spec.blocks)),
            nn.Conv2d(spec.features, spec.channels, 3, padding=1, bias=spec.bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1 -> (N, C, H, W)."""
        x = x * self.spec.k
        restored: Tensor = (x - self.model(x)) / self.spec.k
        return restored
