"""Transfers that are under way while the engine works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

AHEAD: Final = 8
"""Pictures that are fetched before their turn, and that are published at a time."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def ahead(
    items: Iterable[_Item], make: Callable[[_Item], _Made], pool: ThreadPoolExecutor
) -> Iterator[tuple[_Item, Future[_Made]]]:
    """Each item with what a thread makes of it, which has begun for the next ones too."""
    stream, waiting = iter(items), deque[tuple[_Item, Future[_Made]]]()
    while True:
        for item in islice(stream, AHEAD - len(waiting)):
            waiting.append((item, pool.submit(make, item)))
        if not waiting:
            return
        yield waiting.popleft()
