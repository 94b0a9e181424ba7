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
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import PackedModel, load_packed
from bbcu_cli.engines.base import Session
from bbcu_cli.engines.select import EngineName, open_session
from bbcu_cli.errors import EngineError, OutOfMemoryError, UsageError
from bbcu_cli.hub import resolve
from bbcu_cli.image import Image, ImageInfo
from bbcu_cli.image.color import jfif_to_rgb, premultiply, rgb_to_jfif, to_float, to_integer, unpremultiply
from bbcu_cli.spec import ModelSpec
from bbcu_cli.tiling import Region, TileSize, bytes_per_pixel, fit, plan

Pixels = NDArray[Any]  # uint8 or uint16
Floats = NDArray[np.float32]
Chroma = Literal["keep", "restore"]

DEFAULT_MEMORY: Final = 2 << 30
LEAST_TILE_MEMORY: Final = 256 << 20  # also the most that an engine without feature maps gains from
_SLAB_ROWS: Final = 32
# BT.601 luma of full-range RGB: the plane that a JPEG file itself stores (JFIF).
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Options:
    """How to restore.

    Attributes:
        tile: side of a square tile core in input pixels; None plans tiles from `memory`.
        memory: bytes that the image, the result and one tile may take together; None is 2 GiB, or what a very
            large image needs at the least.
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


def tile_size(model: Model, size: tuple[int, int], options: Options, image_bytes: int = 0) -> TileSize:
    """The tile that a wish or the memory budget gives for an image of that size.

    Args:
        image_bytes: what the decoded image and its result take besides.

    Raises:
        UsageError: the budget was given by the user and is too small.
    """
    if options.tile is not None:
        return TileSize(options.tile, options.tile)
    budget = (options.memory or DEFAULT_MEMORY) - image_bytes
    if budget < LEAST_TILE_MEMORY:
        if options.memory is not None:
            least = (image_bytes + LEAST_TILE_MEMORY) >> 20
            raise UsageError(f"The image and its result need more; give --memory at least {least + 1}MB.")
        budget = LEAST_TILE_MEMORY
    info = model.session.info
    if info.feature_maps == 0:
        budget = min(budget, LEAST_TILE_MEMORY)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """One image on its way through a network: reads regions as floats, writes results as integers."""

    model: Model
    pixels: Pixels  # (H, W, C)
    options: Options
    tile: TileSize

    def floats(self, region: Region) -> Floats:
        return to_float(self.pixels[region.slices])

    def integers(self, values: Floats) -> Pixels:
        return to_integer(values, self.pixels.dtype.itemsize * 8)

    def blank(self, channels: int) -> Pixels:
        height, width = self.pixels.shape[:2]
        return np.empty((height * self.model.spec.scale, width * self.model.spec.scale, channels), self.pixels.dtype)

    def results(self, read: Callable[[Region], Floats]) -> Iterator[tuple[Region, Floats]]:
        """Every tile's result in slabs: (region of the input, float32 (N, C, rows, columns))."""
        size = self.pixels.shape[0], self.pixels.shape[1]
        tiles = restored_tiles(self.model, read, size, self.tile, self_ensemble=self.options.self_ensemble)
        for core, block in tiles:
            for slab, rows in _slabs(core, self.model.spec.scale):
                yield slab, block[:, :, rows]

    def restore_colour(self, alpha: Pixels | None, restored_alpha: Pixels | None) -> Pixels:
        """RGB networks. Gray is shown to them as three equal channels. Colour under alpha is premultiplied."""
        channels, scale = self.pixels.shape[2], self.model.spec.scale

        def read(region: Region) -> Floats:
            x = self.floats(region)
            if alpha is not None:
                x = premultiply(x, to_float(alpha[region.slices]))
            planes: Floats = np.repeat(x, 3 // channels, axis=2).transpose(2, 0, 1)[None]
            return planes

        out = self.blank(channels)
        for slab, y in self.results(read):
            region = slab.scaled(scale)
            colour = y[0].transpose(1, 2, 0)
            if channels == 1:
                colour = (colour @ _LUMA)[..., None]
            if restored_alpha is not None:
                colour = unpremultiply(colour, to_float(restored_alpha[region.slices]))
            out[region.slices] = self.integers(colour)
        return out

    def restore_luma(self) -> Pixels:
        """Luma networks on the plane that the JPEG file stores; colour moves along with its luma."""
        out = self.blank(self.pixels.shape[2])
        gray = self.pixels.shape[2] == 1

        def luma(x: Floats) -> Floats:
            return x[..., 0] if gray else x @ _LUMA

        for slab, y in self.results(lambda region: luma(self.floats(region))[None, None]):
            x = self.floats(slab)
            out[slab.slices] = self.integers(x + (y[0, 0] - luma(x))[..., None])
        return out

    def restore_luma_and_chroma(self) -> Pixels:
        """As `restore_luma`, and Cb and Cr through the same network as if they were luma."""
        out = self.blank(3)
        for slab, y in self.results(lambda region: rgb_to_jfif(self.floats(region)).transpose(2, 0, 1)[:, None]):
            out[slab.slices] = self.integers(jfif_to_rgb(y[:, 0].transpose(1, 2, 0)))
        return out


def tile_for(image: Image, model: Model, options: Options) -> TileSize:
    """The tile that `restore_image` will use."""
    channels = image.channels + (image.alpha is not None)
    return tile_size(model, image.size, options, image_bytes(image.size, channels, image.depth, model.spec))


def memory_estimate(info: ImageInfo, model: Model, options: Options) -> tuple[TileSize, int]:
    """For an image that was only probed: the tile, and the bytes that image, result and tile take together."""
    need = image_bytes(info.size, info.channels + info.alpha, info.depth, model.spec)
    tile = tile_size(model, info.size, options, need)
    seen = Region(0, 0, tile.height, tile.width).grown(2 * model.spec.halo, *info.size)
    return tile, need + seen.area * bytes_per_pixel(model.spec, model.session.info.feature_maps)


def image_bytes(size: tuple[int, int], channels: int, depth: int, spec: ModelSpec) -> int:
    """Bytes that an image of that size and its result take as integers of `depth` bits."""
    return size[0] * size[1] * channels * (depth // 8) * (1 + spec.scale * spec.scale)


def restore_image(image: Image, model: Model, options: Options = Options()) -> Image:
    """Restore a decoded image: pixels and alpha anew, everything else carried over.

    Gray stays gray, 16 bit stays 16 bit, alpha stays alpha.

    Raises:
        EngineError: the engine failed.
        UsageError: the tile or the memory budget is impossible.
    """
    alpha = image.alpha
    canvas = _Canvas(model, image.pixels, options, tile_for(image, model, options))
    if model.spec.channels == 1:
        colour = image.channels == 3 and options.chroma == "restore"
        return replace(image, pixels=canvas.restore_luma_and_chroma() if colour else canvas.restore_luma())
    restored_alpha = alpha
    if alpha is not None and model.spec.scale > 1:
        restored_alpha = replace(canvas, pixels=alpha[..., None]).restore_colour(None, None)[..., 0]
    return replace(image, pixels=canvas.restore_colour(alpha, restored_alpha), alpha=restored_alpha)


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
