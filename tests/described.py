"""Files that say much beside their pixels: XMP, EXIF, places on the map, colour spaces by numbers."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from directories import EXIF, GPS, INTEROPERABILITY, doubles, rationals, shorts, text, tiff_file, tree
from pictures import as_jpeg, as_png, chunk, photo, saved
from PIL import Image as Pillow

P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D65 = (0.3127, 0.3290)


SPACES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "OpCamera": "http://ns.oplus.com/photos/1.0/camera/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
}


def packet(attributes: str = "", elements: str = "", *, rename: dict[str, str] | None = None) -> bytes:
    """An XMP packet; `rename` gives namespaces other prefixes than everybody's."""
    spaces = " ".join(f'xmlns:{(rename or {}).get(prefix, prefix)}="{space}"' for prefix, space in SPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} xmp:Rating="5" {attributes}>{elements}'
        "<dc:title>Ein „Bild“ &amp; mehr</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


PANORAMA = {
    "GPano:FullPanoWidthPixels": "8000",
    "GPano:FullPanoHeightPixels": "4000",
    "GPano:CroppedAreaImageWidthPixels": "64",
    "GPano:CroppedAreaImageHeightPixels": "48",
    "GPano:CroppedAreaLeftPixels": "12",
    "GPano:CroppedAreaTopPixels": "0",
    "GPano:LargestValidInteriorRectWidth": "60",
}


def as_attributes(values: dict[str, str]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in values.items())


def as_elements(values: dict[str, str]) -> str:
    return "".join(f"\n <{name}>{value}</{name}>" for name, value in values.items())


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunk(name, content) for name, content in chunks) + data[33:]


def bmp(*, kind: bytes, primaries: Any = BT709, gamma: float = 2.2, profile: bytes = b"") -> bytes:
    """A BMP of version 5."""
    pixels = np.zeros((8, 8, 3), np.uint8).tobytes()
    ends = [round(v * (1 << 30)) for x, y in primaries for v in (x, y, 1 - x - y)]
    head = struct.pack("<LllHHLLllLL", 124, 8, 8, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    head += struct.pack("<4L4s9l3L", 0xFF0000, 0xFF00, 0xFF, 0, kind[::-1], *ends, *[round(gamma * 65536)] * 3)
    head += struct.pack("<4L", 4, 124 + len(pixels), len(profile), 0)
    start = 14 + len(head)
    return struct.pack("<2sLLL", b"BM", start + len(pixels) + len(profile), 0, start) + head + pixels + profile


def described_files() -> list[bytes]:
    """One of each kind, small."""
    picture = photo(24, 32)
    subject = {37396: shorts(10, 20, 6, 4), 41486: rationals(4000, 3), 37500: (7, bytes(60)), 33434: rationals(1, 250)}
    fields: dict[int, Any] = {
        271: text(b"Maker"),
        282: rationals(300, 1),
        283: rationals(300, 1),
        33432: text("© José".encode()),
        EXIF: {**subject, INTEROPERABILITY: {1: text(b"R03")}},
        GPS: {1: text(b"N"), 2: rationals(52, 1, 30, 1, 0, 1)},
    }
    on_the_map = {
        33550: doubles(0.5, 0.5, 0.0),
        33922: doubles(0, 0, 0, 500_000, 5_400_000, 0),
        34735: shorts(1, 1, 0, 1, 1025, 0, 1, 2),
        34737: text(b"UTM 32N|"),
    }
    primaries = {
        318: rationals(3127, 10_000, 3290, 10_000),
        319: rationals(68, 100, 32, 100, 26, 100, 69, 100, 1, 7, 1, 16),
    }
    block = b"Exif\0\0" + tree(fields)
    numbers = struct.pack(">8L", *(round(100_000 * v) for point in (D65, *P3) for v in point))
    about = packet(as_attributes({**PANORAMA, "GCamera:MotionPhoto": "1", "hdrgm:Version": "1.0"}))
    return [
        tiff_file(picture, {**fields, **on_the_map, 700: (1, about)}),
        tiff_file(picture, {**fields, **on_the_map}, big=True),
        tiff_file(picture, primaries),
        as_jpeg(picture, exif=block, xmp=about),
        saved(Pillow.fromarray(picture), "AVIF", exif=block, xmp=about),
        with_chunks(as_png(picture), (b"cHRM", numbers), (b"gAMA", struct.pack(">L", 55_555)), (b"eXIf", block[6:])),
        with_chunks(as_png(picture), (b"cICP", b"\x0c\x0d\0\1"), (b"zTXt", b"Raw profile type exif\0\0x")),
        bmp(kind=bytes(4), primaries=P3, gamma=1.8),
    ]
