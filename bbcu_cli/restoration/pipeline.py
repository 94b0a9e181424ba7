"""The one place that joins colour, tiles and an engine: Image in, restored Image out.

Pixels stay integers outside a tile: a tile is turned into floats, restored, turned back and stitched, so that no
float copy of a whole image ever exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import PackedModel, load_packed
from bbcu_cli.engines.base import Session
from bbcu_cli.engines.select import EngineName, open_session
from bbcu_cli.errors import EngineError, OutOfMemoryError, UsageError
from bbcu_cli.hub import resolve
from bbcu_cli.image import Bands, Image, ImageInfo
from bbcu_cli.image.metadata import scaled
from bbcu_cli.restoration.planes import Chroma, Floats, images_of, way_of
from bbcu_cli.restoration.tiling import Region, TileSize, bytes_per_pixel, fit, plan
from bbcu_cli.spec import ModelSpec

Pixels = NDArray[Any]  # uint8 or uint16

DEFAULT_MEMORY: Final = 2 << 30
MOST_STREAMED: Final = 256 << 20  # for one tile: more gains nothing for an engine without feature maps
_LEAST_TILE: Final = 32 << 20
_PROCESS: Final = 112 << 20  # interpreter, libraries, weights
_ROWS: Final = 80 << 10  # that an engine without feature maps holds for each column of a tile
_PROCESS_WITH_TORCH: Final = 512 << 20
_ENCODER: Final = 32 << 20  # pieces on their way to the disk
_SLAB_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Options:
    """How to restore.

    Attributes:
        tile: side of a square tile core in input pixels; None plans tiles from `memory`.
        memory: bytes that the process may take; None is 2 GiB, or what a very large image needs at the least.
        self_ensemble: average the results of the eight flips and rotations; eight times the work.
        chroma: deblocking of a colour image: "keep" its chroma, or "restore" it with the same network, which
            measures 0.07 dB better in RGB (JPEG quality 10 to 40, 14 photos) for three times the work.
    """

    tile: int | None = None
    memory: int | None = None
    self_ensemble: bool = False
    chroma: Chroma = "restore"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network opened on an engine; `with` closes it. `notes` say why a faster engine does not serve."""

    name: str
    spec: ModelSpec
    provenance: Mapping[str, str]
    session: Session
    notes: tuple[str, ...] = ()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engine holds."""
        self.session.close()


def open_model(
    packed: PackedModel, name: str, *, engine: EngineName = "auto", device: str = "auto", threads: int | None = None
) -> Model:
    """Open a packed model on the fastest engine that the wish allows.

    Raises:
        EngineUnavailableError: no engine can serve.
    """
    session, notes = open_session(packed, engine=engine, device=device, threads=threads)
    return Model(name, packed.spec, packed.provenance, session, notes)


def load_model(
    name: str = "sr-m-x4", *, engine: EngineName = "auto", device: str = "auto", threads: int | None = None
) -> Model:
    """Open a model by its name (`bbcu models list`), a packed file, or hf://user/repo@revision:file.

    Raises:
        WeightsUnavailableError: the weights are neither here nor to be had.
        CheckpointError: the file is damaged.
        EngineUnavailableError: no engine can serve.
    """
    return open_model(load_packed(resolve(name)), name, engine=engine, device=device, threads=threads)


def _dihedral(x: Floats) -> Iterator[tuple[Floats, Callable[[Floats], Floats]]]:
    """The eight flips and rotations of (N, C, H, W), each with the way back."""
    for quarter in range(4):
        for flip in (False, True):
            turned = np.rot90(x, quarter, axes=(2, 3))

            yield (turned[..., ::-1] if flip else turned), partial(_turn_back, quarter=quarter, flip=flip)


def _turn_back(y: Floats, *, quarter: int, flip: bool) -> Floats:
    return np.rot90(y[..., ::-1] if flip else y, -quarter, axes=(2, 3))


def _run(model: Model, x: Floats, *, self_ensemble: bool) -> Floats:
    """One tile through the engine, (N, C, H, W) -> (N, C, S*H, S*W), checked to be finite."""
    if self_ensemble:
        outputs = (back(model.session.run(np.ascontiguousarray(turned))) for turned, back in _dihedral(x))
        result: Floats = sum(outputs, np.float32(0)) / np.float32(8)
    else:
        result = model.session.run(np.ascontiguousarray(x))
    if not math.isfinite(float(result.sum(dtype=np.float64))):
        info = model.session.info
        raise EngineError(
            f"Engine {info.name} on {info.device} gave values that are not finite; try --engine reference."
        )
    return result


def restored_tiles(
    model: Model,
    read: Callable[[Region], Floats],
    size: tuple[int, int],
    tile: TileSize,
    *,
    self_ensemble: bool = False,
) -> Iterator[tuple[Region, Floats]]:
    """Run an image through the network tile by tile.

    Args:
        read: region of the input -> float32 (N, C, H, W) in 0..1.
        size: (H, W) of the input.

    Yields:
        (core, block): the core in input pixels and its result, float32 (N, C, S*H, S*W).

    Raises:
        EngineError: the device failed, ran out of memory at the smallest tile, or gave values that are not finite.
    """
    waiting = plan(*size, tile)[::-1]
    limit = math.inf  # pixels of a core that may fit, once one did not
    while waiting:
        core = waiting.pop()
        padded = core.grown(model.spec.halo, *size)
        if core.area > limit:
            waiting.extend(core.halves()[::-1])
            continue
        try:
            block = _run(model, read(padded), self_ensemble=self_ensemble)
        except OutOfMemoryError:
            if core.area <= model.spec.halo**2:
                raise
            limit = core.area - 1
            waiting.append(core)
            continue
        rows, columns = core.relative_to(padded).scaled(model.spec.scale).slices
        yield core, block[:, :, rows, columns]
        del block


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


def run_tiled(model: Model, x: Floats, options: Options = Options()) -> Floats:
    """A float image through the network: float32 (H, W, C) in 0..1 -> float32 (S*H, S*W, C), not clipped.

    For images that are floats by nature, such as the noisy input of an evaluation; files go through `restore`.
    """
    scale = model.spec.scale
    out = np.empty((x.shape[0] * scale, x.shape[1] * scale, x.shape[2]), np.float32)
    size = (x.shape[0], x.shape[1])

    def read(region: Region) -> Floats:
        planes: Floats = x[region.slices].transpose(2, 0, 1)[None]
        return planes

    tiles = restored_tiles(model, read, size, tile_size(model, size, options), self_ensemble=options.self_ensemble)
    for core, block in tiles:
        out[core.scaled(scale).slices] = block[0].transpose(1, 2, 0)
    return out


def _slabs(region: Region, scale: int) -> Iterator[tuple[Region, slice]]:
    """A core cut into a few rows each, with their place in its result: temporaries stay small and in the cache."""
    step = max(1, _SLAB_ROWS // scale)
    for top in range(region.top, region.bottom, step):
        bottom = min(top + step, region.bottom)
        rows = slice((top - region.top) * scale, (bottom - region.top) * scale)
        yield replace(region, top=top, bottom=bottom), rows


def restored_bands(image: Image, model: Model, options: Options, tile: TileSize) -> Bands:
    """Restore a decoded image row of tiles by row of tiles, each when it is asked for.

    Gray stays gray, 16 bit stays 16 bit, alpha stays alpha; metadata are carried over, true for the new size.

    Raises:
        EngineError: the engine failed; when rows are taken.
    """
    way, scale = way_of(image, model.spec, options.chroma), model.spec.scale
    (height, width), depth = image.size, np.dtype(f"u{image.depth // 8}")

    def blank(band: Region) -> Image:
        rows, columns = (band.bottom - band.top) * scale, width * scale
        alpha = None if image.alpha is None else np.empty((rows, columns), depth)
        return Image(np.empty((rows, columns, image.channels), depth), alpha)

    def rows() -> Iterator[Image]:
        band, painted = Region(0, 0, 0, width), None
        for core, block in restored_tiles(model, way.read, image.size, tile, self_ensemble=options.self_ensemble):
            if painted is None:
                band = replace(band, top=core.top, bottom=min(core.top + tile.height, height))
                painted = blank(band)
            for slab, part in _slabs(core, scale):
                place = slab.relative_to(band).scaled(scale).slices
                result = way.paint(slab, block[:, :, part])
                painted.pixels[place] = result.pixels
                if painted.alpha is not None:
                    painted.alpha[place] = result.alpha
            del block  # before the engine makes the next one
            if (core.bottom, core.right) == (band.bottom, width):
                yield painted
                painted = None

    size, about = (height * scale, width * scale), scaled(image.metadata, scale)
    return Bands(size, image.channels, image.depth, image.alpha is not None, image.opaque, about, rows())


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


def restore_image(image: Image, model: Model, options: Options = Options()) -> Image:
    """Restore a decoded image: pixels and alpha anew, everything else carried over.

    Gray stays gray, 16 bit stays 16 bit, alpha stays alpha.

    Raises:
        EngineError: the engine failed.
        UsageError: the tile or the memory budget is impossible.
    """
    tile = footprint(image, model, options, gathered=True).tile
    whole = restored_bands(image, model, options, tile).whole()
    return replace(image, pixels=whole.pixels, alpha=whole.alpha, metadata=whole.metadata)


def restore(pixels: Pixels, model: Model, options: Options = Options()) -> Pixels:
    """Restore an array: uint8 or uint16 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> the same kind, S times as large.

    The fourth channel is alpha (not premultiplied).

    Raises:
        UsageError: not such an array.
        EngineError: the engine failed.
    """
    kinds = ("uint8", "uint16")
    if (
        pixels.dtype.name not in kinds
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4))
    ):
        raise UsageError(
            f"Cannot restore an array of {pixels.dtype} {pixels.shape}; "
            "give uint8 or uint16 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."
        )
    if 0 in pixels.shape:
        raise UsageError(f"Cannot restore an empty array of shape {pixels.shape}.")
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colour, alpha = (planes[..., :3], planes[..., 3]) if planes.shape[2] == 4 else (planes, None)
    out = restore_image(Image(colour, alpha), model, options)
    if out.alpha is not None:
        return np.dstack([out.pixels, out.alpha])
    return out.pixels[..., 0] if pixels.ndim == 2 else out.pixels
