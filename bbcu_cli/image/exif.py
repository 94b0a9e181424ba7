"""What an EXIF block says of a picture, kept true for other pixels, and nothing of how a file stored them.

What is carried is chosen by a list: tags of storage (tiles, strips, predictors, subsampling and whatever will come)
make a file that nobody opens when they stand in one that is stored otherwise.

Source: Exif 2.32 (CIPA DC-008), tables 4 to 16.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final, Literal

from PIL import ExifTags

from bbcu_cli.image import ifd
from bbcu_cli.image.ifd import Block, Directory, Field

HEADER: Final = b"Exif\0\0"

DESCRIPTION, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 270, 274, 282, 283, 296
_COLOUR_SPACE, _GAMMA = 40961, 42240
_SUBJECT_AREA, _SUBJECT_PLACE, _FOCAL_X, _FOCAL_Y = 37396, 41492, 41486, 41487
_INCH, _CENTIMETRE = 2, 3
_MOST_SAMPLING = 1 << 24

_TEXT: Final = frozenset({ifd.ASCII, ifd.UTF8, ifd.BYTE, ifd.UNDEFINED})
_WHOLE: Final = frozenset({ifd.SHORT, ifd.LONG})
_ANY_NUMBER: Final = frozenset({ifd.SHORT, ifd.LONG, ifd.RATIONAL, 11, 12})

KEPT: Final[Mapping[int, frozenset[int]]] = {
    # Name of the document, description, maker, model, software, date, artist, host computer, page name, copyright.
    **dict.fromkeys((11, 269, DESCRIPTION, 271, 272, 285, 305, 306, 315, 316, 33432), _TEXT),
    **dict.fromkeys((40091, 40092, 40093, 40094, 40095), _TEXT),  # Windows: title, comment, author, keywords, subject
    **dict.fromkeys((X_RESOLUTION, Y_RESOLUTION), _ANY_NUMBER),
    **dict.fromkeys((ORIENTATION, RESOLUTION_UNIT, 18246, 18249), _WHOLE),  # the last two: a rating
    50341: frozenset({ifd.UNDEFINED}),  # hints for printing
    # Exposure, aperture, program, ISO, dates, light, flash and focal length: TIFF/EP has them in the main directory.
    **dict.fromkeys((33434, 33437, 34850, 34855, 36867, 36868, *range(37377, 37387)), _TEXT | _ANY_NUMBER | {10}),
}
"""Tags of a main directory that describe the picture, with the types that their values may have."""

_STORED: Final[Mapping[int, frozenset[int]]] = {
    # Order and bits of JPEG's components, width, height; padding of Windows; directories that lead further.
    ifd.EXIF: frozenset({37121, 37122, 40962, 40963, 59932, 59933, ifd.EXIF, ifd.GPS, 33723, 34377, 34675}),
    ifd.GPS: frozenset(),
    ifd.INTEROPERABILITY: frozenset({4096, 4097, 4098}),  # format, width and height of a related file
}
_FIRST_OF_EXIF, _LAST_OF_GPS = 33434, 253
"""EXIF's own tags begin where TIFF's end, those of the place and of interoperability end before TIFF's begin."""


def clean(block: Block, *, orientation: int = 1, size: tuple[int, int] = (0, 0)) -> tuple[Block, tuple[str, ...]]:
    """What describes the picture, once its pixels are upright.

    Args:
        block: of a file.
        orientation: that the pixels had before they were turned upright.
        size: (height, width) of the upright picture.

    Returns:
        The block, and a note for what had to be left out.
    """
    kept: dict[int, Field | Directory] = {}
    faulty = [tag for tag in block.faults if _describes(*tag)]
    notes = []
    for tag, value in block.directory.items():
        if not isinstance(value, Field):
            if below := _clean_below(value, tag):
                kept[tag] = below
        elif tag in KEPT:
            if value.kind in KEPT[tag]:
                kept[tag] = value
            else:
                faulty.append((0, tag))
    if isinstance(description := kept.get(DESCRIPTION), Field):
        truth, note = _true_description(description.data)
        notes += [note] if note else []
        del kept[DESCRIPTION]
        if truth:
            kept[DESCRIPTION] = replace(description, data=truth)
    found = Block(block.order, kept)
    found, bad = _turned(found, orientation, size)
    if names := [_name(*tag) for tag in dict.fromkeys([*faulty, *bad])]:
        notes.append(f"EXIF tags that are damaged or of a wrong type were left out ({', '.join(names)})")
    return found, tuple(notes)


