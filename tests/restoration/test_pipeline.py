"""Image in, restored image out: exact tiles, and nothing of the picture lost on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from stand_in import Doubling, stub

from bbcu_cli.errors import EngineError, OutOfMemoryError, UsageError
from bbcu_cli.image import Image, ImageInfo, Metadata, decode
from bbcu_cli.image.jpeg_steps import steps_of
from bbcu_cli.restoration.memory import Work, footprint
from bbcu_cli.restoration.model import Model, Options, load_model, open_model
from bbcu_cli.restoration.pipeline import chained_bands, restore, restore_image, restored_bands, run_tiled
from bbcu_cli.restoration.planes import blended
from bbcu_cli.restoration.quantisation import Quantisation
from bbcu_cli.restoration.tiling import TileSize

Floats = NDArray[np.float32]


def small(name: str, engine: str = "reference") -> Model:
    """A small network on the engine."""
    return open_model(small_model(SMALL_SPECS[name]), name, engine=engine)  # type: ignore[arg-type]


# One-pixel tiles only where that makes few of them.
CUTS = [((1, 1), 1), ((1, 9), 1), ((13, 2), 1), ((7, 7), 5), ((19, 31), 5), ((19, 31), 16)]


@pytest.mark.parametrize("name", SMALL_SPECS)
@pytest.mark.parametrize(("size", "tile"), CUTS)
def test_tiled_restore_equals_whole_image(
    name: str, size: tuple[int, int], tile: int, rng: np.random.Generator
) -> None:
    """Any tile gives the pixels of the whole image, also below the halo. 1e-5: torch groups its sums by shape."""
    with small(name) as model:
        x = rng.random((*size, model.spec.channels), dtype=np.float32)
        whole = run_tiled(model, x, Options(tile=1000))
        tiled = run_tiled(model, x, Options(tile=tile))
    assert whole.shape == (size[0] * model.spec.scale, size[1] * model.spec.scale, model.spec.channels)
    assert np.abs(tiled - whole).max() < 1e-5


@pytest.mark.parametrize(("ensemble", "told"), [(False, [0.25, 0.75]), (True, [i / 16 + 1 / 32 for i in range(16)])])
def test_progress_is_that_of_the_whole_image(*, ensemble: bool, told: list[float], rng: np.random.Generator) -> None:
    """Two tiles, each half done when its engine says so; with the self-ensemble each is run eight times."""
    seen: list[float] = []
    image = Image(rng.integers(0, 256, (64, 128, 3), dtype=np.uint8))
    restored_bands(image, stub(), Options(self_ensemble=ensemble), TileSize(64, 64), seen.append).whole()
    assert seen == pytest.approx(told)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_depth_gray_and_alpha_stay_what_they_were(
    dtype: type, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Through a network that changes nothing, every sample comes back exactly, in its own type and shape."""
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    if shape[-1] == 4:
        pixels[..., 3] = np.iinfo(dtype).max
    out = restore(pixels, stub())
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    assert out.dtype == dtype
    assert out.shape == expected.shape
    assert np.abs(out.astype(int) - expected).max() <= (1 if len(shape) == 2 or shape[-1] == 1 else 0)


def test_transparent_pixels_do_not_bleed_into_visible_ones() -> None:
    """Colour is premultiplied for the network: what lies hidden under alpha 0 cannot darken an edge."""
    pixels = np.full((40, 40, 4), 200, np.uint8)
    pixels[:, :20] = (0, 0, 0, 0)
    pixels[:, 20:, 3] = 255
    bright = pixels.copy()
    bright[:, :20, :3] = 255
    with small("m-x2") as model:
        dark_out, bright_out = restore(pixels, model), restore(bright, model)
    assert np.array_equal(dark_out[:, 40:], bright_out[:, 40:])


def test_deblocking_moves_colour_along_with_luma(rng: np.random.Generator) -> None:
    """With chroma kept, the three channels change by the same amount, that of the luma."""
    pixels = rng.integers(60, 190, (24, 24, 3), dtype=np.uint8)
    with small("deblock") as model:
        change = restore(pixels, model, Options(chroma="keep")).astype(int) - pixels
        clipped = (np.abs(change).max(axis=2) == 0) | ((change + pixels) % 255 == 0).any(axis=2)
        assert (np.ptp(change, axis=2)[~clipped] <= 1).all()
        assert (change != 0).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(19, 23), (19, 23, 3), (19, 23, 4)])
