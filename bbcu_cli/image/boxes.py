"""The boxes of a file in the form of JPEG 2000 and ISO base media: a length, a kind, a content.

Source: ISO/IEC 15444-1, annex I.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO


def boxes(stream: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the content of each box between two places of a file.

    Raises:
        EOFError: a box reaches beyond the end.
    """
    while at + 8 <= end:
        length, kind = struct.unpack(">L4s", read(stream, at, 8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", read(stream, at + 8, 8)), 16
        until = end if length == 0 else at + length
        if until < at + head or until > end:
            raise EOFError("a box reaches beyond its end")
        yield kind, at + head, until
        at = until


def read(stream: BinaryIO, at: int, count: int) -> bytes:
    """Bytes of a file.

    Raises:
        EOFError: it has not that many there.
    """
    stream.seek(at)
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("it ends in its header")
    return data
