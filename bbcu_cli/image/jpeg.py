"""What a JPEG file tells about how it was compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

# The luminance table of the standard (ITU-T T.81, annex K.1), row by row; libjpeg scales it by the quality.
_LUMINANCE: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def jpeg_quality(tables: Sequence[Sequence[int]]) -> int | None:
    """The libjpeg quality, 1..100, whose luminance table is nearest to a file's first table.

    Exact for files written by libjpeg's own tables (most are); otherwise the quality that quantises about as hard.

    Args:
        tables: `Image.jpeg_tables`, each of 64 numbers row by row.

    Returns:
        None when there is no table of 64 numbers.
    """
    if not tables or len(tables[0]) != _LUMINANCE.size:
        return None
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)  # jpeg_quality_scaling of libjpeg
    candidates = np.clip((_LUMINANCE * percent[:, None] + 50) // 100, 1, 255)
    return int(quality[np.abs(candidates - np.asarray(tables[0])).sum(axis=1).argmin()])
