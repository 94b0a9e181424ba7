"""The golden networks: weights and inputs by the formulas with which the published code was run once.

tests/data/golden/outputs_fp32.npz is what it gave. The published float32 and float64 runs differ by at most 2.7e-6.
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

from bbcu_cli.checkpoint.pack import pack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.spec import DEBLOCK_SPEC, DENOISE_SPEC, ModelSpec, sr_spec

FOLDER = Path(__file__).parent / "data" / "golden"
GOLDEN_NAMES = [*(f"bbcu-{m}-x{s}" for m in "lm" for s in (2, 3, 4)), "bbcu-denoise", "bbcu-deblock"]


@cache
def _listing() -> dict[str, Any]:
    return json.loads((FOLDER / "state_dicts.json").read_text())


NAMES: tuple[str, ...] = tuple(json.loads((FOLDER / "state_dicts.json").read_text()))


def golden_spec(name: str) -> ModelSpec:
    """The spec of a golden network: "bbcu-l-x2" ... "bbcu-denoise", "bbcu-deblock"."""
    if "denoise" in name:
        return DENOISE_SPEC
    if "deblock" in name:
        return DEBLOCK_SPEC
    return sr_spec("l" if name[5] == "l" else "m", int(name[-1]))


def _tensor(key: str, shape: list[int]) -> NDArray[np.float32]:
    a = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 4 and key.endswith("weight"):
        return a * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if "pr_prelu" in key:
        return np.float32(0.25) + np.float32(0.05) * a
    return np.float32(5 if len(shape) == 4 else 0.5) * a


def golden_state(name: str) -> dict[str, NDArray[np.float32]]:
    """The state dict of a golden network, with the names of the published code."""
    return {key: _tensor(key, shape) for key, shape in _listing()[name]["keys"].items()}


@cache
def golden_model(name: str) -> PackedModel:
    """A golden network, packed."""
    return pack(golden_spec(name), golden_state(name), {"source": "golden"})


def golden_input(name: str) -> NDArray[np.float32]:
    """float32 (1, C, 20, 28) in 0..1."""
    gray = golden_spec(name).channels == 1
    with Image.open(FOLDER / f"input_{'gray' if gray else 'rgb'}_28x20.png") as image:
        pixels = np.asarray(image, dtype=np.float32) / 255
    return np.ascontiguousarray(pixels.reshape(20, 28, -1).transpose(2, 0, 1)[None])


def golden_output(name: str) -> NDArray[np.float32]:
    """What the published code gave, float32 (1, C, S*20, S*28)."""
    with np.load(FOLDER / "outputs_fp32.npz") as outputs:
        return outputs[name]
