"""The one account of memory: what restoring an image takes, and the tile that keeps it within what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bbcu_cli.errors import UsageError
from bbcu_cli.image import Image, ImageInfo
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.restoration.planes import images_of
from bbcu_cli.restoration.tiling import Region, TileSize, bytes_per_pixel, fit

DEFAULT_MEMORY: Final = 2 << 30
MOST_STREAMED: Final = 256 << 20  # for one tile: more gains nothing for an engine without feature maps
_LEAST_TILE: Final = 32 << 20
_PROCESS: Final = 112 << 20  # interpreter, libraries, weights
_ROWS: Final = 80 << 10  # that an engine without feature maps holds for each column of a tile
_PROCESS_WITH_TORCH: Final = 512 << 20
_ENCODER: Final = 32 << 20  # pieces on their way to the disk


@dataclass(frozen=True, slots=True)
class Footprint:
    """What restoring one image takes.

    Attributes:
        tile: that it is cut into.
        process: bytes that are taken whatever the image.
        image: bytes beyond, at the most.
    """

    tile: TileSize
    process: int
    image: int

    @property
    def peak(self) -> int:
        """Bytes of memory at the most."""
        return self.process + self.image


def footprint(
    image: Image | ImageInfo, model: Model, options: Options, form: str = "PNG", *, gathered: bool = False
) -> Footprint:
    """Tile and memory for restoring an image, that may only have been probed, into a file.

    Args:
        form: format of the file, a name of `image.formats.FORMATS`.
        gathered: the whole result is needed at once, to be compared or handed over.

    Raises:
        UsageError: a memory budget was given, and it is too small; says which would do.
    """
    spec, info = model.spec, model.session.info
    has_alpha = image.alpha if isinstance(image, ImageInfo) else image.alpha is not None
    samples = image.channels + bool(has_alpha)
    (height, width), area = image.size, spec.scale * spec.scale
    pixels = height * width
    decoded = pixels * samples * image.depth // 8
    # Pillow keeps four bytes of a pixel of more than one sample, and decodes 16-bit colour twice.
    decoding = decoded + pixels * (1 if samples == 1 else 4) * image.depth // 8
    around = decoded + _ENCODER
    if form not in ("PNG", "TIFF"):  # gathered by Pillow in 8 bits, and copied by its encoders
        around += pixels * area * (8 if samples > 1 else 2)
    if gathered:
        around += 2 * decoded * area
    process = _PROCESS if info.feature_maps == 0 else _PROCESS_WITH_TORCH
    images = images_of(image.channels, spec, options.chroma, alpha=bool(has_alpha))
    cost = images * bytes_per_pixel(spec, info.feature_maps)
    limit = options.memory or DEFAULT_MEMORY
    budget = max(limit - process - around, MOST_STREAMED if options.memory is None else _LEAST_TILE)
    while True:
        tile = tile_size(model, image.size, options, budget // images)
        seen = Region(0, 0, tile.height, tile.width).grown(2 * spec.halo, *image.size)
        rows = (seen.right - seen.left) * _ROWS if info.feature_maps == 0 else 0
        bands = 2 * min(tile.height, height) * width * area * samples * image.depth // 8
        found = Footprint(tile, process, max(decoding, around + seen.area * cost + rows + bands))
        if options.memory is None or options.tile is not None or found.peak <= limit or budget <= _LEAST_TILE:
            break
        budget = max(min(budget, seen.area * cost) // 2, _LEAST_TILE)
    if options.memory is not None and found.peak > options.memory:
        smaller = " or a smaller --tile" if options.tile is not None else ""
        raise UsageError(
            f"{width}x{height} pixels to {form} take about {found.peak >> 20} MB of memory, and --memory allows "
            f"{options.memory >> 20} MB; give --memory at least {(found.peak >> 20) + 1}MB{smaller}."
        )
    return found


def tile_size(model: Model, size: tuple[int, int], options: Options, budget: int = DEFAULT_MEMORY) -> TileSize:
    """The tile that a wish, or else a memory budget for one tile, gives for an image of that size.

    Raises:
        UsageError: the budget is too small for the smallest tile.
    """
    if options.tile is not None:
        return TileSize(options.tile, options.tile)
    info = model.session.info
    if info.feature_maps == 0:
        budget = min(budget, MOST_STREAMED)
    return fit(*size, model.spec, info.feature_maps, budget, info.max_width)
