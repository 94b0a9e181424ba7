"""The one account of memory: what an image needs from its file to the results, and the tile that keeps it in bounds.

An image goes through phases, and what is held in each is added up here, in bytes for a pixel where it grows with the
picture. Only the copies that a decoder works with are stated elsewhere, beside its code: `ImageInfo.working`.
`python -m bbcu_cli.bench.memory` compares the sums with what the process really took.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bbcu_cli.errors import UsageError
from bbcu_cli.image import FORMATS, EncodeOptions, Image, ImageInfo
from bbcu_cli.image.encode import DEFAULT_OPTIONS as DEFAULT_ENCODING
from bbcu_cli.image.encode import STREAMED
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.restoration.planes import SLAB_ROWS, images_of
from bbcu_cli.restoration.quantisation import working as quantising
from bbcu_cli.restoration.resize import working
from bbcu_cli.restoration.size import Then
from bbcu_cli.restoration.tiling import Region, TileSize, fit
from bbcu_cli.spec import ModelSpec

DEFAULT_MEMORY: Final = 2 << 30
MOST_STREAMED: Final = 256 << 20  # for one tile: more gains nothing for an engine without feature maps
_LEAST_TILE: Final = 4 << 20  # less makes more of the halo than of the tile
_PROCESS: Final = 72 << 20  # interpreter, libraries, weights
_PROCESS_WITH_TORCH: Final = 512 << 20
_BANDS: Final = 8 << 20  # a few rows of samples at a time, on their way out of a decoder and into an encoder
_HEAP: Final = 8 << 20  # small pieces that were freed and that the allocator keeps, for each image in its thread
_DEFLATING: Final = 10 << 20  # for each thread: pieces of a megabyte, of which four wait and one is filtered
_DEFLATED: Final = 8  # copies of such a piece, which is a small picture whole
_SHEET: Final = 32 << 20  # a side-by-side of about 1,800 x 1,200 pixels, drawn and encoded
_SCORING: Final = 30 << 20  # libraries, blocks of SSIM
_SCORING_THREAD: Final = 8 << 20  # what BLAS packs its matrices into
_USUAL_QUALITY: Final = 90  # of WebP, see `EncodeOptions`
_BATCH: Final = 1 << 20  # of rows that go through the layers together, as the compiled engine has it
_PIECE: Final = 2 << 20  # what is left of the engine's newest piece of memory
_LEAST_BAND: Final = 16  # rows that are worth a thread, as the compiled engine has it
_FRAMES_OF_AVIF: Final = 440, 48 << 20  # bytes of a pixel of three samples, and fixed: frames that wait to be compared
_FILE_OF_AVIF: Final = 4  # bytes of a pixel of each frame, twice the compressed ones, until the last one is there
_FLOAT: Final = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with a result, as far as memory goes.

    Attributes:
        form: format of its file, a name of `image.formats.FORMATS`; None: it is handed over as an image.
        truth: it is scored against this picture.
        compare: a side-by-side is drawn.
        encoding: how that is written.
        threads: of the encoder.
        frames: how many pictures of one file are written to one file.
    """

    form: str | None = "PNG"
    truth: ImageInfo | None = None
    compare: bool = False
    encoding: EncodeOptions = DEFAULT_ENCODING
    threads: int = 1
    frames: int = 1

    @property
    def gathered(self) -> bool:
        """The whole result is needed at once, not only its rows one after the other."""
        return self.form is None or self.truth is not None or self.compare


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one image takes.

    Attributes:
        tiles: that it is cut into, for each network; one of the whole where none serves.
        process: bytes that are taken whatever the image.
        engine: bytes that the engine keeps from its first tile on, also for the next image.
        image: bytes beyond, at the most.
    """

    tiles: tuple[TileSize, ...]
    process: int
    engine: int
    image: int

    @property
    def tile(self) -> TileSize:
        """That of the first network."""
        return self.tiles[0]

    @property
    def peak(self) -> int:
        """Bytes of memory at the most."""
        return self.process + self.engine + self.image


def footprint(
    image: Image | ImageInfo,
    model: Model | None,
    options: Options,
    work: Work,
    then: Then | None = None,
    first: Model | None = None,
) -> Footprint:
    """Tiles and memory for restoring an image, that may only have been probed.

    Args:
        model: None leaves the image as it is.
        then: what comes behind that.
        first: what comes before it, and keeps the size.

    Raises:
        UsageError: a memory budget was given, and it is too small; says which would do.
    """
    info = image if isinstance(image, ImageInfo) else _described(image)
    if model is None:
        result = replace(info, size=then.size if then else info.size)
        resizing = working(info.size, result.size, info.samples, info.depth)
        held = max(_phases(info, result, work, restoring=resizing, band=info.nbytes))
        found = Footprint((TileSize(*info.size),), _PROCESS, 0, _HEAP + held)
    else:
        models = [one for one in (first, model, *(then.models if then else ())) if one]
        found = _restoring(info, models, options, work, then)
    if options.memory is not None and found.peak > options.memory:
        height, width = info.size
        smaller = " or a smaller --tile" if options.tile is not None else ""
        raise UsageError(
            f"{width}x{height} pixels to {work.form or 'an array'} take about {found.peak >> 20} MB of memory, and "
            f"--memory allows {options.memory >> 20} MB; give --memory at least {(found.peak >> 20) + 1}MB{smaller}."
        )
    return found


def tile_size(model: Model, size: tuple[int, int], options: Options, budget: int | None = None) -> TileSize:
    """The tile that a wish, or else a memory budget for the floats of one tile, gives for an image of that size.

    Args:
        budget: None is all the memory that is allowed.
    """
    if options.tile is not None:
        return TileSize(options.tile, options.tile)
    info = model.session.info
    budget = budget or options.memory or DEFAULT_MEMORY
    if info.feature_maps == 0:
        budget = min(budget, MOST_STREAMED)
    return fit(*size, model.spec, bytes_per_pixel(model.spec, info.feature_maps), budget, info.max_width)


def bytes_per_pixel(spec: ModelSpec, feature_maps: int) -> int:
    """Bytes that an engine needs per input pixel of a tile: float32 tile in and out, and its feature maps.

    Args:
        feature_maps: float32 maps of `spec.features` channels at output resolution that it holds at once.
    """
    area = spec.scale * spec.scale
    return _FLOAT * (spec.channels * (1 + area) + spec.features * area * feature_maps)


def _described(image: Image) -> ImageInfo:
    """What is known of an image that was decoded: nothing is left to be done for that."""
    alpha = image.alpha is not None
    return ImageInfo(image.format, image.size, image.channels, image.depth, alpha, frames=1)


def _restoring(info: ImageInfo, models: Sequence[Model], options: Options, work: Work, then: Then | None) -> Footprint:
    """The largest tiles that keep within the memory, or the smallest ones that are sensible."""
    stages = [(info, models[0])]
    for one in models[1:]:
        stages.append((_enlarged(*stages[-1]), one))
    made = _enlarged(*stages[-1])
    result = replace(made, size=then.size) if then else made
    resizing = working(made.size, result.size, info.samples, info.depth)
    process = _PROCESS if all(one.session.info.feature_maps == 0 for _, one in stages) else _PROCESS_WITH_TORCH

    def planned(budget: int) -> Footprint:
        tiles, engine, most = [], 0, 0
        for given, one in stages:
            tile = _tile(given, one, options, budget)
            tiles.append(tile)
            rows, restoring, band = _stage(given, one, options, tile)
            engine += rows
            between = 0 if given is info else given.nbytes  # what the network before this one gave
            if _quantised(given, one):
                most = max(most, info.nbytes + info.working + info.pixels)
            if given is stages[-1][0]:
                phases = _phases(info, result, work, restoring=between + restoring + resizing, band=band)
                most = max(most, *phases)
            else:
                most = max(most, info.nbytes + between + restoring + band + _enlarged(given, one).nbytes)
        return Footprint(tuple(tiles), process, engine, _HEAP + most)

    # Powers of two, so that whatever is allowed ends at the same smallest tile, which the error is about.
    budget = 1 << (max(options.memory or 0, DEFAULT_MEMORY).bit_length() - 1)
    least = MOST_STREAMED if options.memory is None else _LEAST_TILE
    while True:
        found = planned(budget)
        fits = found.peak <= (options.memory or DEFAULT_MEMORY)
        if fits or options.tile is not None or budget <= least:
            return found
        budget //= 2


def _enlarged(info: ImageInfo, model: Model) -> ImageInfo:
    """What is known of what a network makes of an image."""
    height, width = info.size
    return replace(info, size=(height * model.spec.scale, width * model.spec.scale))


def _images(info: ImageInfo, model: Model, options: Options) -> int:
    return images_of(info.channels, model.spec, options.chroma, alpha=info.alpha)


def _tile(info: ImageInfo, model: Model, options: Options, budget: int) -> TileSize:
    return tile_size(model, info.size, options, budget // _images(info, model, options))


def _stage(info: ImageInfo, model: Model, options: Options, tile: TileSize) -> tuple[int, int, int]:
    """Bytes that one network takes for an image: what its engine keeps, what it restores with, and a band of rows."""
    spec, engine = model.spec, model.session.info
    images = _images(info, model, options)
    cost = images * bytes_per_pixel(spec, engine.feature_maps)
    if options.self_ensemble:  # a tile as it was turned, and the sum
        cost += images * bytes_per_pixel(spec, 0)
    height, width = info.size
    seen = Region(0, 0, min(tile.height, height), min(tile.width, width)).grown(2 * spec.halo, *info.size)
    columns = seen.right - seen.left
    bands = min(engine.bands, -(-(seen.bottom - seen.top) // _LEAST_BAND))
    rows = columns * row_bytes(spec, bands) + batch_bytes(spec, bands) if engine.feature_maps == 0 else 0
    slab = 5 * _FLOAT * 3 * SLAB_ROWS * spec.scale * columns  # painted: floats, clipped, scaled, rounded, integers
    band = min(tile.height, height) * width * spec.scale**2 * info.nbytes // info.pixels
    held = info.pixels + quantising(width, info.channels) if _quantised(info, model) else 0
    return rows, seen.area * cost + slab + held + (band if tile.height < height else 0), band


def _quantised(info: ImageInfo, model: Model) -> bool:
    """Whether the chroma of the file may be decoded once more, and kept: two bytes for two pixels at the most."""
    return model.spec.task == "deblock" and info.format == "JPEG"


def _phases(info: ImageInfo, made: ImageInfo, work: Work, *, restoring: int, band: int) -> Iterator[int]:
    """Bytes that are held in every phase of an image.

    Args:
        info: the image.
        made: the result.
        work: what is done with it.
        restoring: floats of a tile and of a slab, the band of rows that was painted before, and what a filter takes.
        band: bytes of the rows that are painted.
    """
    if work.frames > 1 and work.form is not None:
        yield from _phases_of_frames(info, made, work, restoring=restoring, band=band)
        return
    pixels, result = made.pixels, made.nbytes
    yield info.nbytes + info.working + _BANDS
    writing = _writing(work, made)
    if not work.gathered:
        # Rows go straight into the encoder, or for the others into Pillow's picture.
        yield info.nbytes + restoring + band + (writing if work.form in STREAMED else 4 * pixels + _BANDS)
        yield info.nbytes + band + writing
        return
    held = info.nbytes + result
    yield held + restoring + band
    if work.truth is not None:
        truth = work.truth
        yield held + truth.nbytes + truth.working + _BANDS
        deeper = 2 * pixels * min(info.channels, truth.channels) * (2 if truth.depth != info.depth else 0)
        scoring = _SCORING + work.threads * _SCORING_THREAD
        yield held + truth.nbytes + 2 * 8 * pixels + deeper + scoring  # luma of both, in float64
    if work.compare:
        truth_held = work.truth.nbytes if work.truth else 0
        drawn = 4 * (info.pixels + pixels * (2 if work.truth else 1))  # each as Pillow's
        yield held + truth_held + drawn + _SHEET + _DEFLATING * work.threads
    yield held + writing


def _phases_of_frames(info: ImageInfo, made: ImageInfo, work: Work, *, restoring: int, band: int) -> Iterator[int]:
    """The same for one of several frames or pages: readers and writers keep something for the next one."""
    pixels, result = made.pixels, made.nbytes
    if FORMATS[work.form or ""].several == "pages":
        writing = _writing(work, made)
        yield info.held + info.nbytes + info.working + _BANDS
        yield info.held + info.nbytes + restoring + band + writing
        return
    if work.form == "AVIF":
        samples = 4 if info.alpha else 3
        each, fixed = _FRAMES_OF_AVIF
        encoder = samples * (pixels * (each + _FILE_OF_AVIF * work.frames) + fixed) // 3
        held, gathered = info.held + encoder, 4 * pixels
        copies = 8 * pixels  # Pillow's picture and its samples
    else:  # the frame before is kept, so that only what differs is written
        result = result if FORMATS[work.form or ""].depth == info.depth else result // 2
        held, gathered = info.held + result, result
        copies = _writing(work, made) - result  # then that one is gone
    yield held + info.nbytes + info.working + _BANDS
    yield held + info.nbytes + restoring + band + gathered + _BANDS
    yield held + info.nbytes + gathered + max(0, copies) + _BANDS


def _writing(work: Work, made: ImageInfo) -> int:
    """Bytes that an encoder takes for a result beside the rows that it is given."""
    if work.form is None:
        return 0
    if work.form in STREAMED:
        return min(_DEFLATING * work.threads, _DEFLATED * made.nbytes) + _BANDS
    each, fixed = _gathering(work.form, made, work.encoding)
    return made.pixels * each + fixed + _BANDS


def _gathering(form: str, info: ImageInfo, encoding: EncodeOptions) -> tuple[int, int]:
    """Bytes of a pixel and of a picture that Pillow's writers take; Pillow's own picture has 4 of a pixel, or 1.

    The figures are those of noise, which takes the most.
    """
    picture = 4 if info.alpha or info.channels == 3 or not FORMATS[form].gray else 1
    if form == "WebP":
        if encoding.lossless or info.alpha:
            return picture + 38, 24 << 20  # samples, and tables of what came before; alpha is always lossless
        # Samples, planes in half colour, and tokens: more, the better the quality.
        return picture + 6 + (26 if (encoding.quality or 0) > _USUAL_QUALITY else 20), 0
    if form == "AVIF":  # planes of the picture, its reductions and searches; alpha is a second, gray picture
        return picture + 40, (44 if info.alpha else 24) << 20
    if form == "HEIC":
        return picture + (56 if info.alpha else 48), (24 if info.alpha else 16) << 20
    return picture, 0


def batch_bytes(spec: ModelSpec, bands: int) -> int:
    """Bytes beside `row_bytes` that do not depend on a tile: a batch of rows at each level, and of signs in each layer.

    Args:
        bands: of rows, each made by a thread.
    """
    signs = _BATCH // (8 * _FLOAT)
    return _PIECE + bands * ((1 + len(spec.up_steps)) * _BATCH + (1 + spec.blocks) * signs)


def row_bytes(spec: ModelSpec, bands: int) -> int:
    """Bytes for each column of a tile that an engine without feature maps holds in its rows.

    Rows of features (float32) and of their signs (a bit each) flow through the layers depth first. Each layer of each
    band waits with one row of features and at the most five of signs; an enlargement with as many as it makes at once
    and two more, because the float convolution behind it looks at three rows; and the first rows of each band are kept
    for the band above. Enlarged rows of `bbcu-l` wait for all those of a pixel of the image.

    Args:
        bands: of rows, each made by a thread.
    """
    features, signs = _FLOAT * spec.features, spec.features // 8
    level, held, kept = 1, 0, 0
    held += (1 + spec.blocks) * (features + 5 * signs)
    kept += (1 + spec.blocks) * (features + 2 * signs)
    for step in spec.up_steps:
        if spec.arch == "bbcu-l":  # the rows of a pixel together, before the pixels are shuffled and after
            held += step * level * features * level
            level *= step
            held += (2 * level + 1) * features * level
            kept += (level + 1) * features * level
            continue
        level *= step
        held += (step + 2) * features * level
        kept += 2 * features * level
    if spec.task == "sr":  # the convolution behind them
        held += (level + 2 if spec.arch == "bbcu-l" else 3) * features * level
        kept += 2 * features * level
    held += (27 * spec.channels + 12) * _FLOAT * level + 9 * _FLOAT  # nine taps of three rows; rows of the image
    return bands * held + (bands - 1) * kept
