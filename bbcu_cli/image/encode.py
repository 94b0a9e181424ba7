"""`Image` -> files: the way out. What a format cannot hold is said by `losses` and left out; nothing else is."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from PIL import Image as Pillow

from bbcu_cli.cores import default_threads
from bbcu_cli.errors import ImageError
from bbcu_cli.image import exif
from bbcu_cli.image.color import to_8_bit, to_float, to_integer
from bbcu_cli.image.fit import fitted
from bbcu_cli.image.formats import FORMATS
from bbcu_cli.image.heic import library
from bbcu_cli.image.ifd import Block
from bbcu_cli.image.image import Bands, Image, Metadata
from bbcu_cli.image.metadata import COMMENT
from bbcu_cli.image.png import write_png
from bbcu_cli.image.tiff import write_tiff

STREAMED: Final = ("PNG", "TIFF")
"""Formats that are written as the rows come; of the others the whole picture is gathered first."""

_PIECE_BYTES: Final = 1 << 20
_QUALITY: Final = {"JPEG": 95, "WebP": 90, "AVIF": 85, "HEIC": 85}


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How to write files; options that a format does not have are not looked at.

    Attributes:
        quality: 1 to 100 for the lossy formats; None means JPEG 95, WebP 90, AVIF 85, HEIC 85.
        subsampling: colour resolution of JPEG and AVIF; "4:4:4" is full.
        lossless: WebP and HEIC without loss; `quality` is then not looked at.
        metadata: "strip" leaves out EXIF, XMP, text and resolution, but not the colour profile: without it the
            colours would change.
        background: RGB in 0..255 to put under transparent pixels in formats without alpha; None refuses them.
    """

    quality: int | None = None
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"
    lossless: bool = False
    metadata: Literal["keep", "strip"] = "keep"
    background: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ImageError(f"quality is {self.quality}, expected 1 to 100")


DEFAULT_OPTIONS: Final = EncodeOptions()


def losses(image: Image | Bands, kind: str, options: EncodeOptions = DEFAULT_OPTIONS) -> tuple[str, ...]:
    """What a file of the format `kind` will not hold of an image, a sentence each; lossy compression is not counted."""
    fmt = FORMATS[kind]
    found = []
    if image.depth > fmt.depth:
        found.append(f"{kind} holds 8 bits per sample, not 16: the samples are rounded")
    if _gray_to_rgb(image, kind):
        found.append(f"{kind} stores the gray image as RGB")
    if not fmt.alpha and not image.opaque:
        found.append(f"{kind} has no transparency")
    _, lost = fitted(_kept(image.metadata, options), kind, gray_to_rgb=_gray_to_rgb(image, kind))
    return (*found, *lost)


def encode(image: Image, kind: str, options: EncodeOptions = DEFAULT_OPTIONS, *, threads: int | None = None) -> bytes:
    """The bytes of a file of the format `kind`, with all of the image that the format can hold; as `write`."""
    file = io.BytesIO()
    write(Bands.of(image), kind, file, options, threads=threads)
    return file.getvalue()


def write(
    bands: Bands,
    kind: str,
    file: BinaryIO,
    options: EncodeOptions = DEFAULT_OPTIONS,
    *,
    threads: int | None = None,
) -> None:
    """Write a file of the format `kind`, with all of the picture that the format can hold.

    PNG and TIFF are written band by band as the rows come; of the other formats the whole picture is gathered first, in
    8 bits.

    Args:
        bands: the picture; what it was read from does not matter.
        kind: a name of `FORMATS`.
        file: an empty file that can seek.
        options: how.
        threads: how many cores PNG and TIFF may use; None means `default_threads()`. The bytes do not depend on it.

    Raises:
        ImageError: the format cannot be written (here), the image is too large for it, or has transparent pixels
            while the format has none and no background is given; all of these before the first row is asked for.
        OSError: the system refused the file.
    """
    bands = prepared(bands, kind, options)
    cores = threads or default_threads()
    with failing_as(kind):
        if kind == "PNG":
            write_png(bands, file, threads=cores)
        elif kind == "TIFF":
            write_tiff(bands, file, threads=cores)
        else:
            _PILLOW_WRITERS[kind](bands, file, options)


