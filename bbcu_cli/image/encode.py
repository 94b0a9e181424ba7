"""`Image` -> files: the way out. What a format cannot hold is said by `losses` and left out; nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Literal

import numpy as np
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from bbcu_cli.errors import ImageError
from bbcu_cli.image.color import to_8_bit, to_float, to_integer
from bbcu_cli.image.formats import FORMATS
from bbcu_cli.image.heic import library
from bbcu_cli.image.image import Image, Metadata
from bbcu_cli.image.metadata import XMP_KEYWORD, with_dpi_in_exif
from bbcu_cli.image.png16 import write_png16
from bbcu_cli.image.tiff import write_tiff

_QUALITY: Final = {"JPEG": 95, "WebP": 90, "AVIF": 85, "HEIC": 85}
_JPEG_SEGMENT: Final = 65_533 - len(b"http://ns.adobe.com/xap/1.0/\0")
"""Most bytes of EXIF, and of XMP, that fit into their one segment of a JPEG."""


_COMMENT: Final = "Comment"
"""The keyword of `Metadata.text` under which a JPEG keeps its comment."""


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How to write files; options that a format does not have are not looked at.

    Attributes:
        quality: 1 to 100 for the lossy formats; None means JPEG 95, WebP 90, AVIF 85, HEIC 85.
        subsampling: colour resolution of JPEG and AVIF; "4:4:4" is full.
        lossless: WebP and HEIC without loss; `quality` is then not looked at.
        png_level: 0 (fast, large) to 9 (slow, small).
        metadata: "strip" leaves out EXIF, XMP, text and resolution, but not the colour profile: without it the
            colours would change.
        background: RGB in 0..255 to put under transparent pixels in formats without alpha; None refuses them.
    """

    quality: int | None = None
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"
    lossless: bool = False
    png_level: int = 6
    metadata: Literal["keep", "strip"] = "keep"
    background: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ImageError(f"quality is {self.quality}, expected 1 to 100")
        if not 0 <= self.png_level <= 9:
            raise ImageError(f"PNG compression level is {self.png_level}, expected 0 to 9")


DEFAULT_OPTIONS: Final = EncodeOptions()


def losses(image: Image, format: str, options: EncodeOptions = DEFAULT_OPTIONS) -> tuple[str, ...]:
    """What a file of `format` will not hold of an image, one short sentence each; lossy compression is not counted."""
    fmt, about = FORMATS[format], _kept(image.metadata, options)
    found = []
    if image.depth > fmt.depth:
        found.append(f"{format} holds 8 bits per sample, not 16: the samples are rounded")
    if image.channels == 1 and not (fmt.gray and _holds_gray(image, format)):
        found.append(f"{format} stores the gray image as RGB")
    if not fmt.alpha and not image.opaque:
        found.append(f"{format} has no transparency")
    for what, value, place in (
        ("colour profile", about.icc, fmt.icc),
        ("EXIF data", about.exif, fmt.exif),
        ("XMP data", about.xmp, fmt.xmp),
        ("resolution", about.dpi, fmt.dpi),
    ):
        if value is not None and not place:
            found.append(f"{format} has no place for the {what}")
    lost = [keyword for keyword, _ in about.text if not fmt.text and (format, keyword) != ("JPEG", _COMMENT)]
    if lost:
        found.append(f"{format} has no place for the text ({', '.join(lost)})")
    if format == "JPEG":
        for what, block in (("EXIF data", about.exif), ("XMP data", about.xmp)):
            if block is not None and len(block) > _JPEG_SEGMENT:
                found.append(f"the {what} ({len(block)} bytes) are too long for JPEG")
    return tuple(found)


