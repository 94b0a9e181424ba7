"""Reading PBM, PGM, PPM, PAM and PFM, of text, bytes and floating-point numbers. Source: the format pages of Netpbm.

Pillow reduces colour of 16 bits to 8, and takes no PAM and no PFM of colour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from bbcu_cli.image import metadata
from bbcu_cli.image.image import Image, ImageInfo, Pixels
from bbcu_cli.image.levels import Levels, Spread

_HEAD_BYTES: Final = 1 << 16
_BAND_BYTES: Final = 1 << 20
_COMMENT: Final = re.compile(rb"#[^\r\n]*")
_TOKEN: Final = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?=\s|#)")
_PAM_LINE: Final = re.compile(rb"[ \t]*(?:#[^\n]*|([A-Z]+)(?:[ \t]+([^\n]*?))?)[ \t\r]*\n")
_PFM: Final = re.compile(rb"P[Ff]\n[ \t]*(\d{1,10})\s+(\d{1,10})\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)[ \t\r]*\n")
_FLOATS: Final = frozenset({b"Pf", b"PF"})
_BITMAPS: Final = frozenset({b"P1", b"P4"})
_TEXTS: Final = frozenset({b"P1", b"P2", b"P3"})


@dataclass(frozen=True, slots=True)
class PnmFile:
    """A file whose header was read.

    Attributes:
        kind: its first two bytes, b"P1" to b"P7", b"Pf" or b"PF".
        size: (height, width).
        samples: of a pixel, alpha included.
        most: the sample that is white; of floating-point numbers, negative where they are little-endian.
        start: where the pixels lie.
        levels: black and white of floating-point numbers, if stated.
    """

    name: str
    stream: BinaryIO
    kind: bytes
    size: tuple[int, int]
    samples: int
    most: float
    start: int
    levels: Levels | None = None

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> PnmFile:
        """Read the header of `stream`."""
        head = stream.read(_HEAD_BYTES)
        kind = head[:2]
        if kind == b"P7":
            return cls(name, stream, kind, *_pam(head))
        if kind in _FLOATS:
            return cls(name, stream, kind, *_pfm(head))
        numbers, at = [], 2
        for _ in range(2 if kind in _BITMAPS else 3):
            token = _TOKEN.match(head, at)
            if token is None:
                raise ValueError("its header has no number where one belongs")
            numbers.append(int(token[1]))
            at = token.end()
        width, height = numbers[:2]
        return cls(name, stream, kind, (height, width), 3 if kind in (b"P3", b"P6") else 1, [*numbers, 1][2], at + 1)

    def info(self) -> ImageInfo:
        """What the header says."""
        if self.kind in _FLOATS:
            return ImageInfo("PNM", self.size, self.samples, 16, alpha=False, frames=1)
        if min(self.size) < 1 or not 1 <= self.most <= 0xFFFF or not 1 <= self.samples <= 4:
            raise ValueError(
                f"its header says {self.size[1]}x{self.size[0]} pixels of {self.samples} samples up to {self.most}"
            )
        depth, alpha = 16 if self.most > 0xFF else 8, self.samples in (2, 4)
        pixels = self.size[0] * self.size[1] * self.samples
        text = 2 * self._length() + 16 * pixels if self.kind in _TEXTS else 0
        return ImageInfo("PNM", self.size, self.samples - alpha, depth, alpha, frames=1, working=text)

    def decode(self, info: ImageInfo) -> Image:
        """All pixels; `info` is what `info` gave."""
        height, width = self.size
        samples = np.empty((height, width, self.samples), np.dtype(f"u{info.depth // 8}"))
        said = self._spread(samples) if self.kind in _FLOATS else self._looked_up(samples, info.depth)
        about, notes = metadata.read(self.name, "PNM", self.stream, {}, channels=info.channels, size=self.size)
        alpha = samples[..., -1] if info.alpha else None
        return Image(samples[..., : info.channels], alpha, about, "PNM", notes=(*said, *notes))

    def _looked_up(self, samples: Pixels, depth: int) -> tuple[str, ...]:
        """Fill in samples of integers; there is nothing to be said of them."""
        most, top = int(self.most), (1 << depth) - 1
        table = ((2 * top * np.arange(most + 1, dtype=np.int64) + most) // (2 * most)).astype(samples.dtype)
        if self.kind in _BITMAPS:
            table = table[::-1]  # 1 is black
        for rows, values in self._text(samples) if self.kind in _TEXTS else self._rows(samples):
            if int(values.max()) > most:
                raise ValueError(f"a sample is {values.max()}, more than the {most} of its header")
            rows[:] = table[values]
        return ()

    def _spread(self, samples: Pixels) -> tuple[str, ...]:
        """Fill in samples of floating-point numbers, which lie from the last row to the first; notes."""
        spread = Spread(self.levels or Levels(0, abs(self.most)))
        for rows, values in self._rows(samples[::-1]):
            rows[:] = spread.colour(values)
        return spread.notes

    def _length(self) -> int:
        return self.stream.seek(0, os.SEEK_END)

    def _rows(self, samples: Pixels) -> Iterator[tuple[Pixels, Pixels]]:
        """Rows of the result, each with their values in the file."""
        height, width, count = samples.shape
        dtype: np.dtype[Any] = np.dtype(">u2" if self.most > 0xFF else "u1")
        if self.kind in _FLOATS:
            dtype = np.dtype("<f4" if self.most < 0 else ">f4")
        bits = 1 if self.kind == b"P4" else 8 * dtype.itemsize
        stride = -(-width * count * bits // 8)
        if self.start + stride * height > self._length():
            raise EOFError(f"its pixels need {stride * height} bytes")
        self.stream.seek(self.start)
        step = max(1, _BAND_BYTES // stride)
        for top in range(0, height, step):
            rows = samples[top : top + step]
            data = np.frombuffer(self.stream.read(len(rows) * stride), dtype)
            if bits == 1:
                data = np.unpackbits(data.reshape(len(rows), stride), axis=1)[:, :width]
            yield rows, data.reshape(rows.shape)

    def _text(self, samples: Pixels) -> Iterator[tuple[Pixels, Pixels]]:
        """The same of a file of text, all at once."""
        self.stream.seek(self.start)
        text = _COMMENT.sub(b"", self.stream.read())
        if not re.fullmatch(rb"[01\s]*" if self.kind == b"P1" else rb"[\d\s]*", text):
            raise ValueError("there is something else than numbers among its pixels")
        if self.kind == b"P1":  # digits need nothing between them
            digits = np.frombuffer(text, np.uint8)
            values = digits[digits >= ord("0")] - ord("0")
        else:
            values = np.fromstring(text, np.int64, sep=" ")
        if values.size < samples.size:
            raise EOFError(f"it has {values.size} of {samples.size} samples")
        yield samples, values[: samples.size].reshape(samples.shape)


def _pfm(head: bytes) -> tuple[tuple[int, int], int, float, int]:
    """(height, width), samples of a pixel, the number that is white with the sign of the byte order, and the start."""
    header = _PFM.match(head)
    if header is None:
        raise ValueError("its header is not one of a PFM")
    width, height, white = int(header[1]), int(header[2]), float(header[3])
    if min(width, height) < 1 or not 1e-30 < abs(white) < 1e30:
        raise ValueError(f"its header says {width}x{height} pixels up to {white:g}")
    return (height, width), 3 if head.startswith(b"PF") else 1, white, header.end()


def _pam(head: bytes) -> tuple[tuple[int, int], int, int, int]:
    """(height, width), samples of a pixel, the largest sample, and where the pixels lie."""
    fields: dict[bytes, bytes] = {}
    at = head.index(b"\n") + 1
    while line := _PAM_LINE.match(head, at):
        at = line.end()
        if line[1] == b"ENDHDR":
            height, width, samples, most = (int(fields[key]) for key in (b"HEIGHT", b"WIDTH", b"DEPTH", b"MAXVAL"))
            return (height, width), samples, most, at
        if line[1]:
            fields[line[1]] = line[2] or b""
    raise ValueError("its header has no end")