def prepared(bands: Bands, kind: str, options: EncodeOptions) -> Bands:
    """A picture as a file of the format `kind` holds it; errors as of `write`, before the first row is asked for."""
    fmt = FORMATS.get(kind)
    if fmt is None or not fmt.writable:
        writable = ", ".join(name for name, known in FORMATS.items() if known.writable)
        raise ImageError(f"images cannot be written as {kind}; use one of {writable}")
    height, width = bands.size
    if max(height, width) > fmt.max_side:
        raise ImageError(f"{kind} holds at most {fmt.max_side} pixels per side, not {width}x{height}; use PNG or TIFF")
    held, _ = fitted(_kept(bands.metadata, options), kind, gray_to_rgb=_gray_to_rgb(bands, kind))
    bands = replace(bands, metadata=held)
    if bands.alpha and not fmt.alpha:
        bands = _without_alpha(bands, kind, options)
    if bands.depth > fmt.depth:
        bands = replace(bands, depth=fmt.depth, rows=map(_in_8_bits, bands.pieces(_rows(bands))))
    return bands


@contextlib.contextmanager
def failing_as(kind: str) -> Iterator[None]:
    """Turn what an encoder raises into a sentence about the format `kind`."""
    try:
        yield
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the file, not of its encoder
        raise ImageError(f"the image cannot be written as {kind}: {error or type(error).__name__}") from error


def _rows(bands: Bands) -> int:
    """Rows that are converted at a time."""
    return max(1, _PIECE_BYTES // (bands.size[1] * bands.samples * bands.depth // 8))


def _kept(metadata: Metadata, options: EncodeOptions) -> Metadata:
    return metadata if options.metadata == "keep" else Metadata(icc=metadata.icc)


def _gray_to_rgb(image: Image | Bands, kind: str) -> bool:
    """The picture is gray and will be written as RGB."""
    with_alpha = image.alpha if isinstance(image, Bands) else image.alpha is not None
    return image.channels == 1 and not (
        FORMATS[kind].gray and not (kind == "TIFF" and image.depth == 16 and with_alpha)
    )


def _in_8_bits(image: Image) -> Image:
    alpha = None if image.alpha is None else to_8_bit(image.alpha)
    return replace(image, pixels=to_8_bit(image.pixels), alpha=alpha)


def _without_alpha(bands: Bands, kind: str, options: EncodeOptions) -> Bands:
    """Put the picture on the background; an opaque one just loses its alpha channel."""
    plain = replace(bands, alpha=False, opaque=True)
    if bands.opaque:
        return replace(plain, rows=(replace(band, alpha=None) for band in bands.rows))
    if options.background is None:
        raise ImageError(
            f"{kind} cannot hold the transparent pixels of this image; write PNG, WebP or TIFF, "
            "or give a colour to put under them with --background"
        )
    return replace(plain, rows=map(partial(_on_background, colour=options.background), bands.pieces(_rows(bands))))


def _on_background(image: Image, *, colour: tuple[int, int, int]) -> Image:
    if image.alpha is None:
        return image
    under = np.array(colour, np.float32) / 255
    if image.channels == 1:
        under = under.mean(keepdims=True)
    pixels = np.empty_like(image.pixels)
    for row, (samples, alpha) in enumerate(zip(image.pixels, image.alpha, strict=True)):
        opacity = to_float(alpha)[:, None]
        pixels[row] = to_integer(to_float(samples) * opacity + under * (1 - opacity), image.depth)
    return replace(image, pixels=pixels, alpha=None)


def picture_of(bands: Bands, *, gray: bool = True) -> Pillow.Image:
    """An 8-bit picture as Pillow's."""
    channels = bands.channels if gray else 3
    height, width = bands.size
    picture = Pillow.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels + bands.alpha], (width, height))
    top = 0
    for band in bands.pieces(_rows(bands)):
        pixels = np.repeat(band.pixels, channels // band.channels, axis=2)
        samples = pixels if band.alpha is None else np.dstack([pixels, band.alpha])
        picture.paste(Pillow.fromarray(np.squeeze(samples, 2) if samples.shape[2] == 1 else samples), (0, top))
        top += band.size[0]
    return picture


def _blocks(metadata: Metadata) -> dict[str, bytes]:
    """Profile, EXIF and XMP as keyword arguments of Pillow's and pillow-heif's `save`."""
    blocks = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp}
    return {name: block for name, block in blocks.items() if block is not None}


