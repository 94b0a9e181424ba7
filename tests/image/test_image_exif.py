"""EXIF travels from every format into every format: all that describes the picture, byte for byte, and nothing else."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from directories import EXIF, GPS, INTEROPERABILITY, fields_of, longs, rationals, shorts, text, tiff_file, tree
from fuzz import mutated
from pictures import as_jpeg, photo, saved, turned_away
from PIL import Image as Pillow

from bbcu_cli.image import FORMATS, Image, decode, encode, ifd, losses

OUTPUTS = [name for name, fmt in FORMATS.items() if fmt.exif and fmt.writable]
SOURCES = [*OUTPUTS, "BigTIFF"]
ORDERS = ["<", ">"]

# Of all three: how a file stores its pixels, however it was written. None may reach another file.
STORAGE = {
    254: longs(1),
    255: shorts(1),
    256: longs(9),
    257: longs(9),
    258: shorts(12, 12, 12),
    259: shorts(5),
    262: shorts(6),
    266: shorts(2),
    273: longs(8),
    277: shorts(1),
    278: longs(4),
    279: longs(4),
    284: shorts(2),
    292: longs(0),
    301: shorts(*range(256)),
    317: shorts(3),
    320: shorts(*range(256)),
    322: longs(512),
    323: longs(512),
    324: longs(8, 16, 24, 32),
    325: longs(9, 9, 9, 9),
    330: longs(8, 9),
    338: shorts(0, 0),
    339: shorts(3, 3, 3),
    340: shorts(0),
    341: shorts(9),
    347: (7, b"\xff\xd8\xff\xd9"),
    513: longs(8),
    514: longs(9),
    529: rationals(1, 3, 1, 3, 1, 3),
    530: shorts(2, 2),
    531: shorts(1),
    532: rationals(0, 1, 255, 1, 0, 1, 255, 1, 0, 1, 255, 1),
    33421: shorts(2, 2),
    33422: (1, b"\0\1\1\2"),
    34377: (7, b"8BIM" + bytes(9)),
    50706: (1, b"\1\4\0\0"),
    50740: (1, b"Adobe\0"),
    59932: (7, bytes(2060)),
}


@pytest.fixture(params=OUTPUTS)
def form(request: pytest.FixtureRequest) -> str:
    """Each format that holds EXIF, HEIC only where pillow-heif is installed."""
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    return str(request.param)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """A function that makes a file of each kind with given fields."""
    kind = request.param
    if kind == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    return lambda fields, order="<": with_fields(kind, fields, order)


def with_fields(kind: str, fields: Mapping[int, Any], order: str = "<") -> bytes:
    """A file of a kind whose EXIF, or whose own directory, has these fields."""
    picture, block = Pillow.fromarray(photo()), b"Exif\0\0" + tree(fields, order)
    if kind in ("TIFF", "BigTIFF"):
        own = {tag: value for tag, value in fields.items() if tag not in STORAGE}
        return tiff_file(photo(), own, "<" if kind == "BigTIFF" else order, big=kind == "BigTIFF")
    if kind == "HEIC":
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(picture).save(file, quality=90, exif=block)
        return file.getvalue()
    return saved(picture, kind, exif=block)


def written_fields(data: bytes, form: str) -> dict[int, Any]:
    """The fields that other programs find in a file of ours."""
    if form == "TIFF":
        return fields_of(data)
    if form == "HEIC":
        import pillow_heif

        return fields_of(pillow_heif.open_heif(io.BytesIO(data)).info["exif"])
    return fields_of(Pillow.open(io.BytesIO(data)).info["exif"])


def carried(data: bytes, form: str) -> dict[int, Any]:
    """The fields after a file was read and written again as another."""
    image = decode(data, max_pixels=10**6)
    assert losses(image, form) == ()
    out = encode(image, form)
    back = decode(out, max_pixels=10**6)
    assert back.size == image.size
    if form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(back.pixels, image.pixels)
    return written_fields(out, form)


def test_tags_of_storage_never_travel(source: Callable[..., bytes], form: str) -> None:
    """Tiles, strips, planes, predictors, subsampling, palettes, thumbnails, raw data: of no file but its own."""
    details = {
        33434: rationals(1, 250),
        37122: rationals(4, 1),
        37121: (7, b"\1\2\3\0"),
        40962: longs(9),
        322: longs(9),
    }
    related = {1: text(b"R98"), 0x1001: longs(9), 0x1002: longs(9), 324: longs(9)}
    given = {
        **STORAGE,
        271: text(b"Maker"),
        EXIF: {**details, INTEROPERABILITY: related},
        GPS: {1: text(b"N"), 322: longs(9)},
    }
    fields = carried(source(given), form)
    own = {256, 257, 258, 259, 262, 273, 277, 278, 279, 317} if form == "TIFF" else set()
    assert set(fields) - own == {271, EXIF, GPS}
    assert set(fields[EXIF]) == {33434, INTEROPERABILITY}
    assert fields[EXIF][INTEROPERABILITY] == {1: text(b"R98")}
    assert set(fields[GPS]) == {1}


def test_a_tiled_tiff_becomes_one_of_strips() -> None:
    """Whatever way a TIFF was stored, ours opens in tifffile and Pillow, with the same pixels."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    for options in (
        {"tile": (16, 16)},
        {"rowsperstrip": 3, "compression": "zlib", "predictor": True},
        {"subfiletype": 0, "bigtiff": True, "tile": (32, 16)},
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, photo(), photometric="rgb", **options)
        out = encode(decode(file.getvalue(), max_pixels=10**6), "TIFF")
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(out)), photo())
        np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(out))), photo())
        assert set(fields_of(out)) & {254, 322, 323, 324, 325, 330, 338, 339} == set()