@pytest.mark.parametrize("name", ["denoise", "deblock"])
def test_strength_goes_from_the_input_to_the_result(
    name: str, shape: tuple[int, ...], dtype: type, rng: np.random.Generator
) -> None:
    """0 is the input and 1 the result, to the bit, also under alpha; between, every sample is rounded once."""
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    with small(name) as model:
        result = restore(pixels, model)
        assert (result != pixels).any()
        np.testing.assert_array_equal(restore(pixels, model, Options(strength=0)), pixels)
        np.testing.assert_array_equal(restore(pixels, model, Options(strength=1)), result)
        mixed = restore(pixels, model, Options(strength=0.3, tile=7))
    expected = pixels + 0.3 * (result.astype(float) - pixels)
    assert mixed.dtype == dtype
    # Half a step of rounding, and one more for the tiles of an engine that is not exact.
    assert np.abs(mixed - expected).max() <= 1
    if shape[-1] == 4:
        np.testing.assert_array_equal(mixed[..., 3], pixels[..., 3])


def test_blending_is_exact_at_both_ends_for_all_samples() -> None:
    """Every pair of extremes and neighbours of 16 bits."""
    values = np.array([0, 1, 2, 255, 256, 32767, 32768, 65534, 65535], np.uint16)
    before, after = (Image(grid[..., None]) for grid in np.meshgrid(values, values))
    np.testing.assert_array_equal(blended(before, after, 0).pixels, before.pixels)
    np.testing.assert_array_equal(blended(before, after, 1).pixels, after.pixels)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_rejected(strength: float) -> None:
    """Before any work."""
    with pytest.raises(UsageError, match="from 0 to 1"):
        Options(strength=strength)


def test_a_strength_needs_a_result_of_the_size_of_the_input() -> None:
    """An enlarged picture has no input to blend with."""
    with pytest.raises(UsageError, match="do not enlarge"):
        restore(np.zeros((4, 4, 3), np.uint8), stub(), Options(strength=0.5))


def test_kept_chroma_of_a_network_for_colour(rng: np.random.Generator) -> None:
    """The three channels change by the same amount, that of the luma of the whole result; also held, and by tiles."""
    pixels = rng.integers(110, 140, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=80)
    image, steps = decode(file.getvalue(), max_pixels=9999), steps_of(file.getvalue())
    assert steps is not None
    keep, both = Options(chroma="keep"), Options()
    with load_model("deblock-mid", threads=1) as model:
        for quantisation in (None, Quantisation(steps, 20)):
            kept, whole = (
                chained_bands(image, [model], image.size, options, [tile], quantisation=quantisation).whole().pixels
                for options, tile in ((keep, TileSize(16, 24)), (both, TileSize(99, 99)))
            )
            change = kept.astype(int) - image.pixels
            apart = np.ptp(change, axis=2)
            assert apart.max() <= 1  # where a half is rounded up in one channel and down in another
            assert np.count_nonzero(apart) <= apart.size // 200
            assert change.any()
            luma = (whole.astype(float) - image.pixels) @ (0.299, 0.587, 0.114)
            assert np.abs(luma - change[..., 0]).max() <= 1.5
            assert (whole != kept).any()


def test_deblocking_chroma_through_a_network_that_changes_nothing_is_exact(rng: np.random.Generator) -> None:
    """RGB -> JFIF YCbCr -> RGB in float32 does not lose a step of 8 or 16 bit."""
    for dtype in (np.uint8, np.uint16):
        pixels = rng.integers(0, np.iinfo(dtype).max, (9, 9, 3), dtype=dtype)
        out = restore(pixels, stub("deblock"), Options(chroma="restore"))
        assert np.abs(out.astype(int) - pixels).max() <= (0 if dtype is np.uint8 else 1)


def test_self_ensemble_is_the_mean_of_the_eight_turned_results(rng: np.random.Generator) -> None:
    """Each flip and rotation once, on an image that is not square."""
    with small("m-x2") as model:
        x = rng.random((9, 14, 3), dtype=np.float32)
        outputs = []
        for quarter in range(4):
            for flip in (False, True):
                turned = np.rot90(x, quarter)
                y = run_tiled(model, np.ascontiguousarray(turned[:, ::-1] if flip else turned))
                outputs.append(np.rot90(y[:, ::-1] if flip else y, -quarter))
        assert np.abs(run_tiled(model, x, Options(self_ensemble=True)) - np.mean(outputs, axis=0)).max() < 1e-5
        assert np.abs(run_tiled(model, x, Options(self_ensemble=True, tile=6)) - np.mean(outputs, axis=0)).max() < 1e-5


