"""Turning samples upright."""

from __future__ import annotations

from typing import Final

import numpy as np

from bbcu_cli.image.image import Pixels

TAG: Final = 274
SIDEWAYS: Final = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

TURNED: Final = (2, 3, 4, 5, 6, 7, 8)
"""Orientations of which `upright` makes a copy."""


def upright(samples: Pixels, orientation: object) -> Pixels:
    """Turn and mirror samples (H, W, C) as an EXIF orientation (1 to 8; anything else is ignored) says."""
    if orientation in SIDEWAYS:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