@pytest.mark.parametrize("order", ORDERS)
def test_everything_that_describes_the_picture_travels(source: Callable[..., bytes], form: str, order: str) -> None:
    """Maker, dates, rating, exposure, lens, place, interoperability: as they were, in either byte order."""
    order = "<" if source({}, order)[:4] == b"II+\0" else order  # a BigTIFF is made in one order here
    fraction = rationals(1, 250, order=order)
    signed = (10, struct.pack(order + "2l", -1, 3))
    given = {
        271: text(b"Maker"),
        272: text(b"Model 1"),
        305: text(b"Firmware 2"),
        306: text(b"2024:02:29 12:00:00"),
        18246: shorts(5, order=order),
        40091: (1, "Titel ü".encode("utf-16-le")),
        EXIF: {
            33434: fraction,
            34855: shorts(400, order=order),
            36864: (7, b"0232"),
            37380: signed,
            37510: (7, b"ASCII\0\0\0hello"),
            40961: shorts(1, order=order),
            42036: (129, "Öbjektiv 50 mm".encode() + b"\0"),
            0xA432: rationals(24, 1, 70, 1, 28, 10, 28, 10, order=order),
            INTEROPERABILITY: {1: text(b"R98"), 2: (7, b"0100")},
        },
        GPS: {
            0: (1, b"\2\3\0\0"),
            1: text(b"N"),
            2: rationals(52, 1, 30, 1, 0, 1, order=order),
            29: text(b"2024:02:29"),
        },
    }
    fields = carried(source(given, order), form)
    for tag in (271, 272, 305, 306, 18246, 40091, EXIF, GPS):
        assert fields[tag] == given[tag]


ENCODINGS = {
    269: "© 2024 José Müller, 東京".encode(),
    270: "© 2024 José Müller".encode("latin-1"),
    271: "Фотоаппарат".encode("cp1251"),
    305: b"\xff\xfe\x80\x81",
    315: "José".encode(),
    33432: "© José".encode(),
}


