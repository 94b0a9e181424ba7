"""XMP packets kept true for other pixels: what is not touched stays byte for byte as it was.

Names count by their namespace, whatever prefix a packet uses, and stand as attributes or as elements.

Source: XMP specification, part 1 (ISO 16684-1) and parts 2 and 3; Google's Photo Sphere XMP, Motion Photo 1.0 and
Ultra HDR 1.1; MWG Guidelines for image metadata 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias
from xml.parsers import expat
from xml.sax.saxutils import escape

_TIFF, _EXIF, _XMP = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/xap/1.0/"
_AREA, _SIZE = "http://ns.adobe.com/xmp/sType/Area#", "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"

_DESCRIBING_TIFF: Final = re.compile(
    "Artist|Copyright|DateTime|HostComputer|ImageDescription|Make|Model|Orientation|ResolutionUnit|Software|[XY]Resolution"
)
"""What of TIFF's tags describes the picture, not how a file stored it."""

_STORED: Final[Mapping[str, re.Pattern[str]]] = {
    _EXIF: re.compile("Pixel[XY]Dimension|ComponentsConfiguration|CompressedBitsPerPixel|NativeDigest"),
    _XMP: re.compile("Thumbnails"),
    _PHOTOSHOP: re.compile("ColorMode"),
}
_OF_COLOURS: Final[Mapping[str, re.Pattern[str]]] = {
    _EXIF: re.compile("ColorSpace|Gamma"),
    _PHOTOSHOP: re.compile("ICCProfile"),
}
_IN_PIXELS: Final[Mapping[str, re.Pattern[str]]] = {
    _PANORAMA: re.compile(
        "CroppedArea(ImageHeight|ImageWidth|Left|Top)Pixels|FullPano(Height|Width)Pixels"
        "|LargestValidInteriorRect(Height|Left|Top|Width)"
    ),
    _EXIF: re.compile("FocalPlane[XY]Resolution"),
    "http://www.dji.com/drone-dji/1.0/": re.compile("CalibratedFocalLength|CalibratedOpticalCenter[XY]"),
}
"""Numbers that count pixels, or pixels per unit of length."""

_PLACES: Final[Mapping[str, re.Pattern[str]]] = {
    _EXIF: re.compile("SubjectArea|SubjectLocation"),
    _REGIONS: re.compile("Regions"),
    "http://ns.microsoft.com/photo/1.2/": re.compile("RegionInfo"),
}
"""Places in the picture, which are others when it is turned."""

_NOT_CARRIED: Final = re.compile(
    r"http://ns\.adobe\.com/hdr-gain-map/1\.0/ .*"
    r"|http://ns\.adobe\.com/xmp/note/ HasExtendedXMP"
    r"|http://ns\.apple\.com/(HDRGainMap|HDRToneMap|depth\w*|pixeldatainfo|portrait\w*|semantic\w*)/1\.0/ .*"
    r"|http://ns\.google\.com/photos/1\.0/(audio|container|container/item|depthmap|image)/ .*"
    r"|http://ns\.google\.com/photos/dd/1\.0/\w+/ .*"
    r"|http://ns\.\w+\.com/photos/1\.0/camera/ (MotionPhoto|MicroVideo|OLivePhoto|VideoLength)\w*"
)
"""Namespace and name of what tells of data behind the picture or beside its packet."""

