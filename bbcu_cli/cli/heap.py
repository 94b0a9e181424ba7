"""What the process keeps of the memory that it freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_LARGE: Final = 1 << 20
_LARGEST: Final = 32 << 20  # glibc takes no more
_KEPT: Final = 1 << 30


def return_large_blocks() -> None:
    """Let the C library give blocks of a megabyte or more back to the system as soon as they are freed.

    glibc raises that limit with every large block that is freed, up to 32 MB, and then keeps such blocks in pieces:
    10 to 25 % more memory at the peak. Other C libraries have no such limit.
    """
    _mallopt(_M_MMAP_THRESHOLD, _LARGE)


def keep_large_blocks() -> None:
    """The contrary, for what allocates the same blocks again and again: a training step.

    New pages for every tensor cost such a step a third of its time.
    """
    _mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    _mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(parameter, value)
