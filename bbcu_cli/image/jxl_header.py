"""The header of a JPEG XL file, which pillow-jxl-plugin gives only together with all decoded pixels.

Source: ISO/IEC 18181-1, annexes B and D (bits, image header), and 18181-2 (boxes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import BinaryIO, Final, TypeAlias

from bbcu_cli.image.boxes import boxes, read
from bbcu_cli.image.orientation import SIDEWAYS
from bbcu_cli.image.pillow import length_of

BARE: Final = b"\xff\x0a"
CONTAINER: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_MOST_BESIDE: Final = 1 << 24
_MOST_HEADER: Final = 1 << 16
_RATIOS: Final = tuple(Fraction(*ratio) for ratio in ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)))
_GRAY, _XYB = 1, 2
_CUSTOM: Final = 2
_SRGB: Final = (1, 1, 13)
_ALPHA, _SPOT, _BLACK, _COLOUR_FILTER = 0, 2, 3, 5

_Choice: TypeAlias = tuple[int, int]
"""A number that is added, and how many bits are read."""
_ENUM: Final[tuple[_Choice, ...]] = ((0, 0), (1, 0), (2, 4), (18, 6))


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says.

    Attributes:
        size: (height, width) as shown.
        orientation: how the stored picture has to be turned, as EXIF numbers it; libjxl does it.
        animated: it has several frames.
        bits: of a sample of colour.
        floating: these are floating-point numbers.
        gray: there is one channel of colour.
        alpha, associated: there is opacity; the colour is multiplied by it.
        inks: there is black beside the colour: CMYK.
        further: how many other channels there are.
        xyb: the colours were compressed as XYB, with loss.
        recompressed: the file is a JPEG that was compressed further, without more loss.
        profile: they are described by an ICC profile.
        codes: else by primaries and transfer, by the code points of ITU-T H.273; None where these do not name them.
        srgb: they are sRGB, or its gray.
        whole: libjxl may hold all samples at once, as numbers of 32 bits: the first frame is modular, or may be so.
        beside: the boxes of EXIF and XMP under Pillow's names, with whether Brotli has compressed them.
        pieces: (start, end) of the codestream in the file.
    """

    size: tuple[int, int]
    orientation: int = 1
    animated: bool = False
    bits: int = 8
    floating: bool = False
    gray: bool = False
    alpha: bool = False
    associated: bool = False
    inks: bool = False
    further: int = 0
    xyb: bool = True
    recompressed: bool = False
    profile: bool = False
    codes: tuple[int, int] | None = None
    srgb: bool = True
    whole: bool = True
    beside: Mapping[str, tuple[bytes, bool]] = field(default_factory=dict)
    pieces: tuple[tuple[int, int], ...] = ()


def read_header(stream: BinaryIO) -> Header:
    """Read the header of a bare codestream, or of a file of boxes.

    Raises:
        ValueError: it has no codestream, or its header is damaged.
        EOFError: it ends too early.
    """
    length = length_of(stream)
    stream.seek(0)
    if stream.read(2) == BARE:
        return replace(_image_header(_Bits(stream.read(_MOST_HEADER))), pieces=((0, length),))
    pieces, recompressed, beside = list[tuple[int, int]](), False, dict[str, tuple[bytes, bool]]()
    for kind, at, end in boxes(stream, 0, length):
        if kind in (b"jxlc", b"jxlp"):
            pieces.append((min(at + 4 * (kind == b"jxlp"), end), end))
        elif kind == b"jbrd":
            recompressed = True
        elif kind in (b"Exif", b"xml ", b"brob") and 8 < end - at <= _MOST_BESIDE:
            content, packed = read(stream, at, end - at), kind == b"brob"
            what = content[:4] if packed else kind
            if what in (b"Exif", b"xml "):
                beside.setdefault("xmp" if what == b"xml " else "exif", (content[4:] if packed else content, packed))
    code = b""
    for start, end in pieces:
        code += read(stream, start, min(end - start, _MOST_HEADER - len(code)))
    if not code.startswith(BARE):
        raise ValueError("it has no codestream")
    header = _image_header(_Bits(code[2:]))
    return replace(header, recompressed=recompressed, beside=beside, pieces=tuple(pieces))


