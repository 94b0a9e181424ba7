"""The one place that joins colour, tiles and an engine: Image in, restored Image out.

Pixels stay integers outside a tile: a tile is turned into floats, restored, turned back and stitched, so that no
float copy of a whole image ever exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from bbcu_cli.engines.base import EngineInfo, Progress
from bbcu_cli.errors import EngineError, OutOfMemoryError, UsageError
from bbcu_cli.image import Bands, Image
from bbcu_cli.image.image import Pixels
from bbcu_cli.image.metadata import resized as resized_metadata
from bbcu_cli.image.metadata import scaled
from bbcu_cli.restoration.memory import Work, footprint, tile_size
from bbcu_cli.restoration.model import DEFAULT_OPTIONS, Model, Options
from bbcu_cli.restoration.planes import SLAB_ROWS, Floats, blended, planes_of
from bbcu_cli.restoration.quantisation import Quantisation
from bbcu_cli.restoration.resize import resized
from bbcu_cli.restoration.size import MOST, Then, way_to
from bbcu_cli.restoration.tiling import Region, TileSize, plan


def _dihedral(x: Floats) -> Iterator[tuple[Floats, Callable[[Floats], Floats]]]:
    """The eight flips and rotations of (N, C, H, W), each with the way back."""
    for quarter in range(4):
        for flip in (False, True):
            turned = np.rot90(x, quarter, axes=(2, 3))

            yield (turned[..., ::-1] if flip else turned), partial(_turn_back, quarter=quarter, flip=flip)


def _turn_back(y: Floats, *, quarter: int, flip: bool) -> Floats:
    return np.rot90(y[..., ::-1] if flip else y, -quarter, axes=(2, 3))


@contextmanager
def _as_engine_error(info: EngineInfo) -> Iterator[None]:
    """Name the engine in whatever its library raises, before anyone who takes rows calls it a failure of his own."""
    try:
        yield
    except MemoryError as error:
        raise EngineError("Out of memory while restoring; try a smaller --tile.") from error
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise EngineError(f"Engine {info.name} on {info.device} failed: {reason}") from error


def _run(model: Model, x: Floats, progress: Progress | None, *, self_ensemble: bool) -> Floats:
    """One tile through the engine, (N, C, H, W) -> (N, C, S*H, S*W), checked to be finite."""
    with _as_engine_error(model.session.info):
        if self_ensemble:
            result = np.zeros((*x.shape[:2], *(side * model.spec.scale for side in x.shape[2:])), np.float32)
            for way, (turned, back) in enumerate(_dihedral(x)):
                result += back(model.session.run(np.ascontiguousarray(turned), _part(progress, way / 8, 1 / 8)))
            result /= 8
        else:
            result = model.session.run(np.ascontiguousarray(x), progress)
    if not math.isfinite(float(result.sum(dtype=np.float64))):
        info = model.session.info
        raise EngineError(
            f"Engine {info.name} on {info.device} gave values that are not finite; try --engine reference."
        )
    return result


def _part(progress: Progress | None, done: float, share: float) -> Progress | None:
    """What a part of the work is to tell: how much was done before it, and which share of the whole it is."""
    return None if progress is None else lambda of_part: progress(done + share * of_part)


def restored_tiles(
    model: Model,
    read: Callable[[Region], Floats],
    size: tuple[int, int],
    tile: TileSize,
    *,
    self_ensemble: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[Region, Floats]]:
    """Run an image through the network tile by tile.

    Args:
        read: region of the input -> float32 (N, C, H, W) in 0..1.
        size: (H, W) of the input.
        progress: told now and then how much of the image is done, 0..1, on the engine's thread.

    Yields:
        (core, block): the core in input pixels and its result, float32 (N, C, S*H, S*W).

    Raises:
        EngineError: the device failed, ran out of memory at the smallest tile, or gave values that are not finite.
    """
    waiting = plan(*size, tile)[::-1]
    limit = math.inf  # pixels of a core that may fit, once one did not
    area, done = size[0] * size[1], 0
    while waiting:
        core = waiting.pop()
        padded = core.grown(model.spec.halo, *size)
        if core.area > limit:
            waiting.extend(core.halves()[::-1])
            continue
        try:
            told = _part(progress, done / area, core.area / area)
            block = _run(model, read(padded), told, self_ensemble=self_ensemble)
        except OutOfMemoryError:
            if core.area <= model.spec.halo**2:
                raise
            limit = core.area - 1
            waiting.append(core)
            continue
        done += core.area
        rows, columns = core.relative_to(padded).scaled(model.spec.scale).slices
        yield core, block[:, :, rows, columns]
        del block


def run_tiled(model: Model, x: Floats, options: Options = DEFAULT_OPTIONS) -> Floats:
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
    step = max(1, SLAB_ROWS // scale)
    for top in range(region.top, region.bottom, step):
        bottom = min(top + step, region.bottom)
        rows = slice((top - region.top) * scale, (bottom - region.top) * scale)
        yield replace(region, top=top, bottom=bottom), rows


def restored_bands(
    image: Image,
    model: Model,
    options: Options,
    tile: TileSize,
    progress: Progress | None = None,
    quantisation: Quantisation | None = None,
) -> Bands:
    """What a network makes of a decoded image, row of tiles by row of tiles, each when it is asked for.

    Gray stays gray, 16 bit stays 16 bit, alpha stays alpha; metadata are carried over, true for the new size.

    Args:
        image: the picture.
        model: the network.
        options: how; the strength is left to `chained_bands`.
        tile: of the input.
        progress: told now and then how much of the image is done, 0..1, on the engine's thread.
        quantisation: of the JPEG that the image was, for a network that deblocks; None: its results are as they are.

    Raises:
        EngineError: the engine failed; when rows are taken.
    """
    planes, scale = planes_of(image, model.spec, options.chroma), model.spec.scale
    (height, width), depth = image.size, np.dtype(f"u{image.depth // 8}")

    def blank(band: Region) -> Image:
        rows, columns = (band.bottom - band.top) * scale, width * scale
        alpha = None if image.alpha is None else np.empty((rows, columns), depth)
        return Image(np.empty((rows, columns, image.channels), depth), alpha)

    def rows() -> Iterator[Image]:
        with _as_engine_error(model.session.info):  # nothing that goes wrong here is a failure of the encoder
            yield from bands()

    def bands() -> Iterator[Image]:
        band, painted = Region(0, 0, 0, width), None
        tiles = restored_tiles(
            model, planes.read, image.size, tile, self_ensemble=options.self_ensemble, progress=progress
        )
        for core, block in tiles:
            if painted is None:
                band = replace(band, top=core.top, bottom=min(core.top + tile.height, height))
                painted = blank(band)
            for slab, part in _slabs(core, scale):
                place = slab.relative_to(band).scaled(scale).slices
                result = planes.paint(slab, block[:, :, part])
                painted.pixels[place] = result.pixels
                if painted.alpha is not None:
                    painted.alpha[place] = result.alpha
            del block  # before the engine makes the next one
            if (core.bottom, core.right) == (band.bottom, width):
                yield painted
                painted = None

    size, about = (height * scale, width * scale), scaled(image.metadata, scale)
    made = Bands(size, image.channels, image.depth, image.alpha is not None, image.opaque, about, rows())
    if quantisation:
        made = quantisation.hold(made, image, chroma=options.chroma == "restore")
    return made


def _blended(image: Image, made: Bands, strength: float) -> Bands:
    """See `planes.blended`."""
    if strength == 1:
        return made
    if made.size != image.size:
        raise UsageError("A strength below 1 blends with the input; it is for networks that do not enlarge.")
    return replace(made, rows=_blended_rows(image, made, strength))


def _blended_rows(image: Image, made: Bands, strength: float) -> Iterator[Image]:
    top = 0
    for band in made.pieces(SLAB_ROWS):
        bottom = top + band.size[0]
        yield blended(Image(image.pixels[top:bottom]), band, strength)
        top = bottom


def chained_bands(
    image: Image,
    models: Sequence[Model],
    size: tuple[int, int],
    options: Options,
    tiles: Sequence[TileSize],
    progress: Progress | None = None,
    quantisation: Quantisation | None = None,
) -> Bands:
    """Restore a decoded image by one network after the other, then reduce it to an exact size.

    What a network gives to the next one is held whole, from when the first rows are asked for.

    Args:
        image: the picture.
        models: none leaves it as it is but for its size.
        size: (height, width) of the result; no side is larger than the networks make it.
        options: as for `restored_bands`, for every network.
        tiles: one for each network.
        progress: as for `restored_bands`, of the whole.
        quantisation: as for `restored_bands`, of the first network.

    Raises:
        UsageError: a strength below 1, and the networks enlarge.
        EngineError: as `restored_bands`.
    """
    stages = list(zip(models, tiles, strict=True))
    if not stages:
        return resized(Bands.of(image), size)
    areas = [math.prod(model.spec.scale**2 for model in models[:stage]) for stage in range(len(models))]
    work = [area * model.spec.blocks for area, model in zip(areas, models, strict=True)]
    told = [_part(progress, sum(work[:n]) / sum(work), own / sum(work)) for n, own in enumerate(work)]
    if len(stages) == 1:
        [(model, tile)] = stages
        made = resized(restored_bands(image, model, options, tile, progress, quantisation), size)
        return _blended(image, made, options.strength)

    def rows() -> Iterator[Image]:
        current, held = image, quantisation
        for (model, tile), part in zip(stages[:-1], told, strict=False):
            current, held = restored_bands(current, model, options, tile, part, held).whole(), None
        model, tile = stages[-1]
        yield from resized(restored_bands(current, model, options, tile, told[-1]), size).rows

    about = resized_metadata(image.metadata, image.size, size)
    made = Bands(size, image.channels, image.depth, image.alpha is not None, image.opaque, about, rows())
    return _blended(image, made, options.strength)


def restore_image(
    image: Image,
    model: Model,
    options: Options = DEFAULT_OPTIONS,
    *,
    size: tuple[int, int] | None = None,
) -> Image:
    """Restore a decoded image: pixels and alpha anew, everything else carried over.

    Gray stays gray, 16 bit stays 16 bit, alpha stays alpha.

    Args:
        image: the picture.
        model: the network.
        options: how.
        size: exact (height, width) of the result; None: as the network makes it. The network runs as often as it takes
            to be that large, then an antialiased filter reduces what it gives.

    Raises:
        EngineError: the engine failed.
        UsageError: the tile or the memory budget is impossible, a strength below 1 meets a network that enlarges, or
            the size is none that the network leads to.
    """
    then = None if size is None else _then(image.size, size, model)
    need = footprint(image, model, options, Work(form=None), then)
    models, scale = (model, *(then.models if then else ())), model.spec.scale
    end = then.size if then else (image.size[0] * scale, image.size[1] * scale)
    whole = chained_bands(image, models, end, options, need.tiles).whole()
    return replace(image, pixels=whole.pixels, alpha=whole.alpha, metadata=whole.metadata)


def _then(before: tuple[int, int], size: tuple[int, int], model: Model) -> Then:
    """The way of a picture of that size to an exact size, by one network."""
    if model.spec.scale == 1:
        raise UsageError(f"A size is for networks that enlarge; {model.name} keeps the size of a picture.")
    if len(size) != 2 or any(after < side for after, side in zip(size, before, strict=True)) or size == before:
        raise UsageError(f"The size is {size}; give a (height, width) larger than that of the picture, {before}.")
    if any(after > MOST * side for after, side in zip(size, before, strict=True)):
        raise UsageError(f"The size is {size}; a picture of {before} is enlarged {MOST} times at the most.")
    way = way_to(before, size, (model.spec.scale,))
    return Then((model,) * (len(way.scales) - 1), way.size, way.factor, way.filtered)


def restore(
    pixels: Pixels, model: Model, options: Options = DEFAULT_OPTIONS, *, size: tuple[int, int] | None = None
) -> Pixels:
    """Restore an array: uint8 or uint16 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> the same kind, S times as large.

    The fourth channel is alpha (not premultiplied). With `size`, the result has exactly that (height, width).

    Raises:
        UsageError: not such an array; or as `restore_image`.
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
    out = restore_image(Image(colour, alpha), model, options, size=size)
    if out.alpha is not None:
        return np.dstack([out.pixels, out.alpha])
    return out.pixels[..., 0] if pixels.ndim == 2 else out.pixels
