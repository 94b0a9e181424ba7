"""A spec is a network or is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bbcu_cli.errors import CheckpointError
from bbcu_cli.spec import DEBLOCK_SPEC, DENOISE_SPEC, ModelSpec, sr_spec


@pytest.mark.parametrize(
    ("spec", "halo"),
    [
        (sr_spec("l", 4), 37),
        (sr_spec("l", 2), 36),
        (sr_spec("m", 4), 35),
        (sr_spec("m", 3), 35),
        (sr_spec("m", 2), 35),
        (DENOISE_SPEC, 20),
        (DEBLOCK_SPEC, 20),
    ],
)
def test_halo_is_the_radius_of_the_receptive_field(spec: ModelSpec, halo: int) -> None:
    """One pixel per 3x3 layer at input resolution, fractions of one after up-sampling, rounded up at the end.

    Of bbcu-l, whose float layers take the rows of a pixel together, one per layer everywhere.
    """
    assert spec.halo == halo


def test_spec_survives_json_values() -> None:
    """What is written into a file's header comes back as the same value."""
    assert ModelSpec.from_dict(DEBLOCK_SPEC.to_dict()) == DEBLOCK_SPEC


@pytest.mark.parametrize(
    "change",
    [{"scale": 5}, {"scale": 1}, {"task": "denoise"}, {"channels": 4}, {"features": 0}, {"blocks": 0},
     {"k": float("nan")}, {"k": -1.0}, {"arch": "unet"}, {"bias": True}],
)  # fmt: skip
def test_impossible_specs_are_refused(change: dict[str, object]) -> None:
    """No engine ever sees a spec that is no network."""
    with pytest.raises(CheckpointError, match="Impossible model spec"):
        replace(sr_spec("m", 4), **change)


@pytest.mark.parametrize(
    "fields",
    [
        {"arch": "bbcu-m"},
        {**DENOISE_SPEC.to_dict(), "extra": 1},
        {**DENOISE_SPEC.to_dict(), "scale": "1"},
        {**DENOISE_SPEC.to_dict(), "blocks": True},
    ],
)
def test_headers_with_holes_or_wrong_types_are_refused(fields: dict[str, object]) -> None:
    """A missing, surplus or mistyped field is named."""
    with pytest.raises(CheckpointError, match="field"):
        ModelSpec.from_dict(fields)
