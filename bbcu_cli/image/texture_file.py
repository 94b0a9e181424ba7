"""Reading TGA, DDS and ICO through Pillow, and what it does not look at."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from PIL.DdsImagePlugin import DdsImageFile
from PIL.IcoImagePlugin import IcoImageFile
from PIL.TgaImagePlugin import TgaImageFile

from bbcu_cli.errors import ImageError
from bbcu_cli.image.image import Image, ImageInfo, Pixels
from bbcu_cli.image.pillow import PillowFile, is_gray, pixel_bytes, plain_samples
from bbcu_cli.image.png_file import PngFile

_ALPHA_BITS: Final = 0x0F
_FROM_THE_RIGHT: Final = 0x10
_CUBE, _VOLUME = 0x200, 0x200000
_DDS_HEAD, _DX10_HEAD = 128, 20
_NAMED: Final = 4
_LIGHT: Final = tuple(f"DXGI format {number}" for number in (94, 95, 96))
_ENTRY: Final = 16
_MOST_ICONS: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class TgaFile(PillowFile):
    """A Targa file.

    Attributes:
        opaque: its header does not say that there is opacity.
        mirrored: its columns go from right to left.
    """

    opaque: bool
    mirrored: bool

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> TgaFile:
        """Read the header of `stream`."""
        head = stream.read(18)
        stream.seek(0)
        opaque, mirrored = head[17] & _ALPHA_BITS == 0, bool(head[17] & _FROM_THE_RIGHT)
        return cls(name, "TGA", stream, TgaImageFile(stream), opaque=opaque, mirrored=mirrored)

    def _is_gray(self) -> bool:
        return self.picture.mode != "P" and is_gray(self.picture)

    def _has_alpha(self) -> bool:
        """Only if its header says so: files of 32 bits are full of fourth bytes that are zeros, and mean nothing."""
        return not self.opaque and super(TgaFile, self)._has_alpha()

    def _working(self, info: ImageInfo) -> int:
        """Pillow's picture, and one without its fourth byte or mirrored."""
        copied = self.mirrored or self._is_stripped()
        return info.pixels * (8 if copied else pixel_bytes(self.picture, info))

    def _is_stripped(self) -> bool:
        return self.opaque and self.picture.mode in ("LA", "RGBA")

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        self.picture.load()
        if self._is_stripped():
            plain = self.picture.convert("L" if info.channels == 1 else "RGB")
            return plain_samples(plain, info), ["its fourth channel is not said to be opacity and was left out"]
        return plain_samples(self.picture, info), []


@dataclass(frozen=True, slots=True)
class DdsFile(PillowFile):
    """A texture, of which the largest picture is read; its smaller copies are for the graphics card."""

    sides: int

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> DdsFile:
        """Read the header of `stream`.

        Raises:
            ImageError: its samples are of a kind that Pillow does not read, or of light without a white.
        """
        head = stream.read(_DDS_HEAD + _DX10_HEAD)
        stream.seek(0)
        kind = _kind_of_dds(head)
        if kind in _LIGHT:
            raise ImageError(f"{name} is a DDS of light without a white (BC6H); convert it to PNG first")
        try:
            picture = DdsImageFile(stream)  # which looks at the header alone
        except (NotImplementedError, OSError) as error:
            if kind is None:
                raise
            raise ImageError(f"{name} is a DDS that bbcu does not read ({kind}); convert it to PNG first") from error
        (sides,) = struct.unpack_from("<L", head, 112)
        return cls(name, "DDS", stream, picture, sides=sides & (_CUBE | _VOLUME))

    def _samples(self, info: ImageInfo) -> tuple[Pixels, list[str]]:
        samples, notes = super(DdsFile, self)._samples(info)
        what = "of the sides of a cube" if self.sides & _CUBE else "of the layers of a volume"
        return samples, [*notes, *([f"{what} the first one was read"] if self.sides else [])]


def _kind_of_dds(head: bytes) -> str | None:
    """How the samples of a DDS lie, by its header; None: there is no whole header."""
    if len(head) < _DDS_HEAD or int.from_bytes(head[4:8], "little") != _DDS_HEAD - 4:
        return None
    flags, name, bits = struct.unpack_from("<L4sL", head, 80)
    if not flags & _NAMED:
        return f"{bits} bits per pixel, flags {flags:#x}"
    if name != b"DX10":
        return f"kind {name.decode('ascii', 'backslashreplace')}"
    return f"DXGI format {int.from_bytes(head[128:132], 'little')}" if len(head) == _DDS_HEAD + _DX10_HEAD else None


@dataclass(frozen=True, slots=True)
class IcoFile:
    """An icon: the largest of its pictures, a whole PNG or a bitmap with a mask.

    Attributes:
        picture: that one.
        count: how many there are.
        length: bytes of it, which are held.
    """

    picture: PngFile | PillowFile
    count: int
    length: int

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> IcoFile:
        """Read the header of `stream`.

        Raises:
            ValueError: it is damaged.
        """
        head = stream.read(6 + _ENTRY * _MOST_ICONS)
        count = int.from_bytes(head[4:6], "little")
        entries = [head[at : at + _ENTRY] for at in range(6, 6 + _ENTRY * min(count, _MOST_ICONS), _ENTRY)]
        if not entries or len(entries[-1]) < _ENTRY:
            raise ValueError("it has no pictures")
        largest = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[6]))
        length, at = struct.unpack_from("<LL", largest, 8)
        stream.seek(at)
        data = stream.read(length)
        if len(data) < length or length < 40:
            raise EOFError("its largest picture ends too early")
        if data.startswith(b"\x89PNG"):
            return cls(PngFile.open(name, io.BytesIO(data)), count, length)
        width, height = struct.unpack_from("<ll", data, 4)
        if (width, height) != (largest[0] or 256, 2 * (largest[1] or 256)):
            raise ValueError("its largest picture has another size than its header says")
        alone = io.BytesIO(head[:4] + b"\1\0" + largest[:12] + struct.pack("<L", 6 + _ENTRY) + data)
        return cls(PillowFile(name, "ICO", alone, IcoImageFile(alone)), count, length)

    def info(self) -> ImageInfo:
        """What its header says."""
        info = self.picture.info()
        return replace(info, format="ICO", frames=1, each=(), working=info.working + self.length)

    def decode(self, _: ImageInfo) -> Image:
        """All pixels and metadata."""
        image = self.picture.decode(replace(self.picture.info(), frames=1))
        notes = image.notes
        if self.count > 1:
            notes = (*notes, f"of the {self.count} pictures of the icon the largest one was read")
        return replace(image, format="ICO", notes=notes)
