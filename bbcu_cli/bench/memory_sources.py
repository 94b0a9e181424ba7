"""Pictures for `bbcu_cli.bench.memory` in kinds of files that bbcu reads and does not write."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from bbcu_cli.image import EncodeOptions, Image, encode


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of file.

    Attributes:
        suffix: of its name.
        write: writes a picture.
        package: that is needed.
    """

    suffix: str
    write: Callable[[Image, BinaryIO], None]
    package: str = "PIL"

    @property
    def available(self) -> bool:
        """The package is installed."""
        return find_spec(self.package) is not None


def _by_pillow(image: Image, file: BinaryIO, *, form: str, package: str = "PIL", **options: Any) -> None:
    import_module(package)
    samples = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    Pillow.fromarray(samples).save(file, form, **options)


def _icon(image: Image, file: BinaryIO) -> None:
    """One picture, as PNG."""
    data = encode(image, "PNG", EncodeOptions())
    file.write(struct.pack("<3H4B2H2L", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(data), 22) + data)


def _lab(image: Image, file: BinaryIO) -> None:
    """Dark greens, half of which sRGB lacks."""
    most = np.iinfo(image.pixels.dtype).max
    samples = image.pixels // 4
    samples[..., 1] = most - samples[..., 1]
    _write_tiff(file, samples, photometric=8)


def _floats(image: Image, file: BinaryIO) -> None:
    _write_tiff(file, image.pixels.astype("<f4"), photometric=2)


def _write_tiff(file: BinaryIO, samples: NDArray[Any], *, photometric: int) -> None:
    """Three samples a pixel, in one strip, uncompressed."""
    height, width, _ = samples.shape
    bits, kind = samples.dtype.itemsize * 8, 3 if samples.dtype.kind == "f" else 1
    entries = [
        (256, width),
        (257, height),
        (259, 1),
        (262, photometric),
        (277, 3),
        (278, height),
        (279, samples.nbytes),
    ]
    behind = 10 + 12 * (len(entries) + 3) + 4
    threes = [(258, behind, bits), (339, behind + 6, kind)]
    table = [(tag, 4, 1, value) for tag, value in [*entries, (273, behind + 12)]]
    table += [(tag, 3, 3, at) for tag, at, _ in threes]
    file.write(b"II*\0" + struct.pack("<LH", 8, len(table)))
    file.write(b"".join(struct.pack("<HHLL", *entry) for entry in sorted(table)) + bytes(4))
    file.write(b"".join(struct.pack("<3H", *[value] * 3) for _, _, value in threes))
    file.write(np.ascontiguousarray(samples).data)


SOURCES: Final[Mapping[str, Source]] = {
    "JPEG 2000": Source(".jp2", partial(_by_pillow, form="JPEG2000")),
    "JPEG XL": Source(".jxl", partial(_by_pillow, form="JXL", package="pillow_jxl", effort=3), "pillow_jxl"),
    "lossless JPEG XL": Source(
        ".jxl", partial(_by_pillow, form="JXL", package="pillow_jxl", effort=3, lossless=True), "pillow_jxl"
    ),
    "TGA": Source(".tga", partial(_by_pillow, form="TGA")),
    "ICO": Source(".ico", _icon),
    "DDS": Source(".dds", partial(_by_pillow, form="DDS")),
    "Lab TIFF": Source(".tif", _lab),
    "float TIFF": Source(".tif", _floats),
}
"""Name of a kind -> how its files are made."""