_NUMBER: Final = re.compile(r"(-?\d{1,15}(?:\.\d{1,15})?)(/\d{1,15})?")
_START_TAG: Final = re.compile(rb"""<[^\s/>]+((?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*/?>""")
_ATTRIBUTE: Final = re.compile(rb"""\s+([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")

Name: TypeAlias = tuple[str, str]
"""(namespace, local name)."""

_Rule: TypeAlias = Callable[[Name, str, Sequence[Name], str], "str | None"]
"""(name, name as written, elements around it, its value or "" for a structure) -> its value, or None to drop it."""

_MOST_NESTED, _MOST_PREFIXES, _MOST_NAMES = 100, 1000, 100_000


def clean(packet: bytes, *, orientation: int = 1, converted: bool = False) -> tuple[bytes, tuple[str, ...]]:
    """The packet of a picture that was turned upright from an orientation, and a note for what had to be left out.

    Args:
        packet: of the file.
        orientation: that the pixels had.
        converted: the colours are no longer the file's own.

    Raises:
        ValueError: it is not well-formed XML in UTF-8, or has a document type.
    """
    foreign: dict[str, None] = {}
    places: dict[str, None] = {}

    def rule(name: Name, written: str, around: Sequence[Name], value: str) -> str | None:
        space, local = name
        if name == (_TIFF, "Orientation"):
            return "1"
        if (space == _TIFF and not _DESCRIBING_TIFF.fullmatch(local)) or _among(_STORED, name):
            return None
        if converted and _among(_OF_COLOURS, name):
            return None
        if _is_foreign(*name):
            if not any(_is_foreign(*outer) for outer in around):
                foreign[written] = None
            return None
        turned = orientation != 1 and (_among(_PLACES, name) or _among(_IN_PIXELS, name))
        if turned or (_counts_pixels(name, around) and not _NUMBER.fullmatch(value.strip())):
            places[written] = None
            return None
        return value

    cleaned = _rewritten(packet, rule)
    notes = []
    if foreign:
        notes.append(f"XMP about data that are not carried over was left out ({', '.join(foreign)})")
    if places:
        notes.append(f"XMP that counts the pixels of the old picture was left out ({', '.join(places)})")
    return cleaned, tuple(notes)


def scaled(packet: bytes, factor: Fraction | int) -> bytes:
    """The packet of the same picture with `factor` times as many pixels a side.

    Raises:
        ValueError: as `clean`.
    """

    def rule(name: Name, _: str, around: Sequence[Name], value: str) -> str | None:
        if _counts_pixels(name, around) and (match := _NUMBER.fullmatch(value.strip())):
            number = Decimal(match[1])
            if name[0] == _AREA and number <= 1:  # a part of the picture
                return value
            return f"{_times(number, factor)}{match[2] or ''}"
        return value

    return _rewritten(packet, rule)


def _times(number: Decimal, factor: Fraction | int) -> str:
    """A number of pixels in another size; rounded to as many places as it had where the factor is not whole."""
    if factor.denominator == 1:
        return str(number * factor.numerator)
    places = len(str(number).partition(".")[2])
    return f"{Decimal(f'{round(Fraction(number) * factor * 10**places)}e-{places}'):f}"


def _is_foreign(space: str, local: str) -> bool:
    """It tells of data that are not carried over."""
    return _NOT_CARRIED.fullmatch(f"{space} {local}") is not None


def _among(table: Mapping[str, re.Pattern[str]], name: Name) -> bool:
    space, local = name
    return space in table and table[space].fullmatch(local) is not None


def _counts_pixels(name: Name, around: Sequence[Name]) -> bool:
    space, local = name
    if space in (_AREA, _SIZE):
        return local in {"x", "y", "w", "h", "d"} and any(outer[0] == _REGIONS for outer in around)
    in_place = local == "li" and any(outer[0] == _EXIF and _among(_PLACES, outer) for outer in around)
    return in_place or _among(_IN_PIXELS, name)


@dataclass(slots=True)
class _Element:
    """An element that is not closed yet: its name, where its start tag lies, and what is known within it."""

    name: Name
    written: str
    start: int
    inside: int
    prefixes: Mapping[str, str]
    edits: int
    simple: bool = True


@dataclass(slots=True)
class _Walk:
    """One pass over a packet; `edits` are (from, to, bytes to put there)."""

    packet: bytes
    rule: _Rule
    parser: expat.XMLParserType = field(default_factory=lambda: expat.ParserCreate("utf-8"))
    open: list[_Element] = field(default_factory=list)
    around: list[Name] = field(default_factory=list)
    edits: list[tuple[int, int, bytes]] = field(default_factory=list)
    declarations: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    names: int = 0

    def run(self) -> bytes:
        parser = self.parser
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._refuse
        parser.Parse(self.packet, True)  # noqa: FBT003 - the one and last piece
        # Some programs look for no more than the declaration of a namespace.
        idle = [(*span, b"") for space, span in self.declarations if space in self.dropped and _is_foreign(space, "*")]
        at, pieces = 0, []
        for start, stop, new in sorted([*self.edits, *idle]):
            if start >= at:  # else it lies in what was dropped
                pieces += [self.packet[at:start], new]
                at = stop
        return b"".join([*pieces, self.packet[at:]])

    def _refuse(self, *_: object) -> None:
        raise ValueError("it has a document type, which XMP has not")

    def _start(self, written: str, values: Mapping[str, str]) -> None:
        start = self.parser.CurrentByteIndex
        tag = _START_TAG.match(self.packet, start)
        if tag is None:
            raise ValueError("a start tag is not understood")
        prefixes = self.open[-1].prefixes if self.open else {}
        declared = {key.partition(":")[2]: space for key, space in values.items() if key.partition(":")[0] == "xmlns"}
        if declared:
            prefixes = {**prefixes, **declared}
        self.names += 1 + len(values)
        if len(self.open) > _MOST_NESTED or len(prefixes) > _MOST_PREFIXES or self.names > _MOST_NAMES:
            raise ValueError("it is larger than any description")
        if self.open:
            self.open[-1].simple = False
        element = _Element(_resolved(written, prefixes), written, start, tag.end(), prefixes, len(self.edits))
        self.open.append(element)
        self.around.append(element.name)
        for attribute in _ATTRIBUTE.finditer(self.packet, *tag.span(1)):
            key = attribute[1].decode()
            if key.partition(":")[0] == "xmlns":
                self.declarations.append((values[key], attribute.span()))
                continue
            name, value = _resolved(key, prefixes), values[key]
            new = self.rule(name, key, self.around, value)
            if new is None:
                self.dropped.add(name[0])
                self.edits.append((*attribute.span(), b""))
            elif new != value:
                group = 2 if attribute[2] is not None else 3
                self.edits.append((*attribute.span(group), escape(new, {'"': "&quot;", "'": "&apos;"}).encode()))

    def _end(self, _: str) -> None:
        element, at = self.open.pop(), self.parser.CurrentByteIndex
        self.around.pop()
        closed = self.packet.startswith(b"</", at) and at >= element.inside
        stop = self.packet.index(b">", at) + 1 if closed else element.inside
        text = self.packet[element.inside : at] if closed and element.simple else b""
        value = "" if b"&" in text or b"<" in text else text.decode()
        new = self.rule(element.name, element.written, self.around, value)
        if new is None:
            self.dropped.add(element.name[0])
            del self.edits[element.edits :]
            self.edits.append((element.start, stop, b""))
        elif new != value:
            self.edits.append((element.inside, at, escape(new).encode()))


def _rewritten(packet: bytes, rule: _Rule) -> bytes:
    try:
        return _Walk(packet, rule).run()
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error


def _resolved(written: str, prefixes: Mapping[str, str]) -> Name:
    prefix, colon, local = written.rpartition(":")
    return (prefixes.get(prefix, "") if colon else prefixes.get("", "")), local
