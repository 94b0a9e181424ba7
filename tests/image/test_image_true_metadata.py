"""Metadata are true for the new picture: what counts its pixels is counted anew, what speaks of lost data is gone."""

from __future__ import annotations

import io
import struct
import time
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from described import PANORAMA, SPACES, as_attributes, as_elements, packet, with_chunks
from directories import EXIF, doubles, fields_of, longs, rationals, shorts, text, tiff_file, tree
from pictures import XMP_SIDEWAYS, as_jpeg, as_png, chunk, exif, photo, saved, turned_away
from PIL import Image as Pillow
from small import SMALL_SPECS

from bbcu_cli.engines.base import EngineInfo, SessionContext
from bbcu_cli.image import FORMATS, Image, Metadata, decode, encode, losses, xmp
from bbcu_cli.image.metadata import scaled
from bbcu_cli.restoration.model import Model
from bbcu_cli.restoration.pipeline import restore_image

OUTPUTS = [name for name, fmt in FORMATS.items() if fmt.xmp and fmt.writable]
SOURCES = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"]


@pytest.fixture(params=OUTPUTS)
def form(request: pytest.FixtureRequest) -> str:
    """Each format that holds XMP, HEIC only where pillow-heif is installed."""
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    return str(request.param)


def read(data: bytes) -> Image:
    return decode(data, max_pixels=10**6)


def properties(data: bytes | None) -> dict[str, str]:
    """Name -> text of all attributes and simple elements of a packet, in everybody's prefixes."""
    prefixes = {space: prefix for prefix, space in SPACES.items()}
    found = {}

    def name(tag: str) -> str:
        space, _, local = tag[1:].rpartition("}")
        return f"{prefixes.get(space, space)}:{local}"

    for element in ET.fromstring((data or b"<x/>").decode().strip()).iter():  # noqa: S314 - of our own making
        found |= {name(key): value for key, value in element.attrib.items()}
        if element.text and element.text.strip():
            key = name(element.tag)
            found[key] = f"{found[key]} {element.text}" if key in found else element.text
    return found


def with_xmp(kind: str, data: bytes, orientation: int = 1) -> bytes:
    """A file of a kind with that packet, and EXIF that says how it lies."""
    picture = Pillow.fromarray(turned_away(photo(), orientation))
    if kind == "TIFF":
        fields = {274: shorts(orientation), 700: (1, data)}
        return tiff_file(np.asarray(picture), fields)
    block = {} if orientation == 1 else {"exif": exif(orientation)}
    if kind == "PNG":
        return as_png(np.asarray(picture), **block)[:-12] + chunk(
            b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data
        ) + chunk(b"IEND", b"")  # fmt: skip
    return saved(picture, kind, xmp=data, **block)


KEPT = {"xmp:Rating": "5", "dc:title": "Ein „Bild“ & mehr"}

OTHER_PIXELS = {
    "exif:FocalPlaneXResolution": "4032000/225",
    "drone-dji:CalibratedFocalLength": "3666.5",
    "drone-dji:CalibratedOpticalCenterX": "2432",
}
NO_PIXELS = {
    "GPano:ProjectionType": "equirectangular",
    "GPano:PoseHeadingDegrees": "350.0",
    "GPano:UsePanoramaViewer": "True",
    "exif:ExposureTime": "1/250",
    "tiff:XResolution": "300/1",
    "GCamera:SpecialTypeID": "com.google.android.apps.camera.gallery.specialtype.SpecialType-PANORAMA",
}


def times(value: str, factor: int) -> float:
    """A number or a fraction, multiplied."""
    top, _, bottom = value.partition("/")
    return float(top) * factor / float(bottom or 1)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("write", [as_attributes, as_elements])