def test_text_travels_as_the_bytes_that_it_is(source: Callable[..., bytes], form: str) -> None:
    """EXIF says ASCII and people write names: whatever the encoding, no byte becomes another."""
    given = {tag: text(value) for tag, value in ENCODINGS.items()}
    comment = {37510: (7, bytes(8) + ENCODINGS[269]), 42032: text(ENCODINGS[270])}
    fields = carried(source({**given, EXIF: comment}), form)
    assert {tag: fields[tag] for tag in given} == given
    assert fields[EXIF] == comment


WRONG = [
    (282, text(b"72"), "XResolution"),
    (296, text(b"inch"), "ResolutionUnit"),
    (306, (5, bytes(16)), "DateTime"),
    (274, (5, struct.pack("<2L", 1, 0)), "Orientation"),
    (33432, (12, struct.pack("<d", 1.5)), "Copyright"),
    (18246, text(b"five"), "Rating"),
    (EXIF, {41486: text(b"many"), 33434: rationals(1, 250)}, "FocalPlaneXResolution"),
    (EXIF, {37396: rationals(1, 2, 3, 4), 33434: rationals(1, 250)}, "SubjectArea"),
    (EXIF, {41492: shorts(1), 33434: rationals(1, 250)}, "SubjectLocation"),
]


@pytest.mark.parametrize(("tag", "value", "name"), WRONG)
def test_one_tag_of_a_wrong_type_costs_itself(tag: int, value: Any, name: str, form: str) -> None:
    """The others stay, and a note names the one."""
    given = {271: text(b"Maker"), EXIF: {33434: rationals(1, 250)}, tag: value}
    for kind in ("JPEG", "TIFF", "PNG"):
        data = with_fields(kind, given)
        image = decode(data, max_pixels=10**6)
        assert any("EXIF" in note and name in note for note in image.notes)
        fields = written_fields(encode(image, form), form)
        assert fields[271] == text(b"Maker")
        assert fields[EXIF] == {33434: rationals(1, 250)}
        assert fields.get(tag) in (None, fields[EXIF])


def test_a_maker_note_keeps_bytes_byte_order_and_place(form: str) -> None:
    """Makers count offsets in their notes from the start of the EXIF block, in its byte order: both stay."""
    note = (7, b"Canon-like\0" + bytes(range(256)) * 3)
    for order in ORDERS:
        given = {271: text(b"Maker"), 282: (5, bytes(8)), EXIF: {33434: rationals(1, 250, order=order), 37500: note}}
        given |= {513: longs(9, order=order), 322: longs(512, order=order), 59932: (7, bytes(2060))}
        block = b"Exif\0\0" + tree(given, order)
        image = decode(saved(Pillow.fromarray(photo()), "PNG", exif=block), max_pixels=10**6)
        data = encode(image, form)
        assert written_fields(data, form)[EXIF][37500] == note
        assert image.metadata.exif is not None
        assert image.metadata.exif[6:8] == {"<": b"II", ">": b"MM"}[order]
        assert image.metadata.exif.index(note[1]) == block.index(note[1])
        if form == "TIFF":
            assert data[:2] == {"<": b"II", ">": b"MM"}[order]
            assert data.index(note[1]) == block.index(note[1]) - 6


