"""What the process keeps of the memory that it freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of <malloc.h>
_LARGE: Final = 1 << 20


def return_large_blocks() -> None:
    """Let the C library give blocks of a megabyte or more back to the system as soon as they are freed.

    glibc raises that limit with every large block that is freed, up to 32 MB, and then keeps such blocks in pieces:
    10 to 25 % more memory at the peak. Other C libraries have no such limit.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
