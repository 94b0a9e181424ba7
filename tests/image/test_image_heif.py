"""AVIF and HEIC as viewers show them: cropped, turned and mirrored."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from heif_files import Property, clap, imir, irot, with_properties
from pictures import photo, saved
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import decode, probe

ROWS, COLUMNS = slice(7, 27), slice(5, 35)
CROP = clap(ROWS, COLUMNS, (48, 64))


def avif() -> bytes:
    """A good AVIF of the photo."""
    return saved(Pillow.fromarray(photo()), "AVIF", quality=100, subsampling="4:4:4")


def heic() -> bytes:
    """A HEIC of the photo without loss."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_bytes("RGB", (64, 48), photo().tobytes()).save(file, quality=-1, chroma=444, matrix_coefficients=0)
    return file.getvalue()


def shown(properties: list[Property]) -> np.ndarray:
    """What ISO/IEC 23008-12 says is to be shown."""
    picture = photo()
    for name, content in properties:
        if name == b"clap":
            picture = picture[ROWS, COLUMNS]
        elif name == b"irot":
            picture = np.rot90(picture, content[0])
        else:
            picture = picture[:, ::-1] if content[0] else picture[::-1]
    return picture


@pytest.mark.parametrize("make", [avif, heic])
@pytest.mark.parametrize(
    "properties",
    [
        *([irot(quarters)] for quarters in (1, 2, 3)),
        *([imir(axis)] for axis in (0, 1)),
        *([irot(quarters), imir(axis)] for quarters in (1, 3) for axis in (0, 1)),
        *([CROP, *turn] for turn in ([], [irot(1)], [irot(2)], [imir(1)], [irot(3), imir(0)])),
    ],
)
def test_what_a_viewer_shows_is_what_is_restored(make: Any, properties: list[Property]) -> None:
    """Clean aperture, rotation and mirror, in every order that the standard allows."""
    data = with_properties(make(), properties)
    image, expected = decode(data, max_pixels=10**6), shown(properties)
    assert probe(data).size == image.size == expected.shape[:2]
    assert np.abs(image.pixels.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("rows", [slice(0, 49), slice(-1, 20), slice(20, 20)])
def test_a_crop_that_cannot_be_is_not_made(rows: slice) -> None:
    """Outside of the picture or of nothing: the whole picture, and a note."""
    image = decode(with_properties(avif(), [clap(rows, COLUMNS, (48, 64))]), max_pixels=10**6)
    assert image.size == (48, 64)
    assert any("clap" in note for note in image.notes)


@pytest.mark.parametrize(("coding", "word"), [(b"avc1", "H.264"), (b"j2k1", "JPEG 2000"), (b"unci", "uncompressed")])
def test_heif_of_another_coding_is_called_by_its_name(coding: bytes, word: str) -> None:
    """It is whole; libheif does not decode it here."""
    with pytest.raises(ImageError, match=word) as caught:
        decode(heic().replace(b"hvc1", coding), max_pixels=10**6)
    assert "damaged" not in str(caught.value)
