"""Where a TIFF lies on the map, corrected for more pixels. Source: OGC GeoTIFF 1.1 (19-008r4)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from bbcu_cli.image import ifd
from bbcu_cli.image.ifd import Block, Field, Order

_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _KEYS, _DOUBLES, _TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
TAGS: Final[Mapping[int, int]] = {
    _PIXEL_SCALE: ifd.DOUBLE,
    _TIEPOINTS: ifd.DOUBLE,
    _TRANSFORMATION: ifd.DOUBLE,
    _KEYS: ifd.SHORT,
    _DOUBLES: ifd.DOUBLE,
    _TEXTS: ifd.ASCII,
}
"""Tag -> the type of its values."""

NOT_CARRIED: Final = {
    33918: "IntergraphPacketData",
    33919: "IntergraphFlagRegisters",
    33920: "IntergraphMatrix",
    42112: "GDAL_METADATA",
    42113: "GDAL_NODATA",
    50844: "RPCCoefficientTag",
}
"""Tags of maps that speak of the old pixels and are not corrected."""

_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


def read(block: Block, orientation: int) -> tuple[bytes | None, tuple[str, ...]]:
    """The georeference of a TIFF's main directory as a block of its own, and notes for what had to be left out."""
    lost = [label for tag, label in NOT_CARRIED.items() if tag in block.directory]
    notes = [f"tags that speak of the old pixels were left out ({', '.join(lost)})"] if lost else []
    found = {tag: value for tag, value in block.directory.items() if tag in TAGS and isinstance(value, Field)}
    damaged = any((0, tag) in block.faults for tag in TAGS) or not all(map(_is_sound, found.items()))
    if damaged:
        notes.append("the georeference (GeoTIFF) is damaged and was left out")
    elif found and orientation != 1:
        notes.append("the georeference (GeoTIFF) is of the picture before it was turned upright and was left out")
    elif found:
        return ifd.serialise(Block(block.order, found)), tuple(notes)
    return None, tuple(notes)


def _is_sound(entry: tuple[int, Field]) -> bool:
    tag, value = entry
    exact, multiple = {_PIXEL_SCALE: 3, _TRANSFORMATION: 16}, {_TIEPOINTS: 6, _KEYS: 4}
    return (
        value.kind == TAGS[tag]
        and value.count == exact.get(tag, value.count)
        and value.count % multiple.get(tag, 1) == 0
    )


def fields(georeference: bytes, order: Order) -> dict[int, Field]:
    """The tags in a byte order, for a file.

    Raises:
        ValueError: it is not what `read` gave.
    """
    block, target = ifd.parse(georeference), Block(order)
    found = {}
    for tag, value in block.directory.items():
        if not isinstance(value, Field):
            continue
        if value.kind == ifd.DOUBLE:
            value = target.doubles(*block.numbers(value))  # noqa: PLW2901 - the same, otherwise written
        elif value.kind == ifd.SHORT:
            value = target.shorts(*map(int, block.numbers(value)))  # noqa: PLW2901
        found[tag] = value
    return found


def scaled(georeference: bytes, factors: tuple[Fraction, Fraction]) -> bytes:
    """The georeference of the same ground with so many times as many pixels, (horizontally, vertically).

    Raises:
        ValueError: it is not what `read` gave.
    """
    block = ifd.parse(georeference)
    found = fields(georeference, block.order)
    across, down = map(float, factors)
    # Pixel i is i * factor where pixels are areas, which begin at their corner; points lie in their middle.
    points = _pixels_are_points(block, found)
    shifts = [(factor - 1) / 2 if points else 0.0 for factor in (across, down)]
    if _PIXEL_SCALE in found:
        x, y, z = block.numbers(found[_PIXEL_SCALE])
        found[_PIXEL_SCALE] = block.doubles(x / across, y / down, z)
    if _TIEPOINTS in found:
        places = list(block.numbers(found[_TIEPOINTS]))
        for axis, (factor, shift) in enumerate(zip((across, down), shifts, strict=True)):
            places[axis::6] = [place * factor + shift for place in places[axis::6]]
        found[_TIEPOINTS] = block.doubles(*places)
    if _TRANSFORMATION in found:
        matrix = list(block.numbers(found[_TRANSFORMATION]))
        for row in range(0, 12, 4):
            column, line = matrix[row] / across, matrix[row + 1] / down
            matrix[row : row + 2] = column, line
            matrix[row + 3] -= column * shifts[0] + line * shifts[1]
        found[_TRANSFORMATION] = block.doubles(*matrix)
    return ifd.serialise(Block(block.order, found))


def _pixels_are_points(block: Block, found: Mapping[int, Field]) -> bool:
    keys = block.numbers(found[_KEYS]) if _KEYS in found else ()
    return any(keys[at] == _RASTER_TYPE and keys[at + 3] == _PIXEL_IS_POINT for at in range(4, len(keys), 4))