def test_counts_of_pixels_are_those_of_the_new_size(source: str, write: Callable[[dict[str, str]], str]) -> None:
    """Panoramas, focal planes, drones' cameras: each count is multiplied; angles, names and exposures are not."""
    counted = {**PANORAMA, **OTHER_PIXELS}
    values = write({**counted, **NO_PIXELS})
    data = packet(values) if write is as_attributes else packet("", values)
    image = read(with_xmp(source, data))
    assert image.notes == ()
    assert image.metadata.xmp == data
    for factor in (1, 2, 3, 4):
        found = properties(scaled(image.metadata, factor).xmp)
        for name, value in counted.items():
            assert times(found[name], 1) == pytest.approx(times(value, factor))
        assert {name: found[name] for name in (*NO_PIXELS, *KEPT)} == {**NO_PIXELS, **KEPT}


def test_counts_of_the_new_size_reach_every_format(form: str) -> None:
    """Whatever the output, and a second round trip changes nothing."""
    image = read(with_xmp("JPEG", packet(as_attributes(PANORAMA))))
    about = scaled(image.metadata, 4)
    assert read(encode(Image(photo(), metadata=about), form)).metadata.xmp == about.xmp


def test_regions_and_places_are_counted_too() -> None:
    """The size that face regions apply to, regions in pixels, and EXIF's subject; parts of the picture stay."""
    regions = (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="64" stDim:h="48" '
        'stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="Ada">'
        '<mwg-rs:Area stArea:x="0.25" stArea:y="0.5" stArea:w="0.125" stArea:h="1" stArea:unit="normalized"/>'
        "</rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
        "<exif:SubjectArea><rdf:Seq><rdf:li>10</rdf:li><rdf:li>20</rdf:li></rdf:Seq></exif:SubjectArea>"
    )
    data = packet('xmp:Label="10"', regions)
    found = properties(xmp.scaled(xmp.clean(data)[0], 4))
    assert (found["stDim:w"], found["stDim:h"]) == ("256", "192")
    assert (found["stArea:x"], found["stArea:y"], found["stArea:w"], found["stArea:h"]) == ("0.25", "0.5", "0.125", "1")
    assert found["http://www.w3.org/1999/02/22-rdf-syntax-ns#:li"] == "40 80"
    assert found["xmp:Label"] == "10"
    turned, notes = xmp.clean(data, orientation=6)
    assert not properties(turned).keys() & {"stDim:w", "stArea:x", "http://www.w3.org/1999/02/22-rdf-syntax-ns#:li"}
    assert "mwg-rs:Regions" in notes[0]
    assert "exif:SubjectArea" in notes[0]


