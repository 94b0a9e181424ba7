"""Deflate for PNG and TIFF: on several cores, in order, and never far ahead of the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from bbcu_cli.cores import submit

try:  # ISA-L, also for ARM: photographs as small as zlib's level 3 makes them in a seventh of the time
    from isal import isal_zlib as zlib
except ImportError:  # no wheel for this platform
    import zlib  # type: ignore[no-redef]

__all__ = ["LEVEL", "in_order", "zlib"]

LEVEL: Final = 2

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_order(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int) -> Iterator[_R]:
    """`work` on every item, `threads` at a time; results in order, at most four per thread waiting to be taken."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[_R]] = deque()
        for item in items:
            pending.append(submit(pool, work, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
