"""What a JPEG says of its quantisation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from skimage.data import astronaut

from bbcu_cli.image.jpeg_steps import SIDE, steps_of

HEIGHT, WIDTH = 107, 133  # neither of whole blocks
WAVE = np.array(
    [[np.sqrt((2 if k else 1) / 8) * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(8)] for k in range(8)]
)


def photo() -> NDArray[np.uint8]:
    """A piece of a photo with strong colours."""
    return astronaut()[60 : 60 + HEIGHT, 150 : 150 + WIDTH]


def saved(pixels: NDArray[np.uint8], orientation: int = 1, **options: object) -> bytes:
    """A JPEG with that EXIF orientation."""
    file, exif = io.BytesIO(), Pillow.Exif()
    exif[274] = orientation
    Pillow.fromarray(pixels).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


def off_steps(plane: NDArray[np.uint8], steps: NDArray[np.float32]) -> float:
    """Root mean square of how far the coefficients of whole blocks are from multiples of their steps."""
    rows, columns = (side // SIDE for side in plane.shape)
    blocks = plane[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3) - 128.0
    coefficients = WAVE @ blocks @ WAVE.T
    away = coefficients - np.rint(coefficients / steps) * steps
    return float(np.sqrt((away**2).mean()))


@pytest.mark.parametrize(("sampling", "factor"), [("4:4:4", (1, 1)), ("4:2:2", (1, 2)), ("4:2:0", (2, 2))])
def test_chroma_is_as_the_file_holds_it(sampling: str, factor: tuple[int, int]) -> None:
    """Its coefficients are multiples of the steps, but for what rounding to whole levels leaves."""
    data = saved(photo(), quality=40, subsampling=sampling)
    steps = steps_of(data)
    assert steps is not None
    assert steps.factor == factor
    assert steps.cell == (8 * factor[0], 8 * factor[1])
    with Pillow.open(io.BytesIO(data)) as file:
        tables = [np.reshape(file.quantization[key], (8, 8)) for key in (0, 1, 1)]
        shown = np.asarray(file.convert("YCbCr"))
    np.testing.assert_array_equal([steps.luma, *steps.chroma], tables)
    if factor == (1, 1):
        assert steps.planes is None
        return
    assert steps.planes is not None
    assert steps.planes.shape == (-(-HEIGHT // factor[0]), -(-WIDTH // factor[1]), 2)
    for channel in (0, 1):
        assert off_steps(steps.planes[..., channel], steps.chroma[channel]) < 0.5
        assert off_steps(shown[:: factor[0], :: factor[1], channel + 1], steps.chroma[channel]) > 0.8


def test_luma_has_its_own_table_in_a_gray_and_in_a_progressive_file() -> None:
    """A gray one has no chroma; a progressive one tells the same as any other."""
    gray = steps_of(saved(photo()[..., 1], quality=40))
    assert gray is not None
    assert gray.chroma == ()
    plain, progressive = (steps_of(saved(photo(), quality=40, progressive=kind)) for kind in (False, True))
    assert plain is not None
    assert progressive is not None
    np.testing.assert_array_equal(gray.luma, plain.luma)
    np.testing.assert_array_equal(plain.planes, progressive.planes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_everything_is_turned_upright_with_the_picture(orientation: int) -> None:
    """Tables, planes, and where the first whole block begins."""
    plain, turned = steps_of(saved(photo())), steps_of(saved(photo(), orientation))
    assert plain is not None
    assert turned is not None
    assert plain.planes is not None
    assert turned.planes is not None
    sideways = orientation >= 5
    np.testing.assert_array_equal(turned.luma, plain.luma.T if sideways else plain.luma)
    expected = {
        1: plain.planes, 2: plain.planes[:, ::-1], 3: plain.planes[::-1, ::-1], 4: plain.planes[::-1],
        5: plain.planes.swapaxes(0, 1), 6: np.rot90(plain.planes, -1), 7: np.rot90(plain.planes, 2).swapaxes(0, 1),
        8: np.rot90(plain.planes),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(turned.planes, expected)
    rows, columns = HEIGHT % 16, WIDTH % 16
    first = {1: (0, 0), 2: (0, columns), 3: (rows, columns), 4: (rows, 0), 5: (0, 0), 6: (0, rows), 7: (columns, rows),
             8: (columns, 0)}  # fmt: skip
    assert turned.first == first[orientation]
    assert turned.of_luma().first == tuple(side % 8 for side in first[orientation])


def test_other_files_have_no_steps() -> None:
    """No JPEG, or one whose components are not luma and chroma."""
    png, cmyk, rgb = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Pillow.fromarray(photo()).save(png, "PNG")
    Pillow.fromarray(photo()).convert("CMYK").save(cmyk, "JPEG")
    Pillow.fromarray(photo()).save(rgb, "JPEG", keep_rgb=True)
    assert [steps_of(file.getvalue()) for file in (png, cmyk, rgb)] == [None] * 3


def test_chroma_that_cannot_be_decoded_is_left_alone() -> None:
    """Of a truncated file, and of a sampling that is rare."""
    data = saved(photo(), quality=90)
    cut = steps_of(data[: len(data) // 2])
    rare = steps_of(saved(photo(), quality=90).replace(b"\x01\x22\x00\x02\x11\x01", b"\x01\x12\x00\x02\x11\x01"))
    for steps in (cut, rare):
        assert steps is not None
        assert steps.planes is None
        assert steps.chroma == ()
        assert steps.factor == (1, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5)])
def test_the_smallest_pictures(size: tuple[int, int]) -> None:
    """Planes are of the right size or absent."""
    for sampling in ("4:2:0", "4:2:2"):
        steps = steps_of(saved(photo()[: size[0], : size[1]], subsampling=sampling))
        assert steps is not None
        rows, columns = steps.factor
        assert steps.planes is None or steps.planes.shape == (-(-size[0] // rows), -(-size[1] // columns), 2)
