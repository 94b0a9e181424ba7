"""Region and tile algebra: cutting an image into tiles that give exactly the pixels of the whole image.

A network here has a bounded receptive field, so a tile that is handed to the engine with a halo of real
neighbours (cut only at the true image edge, where the network pads with zeros as it does for the whole image)
needs no blending and leaves no seam. Sizes are (height, width) in input pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bbcu_cli.errors import UsageError
from bbcu_cli.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Region:
    """Rows top..bottom and columns left..right, ends excluded.

    A *core* is the region that a tile contributes to the result; *padded* is what the engine sees of it: the core
    and its halo.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of a (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, scale: int) -> Region:
        """The same region of the output."""
        return Region(self.top * scale, self.left * scale, self.bottom * scale, self.right * scale)

    def relative_to(self, outer: Region) -> Region:
        """The same region in coordinates of `outer`."""
        return Region(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def grown(self, halo: int, height: int, width: int) -> Region:
        """The region with a halo on every side, cut at the edges of a (height, width) image."""
        return Region(
            max(self.top - halo, 0), max(self.left - halo, 0),
            min(self.bottom + halo, height), min(self.right + halo, width),
        )  # fmt: skip

    def halves(self) -> tuple[Region, Region]:
        """The region cut across its longer side."""
        if self.bottom - self.top >= self.right - self.left:
            middle = (self.top + self.bottom) // 2
            return replace(self, bottom=middle), replace(self, top=middle)
        middle = (self.left + self.right) // 2
        return replace(self, right=middle), replace(self, left=middle)


@dataclass(frozen=True, slots=True)
class TileSize:
    """Height and width of a core; an image smaller than that is one tile."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"A tile of {self.height}x{self.width} pixels is impossible; give --tile at least 1.")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def plan(height: int, width: int, tile: TileSize) -> list[Region]:
    """Cores in row-major order; they cover the image exactly once."""
    return [
        Region(top, left, min(top + tile.height, height), min(left + tile.width, width))
        for top in range(0, height, tile.height)
        for left in range(0, width, tile.width)
    ]


def fit(height: int, width: int, spec: ModelSpec, cost: int, budget: int, max_width: int) -> TileSize:
    """The largest sensible tile within a memory budget.

    The whole image when it fits; otherwise near-square tiles of equal size, as few as possible, because the
    halo that is computed twice grows with the perimeter.

    Args:
        cost: bytes that a pixel of a tile takes.
        budget: bytes for one tile.
        max_width: widest padded tile that the engine runs at full speed.

    Returns:
        A core at least as wide and high as the halo, even if that takes more than the budget.
    """
    room = budget // cost
    if height * width <= room and width <= max_width:
        return TileSize(height, width)
    border = 2 * spec.halo
    side = max(min(math.isqrt(room), max_width) - border, spec.halo)
    columns = 1 if width <= side + border else -(-width // side)
    core_width = -(-width // columns)
    padded_width = width if columns == 1 else core_width + border
    rows = -(-height // max(room // padded_width - border, spec.halo))
    return TileSize(-(-height // rows), core_width)
