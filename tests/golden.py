"""What the published code computes: weights made by formula, its inputs and its outputs (see data/golden).

The outputs came from running the published networks in float32 on these weights; the weights follow from their names.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "data" / "golden"
GOLDEN_NAMES = [*(f"bbcu-{m}-x{s}" for m in "lm" for s in (2, 3, 4)), "bbcu-denoise", "bbcu-deblock"]


@cache
def _listing() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "state_dicts.json").read_text()))


def _weights(key: str, shape: list[int]) -> NDArray[np.float32]:
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 4 and key.endswith("weight"):
        return noise * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if "pr_prelu" in key:
        return np.float32(0.25) + np.float32(0.05) * noise
    return (np.float32(5) if len(shape) == 4 else np.float32(0.5)) * noise


def golden_state(name: str) -> dict[str, NDArray[np.float32]]:
    """The published state dict of that network."""
    return {key: _weights(key, shape) for key, shape in _listing()[name]["keys"].items()}


def golden_input(name: str) -> NDArray[np.float32]:
    """Float32 (1, C, 20, 28) in 0..1."""
    kind = "gray" if name == "bbcu-deblock" else "rgb"
    pixels = np.asarray(Image.open(FOLDER / f"input_{kind}_28x20.png"), np.float32) / 255
    return np.ascontiguousarray(pixels.reshape(20, 28, -1).transpose(2, 0, 1)[None])


def golden_output(name: str) -> NDArray[np.float32]:
    """What the published code gave, float32 (1, C, S*20, S*28)."""
    with np.load(FOLDER / "outputs_fp32.npz") as outputs:
        return np.asarray(outputs[name])
