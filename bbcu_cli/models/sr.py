"""BBCU-L and BBCU-M, the super-resolution networks. Attribute names are those of published checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from bbcu_cli.models.binary import BBCUB, BBCUU, BinaryBlock
from bbcu_cli.spec import LEAK, ModelSpec


class _SRNetwork(nn.Module, ABC):
    """What L and M share: head, binary body, last convolution, bilinear skip, residual alignment."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        n = spec.features
        self.conv_first = nn.Conv2d(spec.channels, n, 3, padding=1)
        units = [2] * (spec.blocks // 2) + [1] * (spec.blocks % 2)
        self.body = nn.Sequential(*(BinaryBlock(n, u) for u in units))
        self.conv_last = nn.Conv2d(n, spec.channels, 3, padding=1)

    @abstractmethod
    def upsample(self, features: Tensor) -> Tensor:
        """(N, n, H, W) -> (N, n, S*H, S*W), up to and including conv_hr, without its LeakyReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1 -> (N, C, S*H, S*W)."""
        x = x * self.spec.k
        features = self.body(F.leaky_relu(self.conv_first(x), LEAK))
        out = self.conv_last(F.leaky_relu(self.upsample(features), LEAK))
        skip = F.interpolate(x, scale_factor=self.spec.scale, mode="bilinear", align_corners=False)
        restored: Tensor = (out + skip) / self.spec.k
        return restored


class BBCUL(_SRNetwork):
    """BBCU-L: binary body, full-precision up-sampling."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        n = spec.features
        for i, step in enumerate(spec.up_steps, start=1):
            self.add_module(f"upconv{i}", nn.Conv2d(n, n * step * step, 3, padding=1))
        self.conv_hr = nn.Conv2d(n, n, 3, padding=1)

    def upsample(self, features: Tensor) -> Tensor:
        for i, step in enumerate(self.spec.up_steps, start=1):
            conv = self.get_submodule(f"upconv{i}")
            features = F.leaky_relu(F.pixel_shuffle(conv(features), step), LEAK)
        sharpened: Tensor = self.conv_hr(features)
        return sharpened


class BBCUM(_SRNetwork):
    """BBCU-M: binary body and binary up-sampling."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        for i, step in enumerate(spec.up_steps, start=1):
            self.add_module(f"upconv{i}", BBCUU(spec.features, step))
        self.conv_hr = BBCUB(spec.features)

    def upsample(self, features: Tensor) -> Tensor:
        for i in range(1, len(self.spec.up_steps) + 1):
            features = self.get_submodule(f"upconv{i}")(features)
        sharpened: Tensor = self.conv_hr(features)
        return sharpened
