"""Reading through Pillow: all formats but HEIC.

Pillow has no 16-bit colour, yet its decoders unpack 16-bit samples, keeping one of the two bytes; so such a file
is decoded twice, once for each byte.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as Pillow

from bbcu_cli.errors import ImageError
from bbcu_cli.image import metadata
from bbcu_cli.image.color import unpremultiply
from bbcu_cli.image.image import Image, ImageInfo, Metadata, Pixels
from bbcu_cli.image.profile import icc_space

MOST_FRAMES: Final = 1000
"""Counting stops here: a hostile TIFF can chain millions of pages."""

_REFUSED_MODES: Final = {
    "F": "floating-point samples, whose range the file does not say",
    "I": "32-bit or signed samples",
    "LAB": "CIE Lab colours",
}
_GRAY_MODES: Final = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L"})
_ALPHA_MODES: Final = frozenset({"LA", "RGBA", "PA"})

_ORIENTATION: Final = 274
_TIFF_SUBFILE_TYPE: Final = 254
_TIFF_REDUCED_OR_MASK: Final = 1 | 4
_TIFF_PHOTOMETRIC: Final = 262
_TIFF_PLANAR: Final = 284
_BAND_SAMPLES: Final = 1 << 24


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its own check of the size, which compares with a global: `decode` has a parameter."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Pillow.new(self.mode, self._tile_size).im
        ImageFile.ImageFile.load_prepare(self)


# Taken one by one, not by Pillow.open: that one compares with the same global, tries formats that we do not want,
# and turns a phone's JPEG with a second picture inside into an animation.
_READERS: Final[Mapping[str, Callable[[BinaryIO], ImageFile.ImageFile]]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": _Tiff,
    "WebP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}


@dataclass(frozen=True, slots=True)
class PillowFile:
    """An image file whose header was read by Pillow; its methods raise whatever Pillow raises on damaged files."""

    name: str
    format: str
    stream: BinaryIO
    picture: ImageFile.ImageFile

    @classmethod
    def open(cls, name: str, kind: str, stream: BinaryIO) -> PillowFile:
        """Read the header of `stream`, a file of the format `kind`."""
        return cls(name, kind, stream, _READERS[kind](stream))

    def info(self) -> ImageInfo:
        """What the header says.

        Raises:
            ImageError: the samples are of a kind that we cannot restore.
        """
        picture, rawmode = self.picture, _rawmode(self.picture)
        if picture.mode in _REFUSED_MODES:
            raise ImageError(f"{self.name} has {_REFUSED_MODES[picture.mode]}; convert it to 8 or 16 bits first")
        metadata.check_colours(self.name, self.format, self.stream, picture.info)
        deep = ";16" in rawmode and picture.mode != "CMYK"
        if deep and picture.mode in ("RGB", "RGBA") and _tiff_tag(picture, _TIFF_PLANAR) == 2:
            raise ImageError(f"{self.name} has 16-bit colours in separate planes; save it with interleaved channels")
        gray = picture.mode in _GRAY_MODES or rawmode.startswith("LA;16") or _palette_is_gray(picture)
        alpha = picture.mode in _ALPHA_MODES or "transparency" in picture.info
        # A PNG may say how it is turned behind its pixels; then only decoding tells.
        known = self.format != "PNG" or "exif" in picture.info
        sideways = known and self._orientation() in (5, 6, 7, 8)
        width, height = picture.size[::-1] if sideways else picture.size
        return ImageInfo(
            format=self.format,
            size=(height, width),
            channels=1 if gray else 3,
            depth=16 if deep else 8,
            alpha=alpha,
            frames=_count_frames(picture),
        )

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata; `info` is what `info` gave."""
        picture, rawmode = self.picture, _rawmode(self.picture)
        notes: list[str] = []
        if info.depth == 16 and picture.mode in ("RGB", "RGBA"):
            samples = self._decode_two_bytes(rawmode)
        else:
            picture.load()
            samples, notes = _samples(picture, info, rawmode)
        if info.depth == 16 and _tiff_tag(picture, _TIFF_PHOTOMETRIC) == 0:
            samples = np.invert(samples)  # white is zero, which Pillow minds in 8 bits only
        orientation = self._orientation()
        _give_back(picture)
        samples = _upright(samples, orientation)
        about, left_out = self._metadata(info.channels, samples.shape[:2], orientation)
        tables = getattr(picture, "quantization", None)
        return Image(
            pixels=samples[..., : info.channels],
            alpha=samples[..., -1] if info.alpha else None,
            metadata=about,
            format=self.format,
            jpeg_tables=tuple(tuple(tables[key]) for key in sorted(tables)) if tables else None,
            notes=(*notes, *left_out),
        )

    def _orientation(self) -> object:
        """How the picture that Pillow gives has to be turned, as EXIF numbers it."""
        if self.format == "TIFF":
            return 1  # Pillow turns these by itself, and their size already says so
        with contextlib.suppress(Exception):  # damaged metadata never cost the picture; `metadata.read` notes them
            return self.picture.getexif().get(_ORIENTATION, 1)
        return 1

    def _decode_two_bytes(self, rawmode: str) -> Pixels:
        """Decode 16-bit colours once for their high and once for their low bytes: uint16 (H, W, bands)."""
        if rawmode.startswith("LA;16"):  # Pillow's mode is RGBA here; as such it has the four bytes of each pixel
            four = _fetch(_unpacked_as("RGBA", self.picture))
            return four[..., 0::2].astype(np.uint16) << 8 | four[..., 1::2]
        order = rawmode[-1] if rawmode[-1] in "LB" else {"little": "L", "big": "B"}[sys.byteorder]  # N is native
        stem = rawmode[:-1].replace("RGBa", "RGBA")
        high = _fetch(_unpacked_as(stem + order, self.picture))
        _give_back(self.picture)
        samples = high.astype(np.uint16)
        del high
        samples <<= 8
        self.stream.seek(0)
        again = _READERS[self.format](self.stream)
        samples |= _fetch(_unpacked_as(stem + {"L": "B", "B": "L"}[order], again))
        if rawmode.startswith("RGBa"):
            samples[..., :3] = unpremultiply(samples[..., :3], samples[..., 3])
        transparent = self.picture.info.get("transparency")
        return samples if transparent is None else _append_alpha(samples, transparent)

    def _metadata(self, channels: int, size: tuple[int, ...], orientation: object) -> tuple[Metadata, list[str]]:
        picture = self.picture
        notes = []
        if "mp" in picture.info or "mpoffset" in picture.info:
            notes.append("the file holds further pictures (MPO), which are not carried over")
        if self.format == "AVIF" and _avif_is_deep(self.stream):
            notes.append("more than 8 bits per sample were reduced to 8: Pillow reads AVIF no deeper")
        found = {**picture.info}
        if picture.mode == "CMYK":
            found["icc_profile"] = _srgb_profile() if "icc_profile" in found else None
        about, left_out = metadata.read(
            self.name,
            self.format,
            self.stream,
            found,
            channels=channels,
            size=(size[0], size[1]),
            orientation=None if self.format == "TIFF" else orientation,  # Pillow turns a TIFF by itself
            converted=picture.mode == "CMYK",
        )
        return about, [*notes, *left_out]


