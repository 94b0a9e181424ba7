"""Metadata that count pixels, of a result of any size."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from test_image_true_metadata import (
    EXIF,
    KEYS_AREA,
    KEYS_POINT,
    MATRIX,
    TIEPOINTS,
    doubles,
    fields_of,
    on_the_map,
    packet,
    photo,
    properties,
    rationals,
    shorts,
    tiff_file,
    tree,
)  # fmt: skip

from bbcu_cli.image import Image, Metadata, decode, encode
from bbcu_cli.image.metadata import resized as resized_metadata


@pytest.mark.parametrize("by", ["scale", "matrix"])
@pytest.mark.parametrize("keys", [KEYS_AREA, KEYS_POINT])
def test_places_in_the_metadata_move_with_the_pixels(by: str, keys: tuple[int, ...]) -> None:
    """Georeference by the factor of each axis, for areas and points; EXIF and XMP by that of the longer side."""
    given: dict[int, Any] = {34735: shorts(*keys)}
    if by == "scale":
        given |= {33550: doubles(0.5, 0.5, 0.0), 33922: doubles(*TIEPOINTS)}
    else:
        given |= {34264: doubles(*MATRIX)}
    about = decode(tiff_file(photo(), given, "<"), max_pixels=9999).metadata
    after = (71, 95)  # 48 x 64, at 1.48 and rounded
    moved = fields_of(
        encode(Image(np.zeros((*after, 3), np.uint8), metadata=resized_metadata(about, (48, 64), after)), "TIFF")
    )
    for row, column in ((0, 0), (48, 64), (13, 37)):
        there = on_the_map(moved, "<", (column * 95 / 64, row * 71 / 48))
        np.testing.assert_allclose(there, on_the_map(given, "<", (column, row)), rtol=0, atol=1e-6)
    details = {37396: shorts(10, 20, 6, 4), 41486: rationals(4000, 3)}
    block = b"Exif\0\0" + tree({EXIF: details})
    data = packet('xmp:Label="1"', '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="64" '
                  'stDim:h="48.50" stDim:unit="pixel"/></mwg-rs:Regions>')  # fmt: skip
    moved_about = resized_metadata(Metadata(exif=block, xmp=data), (48, 64), after)
    fields = fields_of(moved_about.exif or b"")[EXIF]
    assert fields[37396] == shorts(15, 30, 9, 6)  # 14.84, 29.69, 8.91, 5.94
    top, bottom = struct.unpack("<2L", fields[41486][1])
    assert top / bottom == pytest.approx(4000 / 3 * 95 / 64)
    found = properties(moved_about.xmp)
    assert (found["stDim:w"], found["stDim:h"]) == ("95", "71.99")