class _Bits:
    """Numbers of any length from bytes, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def u(self, count: int) -> int:
        first, last = self._at >> 3, (self._at + count + 7) >> 3
        if last > len(self._data):
            raise EOFError("it ends in its header")
        number = int.from_bytes(self._data[first:last], "little") >> (self._at & 7)
        self._at += count
        return number & ((1 << count) - 1)

    def flag(self) -> bool:
        return bool(self.u(1))

    def align(self) -> None:
        """Go on to the next whole byte."""
        self._at += -self._at & 7

    def one_of(self, *choices: _Choice) -> int:
        """A number by two bits that tell which of four kinds it has."""
        least, bits = choices[self.u(2)]
        return least + self.u(bits)


def _image_header(bits: _Bits) -> Header:
    height, width = _size(bits)
    header = Header((height, width))
    if bits.flag():
        return replace(header, whole=_is_whole(bits))
    extra, preview = bits.flag(), False
    if extra:
        turned = 1 + bits.u(3)
        header = replace(header, orientation=turned, size=(width, height) if turned in SIDEWAYS else (height, width))
        if bits.flag():
            _size(bits)
        preview = bits.flag()
        if preview:
            _preview(bits)
        if bits.flag():
            return replace(header, animated=True)  # what follows is not looked at
    floating, depth = _depth(bits)
    bits.flag()
    header = _with_channels(replace(header, bits=depth, floating=floating), bits)
    header = _with_colours(replace(header, xyb=bits.flag()), bits)
    if header.profile or preview:  # these lie between the header and the first frame
        return header
    if extra and not bits.flag():  # how bright the brightest is
        bits.u(49)
    known = bits.u(2) == 0  # no extensions
    return replace(header, whole=not known or _is_whole(bits))


def _is_whole(bits: _Bits) -> bool:
    """Whether the frame that follows the last part of the header may be modular."""
    if not bits.flag():  # transforms of its own
        return True
    bits.align()
    if bits.flag():  # a usual frame
        return False
    return bits.u(2) != 0 or bits.flag()


def _size(bits: _Bits) -> tuple[int, int]:
    """(height, width)."""
    small = bits.flag()

    def side() -> int:
        return 8 * (1 + bits.u(5)) if small else bits.one_of((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.u(3)
    return height, int(height * _RATIOS[ratio - 1]) if ratio else side()


def _preview(bits: _Bits) -> None:
    kinds = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.flag() else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.one_of(*kinds)
    if not bits.u(3):
        bits.one_of(*kinds)


def _depth(bits: _Bits) -> tuple[bool, int]:
    """Whether samples are floating-point numbers, and their bits."""
    if not bits.flag():
        return False, bits.one_of((8, 0), (10, 0), (12, 0), (1, 6))
    depth = bits.one_of((32, 0), (16, 0), (24, 0), (1, 6))
    bits.u(4)
    return True, depth


def _with_channels(header: Header, bits: _Bits) -> Header:
    """The same with what lies beside the colour."""
    for _ in range(bits.one_of((0, 0), (1, 0), (2, 4), (1, 12))):
        kind, associated = _ALPHA, False
        if not bits.flag():
            kind = bits.one_of(*_ENUM)
            _depth(bits)
            bits.one_of((0, 0), (3, 0), (4, 0), (1, 3))
            bits.u(8 * bits.one_of((0, 0), (0, 4), (16, 5), (48, 10)))
            if kind == _ALPHA:
                associated = bits.flag()
            elif kind == _SPOT:
                bits.u(64)
            elif kind == _COLOUR_FILTER:
                bits.one_of((1, 0), (0, 2), (3, 4), (19, 8))
        if kind == _ALPHA and not header.alpha:
            header = replace(header, alpha=True, associated=associated)
        elif kind == _BLACK:
            header = replace(header, inks=True)
        else:
            header = replace(header, further=header.further + 1)
    return header


def _with_colours(header: Header, bits: _Bits) -> Header:
    """The same with what the samples of colour mean."""
    if bits.flag():
        return header
    profile, space = bits.flag(), bits.one_of(*_ENUM)
    header = replace(header, gray=space == _GRAY, profile=profile, srgb=False)
    if profile:
        return header
    if space == _XYB:
        bits.one_of(*_ENUM)
        return header
    white, primaries = bits.one_of(*_ENUM), _SRGB[1]
    if white == _CUSTOM:
        _point(bits)
    if space != _GRAY:
        primaries = bits.one_of(*_ENUM)
        for _ in range(3 if primaries == _CUSTOM else 0):
            _point(bits)
    transfer = None if bits.flag() else bits.one_of(*_ENUM)
    if transfer is None:
        bits.u(24)  # a gamma
    bits.one_of(*_ENUM)  # the rendering intent
    if transfer is None:
        return header
    return replace(header, codes=(primaries, transfer), srgb=(white, primaries, transfer) == _SRGB)


def _point(bits: _Bits) -> None:
    for _ in range(2):
        bits.one_of((0, 19), (1 << 19, 19), (1 << 20, 20), (1 << 21, 21))
