"""Tiles cover an image exactly once, carry the halo they need, and fit their budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbcu_cli.errors import UsageError
from bbcu_cli.restoration.memory import bytes_per_pixel
from bbcu_cli.restoration.tiling import Region, TileSize, fit, plan
from bbcu_cli.spec import DENOISE_SPEC, sr_spec

sides = st.integers(1, 90)


@given(sides, sides, sides, sides)
def test_cores_cover_every_pixel_exactly_once(height: int, width: int, tile_height: int, tile_width: int) -> None:
    """No pixel is left out and none is written twice."""
    count = np.zeros((height, width), int)
    for core in plan(height, width, TileSize(tile_height, tile_width)):
        count[core.slices] += 1
    assert (count == 1).all()


@given(sides, sides, st.integers(1, 60), st.integers(0, 40))
def test_padded_has_the_halo_or_ends_at_the_image_edge(height: int, width: int, side: int, halo: int) -> None:
    """A missing halo is only ever the true edge of the image."""
    for core in plan(height, width, TileSize(side, side)):
        padded = core.grown(halo, height, width)
        assert padded.top == max(0, core.top - halo)
        assert padded.bottom == min(height, core.bottom + halo)
        assert padded.left == max(0, core.left - halo)
        assert padded.right == min(width, core.right + halo)


def test_relative_and_scaled_regions_address_the_core_inside_the_result() -> None:
    """Cutting the scaled relative region out of a padded result gives the core's result."""
    image = np.arange(30 * 40).reshape(30, 40)
    core = Region(8, 10, 20, 25)
    padded = core.grown(3, 30, 40)
    tile = np.kron(image[padded.slices], np.ones((2, 2), int))
    whole = np.kron(image, np.ones((2, 2), int))
    assert (tile[core.relative_to(padded).scaled(2).slices] == whole[core.scaled(2).slices]).all()


@given(st.integers(2, 300), st.integers(2, 300))
def test_halves_are_the_whole_without_overlap(height: int, width: int) -> None:
    """Splitting after running out of memory loses and repeats nothing."""
    first, second = Region(5, 7, 5 + height, 7 + width).halves()
    assert first.area + second.area == height * width
    assert (first.bottom, first.right) == (second.top, second.right) or (first.right, first.bottom) == (
        second.left,
        second.bottom,
    )


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(26, 32),
    st.sampled_from([0, 6]),
    st.sampled_from([400, 1 << 30]),
)
def test_a_fitted_tile_stays_in_the_budget_or_is_no_wider_than_the_halo(
    height: int, width: int, log_budget: int, feature_maps: int, max_width: int
) -> None:
    """The padded tile never costs more than the budget and is never wider than the engine likes."""
    spec = sr_spec("m", 4)
    budget = 1 << log_budget
    cost = bytes_per_pixel(spec, feature_maps)
    tile = fit(height, width, spec, cost, budget, max_width)
    worst = max(
        (core.grown(spec.halo, height, width) for core in plan(height, width, tile)[:5]), key=lambda region: region.area
    )
    assert worst.area * cost <= budget or min(tile.height, tile.width) <= spec.halo
    assert worst.right - worst.left <= max_width


def test_an_image_that_fits_is_one_tile() -> None:
    """Small images are not cut."""
    assert fit(180, 320, DENOISE_SPEC, bytes_per_pixel(DENOISE_SPEC, 0), 1 << 30, 4096) == TileSize(180, 320)


def test_a_tile_of_nothing_is_refused() -> None:
    """--tile 0 cannot work and says so."""
    with pytest.raises(UsageError, match="at least 1"):
        TileSize(0, 5)