def _rawmode(picture: ImageFile.ImageFile) -> str:
    """How the samples lie in the file, in Pillow's words."""
    args = picture.tile[0].args if picture.tile else ""
    return str(args[0]) if isinstance(args, tuple) else str(args)


def _unpacked_as(rawmode: str, picture: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Load a picture, unpacking its samples by another of Pillow's rules than its own."""
    picture.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in picture.tile
    ]
    picture.load()
    return picture


def _tiff_tag(picture: ImageFile.ImageFile, tag: int) -> object:
    """Value of a tag of a TIFF; None when it is not there or the file is no TIFF."""
    return picture.tag_v2.get(tag) if isinstance(picture, TiffImagePlugin.TiffImageFile) else None


def _count_frames(picture: ImageFile.ImageFile) -> int:
    """Frames or pages, up to `MOST_FRAMES`; a TIFF's thumbnails and masks are not counted."""
    if not getattr(picture, "is_animated", False):
        return 1
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return min(int(getattr(picture, "n_frames", 1)), MOST_FRAMES)
    frames = 0
    for page in range(MOST_FRAMES):
        try:
            picture.seek(page)
        except EOFError:
            break
        frames += not int(picture.tag_v2.get(_TIFF_SUBFILE_TYPE, 0)) & _TIFF_REDUCED_OR_MASK
    picture.seek(0)
    return max(frames, 1)


