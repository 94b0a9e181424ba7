"""Files <-> pixels, and the colour arithmetic between them."""

from bbcu_cli.image.decode import decode, probe
from bbcu_cli.image.encode import EncodeOptions, encode, losses, write
from bbcu_cli.image.formats import FORMATS, Format, format_of
from bbcu_cli.image.image import Bands, Image, ImageInfo, Metadata
from bbcu_cli.image.jpeg import jpeg_quality
from bbcu_cli.image.levels import Levels

__all__ = [
    "FORMATS",
    "Bands",
    "EncodeOptions",
    "Format",
    "Image",
    "ImageInfo",
    "Levels",
    "Metadata",
    "decode",
    "encode",
    "format_of",
    "jpeg_quality",
    "losses",
    "probe",
    "write",
]
