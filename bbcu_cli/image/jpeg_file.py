"""Reading JPEG."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from PIL.JpegImagePlugin import JpegImageFile

from bbcu_cli.errors import ImageError
from bbcu_cli.image import cmyk
from bbcu_cli.image.image import ImageInfo, Pixels
from bbcu_cli.image.jpeg_stream import END, is_covered, next_restart, strange_kind
from bbcu_cli.image.pillow import PillowFile, pixel_bytes, plain_samples

_FILLINGS: Final = (b"\x5a" * 4096, b"\xaa" * 4096, b"\xfe" * 4096, bytes(range(1, 255)) * 16)
"""What is put behind a stream without an end, to see whether its decoder still wants bits."""
_BAND_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class JpegFile(PillowFile):
    """A JPEG file."""

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> JpegFile:
        """Read the header of `stream`.

        Raises:
            ImageError: it is a JPEG of a kind that is not read here.
        """
        try:
            return cls(name, "JPEG", stream, JpegImageFile(stream))
        except Exception:
            _refuse_strange(name, stream)
            raise

    def _tables(self) -> tuple[tuple[int, ...], ...] | None:
        tables = self.picture.quantization  # type: ignore[attr-defined]
        return tuple(tuple(tables[key]) for key in sorted(tables)) if tables else None

    def _working(self, info: ImageInfo) -> int:
        """Of a progressive file libjpeg keeps all coefficients, of two bytes each, until Pillow's picture is made."""
        stored = info.pixels * pixel_bytes(self.picture, info)
        if "progressive" not in self.picture.info:
            return stored
        coefficients = info.pixels * 2 * len(self.picture.getbands())
        return max(stored, stored + coefficients - info.nbytes)

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        picture, notes = self.picture, []
        try:
            picture.load()
        except Exception:
            _refuse_strange(self.name, self.stream)
            whole = _completed(self.stream)
            if whole is None:
                raise
            picture, notes = whole, ["the file has no end marker (EOI), but its picture is complete"]
        if picture.mode == "CMYK":
            samples, note = cmyk.to_srgb(picture, picture.info.get("icc_profile"))
            return samples, [*notes, note]
        return plain_samples(picture, info), notes

    def _found(self) -> tuple[Mapping[Any, Any], list[str]]:
        found, notes = dict(self.picture.info), []
        if "mp" in found or "mpoffset" in found:
            notes.append("the file holds further pictures (MPO), which are not carried over")
        if self._converted():
            found["icc_profile"] = cmyk.srgb_profile() if found.get("icc_profile") else None
        return found, notes

    def _converted(self) -> bool:
        return self.picture.mode == "CMYK"


def _refuse_strange(name: str, stream: BinaryIO) -> None:
    """Raise an ImageError if the file is of a kind that Pillow does not decode, so that it is not called damaged."""
    stream.seek(0)
    strange = strange_kind(stream.read())
    if strange is not None:
        kind, tool = strange
        raise ImageError(f"{name} is {kind}, which bbcu does not read; convert it first with {tool}")


def _completed(stream: BinaryIO) -> JpegImageFile | None:
    """The picture of a file that lacks only its end marker, loaded; None if more is missing.

    A decoder that misses bits makes them up, and nothing here tells whether it did. But if the stream is complete, it
    gives the same picture whatever lies between the stream and an end marker, and if it is not, it does not.
    """
    stream.seek(0)
    data = stream.read().rstrip(b"\xff")  # half a marker; no scan ends so
    if data.endswith(END) or not is_covered(data):
        return None
    seen, picture = set(), None
    restarted = [next_restart(data) + filling for filling in _FILLINGS]
    for filling in (b"", *_FILLINGS, *restarted):
        picture = JpegImageFile(io.BytesIO(b"".join([data, filling, END])))
        picture.load()
        digest = hashlib.sha256()
        width, height = picture.size
        for top in range(0, height, _BAND_ROWS):
            digest.update(picture.crop((0, top, width, min(top + _BAND_ROWS, height))).tobytes())
        seen.add(digest.digest())
        if len(seen) > 1:
            return None
    return picture