GONE = {
    "a motion photo": (
        {"GCamera:MotionPhoto": "1", "GCamera:MotionPhotoPresentationTimestampUs": "9"},
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="video/mp4" '  # noqa: ISC004
        'Item:Semantic="MotionPhoto" Item:Length="2097152" Item:Padding="0"/></rdf:li></rdf:Seq></Container:Directory>',
    ),
    "a micro video": ({"GCamera:MicroVideo": "1", "GCamera:MicroVideoOffset": "4294967"}, ""),
    "another maker's motion photo": ({"OpCamera:MotionPhotoOwner": "oplus", "OpCamera:VideoLength": "1234"}, ""),
    "a gain map": (
        {"hdrgm:Version": "1.0", "hdrgm:GainMapMax": "3.5"},
        "<hdrgm:Gamma><rdf:Seq><rdf:li>1</rdf:li><rdf:li>1</rdf:li></rdf:Seq></hdrgm:Gamma>",
    ),
    "Apple's gain map": ({"HDRGainMap:HDRGainMapVersion": "65536"}, ""),
    "a depth map": ({"GDepth:Format": "RangeInverse", "GDepth:Mime": "image/png"}, "<GDepth:Data>AAAA</GDepth:Data>"),
    "an extended packet": ({"xmpNote:HasExtendedXMP": "0123456789ABCDEF0123456789ABCDEF"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", GONE)
@pytest.mark.parametrize("source", SOURCES)
def test_what_tells_of_data_that_are_gone_is_gone(name: str, source: str) -> None:
    """Phones look for a video or a gain map where XMP says one: none is said, and a note says so."""
    values, elements = GONE[name]
    other = {prefix: f"p{index}" for index, prefix in enumerate(SPACES) if prefix not in ("xmp", "dc", "tiff")}

    def renamed(part: str) -> str:
        for prefix, letter in other.items():
            part = part.replace(f"{prefix}:", f"{letter}:")
        return part

    for data in (
        packet(as_attributes(values), elements),
        packet("", as_elements(values) + elements),
        packet(renamed(as_attributes(values)), renamed(elements), rename=other),
    ):
        image = read(with_xmp(source, data))
        assert sum("not carried over" in note and "XMP" in note for note in image.notes) == 1
        found = properties(image.metadata.xmp)
        assert {key: value for key, value in found.items() if key.split(":")[0] in SPACES} == KEPT


def test_a_motion_photo_and_a_gain_map_reach_no_format(form: str) -> None:
    """Neither a property nor the namespace of a gain map, for which some programs look."""
    every = packet(as_attributes({key: value for values, _ in GONE.values() for key, value in values.items()}))
    written = read(encode(read(with_xmp("JPEG", every)), form)).metadata.xmp or b""
    for word in (b"MotionPhoto", b"MicroVideo", b"hdrgm", b"hdr-gain-map", b"HDRGainMap", b"GDepth", b"HasExtendedXMP"):
        assert word not in written


def test_what_describes_storage_or_an_old_picture_leaves_xmp_silently() -> None:
    """Sizes, bits, compression, digests and thumbnails are of the old file."""
    stored = {
        "tiff:ImageWidth": "64",
        "tiff:ImageLength": "48",
        "tiff:Compression": "6",
        "tiff:NativeDigest": "256,257;ABC",
        "exif:PixelXDimension": "64",
        "exif:PixelYDimension": "48",
        "exif:NativeDigest": "36864;ABC",
        "xmp:Thumbnails": "AAAA",
    }
    for data in (packet(as_attributes(stored)), packet("", as_elements(stored))):
        image = read(with_xmp("WEBP", data))
        assert image.notes == ()
        assert not properties(image.metadata.xmp).keys() & stored.keys()


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_counts_that_a_turn_makes_false_are_left_out_with_a_note(source: str) -> None:
    """A panorama that was stored on its side: nobody knows what its numbers meant."""
    for orientation in (3, 6, 8):
        image = read(
            with_xmp(source, packet(as_attributes({**PANORAMA, "tiff:Orientation": str(orientation)})), orientation)
        )
        found = properties(image.metadata.xmp)
        assert not found.keys() & PANORAMA.keys()
        assert found["tiff:Orientation"] == "1"
        assert any("GPano:FullPanoWidthPixels" in note for note in image.notes)


def test_counts_that_are_no_numbers_are_left_out_with_a_note() -> None:
    """They could not be corrected."""
    image = read(with_xmp("JPEG", packet(as_attributes({**PANORAMA, "GPano:CroppedAreaTopPixels": "many"}))))
    assert "GPano:CroppedAreaTopPixels" not in properties(image.metadata.xmp)
    assert any("GPano:CroppedAreaTopPixels" in note for note in image.notes)


@pytest.mark.parametrize(
    "data",
    [
        b"<x:xmpmeta",
        b"<a><b></a>",
        b"no xml",
        packet().replace(b"Bild", b"\xff\xfe"),
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b"<a>" * 200 + b"</a>" * 200,
        b"<a>" + b"<b/>" * 300_000 + b"</a>",
        b"<a " + b" ".join(b'xmlns:p%d="u"' % i for i in range(2000)) + b"/>",
    ],
)
def test_xmp_that_is_none_is_left_out_with_a_note(data: bytes) -> None:
    """Not well-formed, not UTF-8, with entities, or made to hurt: the picture is read."""
    image = read(with_xmp("WEBP", data))
    assert image.metadata.xmp is None
    assert any("XMP" in note for note in image.notes)


def test_xmp_is_rewritten_in_linear_time() -> None:
    """A large packet full of properties takes no second."""
    data = packet("", "".join(f"<GPano:CroppedAreaLeftPixels>{i}</GPano:CroppedAreaLeftPixels>" for i in range(20_000)))
    start = time.process_time()
    assert xmp.scaled(data, 2).count(b"<GPano") == 20_000
    assert time.process_time() - start < 5


def test_xmp_that_is_true_stays_byte_for_byte() -> None:
    """Comments, entities, quotes, CDATA, white space, padding."""
    data = (
        packet("xmp:Label='a &quot;b&quot; > c'", "<!-- <GPano:x/> --><dc:a><![CDATA[<b>]]></dc:a>\n\t<dc:c />")
        + b" " * 99
    )
    assert xmp.clean(data) == (data, ())
    assert xmp.scaled(data, 4) == data
    assert xmp.clean(XMP_SIDEWAYS)[0] == XMP_SIDEWAYS.replace(b'"6"', b'"1"')


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_exif_that_counts_pixels_is_counted_anew(factor: int) -> None:
    """The place of the subject and the resolution of the focal plane; what would not fit is left out."""
    details = {37396: shorts(10, 20, 6, 4), 41492: shorts(10, 20), 41486: rationals(4000, 3), 41488: shorts(3)}
    block = b"Exif\0\0" + tree({271: text(b"Maker"), EXIF: details})
    fields = fields_of(scaled(Metadata(exif=block), factor).exif or b"")
    assert fields[EXIF][37396] == shorts(10 * factor, 20 * factor, 6 * factor, 4 * factor)
    assert fields[EXIF][41492] == shorts(10 * factor, 20 * factor)
    top, bottom = struct.unpack("<2L", fields[EXIF][41486][1])
    assert top / bottom == pytest.approx(4000 / 3 * factor)
    assert fields[EXIF][41488] == shorts(3)
    assert fields[271] == text(b"Maker")
    far = b"Exif\0\0" + tree({EXIF: {41492: shorts(60_000, 20), 33434: rationals(1, 250)}})
    assert fields_of(scaled(Metadata(exif=far), factor).exif or b"")[EXIF] == {33434: rationals(1, 250)}


class _Enlarging(SessionContext):
    """A stand-in engine."""

    info = EngineInfo("stub", "cpu", "nearest")

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def run(self, x: np.ndarray, _progress: object = None) -> np.ndarray:
        return np.repeat(np.repeat(x, self.factor, 2), self.factor, 3)


def test_a_restored_picture_has_metadata_of_its_own_size() -> None:
    """From the network's scale, for enlarged pictures and for pictures of the same size."""
    data = with_xmp("JPEG", packet(as_attributes(PANORAMA)))
    image = read(data)
    for name, factor in (("m-x2", 2), ("m-x3", 3), ("denoise", 1)):
        model = Model(name, SMALL_SPECS[name], {}, _Enlarging(factor))
        out = restore_image(Image(image.pixels, metadata=image.metadata), model)
        assert properties(out.metadata.xmp)["GPano:FullPanoWidthPixels"] == str(8000 * factor)


KEYS_AREA = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1)
KEYS_POINT = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 2)
TIEPOINTS = (0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0, 10.0, 20.0, 0.0, 500_005.0, 5_399_990.0, 0.0)
MATRIX = (0.5, 0.1, 0.0, 500_000.0, 0.1, -0.5, 0.0, 5_400_000.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def on_the_map(fields: dict[int, Any], order: str, corner: tuple[float, float]) -> list[float]:
    """Where a pixel's corner, in pixels from the corner of the picture, lies on the map (GeoTIFF 1.1, annex B)."""
    keys = struct.unpack(f"{order}{len(fields[34735][1]) // 2}H", fields[34735][1])
    shift = 0.5 if keys[-1] == 2 else 0.0
    column, row = corner[0] - shift, corner[1] - shift
    if 34264 in fields:
        m = struct.unpack(f"{order}16d", fields[34264][1])
        return [m[0] * column + m[1] * row + m[3], m[4] * column + m[5] * row + m[7]]
    scale = struct.unpack(f"{order}3d", fields[33550][1])
    tie = struct.unpack_from(f"{order}6d", fields[33922][1])
    return [tie[3] + (column - tie[0]) * scale[0], tie[4] - (row - tie[1]) * scale[1]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("keys", [KEYS_AREA, KEYS_POINT])
@pytest.mark.parametrize("by", ["scale", "matrix"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_georeferenced_tiff_lies_where_it_lay(order: str, keys: tuple[int, ...], by: str, factor: int) -> None:
    """Every corner of the picture keeps its place on the map, for pixels that are areas and for points."""
    given: dict[int, Any] = {
        34735: shorts(*keys, order=order),
        34737: text(b"UTM 32N|"),
        34736: doubles(6378137.0, order=order),
    }
    if by == "scale":
        given |= {33550: doubles(0.5, 0.5, 0.0, order=order), 33922: doubles(*TIEPOINTS, order=order)}
    else:
        given |= {34264: doubles(*MATRIX, order=order)}
    image = read(tiff_file(photo(), {**given, 315: text(b"Ada")}, order))
    large = Image(np.repeat(np.repeat(photo(), factor, 0), factor, 1), metadata=scaled(image.metadata, factor))
    assert losses(large, "TIFF") == ()
    data = encode(large, "TIFF")
    fields = fields_of(data)
    for corner in ((0, 0), (64, 0), (0, 48), (13, 37)):
        there = on_the_map(fields, order, (corner[0] * factor, corner[1] * factor))
        np.testing.assert_allclose(there, on_the_map(given, order, corner), rtol=0, atol=1e-6)
    assert fields[34735] == given[34735]
    assert fields[34737] == given[34737]
    if factor == 1:
        assert {tag: fields[tag] for tag in given} == given
    assert any("georeference" in loss for loss in losses(large, "PNG"))


def test_a_georeference_that_cannot_be_kept_true_is_left_out_with_a_note() -> None:
    """A picture that is turned, tags that are damaged or of wrong types, tags about values of the old pixels."""
    scale = {33550: doubles(0.5, 0.5, 0.0), 33922: doubles(*TIEPOINTS[:6]), 34735: shorts(*KEYS_AREA)}
    for fields, word in (
        ({**scale, 274: shorts(6)}, "turned upright"),
        ({**scale, 33550: doubles(0.5, 0.5)}, "damaged"),
        ({**scale, 33922: rationals(*[1, 1] * 6)}, "damaged"),
        ({**scale, 34735: longs(*KEYS_AREA)}, "damaged"),
        ({42113: text(b"-9999"), 42112: text(b"<GDALMetadata/>")}, "GDAL_NODATA"),
        ({50844: doubles(*range(92))}, "RPCCoefficientTag"),
    ):
        image = read(tiff_file(photo(), fields))
        assert image.metadata.georeference is None
        assert any(word in note for note in image.notes)
        assert not fields_of(encode(image, "TIFF")).keys() & {33550, 33922, 34735, 42112, 42113, 50844}


def with_text(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with these chunks behind its header."""
    return with_chunks(as_png(photo()), *chunks)


def raw_profile(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """As ImageMagick keeps blocks in text."""
    digits = b"\n".join(content.hex().encode()[i : i + 72] for i in range(0, 2 * len(content), 72))
    return b"zTXt", b"Raw profile type " + kind + b"\0\0" + zlib.compress(
        b"\n%s\n%8d\n%s\n" % (kind, len(content), digits)
    )


BLOCK = b"Exif\0\0" + tree({271: text(b"Maker"), 33432: text("© José".encode())})
KEYWORDS = ["exif", "gamma", "dpi", "icc_profile", "srgb", "xmp", "loop", "duration", "aspect"]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_text_under_any_keyword_breaks_no_reader(keyword: str) -> None:
    """Pillow takes some keywords for facts: such a text keeps its words and gets a capital letter."""
    words = b"what people write"
    for name, content in ((b"tEXt", b"\0" + words), (b"iTXt", b"\0\0\0\0\0" + words)):
        image = read(with_text((name, keyword.encode() + content), (b"eXIf", BLOCK[6:])))
        assert image.metadata.text == ((keyword, words.decode()),)
        assert fields_of(image.metadata.exif or b"") == fields_of(BLOCK)
        data = encode(image, "PNG")
        found = Pillow.open(io.BytesIO(data))
        assert found.getexif()[271] == "Maker"
        found.load()
        assert read(data).metadata.text == ((keyword.capitalize(), words.decode()),)
        assert any(keyword.capitalize() in loss for loss in losses(image, "PNG"))


def test_exif_in_old_texts_of_a_png_is_exif() -> None:
    """ImageMagick's hexadecimal, PNG's own chunk first; a text that is none costs a note."""
    packet_ = packet()
    for chunks in (
        [raw_profile(b"exif", BLOCK)],
        [raw_profile(b"APP1", BLOCK)],
        [raw_profile(b"exif", BLOCK[6:])],
        [raw_profile(b"exif", b"Exif\0\0" + tree({271: text(b"Other")})), (b"eXIf", BLOCK[6:])],
        [(b"tEXt", b"exif\0" + BLOCK)],
    ):
        image = read(with_text(*chunks, raw_profile(b"xmp", packet_)))
        assert fields_of(image.metadata.exif or b"") == fields_of(BLOCK)
        assert image.metadata.xmp == packet_
        assert image.metadata.text == ()
        found = Pillow.open(io.BytesIO(encode(image, "PNG")))
        assert found.getexif()[271] == "Maker"
    for content in (b"", b"\nexif\n  12\nzz", b"\nexif\n 99\n4949", b"hello"):
        image = read(with_text((b"tEXt", b"Raw profile type exif\0" + content)))
        assert image.metadata.exif is None
        assert any("tEXt" in note for note in image.notes)


@pytest.mark.parametrize(
    "data", ["Grüße".encode("latin-1"), "Grüße, 猫".encode(), b"\xff\xfe\0\x80".replace(b"\0", b"")]
)
def test_text_of_png_and_comments_of_jpeg_keep_their_bytes(data: bytes) -> None:
    """Neither format's programs agree on an encoding; from PNG to PNG and from JPEG to JPEG no byte changes."""
    png_ = encode(read(with_text((b"tEXt", b"Author\0" + data))), "PNG")
    assert chunk(b"tEXt", b"Author\0" + data) in png_
    jpeg = encode(read(as_jpeg(photo(), comment=data)), "JPEG")
    assert Pillow.open(io.BytesIO(jpeg)).info["comment"] == data
    across = read(encode(read(as_jpeg(photo(), comment=data)), "PNG")).metadata.text
    try:
        assert across == (("Comment", data.decode()),)
    except UnicodeDecodeError:
        assert across == (("Comment", data.decode("latin-1")),)
    back = encode(read(encode(read(as_jpeg(photo(), comment="Grüße, 猫".encode())), "PNG")), "JPEG")
    assert Pillow.open(io.BytesIO(back)).info["comment"] == "Grüße, 猫".encode()


def test_text_that_no_chunk_holds_is_left_out_with_a_word() -> None:
    """Readers of PNG refuse chunks of more than 8 MB; a zero would end the text."""
    image = Image(
        photo(), metadata=Metadata(text=(("long", "x" * 9_000_000), ("Comment", "x" * 70_000), ("a\0b", "c\0d")))
    )
    assert any("(long) is too long for PNG" in loss for loss in losses(image, "PNG"))
    assert read(encode(image, "PNG")).metadata.text == (("Comment", "x" * 70_000), ("ab", "cd"))
    assert any("(Comment) is too long for JPEG" in loss for loss in losses(image, "JPEG"))
    assert read(encode(image, "JPEG")).metadata.text == ()


def test_iptc_data_are_missed_with_a_note() -> None:
    """Captions and keywords that stand in no other place."""
    iptc = b"\x1c\x02\x78\0\4hey!"
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc + bytes(len(iptc) % 2)
    segment = b"Photoshop 3.0\0" + resource
    jpeg = as_jpeg(photo())
    for data in (
        jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        tiff_file(photo(), {33723: (7, iptc)}),
        tiff_file(photo(), {34377: (1, resource)}),
        with_text(raw_profile(b"iptc", resource)),
    ):
        assert any("IPTC" in note for note in read(data).notes)
