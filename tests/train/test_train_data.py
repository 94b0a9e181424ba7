"""Batches: crops of pictures, and degradations equal to those of the tables."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import DENOISE, RECIPE

from bbcu_cli.image.color import rgb_to_y
from bbcu_cli.score import degrade
from bbcu_cli.train import data

CPU = torch.device("cpu")


def test_crops_are_squares_of_the_pictures_turned_and_mirrored() -> None:
    """Every crop is found in its picture, and all eight orientations occur."""
    image = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    pictures = data.Pictures([np.zeros((3, 30, 3), np.uint8), image], CPU)
    crops = (
        data.crops_of(pictures.pixels, pictures.places(2_000, 5, torch.Generator().manual_seed(0)))
        .numpy()
        .transpose(0, 2, 3, 1)
    )
    seen = set()
    for crop in crops:
        found = [
            (way, top, left)
            for way in range(8)
            for top in range(5)
            for left in range(3)
            if np.array_equal(_oriented(image[top : top + 5, left : left + 5], way), crop)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 8 * 5 * 3


def test_batches_are_drawn_a_step_ahead() -> None:
    """In order, while the one before is used, on a thread that ends with the batches; an error comes in its turn."""
    drawn, threads = [threading.Event() for _ in range(4)], set()

    def draw(step: int) -> int:
        threads.add(threading.current_thread())
        drawn[step].set()
        if step == 3:
            raise ValueError("no picture")
        return step

    with closing(data.ahead(draw, range(4))) as batches:
        assert next(batches) == 0
        assert drawn[1].wait(10)
        assert not drawn[2].is_set()
        assert [next(batches), next(batches)] == [1, 2]
        with pytest.raises(ValueError, match="no picture"):
            next(batches)
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    assert list(data.ahead(draw, range(0))) == []


def test_of_several_candidates_detail_is_kept() -> None:
    """A square is kept in proportion to its detail: of two kinds, one of twice the detail, two thirds are that kind."""
    rows = np.arange(60)[:, None, None] % 2
    weak, strong = (np.broadcast_to(100 + rows * step, (60, 60, 3)).astype(np.uint8) for step in (20, 40))
    pictures = data.Pictures([weak, strong], CPU)
    places = pictures.places(4_000, 8, torch.Generator().manual_seed(0), candidates=2)
    share = (data.crops_of(pictures.pixels, places).amax((1, 2, 3)) == 140).float().mean().item()
    assert share == pytest.approx(0.25 + 0.5 * 2 / 3, abs=0.02)
    alone = pictures.places(4_000, 8, torch.Generator().manual_seed(0))
    assert (data.crops_of(pictures.pixels, alone).amax((1, 2, 3)) == 140).float().mean().item() == pytest.approx(
        0.5, abs=0.02
    )
    flat = data.Pictures([np.zeros((20, 20, 3), np.uint8)], CPU)
    assert flat.places(3, 8, torch.Generator().manual_seed(0), candidates=4).shape == (3, 8, 8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduced_batches_are_the_published_reduction(scale: int) -> None:
    """The input of super-resolution is that of `degrade.resize_bicubic`, in its inner part."""
    image = np.random.default_rng(0).integers(0, 256, (11 * scale, 9 * scale, 3), np.uint8)
    batch = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float()
    expected = degrade.resize_bicubic(image, (11, 9))[2:-2, 2:-2]
    found = data.reduce_bicubic(batch, scale)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(found, data.reduce_whole(image, scale)[2:-2, 2:-2])
    assert np.abs(found - expected).max() <= 1  # a half may be rounded down there, by the last bit of a sum
    assert (found == expected).mean() > 0.995


@pytest.mark.parametrize("quality", [5, 10, 30, 49, 50, 75, 95])
def test_jpeg_batches_are_libjpegs(quality: int) -> None:
    """Pixels of a photograph agree with libjpeg's but for its fixed-point rounding."""
    from skimage.data import chelsea

    y = np.round(rgb_to_y(chelsea()[:240, :320] / 255)).astype(np.uint8)
    expected = degrade.jpeg_luma(y, quality).astype(np.float32)
    batch = torch.from_numpy(np.stack([y, y])[:, None]).float()
    found = data.jpeg_luma(batch, torch.tensor([20, quality]))[1, 0].numpy()
    assert (found == expected).mean() > 0.9
    assert np.abs(found - expected).mean() < 0.1
    assert not np.array_equal(found, y)


def test_luma_batches_are_the_rounded_studio_luma() -> None:
    """The deblocking network's Y is that of the tables."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = data.studio_luma(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float())[0, 0].numpy()
    np.testing.assert_array_equal(found, np.round(rgb_to_y(image / 255)))


def test_noise_has_its_level_patch_by_patch(pictures: Path) -> None:
    """A fixed sigma is met; a range is spread over."""
    store = data.Pictures(data.read_images(pictures, 32), CPU)
    for low, high in ((25.0, 25.0), (0.0, 75.0)):
        recipe = replace(RECIPE, batch=64, patch=32, sigma=(low, high))
        x, y = data.draw_batch(store, DENOISE, recipe, data.generator_for(0, 0, 0, CPU))
        levels = 255 * (x - y).flatten(1).std(1)
        assert levels.min() >= 0.9 * low
        assert levels.max() <= 1.1 * high
        assert (levels.std() > 10) == (low < high)


def test_streams_depend_on_seed_step_and_process() -> None:
    """The same triple gives the same numbers, any other triple others."""
    draws = [torch.rand(4, generator=data.generator_for(*triple, CPU)) for triple in ((0, 1, 2), (0, 2, 1), (1, 0, 2))]
    assert torch.equal(draws[0], torch.rand(4, generator=data.generator_for(0, 1, 2, CPU)))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def _oriented(image: np.ndarray, way: int) -> np.ndarray:
    turned = image.transpose(1, 0, 2) if way & 1 else image
    return turned[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]