def _palette_is_gray(picture: ImageFile.ImageFile) -> bool:
    """All colours of the palette are gray; False when there is no palette."""
    if picture.mode not in ("P", "PA") or picture.palette is None:
        return False
    swatch = Pillow.new("P", (1, 1))  # asking the picture itself would decode its pixels
    swatch.putpalette(picture.palette.palette, picture.palette.rawmode or picture.palette.mode)
    colours = np.array(swatch.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _fetch(picture: Pillow.Image) -> Pixels:
    """Samples of a loaded picture, (H, W, bands), in bands: so there is never a third copy of a large picture."""
    width, height = picture.size
    bands = len(picture.getbands())
    rows = max(1, _BAND_SAMPLES // (width * bands))
    out: Pixels | None = None
    for top in range(0, height, rows):
        band = np.asarray(picture.crop((0, top, width, min(top + rows, height))))
        if out is None:
            out = np.empty((height, width, bands), band.dtype.newbyteorder("="))
        out[top : top + rows] = band.reshape(-1, width, bands)
    if out is None:
        raise ValueError("the picture has no rows")
    return out


def _samples(picture: ImageFile.ImageFile, info: ImageInfo, rawmode: str) -> tuple[Pixels, list[str]]:
    """Samples of a loaded picture, (H, W, C): `info.channels` of colour and, if it has alpha, one more."""
    mode, transparent = picture.mode, picture.info.get("transparency")
    plain = "L" if info.channels == 1 else "RGB"
    if mode == "CMYK":
        return _cmyk_to_rgb(picture)
    if mode in ("P", "PA"):
        return _fetch(picture.convert({"L": "LA", "RGB": "RGBA"}[plain] if info.alpha else plain)), []
    kept = mode in ("L", "LA", "RGB", "RGBA") or mode.startswith("I;16")
    samples = _fetch(picture if kept else picture.convert(plain))
    if transparent is None:
        return samples, []
    # PNG states the colour in the depth of the file, Pillow spreads 2 and 4 bits to 8.
    return _append_alpha(samples, np.multiply(transparent, {"L;2": 85, "L;4": 17}.get(rawmode, 1))), []


def _append_alpha(samples: Pixels, transparent: Pixels | int | tuple[int, ...]) -> Pixels:
    """Add an alpha band that is zero where a pixel has the one `transparent` colour."""
    most = np.iinfo(samples.dtype).max
    alpha = np.where((samples == np.asarray(transparent)).all(axis=-1), 0, most).astype(samples.dtype)
    return np.dstack([samples, alpha])


def _cmyk_to_rgb(picture: ImageFile.ImageFile) -> tuple[Pixels, list[str]]:
    """Through the file's own profile to sRGB; without a usable one by Pillow's formula."""
    icc = picture.info.get("icc_profile")
    try:
        if icc and icc_space(icc) == b"CMYK":
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(
                picture,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                srgb,
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return _fetch(converted), ["CMYK was converted to sRGB through the file's profile"]
    except (ImageCms.PyCMSError, ValueError) as error:
        return _fetch(picture.convert("RGB")), [f"CMYK was converted by a plain formula: its profile fails ({error})"]
    return _fetch(picture.convert("RGB")), ["CMYK was converted by a plain formula: the file has no CMYK profile"]


def _srgb_profile() -> bytes:
    """An sRGB profile, without the time of its making: equal inputs give equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def _give_back(picture: ImageFile.ImageFile) -> None:
    """Let go of Pillow's copy of the pixels before more memory is taken; what the file says is kept."""
    picture.im = Pillow.new("1", (1, 1)).im


def _upright(samples: Pixels, orientation: object) -> Pixels:
    """Turn and mirror samples as the EXIF orientation (1 to 8; anything else is ignored) says."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def _avif_is_deep(stream: BinaryIO) -> bool:
    """The file's codec configuration (av1C: 4 bytes, high_bitdepth is bit 6 of the third) says 10 or 12 bits."""
    stream.seek(0)
    head = stream.read(1 << 16)
    at = head.find(b"av1C")
    return 0 <= at < len(head) - 6 and bool(head[at + 6] & 0x40)