def test_places_in_the_picture_turn_with_it() -> None:
    """What EXIF says about the place of the subject is true for the upright picture."""
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[10:14, 50:56] = 255  # the subject
    for orientation in range(1, 9):
        stored = turned_away(upright, orientation)
        rows, columns = np.nonzero(stored[..., 0])
        x, y = (int(columns.min() + columns.max()) // 2, int(rows.min() + rows.max()) // 2)
        width, height = int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
        details = {37396: shorts(x, y, width, height), 41492: shorts(x, y)}
        details |= {41486: rationals(3000, 1), 41487: rationals(2000, 1)}
        given = {
            274: shorts(orientation),
            282: rationals(300, 1),
            283: rationals(200, 1),
            296: shorts(2),
            EXIF: details,
        }
        for data in (with_fields_of(stored, given), tiff_file(stored, given)):
            image = decode(data, max_pixels=10**6)
            fields = fields_of(image.metadata.exif or b"")
            area = struct.unpack("<4H", fields[EXIF][37396][1])
            assert abs(area[0] - 52) <= 1
            assert abs(area[1] - 11) <= 1
            assert area[2:] == (6, 4)
            assert struct.unpack("<2H", fields[EXIF][41492][1]) == area[:2]
            sideways = orientation >= 5
            assert fields[EXIF][41486] == rationals(2000 if sideways else 3000, 1)
            assert image.metadata.dpi == ((200, 300) if sideways else (300, 200))
            assert fields[274] == shorts(1)


def with_fields_of(samples: np.ndarray, fields: Mapping[int, Any]) -> bytes:
    """A JPEG without a resolution of its own."""
    return as_jpeg(samples, exif=b"Exif\0\0" + tree(fields), dpi=(0, 0))


@pytest.mark.filterwarnings("ignore")  # Pillow speaks of it as well
def test_damaged_values_cost_themselves_and_a_note() -> None:
    """Values behind the end of the block, of an unknown type, or more than the block has bytes."""
    whole = tree({271: text(b"Maker and more"), 272: text(b"Model and more"), 305: text(b"Soft")})
    entry = 8 + 2 + 12
    for change in (
        struct.pack("<HHLL", 272, 2, 99, len(whole) + 5),
        struct.pack("<HHLL", 272, 2, 2**32 - 1, 0),
        struct.pack("<HHLL", 272, 99, 1, 0),
    ):
        block = b"Exif\0\0" + whole[:entry] + change + whole[entry + 12 :]
        image = decode(as_jpeg(photo(), exif=block), max_pixels=10**6)
        fields = fields_of(image.metadata.exif or b"")
        assert set(fields) == {271, 305}
        assert any("Model" in note for note in image.notes)


def test_fields_that_share_bytes_do_not_fill_the_memory() -> None:
    """A block gives no more bytes than it has, however many fields claim the same ones."""
    entries = [struct.pack("<HHLL", tag, 2, 50_000, 0) for tag in (269, 270, 271, 272, 305, 315, 316, 33432)]
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(60_000)
    found = ifd.parse(block)
    assert len(found.directory) == 1
    assert len(found.faults) == 7


def test_blocks_of_any_bytes_are_read_or_refused() -> None:
    """Mutated blocks of either size and order give directories that can be written, or a ValueError."""
    given = {
        271: text(b"M" * 30),
        EXIF: {37500: (7, bytes(50)), INTEROPERABILITY: {1: text(b"R98")}},
        GPS: {1: text(b"N")},
    }
    seeds = [tree(given, order, big=big) for order in ORDERS for big in (False, True)]
    rng = random.Random(5)  # noqa: S311 - no secrets here
    for _ in range(3000):
        data = mutated(rng.choice(seeds), rng)
        try:
            found = ifd.parse(data)
        except ValueError:
            continue
        again = ifd.parse(ifd.serialise(found))
        assert set(again.directory) == set(found.directory)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("big", [False, True])
def test_directories_of_either_size_and_order_become_classic_ones(order: str, big: bool) -> None:  # noqa: FBT001
    """BigTIFF's 64-bit numbers become 32-bit ones where they fit; nothing else changes."""
    given = {271: text(b"Maker"), 33432: text("© José".encode()), EXIF: {36867: text(b"2024:02:29 12:00:00")}}
    wide = {18246: (16, struct.pack(order + "Q", 5)), 50000: (16, struct.pack(order + "Q", 1 << 40))} if big else {}
    found = ifd.parse(tree({**given, **wide}, order, big=big))
    assert fields_of(ifd.serialise(found)) == given | ({18246: longs(5, order=order)} if big else {})
    assert found.faults == (((0, 50000),) if big else ())


def test_resolution_in_exif_is_the_resolution_of_the_picture() -> None:
    """Formats without another place for it say dots per inch in EXIF, in inches or centimetres."""
    for unit, factor in ((2, 1.0), (3, 2.54)):
        given = {282: rationals(300, 1), 283: rationals(600, 2), 296: shorts(unit)}
        for kind in ("WebP", "AVIF", "TIFF"):
            found = decode(with_fields(kind, given), max_pixels=10**6).metadata.dpi
            assert found == pytest.approx((300 * factor, 300 * factor))
    unitless = {282: rationals(300, 1), 283: rationals(300, 1), 296: shorts(1)}
    assert decode(with_fields("WebP", unitless), max_pixels=10**6).metadata.dpi is None


def test_a_damaged_resolution_is_not_invented() -> None:
    """Pillow says 72 dots per inch where EXIF is damaged; nothing is said."""
    broken = with_fields_of(photo(), {282: text(b"300"), 296: shorts(2)})
    assert decode(broken, max_pixels=10**6).metadata.dpi is None


def test_a_description_of_planes_and_sizes_does_not_survive_them() -> None:
    """What tifffile, OME and ImageJ keep in a description is about the old picture; what people wrote stays."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    plain, ome, imagej, more = (io.BytesIO() for _ in range(4))
    tifffile.imwrite(plain, photo(), photometric="rgb")
    tifffile.imwrite(more, photo(), photometric="rgb", metadata={"axes": "YXS", "who": "me"})
    tifffile.imwrite(ome, photo()[..., 0], ome=True)
    tifffile.imwrite(imagej, photo()[..., 0], imagej=True)
    for file, expected, word in (
        (plain, None, ""),
        (more, b'{"who": "me"}\0', ""),
        (ome, None, "OME"),
        (imagej, None, "ImageJ"),
    ):
        image = decode(file.getvalue(), max_pixels=10**6)
        fields = fields_of(image.metadata.exif or b"Exif\0\0" + tree({}))
        assert fields.get(270, (2, None))[1] == expected
        assert any(word in note for note in image.notes) if word else image.notes == ()
    image = decode(tiff_file(photo(), {270: text(b"Our cat; shape: round")}), max_pixels=10**6)
    assert fields_of(image.metadata.exif or b"")[270] == text(b"Our cat; shape: round")


def test_too_much_exif_for_a_jpeg_loses_the_maker_note_first() -> None:
    """64 KiB are all that JPEG holds: camera, date and exposure are worth more than the maker's private bytes."""
    given = {271: text(b"Maker"), EXIF: {33434: rationals(1, 250), 37500: (7, bytes(70_000))}}
    image = decode(with_fields("PNG", given), max_pixels=10**6)
    assert any("maker's note" in loss for loss in losses(image, "JPEG"))
    fields = written_fields(encode(image, "JPEG"), "JPEG")
    assert fields == {271: text(b"Maker"), EXIF: {33434: rationals(1, 250)}}


def test_text_of_exif_3_is_ascii_to_a_tiff() -> None:
    """TIFF knows no type 129, and its readers skip what has it."""
    image = decode(with_fields("PNG", {33432: (129, "© José".encode() + b"\0")}), max_pixels=10**6)
    assert written_fields(encode(image, "TIFF"), "TIFF")[33432] == text("© José".encode())
    assert written_fields(encode(image, "JPEG"), "JPEG")[33432] == (129, "© José".encode() + b"\0")


def test_a_tiff_is_whole_whatever_exif_it_is_given() -> None:
    """An `Image` made by hand may carry anything in its EXIF."""
    image = Image(photo())
    for order in ORDERS:
        block = b"Exif\0\0" + tree({**STORAGE, 271: text(b"Maker")}, order)
        data = encode(Image(photo(), metadata=type(image.metadata)(exif=block)), "TIFF")
        np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(data))), photo())
