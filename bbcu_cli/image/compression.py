"""What a file says about the loss in it: lossless, or compressed how hard."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import JpegImagePlugin

from bbcu_cli.image.formats import HEAD_BYTES, identify
from bbcu_cli.image.jpeg import jpeg_quality
from bbcu_cli.image.jpeg2000_file import describe
from bbcu_cli.image.jxl_header import read_header


@dataclass(frozen=True, slots=True)
class Compression:
    """A lossy compression.

    Attributes:
        format: "JPEG", "WebP", "AVIF", "HEIC", "JPEG 2000" or "JPEG XL".
        quality: the libjpeg quality, 1..100, that quantises about as hard; None where the file does not tell.
    """

    format: str
    quality: int | None = None

    def __str__(self) -> str:
        if self.quality is None:
            return f"a lossy {self.format} file"
        return f"a {self.format} of quality {self.quality}"


def compression_of(source: Path | bytes) -> Compression | None:
    """How a file was compressed, from its header alone; None for a lossless file, and for one that is no image.

    A JPEG tells by its quantisation tables, a WebP by the kind of its bitstream, JPEG 2000 by its wavelet, JPEG XL
    by its colours (XYB) or the JPEG that it was. AVIF and HEIC count as lossy: hardly any are not.

    Args:
        source: a path, or the whole content of a file.
    """
    if isinstance(source, Path) and not source.is_file():
        return None  # opening a pipe would wait for ever
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            return _read(stream)
    except (EOFError, OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error):
        return None  # unreadable or damaged: decoding it will say so


def _read(stream: BinaryIO) -> Compression | None:
    kind = identify(stream.read(HEAD_BYTES))
    stream.seek(0)
    if kind == "JPEG":
        return _jpeg(stream)
    if kind == "WebP":
        return Compression("WebP") if _webp_is_lossy(stream) else None
    if kind == "JPEG 2000":
        return Compression(kind) if describe(stream).lossy else None
    if kind == "JPEG XL":
        header = read_header(stream)
        return Compression(kind) if header.xyb or header.recompressed else None
    return Compression(kind) if kind in ("AVIF", "HEIC") else None


def _jpeg(stream: BinaryIO) -> Compression:
    picture = JpegImagePlugin.JpegImageFile(stream)
    tables = [picture.quantization[key] for key in sorted(picture.quantization)]
    return Compression("JPEG", jpeg_quality(tables))


def _webp_is_lossy(stream: BinaryIO) -> bool:
    """Whether the first bitstream chunk is VP8 (lossy) and not VP8L; frames of an animation lie in ANMF chunks."""
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        # A frame's header has 16 bytes, and chunks follow; every other chunk is passed, with its padding.
        stream.seek(16 if name == b"ANMF" else size + size % 2, io.SEEK_CUR)
    return True
