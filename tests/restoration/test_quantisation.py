"""Results held against the quantisation of their JPEG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from skimage.data import chelsea

from bbcu_cli.hub import Catalogue
from bbcu_cli.image import Bands, Image, decode
from bbcu_cli.image.jpeg_steps import Steps, steps_of
from bbcu_cli.image.orientation import upright
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Options, Shelf, load_model
from bbcu_cli.restoration.quantisation import PART, Quantisation
from bbcu_cli.restoration.serving import Restorer, serve, server

WAVE = np.array(
    [[np.sqrt((2 if k else 1) / 8) * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(8)] for k in range(8)]
)
SIZE = 75, 117


def saved(pixels: NDArray[np.uint8], orientation: int = 1, **options: object) -> bytes:
    """A JPEG with that EXIF orientation."""
    file, exif = io.BytesIO(), Pillow.Exif()
    exif[274] = orientation
    Pillow.fromarray(pixels).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


def photo() -> NDArray[np.uint8]:
    """A piece of a photo, not of whole blocks."""
    return chelsea()[40 : 40 + SIZE[0], 90 : 90 + SIZE[1]]


def changed(pixels: NDArray[np.uint8], most: float = 12) -> NDArray[np.uint8]:
    """Something that a network could have made of it."""
    noise = np.random.default_rng(0).normal(0, most, SIZE + pixels.shape[2:])
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def held(image: Image, result: NDArray[np.uint8], quantisation: Quantisation, band: int = 1000) -> NDArray[np.uint8]:
    """The result, that comes in bands, as it is after that."""

    def rows() -> Iterator[Image]:
        for top in range(0, len(result), band):
            yield Image(result[top : top + band])

    bands = replace(Bands.of(Image(result)), rows=rows())
    pixels: NDArray[np.uint8] = quantisation.hold(bands, image).whole().pixels
    return pixels


def coefficients(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the whole blocks of a plane, (rows, columns, 8, 8)."""
    rows, columns = (side // 8 for side in plane.shape)
    blocks = plane[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
    return WAVE @ blocks @ WAVE.T


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of JFIF."""
    return pixels.astype(np.float64) @ (0.299, 0.587, 0.114) if pixels.shape[2] == 3 else pixels[..., 0] * 1.0


@pytest.mark.parametrize("full", [1.0, 20.0])
@pytest.mark.parametrize("gray", [True, False])
def test_each_coefficient_stays_within_its_step(full: float, *, gray: bool) -> None:
    """By the formula, in double precision: in proportion where steps are fine, and within a part of the step."""
    data = saved(photo()[..., 1] if gray else photo(), quality=60, subsampling=0)
    image, steps = decode(data, max_pixels=10**6), steps_of(data)
    assert steps is not None
    result = changed(image.pixels)
    out = held(image, result, Quantisation(steps, full))
    before, after, wanted = (coefficients(luma(pixels)) for pixels in (image.pixels, out, result))
    limit = float(PART) * steps.luma
    expected = np.clip((wanted - before) * np.minimum(1, steps.luma / full), -limit, limit)
    away = np.abs(after - before - expected)
    assert np.sqrt((away**2).mean()) < 0.4  # what whole levels of three channels leave
    assert np.sqrt(((wanted - before - expected) ** 2).mean()) > 2


def test_a_change_within_coarse_steps_is_kept() -> None:
    """Nothing is taken from a result that the file does not contradict."""
    data = saved(photo(), quality=5, subsampling=0)
    image, steps = decode(data, max_pixels=10**6), steps_of(data)
    assert steps is not None
    coarse = Steps(np.full((8, 8), 400, np.float32), (np.full((8, 8), 400, np.float32),) * 2)
    result = changed(image.pixels)
    np.testing.assert_array_equal(held(image, result, Quantisation(coarse, 20.0)), result)
    assert (held(image, result, Quantisation(steps, 20.0)) != result).any()


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_results_do_not_depend_on_bands_or_on_how_a_picture_is_stored(sampling: str) -> None:
    """Mirrored pictures have the same bits, turned ones the same levels but for the order of sums."""
    data = saved(photo(), quality=70, subsampling=sampling)
    image, steps = decode(data, max_pixels=10**6), steps_of(data)
    assert steps is not None
    result = changed(image.pixels)
    expected = held(image, result, Quantisation(steps, 20.0))
    for orientation in range(1, 9):
        turned = saved(photo(), orientation, quality=70, subsampling=sampling)
        shown, its_steps = decode(turned, max_pixels=10**6), steps_of(turned)
        assert its_steps is not None
        for band in (1, 13, 32, 1000):
            out = held(shown, upright(result, orientation), Quantisation(its_steps, 20.0), band)
            away = np.abs(out.astype(int) - upright(expected, orientation))
            assert away.max() <= (1 if orientation >= 5 else 0)
            assert np.count_nonzero(away) <= 3


def test_chroma_is_held_at_its_own_size() -> None:
    """Reduced again as the encoder does, a result has the chroma of the file within the steps."""
    data = saved(photo(), quality=50)
    image, steps = decode(data, max_pixels=10**6), steps_of(data)
    assert steps is not None
    assert steps.planes is not None
    result = changed(image.pixels, 25)
    outs = (held(image, result, Quantisation(steps, 1.0)), held(image, result, Quantisation(steps.of_luma(), 1.0)))
    away = []
    for pixels in outs:
        blue = (pixels[..., 2] - luma(pixels)) / 1.772
        reduced = blue[:74, :116].reshape(37, 2, 58, 2).mean(axis=(1, 3))
        away.append(np.abs(coefficients(reduced - steps.planes[:37, :58, 0] + 128.0)) / steps.chroma[0])
    within, without = away
    assert np.quantile(within, 0.99) < 0.4
    assert np.quantile(without, 0.99) > 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 16), (17, 33)])
def test_pictures_of_every_size(size: tuple[int, int]) -> None:
    """Also those smaller than a block; a result that changes nothing changes next to nothing."""
    data = saved(photo()[: size[0], : size[1]], 3, quality=80)
    image, steps = decode(data, max_pixels=10**6), steps_of(data)
    assert steps is not None
    luma_only = Quantisation(steps.of_luma(), 20.0)
    np.testing.assert_array_equal(held(image, image.pixels, luma_only), image.pixels)
    out = held(image, image.pixels, Quantisation(steps, 20.0))
    assert out.shape == image.pixels.shape


def test_the_networks_that_ship_gain_by_it() -> None:
    """On a photo of theirs, most where steps are fine for the network; the command line does it by itself."""
    truth, catalogue = chelsea(), Catalogue.load()

    def psnr(pixels: NDArray[np.uint8]) -> float:
        return float(10 * np.log10(255**2 / ((pixels.astype(float) - truth) ** 2).mean()))

    with Shelf(partial(load_model, threads=1)) as shelf:
        for quality, least in ((30, 0.1), (60, 0.05), (80, 0.3), (95, 0.05)):
            data = saved(truth, quality=quality)
            served = serve(Wish("deblock"), catalogue, shelf, data)
            assert served.model is not None
            assert served.full_step
            given = decode(data, max_pixels=10**6).pixels
            own = Restorer(lambda _, served=served: replace(served, full_step=None))(data).pixels
            best = Restorer(partial(serve, Wish("deblock"), catalogue, shelf))(data).pixels
            assert psnr(best) > max(psnr(own) + least, psnr(given) + 0.3)
            named = server(Wish("deblock"), catalogue, shelf, weights=served.model)
            np.testing.assert_array_equal(Restorer(named)(data).pixels, best)
            blended = Restorer(named, Options(strength=0.5))(data).pixels
            middle = (given.astype(float) + best) / 2
            assert np.abs(blended - middle).max() <= 0.5
            np.testing.assert_array_equal(Restorer(named, Options(strength=0))(data).pixels, given)


def test_other_steps_are_another_record() -> None:
    """What `--skip-existing` compares changes with the figure of the catalogue."""
    catalogue = Catalogue.load()
    entry = catalogue["deblock-mid"]
    assert entry.serves is not None
    other = Catalogue(dict(catalogue.entries) | {entry.name: replace(entry, serves=replace(entry.serves, full_step=9))})
    data = saved(photo(), quality=60)
    with Shelf(partial(load_model, threads=1)) as shelf:
        digests = {serve(Wish("deblock"), one, shelf, data).digest for one in (catalogue, other)}
    assert len(digests) == 2
