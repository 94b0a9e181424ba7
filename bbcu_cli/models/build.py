"""spec -> module."""

from __future__ import annotations

from torch import nn

from bbcu_cli.models.dncnn import BinaryDnCNN
from bbcu_cli.models.sr import BBCUL, BBCUM
from bbcu_cli.spec import ModelSpec


def build_model(spec: ModelSpec) -> nn.Module:
    """The network of that spec, freshly initialised, float32 on the CPU."""
    return {"bbcu-l": BBCUL, "bbcu-m": BBCUM, "bbcu-dncnn": BinaryDnCNN}[spec.arch](spec)