def test_out_of_memory_halves_the_tile_and_goes_on(rng: np.random.Generator) -> None:
    """The result is complete and right, and no later tile is tried at a size that is known not to fit."""
    model = stub("m-x2", limit=40 * 40)
    pixels = rng.integers(0, 255, (100, 90, 3), dtype=np.uint8)
    assert np.array_equal(restore(pixels, model), pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert isinstance(model.session, Doubling)
    assert max(model.session.areas) <= 1600


def test_out_of_memory_at_the_smallest_tile_is_an_error() -> None:
    """It does not halve for ever."""
    with pytest.raises(OutOfMemoryError):
        restore(np.zeros((50, 50, 3), np.uint8), stub("m-x2", limit=3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_is_never_written(value: float) -> None:
    """Black or coloured garbage is an error that names the engine."""
    with pytest.raises(EngineError, match="not finite"):
        restore(np.zeros((5, 5, 3), np.uint8), stub("m-x2", value=value))


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), ValueError("odd"), OSError(5, "lost")])
def test_whatever_an_engine_raises_is_an_engine_error(error: Exception) -> None:
    """The library's caller has one kind of error to expect, and it names the engine."""

    class Failing(Doubling):
        def run(self, *_: object) -> Floats:
            raise error

    model = Model("m-x2", SMALL_SPECS["m-x2"], {}, Failing(2))
    with pytest.raises(EngineError, match="Engine stub on cpu failed"):
        restore(np.zeros((5, 5, 3), np.uint8), model)
    with pytest.raises(EngineError, match="Engine stub on cpu failed"):
        run_tiled(model, np.zeros((5, 5, 3), np.float32))


@pytest.mark.parametrize("value", [-3.0, 7.0])
def test_results_out_of_range_are_clipped(value: float) -> None:
    """No wrap-around."""
    out = restore(np.zeros((5, 5, 3), np.uint8), stub("m-x2", value=value))
    assert (out == (0 if value < 0 else 255)).all()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_that_are_no_images_are_refused(pixels: NDArray[np.uint8]) -> None:
    """The message says what was given and what is expected."""
    with pytest.raises(UsageError, match="array"):
        restore(pixels, stub())


def test_everything_beside_the_pixels_is_carried_over() -> None:
    """Metadata, format and notes of the input stand in the result."""
    known = Metadata(icc=b"profile", dpi=(300, 300))
    image = Image(np.zeros((4, 4, 3), np.uint8), metadata=known, notes=("a note",), format="TIFF")
    out = restore_image(image, stub())
    assert (out.metadata, out.format, out.notes) == (known, "TIFF", ("a note",))
    assert out.size == (8, 8)


def test_a_memory_budget_that_cannot_hold_the_image_is_refused() -> None:
    """The message says how much is needed."""
    with pytest.raises(UsageError, match="--memory at least"):
        restore(np.zeros((600, 600, 3), np.uint8), stub(), Options(memory=1 << 20))


@pytest.mark.parametrize(("form", "gathered"), [("PNG", False), ("JPEG", False), ("PNG", True)])
def test_a_memory_budget_is_kept_by_smaller_tiles_or_refused_with_what_would_do(form: str, *, gathered: bool) -> None:
    """24 megapixels x4: never planned beyond the budget, and the budget that the refusal names is enough."""
    info = ImageInfo("JPEG", (4000, 6000), channels=3, depth=8, alpha=False, frames=1)
    work = Work(form, compare=gathered)
    free = footprint(info, stub("m-x4"), Options(), work)
    tight = Options(memory=free.peak - 1)
    assert footprint(info, stub("m-x4"), tight, work).peak < free.peak
    with pytest.raises(UsageError, match=r"give --memory at least \d+MB") as refused:
        footprint(info, stub("m-x4"), Options(memory=100 << 20), work)
    enough = int(str(refused.value).rsplit("least ", 1)[1].removesuffix("MB.")) << 20
    assert footprint(info, stub("m-x4"), Options(memory=enough), work).peak <= enough


def test_results_written_band_by_band_are_never_whole_in_memory() -> None:
    """What 24 megapixels x4 need as PNG is below the size of the result; gathering formats need more than it."""
    info = ImageInfo("JPEG", (4000, 6000), channels=3, depth=8, alpha=False, frames=1)
    size_out = 4000 * 6000 * 16 * 3
    assert footprint(info, stub("m-x4"), Options(), Work("PNG")).peak < size_out
    assert footprint(info, stub("m-x4"), Options(), Work("JPEG")).peak > size_out


def test_bands_together_are_the_restored_image(rng: np.random.Generator) -> None:
    """In order and of full width, also when a tile is halved on the way."""
    image = Image(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8), rng.integers(0, 255, (70, 90), dtype=np.uint8))
    expected = restore_image(image, stub())
    model = stub("m-x2", limit=80 * 80)
    bands = list(restored_bands(image, model, Options(), TileSize(20, 50)).rows)
    assert [band.size for band in bands] == [(40, 180)] * 3 + [(20, 180)]
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), expected.pixels)
    alphas = [band.alpha for band in bands if band.alpha is not None]
    assert expected.alpha is not None
    assert np.array_equal(np.concatenate(alphas), expected.alpha)