def pack(block: Block) -> bytes | None:
    """The EXIF block of these directories; None when they say nothing."""
    return HEADER + ifd.serialise(block) if block.directory else None


def unpack(exif: bytes) -> Block:
    """Inverse of `pack`; without its header as well.

    Raises:
        ValueError: it is no EXIF block.
    """
    return ifd.parse(exif.removeprefix(HEADER))


def scaled(exif: bytes, factor: Fraction | int) -> bytes | None:
    """The EXIF block of the same picture with `factor` times as many pixels a side; None when it says nothing more.

    Raises:
        ValueError: it is no EXIF block.
    """
    block, _ = clean(unpack(exif))  # no change but to a block that was made by hand
    details = dict(_below(block, ifd.EXIF))
    for tag in (_SUBJECT_AREA, _SUBJECT_PLACE):
        if isinstance(value := details.get(tag), Field):
            places = [round(round(number) * factor) for number in block.numbers(value)]
            del details[tag]
            if max(places) <= 0xFFFF:  # EXIF has no other type for them
                details[tag] = block.shorts(*places)
    for tag in (_FOCAL_X, _FOCAL_Y):
        if isinstance(value := details.get(tag), Field):
            details[tag] = block.rational(block.numbers(value)[0] * float(factor))
    return pack(_with(block, ifd.EXIF, details))


def resolution(block: Block) -> tuple[float, float] | None:
    """(horizontal, vertical) pixels per inch, as the main directory says; None when it says nothing."""
    try:
        x, y = (block.numbers(_field(block, tag))[0] for tag in (X_RESOLUTION, Y_RESOLUTION))
        unit = block.numbers(_field(block, RESOLUTION_UNIT))[0] if RESOLUTION_UNIT in block.directory else _INCH
    except ValueError:
        return None
    inches = {_INCH: 1, _CENTIMETRE: 2.54}.get(int(unit))
    return (x * inches, y * inches) if inches else None


def with_resolution(block: Block, dpi: tuple[float, float] | None) -> Block:
    """The block with pixels per inch."""
    if dpi is None:
        return block
    x, y = dpi
    said = {
        X_RESOLUTION: block.rational(x),
        Y_RESOLUTION: block.rational(y),
        RESOLUTION_UNIT: block.shorts(_INCH),
    }
    return Block(block.order, {**block.directory, **said})


def orientation_of(block: Block) -> int:
    """1 to 8; 1 when the block says nothing, or anything else."""
    value = block.directory.get(ORIENTATION)
    if not isinstance(value, Field) or value.kind not in _WHOLE:
        return 1
    found = int(block.numbers(value)[0])
    return found if 1 <= found <= 8 else 1


def colour_space(block: Block) -> Literal["sRGB", "Adobe RGB", ""]:
    """What the block says of its colours: Adobe RGB is R03 (DCF 2.0), or 2, as Windows and some cameras have it."""
    details = _below(block, ifd.EXIF)
    below = details.get(ifd.INTEROPERABILITY)
    index = None if below is None or isinstance(below, Field) else below.get(1)
    if isinstance(index, Field) and index.data.rstrip(b"\0") == b"R03":
        return "Adobe RGB"
    space = details.get(_COLOUR_SPACE)
    code = block.numbers(space)[0] if isinstance(space, Field) and space.kind == ifd.SHORT else 0
    return "Adobe RGB" if code == 2 else "sRGB" if code == 1 else ""


def without(block: Block, directory: int, *tags: int) -> Block:
    """The block without some tags of its main directory (`directory` 0), or of one below."""
    if directory == 0:
        return Block(block.order, {tag: value for tag, value in block.directory.items() if tag not in tags})
    below = {tag: value for tag, value in _below(block, directory).items() if tag not in tags}
    return _with(block, directory, below)


def without_colour_space(block: Block) -> Block:
    """The block of a picture whose colours were converted: it says nothing of the space that they were in."""
    return without(block, ifd.EXIF, _COLOUR_SPACE, _GAMMA, ifd.INTEROPERABILITY)


def _with(block: Block, tag: int, below: Directory) -> Block:
    """The block with another directory below; without one that is empty."""
    rest = {key: value for key, value in block.directory.items() if key != tag}
    return Block(block.order, {**rest, tag: below} if below else rest)


def _below(block: Block, tag: int) -> Directory:
    below = block.directory.get(tag)
    return {} if below is None or isinstance(below, Field) else below


