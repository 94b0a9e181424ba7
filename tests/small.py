"""Small networks with random weights of plausible size: quick to run, and every layer kind occurs."""

from __future__ import annotations

import numpy as np

from bbcu_cli.checkpoint.packed import PackedModel, _layout, from_tensors
from bbcu_cli.spec import ModelSpec

SMALL_SPECS = {
    **{f"l-x{s}": ModelSpec("bbcu-l", "sr", s, 3, features=64, blocks=2) for s in (2, 3, 4)},
    **{f"m-x{s}": ModelSpec("bbcu-m", "sr", s, 3, features=64, blocks=3) for s in (2, 3, 4)},
    "denoise": ModelSpec("bbcu-dncnn", "denoise", 1, 3, features=64, blocks=2),
    "deblock": ModelSpec("bbcu-dncnn", "deblock", 1, 1, features=64, blocks=2, bias=True),
}


def small_model(spec: ModelSpec, seed: int = 0) -> PackedModel:
    """A valid PackedModel of that spec."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, slot in _layout(spec).items():
        part = name.rsplit(".", 1)[1]
        if part == "signs":
            words = rng.integers(0, 2**64, slot.shape, dtype=np.uint64)
            unused = spec.words * 64 - spec.features
            words[..., -1] &= np.uint64(2**64 - 1) >> np.uint64(unused)
            tensors[name] = words
            continue
        values = rng.standard_normal(slot.shape).astype(np.float32)
        scale, offset = {
            "weight": (float(np.sqrt(2 / (9 * slot.shape[1]))) if values.ndim == 4 else 1.0, 0.0),
            "alpha": (0.005, 0.04),
            "slope": (0.05, 0.25),
            "shift": (5.0, 0.0),
        }.get(part, (0.5, 0.0))
        tensors[name] = (
            np.abs(values * scale + offset) if part == "alpha" else values * np.float32(scale) + np.float32(offset)
        )
    return from_tensors(spec, tensors, {"source": f"random, seed {seed}"}, "small model")