def blocks_with_dpi(metadata: Metadata) -> dict[str, bytes]:
    """The same for formats that have no place for the resolution but EXIF.

    The orientation, 1, is left out: Pillow would take it out of the EXIF of an AVIF, and write all the rest anew.
    """
    block = Block() if metadata.exif is None else exif.unpack(metadata.exif)
    block = exif.with_resolution(exif.without(block, 0, exif.ORIENTATION), metadata.dpi)
    return _blocks(replace(metadata, exif=exif.pack(block)))


def quality_of(kind: str, options: EncodeOptions) -> int:
    """The quality that is asked for, or the usual one of a lossy format."""
    return options.quality if options.quality is not None else _QUALITY[kind]


def _save_jpeg(bands: Bands, file: BinaryIO, options: EncodeOptions) -> None:
    about = bands.metadata
    comment = dict(about.text).get(COMMENT, "").encode("utf-8", "surrogateescape")
    picture_of(bands).save(
        file,
        "JPEG",
        quality=quality_of("JPEG", options),
        subsampling=options.subsampling,
        dpi=about.dpi or (0, 0),
        **_blocks(about),
        **({"comment": comment} if comment else {}),
    )


def webp_settings(options: EncodeOptions) -> dict[str, Any]:
    """Keyword arguments of Pillow's `save`, but for metadata."""
    quality = 75 if options.lossless else quality_of("WebP", options)  # lossless: the effort
    # "exact" keeps the colour under transparent pixels, which is part of what was given.
    return {"lossless": options.lossless, "exact": options.lossless, "quality": quality, "method": 4}


def _save_webp(bands: Bands, file: BinaryIO, options: EncodeOptions) -> None:
    picture_of(bands).save(file, "WEBP", **webp_settings(options), **blocks_with_dpi(bands.metadata))


def avif_settings(bands: Bands, options: EncodeOptions) -> dict[str, Any]:
    """Keyword arguments of Pillow's `save`."""
    blocks = blocks_with_dpi(bands.metadata)
    return {"quality": quality_of("AVIF", options), "subsampling": options.subsampling, **blocks}


def _save_avif(bands: Bands, file: BinaryIO, options: EncodeOptions) -> None:
    picture_of(bands).save(file, "AVIF", **avif_settings(bands, options))


def _save_heic(bands: Bands, file: BinaryIO, options: EncodeOptions) -> None:
    quality = -1 if options.lossless else quality_of("HEIC", options)
    picture, blocks = library("the output").from_pillow(picture_of(bands, gray=False)), blocks_with_dpi(bands.metadata)
    picture.save(file, quality=quality, subsampling=options.subsampling, **blocks)


def _save_bmp(bands: Bands, file: BinaryIO, _: EncodeOptions) -> None:
    picture_of(bands).save(file, "BMP", dpi=bands.metadata.dpi or (0, 0))  # 0: not known; Pillow would say 96


_PILLOW_WRITERS: Final[Mapping[str, Callable[[Bands, BinaryIO, EncodeOptions], None]]] = {
    "JPEG": _save_jpeg,
    "WebP": _save_webp,
    "AVIF": _save_avif,
    "HEIC": _save_heic,
    "BMP": _save_bmp,
}