def _field(block: Block, tag: int) -> Field:
    value = block.directory.get(tag)
    if not isinstance(value, Field):
        raise ValueError(f"there is no {_name(0, tag)}")  # noqa: TRY004 - of the file's making
    return value


def _describes(directory: int, tag: int) -> bool:
    """The tag describes the picture, not how it was stored."""
    if directory == 0:
        return tag in KEPT or tag in (ifd.EXIF, ifd.GPS)
    within = tag >= _FIRST_OF_EXIF if directory == ifd.EXIF else tag <= _LAST_OF_GPS
    return within and tag not in _STORED[directory]


def _clean_below(directory: Directory, own: int) -> Directory:
    kept: dict[int, Field | Directory] = {}
    for tag, value in directory.items():
        if not isinstance(value, Field):
            if below := _clean_below(value, tag):
                kept[tag] = below
        elif _describes(own, tag) and tag != ifd.INTEROPERABILITY and value.kind != 13:  # 13 leads to a directory
            kept[tag] = value
    return kept


def _turned(block: Block, orientation: int, size: tuple[int, int]) -> tuple[Block, list[tuple[int, int]]]:
    """Places and resolutions of the upright picture, and the tags that say them wrongly and are gone."""
    main, details = dict(block.directory), dict(_below(block, ifd.EXIF))
    bad = []
    if ORIENTATION in main:
        main[ORIENTATION] = block.shorts(1)
    for tag in (_SUBJECT_AREA, _SUBJECT_PLACE):
        if (value := details.pop(tag, None)) is None:
            continue
        if isinstance(value, Field) and value.kind in _WHOLE and 2 <= value.count <= 4:
            places = [int(number) for number in block.numbers(value)]
            details[tag] = block.shorts(*(min(place, 0xFFFF) for place in _upright(places, orientation, size)))
        else:
            bad.append((ifd.EXIF, tag))
    for tag in (_FOCAL_X, _FOCAL_Y):
        if tag in details and not _is_sampling(block, details[tag]):
            del details[tag]
            bad.append((ifd.EXIF, tag))
    if orientation >= 5:
        main = _exchanged(main, X_RESOLUTION, Y_RESOLUTION)
        details = _exchanged(details, _FOCAL_X, _FOCAL_Y)
    return _with(Block(block.order, main), ifd.EXIF, details), bad


def _is_sampling(block: Block, value: Field | Directory) -> bool:
    """A number of pixels per unit of length that can be scaled."""
    if not isinstance(value, Field) or (value.kind, value.count) != (ifd.RATIONAL, 1):
        return False
    return 0 < block.numbers(value)[0] < _MOST_SAMPLING


def _upright(places: list[int], orientation: int, size: tuple[int, int]) -> Iterable[int]:
    """x, y and perhaps a diameter, or width and height, of the stored picture -> of the upright one of that size."""
    x, y, *extent = places
    if orientation >= 5:
        x, y, extent = y, x, extent[::-1]
    height, width = size
    if orientation in (3, 4, 7, 8):
        y = max(0, height - 1 - y)
    if orientation in (2, 3, 6, 7):
        x = max(0, width - 1 - x)
    return x, y, *extent


def _exchanged(directory: dict[int, Field | Directory], one: int, other: int) -> dict[int, Field | Directory]:
    """The directory with the values of two tags exchanged."""
    names = {one: other, other: one}
    return {names.get(tag, tag): value for tag, value in directory.items()}


def _true_description(data: bytes) -> tuple[bytes, str]:
    """A description without what programs keep in it about sizes and planes; and a note when it is gone."""
    if data.startswith(b'{"shape":'):  # tifffile
        try:
            said = json.loads(data.rstrip(b"\0"))
        except (ValueError, RecursionError):
            return data, ""
        rest = {key: value for key, value in said.items() if key not in ("shape", "axes")}
        return (json.dumps(rest).encode() + b"\0" if rest else b""), ""
    for mark, program in ((b"<OME", "OME"), (b"ImageJ=", "ImageJ"), (b"SCIFIO=", "SCIFIO")):
        if mark in data[:1000] and (program == "OME" or data.startswith(mark)):
            return b"", f"the description by {program} tells the planes and sizes of the old picture and was left out"
    return data, ""


def _name(directory: int, tag: int) -> str:
    # Pillow has the name that TIFF/EP gives the area of the subject.
    names = ExifTags.GPSTAGS if directory == ifd.GPS else {**ExifTags.TAGS, _SUBJECT_AREA: "SubjectArea"}
    return str(names.get(tag, tag))
