"""Real image files for the tests, drawn or built by code: every kind that users have, and some that attackers have.

The pictures are crops of scikit-image's "chelsea" (public domain), so that gradients, edges and noise are natural.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms
from skimage.data import chelsea
from tiff_files import deflate, lzw, tiff

XMP_SIDEWAYS = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'tiff:Orientation="6"><dc:creator>J\xc3\xb6rg</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)


def photo(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """RGB uint8 (height, width, 3): an eye of the cat, no symmetry in it."""
    return np.ascontiguousarray(chelsea()[90 : 90 + height, 120 : 120 + width])


def gray_photo(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Gray uint8 (height, width)."""
    return photo(height, width)[..., 1].copy()


def deep(samples: NDArray[np.uint8], seed: int = 7) -> NDArray[np.uint16]:
    """uint16 of the same shape whose low bytes are independent of the high ones."""
    low = np.random.default_rng(seed).integers(0, 256, samples.shape, np.uint16)
    return samples.astype(np.uint16) << 8 | low


def soft_mask(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Opacity uint8 (height, width) with 0, 255 and everything between."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - height / 2) / height, (x - width / 2) / width)
    return np.clip(np.rint((0.55 - radius) * 700), 0, 255).astype(np.uint8)


def rgb_profile() -> bytes:
    """An RGB profile that is visibly not sRGB: sRGB's with red and green exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * struct.unpack_from(">L", profile, 128)[0], 12)}
    for offset in range(4, 12):
        red, green = at[b"rXYZ"] + offset, at[b"gXYZ"] + offset
        profile[red], profile[green] = profile[green], profile[red]
    profile[24:36] = bytes(12)  # the time of its making
    return bytes(profile)


def gray_profile() -> bytes:
    """A gray profile with a gamma of 2.2."""
    gamma = b"curv" + bytes(4) + struct.pack(">LH", 1, round(2.2 * 256)) + bytes(2)
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma})


def cmyk_profile() -> bytes:
    """A CMYK profile whose 16 corner colours are those of a press: cyan, magenta and yellow are not pure ones."""
    paper, cyan, magenta, yellow, black = (95, 0, -2), (55, -37, -50), (48, 74, -3), (89, -5, 93), (16, 0, 0)
    corners = []
    for index in range(16):
        on = [bool(index & bit) for bit in (8, 4, 2, 1)]
        inks = [ink for ink, used in zip((cyan, magenta, yellow, black), on, strict=True) if used]
        lab = np.min([ink[0] for ink in inks], initial=95), *np.sum([ink[1:] for ink in inks] or [paper[1:]], axis=0)
        corners += [round(lab[0] * 255 / 100), *(int(np.clip(round(v + 128), 0, 255)) for v in lab[1:])]
    identity = struct.pack(">9l", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = (
        b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + identity
        + bytes(range(256)) * 4
        + bytes(corners)
        + bytes(range(256)) * 3
    )
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4 (ICC.1:2001-04)."""
    white = b"XYZ " + bytes(4) + struct.pack(">3l", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">L", 5) + b"test\0" + bytes(78)
    parts = {b"desc": name, b"wtpt": white, b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    table, data, start = struct.pack(">L", len(parts)), b"", 128 + 4 + 12 * len(parts)
    for tag, part in parts.items():
        padded = part + bytes(-len(part) % 4)
        table += tag + struct.pack(">LL", start + len(data), len(part))
        data += padded
    body = table + data
    header = struct.pack(
        ">L4sL4s4s4s12s4s", 128 + len(body), bytes(4), 0x02400000, kind, space, connection, bytes(12), b"acsp"
    )
    header += bytes(28) + struct.pack(">3l", 63190, 65536, 54061) + bytes(48)
    return header + body


def exif(orientation: int | None = None, *, thumbnail: bool = True) -> bytes:
    """A camera's EXIF block: maker, date, exposure, size, place, and a thumbnail in a directory of its own."""
    jpeg = as_jpeg(photo(24, 32)) if thumbnail else b""
    main = [
        (0x010F, 2, b"Phot\xf6 Maker\0".replace(b"\xf6", b"o")),
        (0x0112, 3, struct.pack("<H", orientation or 1)),
        (0x0132, 2, b"2024:02:29 12:00:00\0"),
    ]
    if orientation is None:
        main.pop(1)
    details = [
        (0x829A, 5, struct.pack("<LL", 1, 250)),
        (0x8827, 3, struct.pack("<H", 400)),
        (0x927C, 7, b"MakerNote\0private bytes"),
        (0xA002, 4, struct.pack("<L", 64)),
        (0xA003, 4, struct.pack("<L", 48)),
    ]
    place = [(1, 2, b"N\0"), (2, 5, struct.pack("<6L", 52, 1, 30, 1, 0, 1))]
    return b"Exif\0\0" + _directories(main, details, place, jpeg)


def _directories(main: list[Any], details: list[Any], place: list[Any], thumbnail: bytes) -> bytes:
    """A little-endian TIFF structure of IFD0 (with Exif and GPS directories) and IFD1 (the thumbnail)."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}

    def directory(entries: list[Any], start: int, following: int) -> bytes:
        fixed, extra = struct.pack("<H", len(entries)), b""
        room = start + 2 + 12 * len(entries) + 4
        for tag, kind, data in sorted(entries):
            value = data.ljust(4, b"\0")
            if len(data) > 4:
                value = struct.pack("<L", room + len(extra))
                extra += data + b"\0" * (len(data) % 2)
            fixed += struct.pack("<HHL", tag, kind, len(data) // sizes[kind]) + value
        return fixed + struct.pack("<L", following) + extra

    def pointer(tag: int, to: int) -> tuple[int, int, bytes]:
        return tag, 4, struct.pack("<L", to)

    length = len(directory([*main, pointer(0x8769, 0), pointer(0x8825, 0)], 8, 0))
    at_details = 8 + length
    at_place = at_details + len(directory(details, 0, 0))
    at_second = at_place + len(directory(place, 0, 0))
    small = [pointer(0x0201, 0), pointer(0x0202, len(thumbnail))]
    at_jpeg = at_second + len(directory(small, 0, 0))
    small[0] = pointer(0x0201, at_jpeg)
    second = directory(small, at_second, 0) + thumbnail if thumbnail else b""
    return (
        b"II*\0\x08\0\0\0"
        + directory([*main, pointer(0x8769, at_details), pointer(0x8825, at_place)], 8, at_second if thumbnail else 0)
        + directory(details, at_details, 0)
        + directory(place, at_place, 0)
        + second
    )


def saved(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    """What Pillow writes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def as_jpeg(samples: NDArray[np.uint8], **options: Any) -> bytes:
    """JPEG, by default of quality 92, of uint8 (H, W) or (H, W, 3)."""
    return saved(Pillow.fromarray(samples), "JPEG", **{"quality": 92, **options})


def as_png(samples: NDArray[np.uint8], **options: Any) -> bytes:
    """PNG of uint8 (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)."""
    return saved(Pillow.fromarray(samples), "PNG", **options)


def turned_away(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The stored samples of a picture that an EXIF `orientation` turns into `upright` (EXIF 2.32, figure 8)."""
    inverse: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(inverse[orientation](upright))


def png(
    samples: NDArray[Any],
    colour_type: int,
    depth: int,
    *,
    interlaced: bool = False,
    transparent: bytes = b"",
    palette: bytes = b"",
) -> bytes:
    """A PNG of any kind, unfiltered, by the letter of the specification; the oracle of our reader.

    Args:
        samples: (H, W, C) values of `depth` bits.
        colour_type: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA.
        depth: 1, 2, 4, 8 or 16.
        interlaced: Adam7.
        transparent: content of tRNS.
        palette: content of PLTE.
    """
    height, width = samples.shape[:2]
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for y, x, dy, dx in adam7 if interlaced else [(0, 0, 1, 1)]:
        part = samples[y::dy, x::dx]
        for row in part if part.size else ():
            flat = row.ravel()
            bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            raw += b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes()
    header = struct.pack(">LLBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    chunks = [
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks if data or name == b"IEND")


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def bmp(
    pixels: NDArray[Any],
    bits: int,
    masks: tuple[int, ...],
    *,
    compression: int = 3,
    header: int = 40,
    top_down: bool = False,
) -> bytes:
    """A BMP of integers (H, W) of 16 or 32 bits that masks cut into channels."""
    height, width = pixels.shape
    rows = pixels if top_down else pixels[::-1]
    stride = -(-width * bits // 32) * 4
    body = b"".join(row.astype(f"<u{bits // 8}").tobytes().ljust(stride, b"\0") for row in rows)
    head = struct.pack("<LllHHL", header, width, -height if top_down else height, 1, bits, compression)
    head += struct.pack("<LllLL", len(body), 11811, 11811, 0, 0)
    head += struct.pack(f"<{len(masks)}L", *masks) if compression else b""
    head = head.ljust(header, b"\0")
    return b"BM" + struct.pack("<LHHL", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def huge_png(height: int, width: int) -> bytes:
    """A small PNG that really holds `height` x `width` white pixels of 1 bit."""
    deflate = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    data = b"".join(deflate.compress(row * 64) for _ in range(height // 64 + 1)) + deflate.flush()
    header = struct.pack(">LLBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animation(kind: str, frames: int = 3) -> bytes:
    """An animated GIF, WebP, PNG or AVIF, or a TIFF of several pages."""
    pictures = [Pillow.fromarray(np.roll(photo(), shift, axis=1)) for shift in range(frames)]
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:])


def phone_jpeg() -> bytes:
    """A phone's JPEG: a whole picture with a second one behind it (MPO)."""
    return saved(Pillow.fromarray(photo()), "MPO", save_all=True, append_images=[Pillow.fromarray(photo(24, 32))])


def awkward_files() -> dict[str, bytes]:
    """Name -> content of what lies around in people's folders, whole and valid pictures first."""
    rgb, gray, mask = photo(), gray_photo(), soft_mask()
    picture = Pillow.fromarray(rgb)
    rgb16 = deep(rgb)
    return {
        "gray.png": as_png(gray),
        "gray alpha.png": as_png(np.dstack([gray, mask])),
        "alpha.png": as_png(np.dstack([rgb, mask])),
        "palette.png": saved(picture.quantize(32), "PNG"),
        "one bit.png": saved(Pillow.fromarray(gray).convert("1"), "PNG"),
        "deep.png": png(rgb16, 2, 16),
        "deep gray.png": png(deep(gray)[..., None], 0, 16),
        "sideways.jpg": as_jpeg(turned_away(rgb, 6), exif=exif(6)),
        "ünïcode 猫.jpg": as_jpeg(rgb),
        "gray.jpg": as_jpeg(gray),
        "cmyk.jpg": saved(picture.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        "phone.jpg": phone_jpeg(),
        "UPPER.JPG": as_jpeg(rgb, progressive=True),
        "photo.webp": saved(picture, "WEBP"),
        "photo.tif": saved(picture, "TIFF", compression="tiff_lzw"),
        "photo.bmp": saved(picture, "BMP"),
        "photo.avif": saved(picture, "AVIF"),
        "still.gif": saved(picture, "GIF"),
        "packed.tif": tiff(rgb16 >> 4, 12, planar=True, compression=8, encode=deflate, chunk=(16, 32)),
        "planes.tif": tiff(np.dstack([rgb16, deep(mask)]), 16, extras=[1], planar=True, order=">", big=True),
        "indexed.tif": tiff(rgb[..., :1] >> 4, 4, photometric=3, tags={320: list(range(0, 65536, 1366))}, chunk=7),
        "separated.tif": tiff(np.dstack([rgb16, rgb16[..., 0]]), 16, photometric=5, compression=5, encode=lzw),
        "fax.tif": saved(Pillow.fromarray(gray).convert("1"), "TIFF", compression="group4"),
        "scan.tif": tiff(rgb, 8, photometric=6, compression=7, encode=lambda *_: as_jpeg(rgb)),
        "no end.jpg": as_jpeg(rgb)[:-2],
        "bad chunk.png": as_png(rgb)[:33] + chunk(b"pHYs", bytes(9))[:-1] + b"?" + as_png(rgb)[33:],
        "565.bmp": bmp(rgb[..., 0].astype(int) * 257, 16, (0xF800, 0x7E0, 0x1F)),
        # From here on: to be refused.
        "animated.gif": animation("GIF"),
        "pages.tiff": animation("TIFF"),
        "truncated.jpg": as_jpeg(rgb)[:1500],
        "truncated.png": as_png(rgb)[:-2000],
        "text.png": b"This is no picture.\n",
        "empty.jpg": b"",
        "float.tif": saved(Pillow.fromarray(gray.astype(np.float32)), "TIFF"),
        "camera.raf": b"FUJIFILMCCD-RAW 0201" + bytes(100),
        "12 bits.jpg": as_jpeg(rgb).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    }


REFUSED_FILES = frozenset(
    {
        "animated.gif", "pages.tiff", "truncated.jpg", "truncated.png", "text.png", "empty.jpg", "float.tif",
        "camera.raf", "12 bits.jpg",
    }
)  # fmt: skip
"""Those of `awkward_files` that are no single picture, or that no program can restore."""