def encode(image: Image, format: str, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The bytes of a file of `format`, a name of `FORMATS`, with all of the image that the format can hold.

    Raises:
        ImageError: the format cannot be written (here), the image is too large for it, or has transparent pixels
            while the format has none and no background is given.
    """
    fmt = FORMATS.get(format)
    if fmt is None or not fmt.writable:
        writable = ", ".join(name for name, known in FORMATS.items() if known.writable)
        raise ImageError(f"images cannot be written as {format}; use one of {writable}")
    height, width = image.size
    if max(height, width) > fmt.max_side:
        raise ImageError(
            f"{format} holds at most {fmt.max_side} pixels per side, not {width}x{height}; use PNG or TIFF"
        )
    image = replace(image, metadata=_kept(image.metadata, options))
    if image.alpha is not None and not fmt.alpha:
        image = _without_alpha(image, format, options)
    if image.depth > fmt.depth:
        alpha = None if image.alpha is None else to_8_bit(image.alpha)
        image = replace(image, pixels=to_8_bit(image.pixels), alpha=alpha)
    file = io.BytesIO()
    try:
        _WRITERS[format](image, file, options)
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        raise ImageError(f"the image cannot be written as {format}: {error or type(error).__name__}") from error
    return file.getvalue()


def _kept(metadata: Metadata, options: EncodeOptions) -> Metadata:
    return metadata if options.metadata == "keep" else Metadata(icc=metadata.icc)


def _holds_gray(image: Image, format: str) -> bool:
    return not (format == "TIFF" and image.depth == 16 and image.alpha is not None)


def _comment(metadata: Metadata) -> bytes | None:
    return next((text.encode() for key, text in metadata.text if key == _COMMENT), None)


def _without_alpha(image: Image, format: str, options: EncodeOptions) -> Image:
    """Put the image on the background; an opaque one just loses its alpha channel."""
    if image.alpha is None or image.opaque:
        return replace(image, alpha=None)
    if options.background is None:
        raise ImageError(
            f"{format} cannot hold the transparent pixels of this image; write PNG, WebP or TIFF, "
            "or give a colour to put under them with --background"
        )
    under = np.array(options.background, np.float32) / 255
    if image.channels == 1:
        under = under.mean(keepdims=True)
    pixels = np.empty_like(image.pixels)
    for row, (colour, alpha) in enumerate(zip(image.pixels, image.alpha, strict=True)):
        opacity = to_float(alpha)[:, None]
        pixels[row] = to_integer(to_float(colour) * opacity + under * (1 - opacity), image.depth)
    return replace(image, pixels=pixels, alpha=None)


def _picture(image: Image, *, gray: bool = True) -> Pillow.Image:
    """An 8-bit image as Pillow's."""
    pixels = image.pixels if gray or image.channels == 3 else np.repeat(image.pixels, 3, axis=2)
    samples = pixels if image.alpha is None else np.dstack([pixels, image.alpha])
    return Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))


def _blocks(metadata: Metadata, exif: bytes | None) -> dict[str, bytes]:
    """Profile, EXIF and XMP as keyword arguments of Pillow's and pillow-heif's `save`."""
    blocks = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp}
    return {name: block for name, block in blocks.items() if block is not None}


def _quality(format: str, options: EncodeOptions) -> int:
    return options.quality if options.quality is not None else _QUALITY[format]


def _save_png(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    if image.depth == 16:
        write_png16(image, file, options.png_level)
        return
    chunks, about = PngInfo(), image.metadata
    for keyword, text in about.text:
        chunks.add_itxt(keyword, text)
    if about.xmp is not None:
        chunks.add_itxt(XMP_KEYWORD, about.xmp.decode())
    blocks = _blocks(replace(about, xmp=None), about.exif)
    dpi = {} if about.dpi is None else {"dpi": about.dpi}
    _picture(image).save(file, "PNG", pnginfo=chunks, compress_level=options.png_level, **blocks, **dpi)


def _save_jpeg(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    about = image.metadata
    blocks = {
        name: block
        for name, block in _blocks(about, about.exif).items()
        if name == "icc_profile" or len(block) <= _JPEG_SEGMENT
    }
    comment = _comment(about)
    _picture(image).save(
        file,
        "JPEG",
        quality=_quality("JPEG", options),
        subsampling=options.subsampling,
        dpi=about.dpi or (0, 0),
        **blocks,
        **({"comment": comment} if comment else {}),
    )


def _save_tiff(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    write_tiff(image, file)


def _save_webp(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    blocks = _blocks(image.metadata, with_dpi_in_exif(image.metadata))
    quality = 75 if options.lossless else _quality("WebP", options)  # lossless: the effort
    # "exact" keeps the colour under transparent pixels, which is part of what was given.
    _picture(image).save(
        file, "WEBP", lossless=options.lossless, exact=options.lossless, quality=quality, method=4, **blocks
    )


def _save_avif(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    blocks = _blocks(image.metadata, with_dpi_in_exif(image.metadata))
    _picture(image).save(file, "AVIF", quality=_quality("AVIF", options), subsampling=options.subsampling, **blocks)


def _save_heic(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    quality = -1 if options.lossless else _quality("HEIC", options)
    picture = _picture(image, gray=False)
    blocks = _blocks(image.metadata, with_dpi_in_exif(image.metadata))
    library("the output").from_pillow(picture).save(file, quality=quality, subsampling=options.subsampling, **blocks)


def _save_bmp(image: Image, file: BinaryIO, options: EncodeOptions) -> None:
    _picture(image).save(file, "BMP", dpi=image.metadata.dpi or (0, 0))  # 0: not known; Pillow would say 96


_WRITERS: Final[Mapping[str, Callable[[Image, BinaryIO, EncodeOptions], None]]] = {
    "PNG": _save_png,
    "JPEG": _save_jpeg,
    "TIFF": _save_tiff,
    "WebP": _save_webp,
    "AVIF": _save_avif,
    "HEIC": _save_heic,
    "BMP": _save_bmp,
}
