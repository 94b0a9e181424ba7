"""HEIC through pillow-heif, an optional dependency (`pip install bbcu-cli[heif]`)."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from bbcu_cli.errors import ImageError
from bbcu_cli.image import metadata
from bbcu_cli.image.image import Image, ImageInfo


def library(name: str) -> ModuleType:
    """The module pillow_heif.

    Raises:
        ImageError: it is not installed, so `name` can be neither read nor written.
    """
    try:
        import pillow_heif  # optional, and only needed for this format
    except ImportError as error:
        raise ImageError(f"{name} is HEIC, which needs one more package: pip install pillow-heif") from error
    module: ModuleType = pillow_heif
    return module


@dataclass(frozen=True, slots=True)
class HeicFile:
    """A HEIC file whose header was read; its methods raise whatever the library raises on damaged files."""

    name: str
    stream: BinaryIO
    picture: Any  # pillow_heif.HeifImage
    others: int

    @classmethod
    def open(cls, name: str, stream: BinaryIO) -> HeicFile:
        """Read the header of `stream` and take its primary picture."""
        file = library(name).open_heif(stream, convert_hdr_to_8bit=False)
        return cls(name, stream, file[file.primary_index], len(file) - 1)

    def info(self) -> ImageInfo:
        """What the header says; the library has turned the picture upright."""
        metadata.check_colours(self.name, "HEIC", self.stream, self.picture.info)
        width, height = self.picture.size
        mode, _, depth = self.picture.mode.partition(";")
        return ImageInfo(
            format="HEIC",
            size=(height, width),
            channels=1 if mode in ("L", "LA", "I") else 3,
            depth=16 if depth else 8,
            alpha=self.picture.has_alpha,
            frames=1,
        )

    def decode(self, info: ImageInfo) -> Image:
        """All pixels and metadata; 10 and 12 bits come spread to 16."""
        height, width = info.size
        samples = np.array(self.picture).reshape(height, width, -1)
        about, notes = metadata.read(
            self.name, "HEIC", self.stream, self.picture.info, channels=info.channels, size=info.size
        )
        if self.others:
            notes = (*notes, f"the file holds {self.others} more pictures, which are not carried over")
        return Image(
            pixels=samples[..., : info.channels],
            alpha=samples[..., -1] if info.alpha else None,
            metadata=about,
            format="HEIC",
            notes=notes,
        )
