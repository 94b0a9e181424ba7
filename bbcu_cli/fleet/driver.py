"""Pieces to workers and rows back: a bounded number under way, and what died is tried again elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from bbcu_cli.fleet.plan import PIECE, Asked, Piece

Told = TypeVar("Told")
"""What a worker answers for one picture."""

TRIES: Final = 3
"""Workers that a picture may kill while it is alone with them."""
_PARTS: Final = 4  # that a piece is split into whose worker died: 16, 4, 1


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Asked, Told]):
    """What became of a piece: an answer for each picture, or None and how its worker died."""

    piece: Piece[Asked]
    told: tuple[Told, ...] | None
    death: str = ""


class Executor(Protocol[Asked, Told]):
    """Who does the work."""

    def room(self) -> int:
        """How many pieces may be under way now, at the least 1."""
        ...

    def submit(self, piece: Piece[Asked]) -> None:
        """Take a piece; returns at once."""
        ...

    def wait(self) -> list[Outcome[Asked, Told]]:
        """What has ended, at the least one piece; errors that end the run are raised."""
        ...


def drive(
    asks: Iterable[Asked], executor: Executor[Asked, Told], failed: Callable[[Asked, str], Told], most: int = PIECE
) -> Iterator[Told]:
    """Have all pictures done, and yield an answer for every one, once, as pieces end.

    The pictures are taken from their stream when there is room for them: the driver holds those that are under way,
    as many that are next, and those that wait for another try, which are no more than were under way.

    Args:
        failed: the answer for a picture that killed its workers, and why it is not tried again.
        most: pictures of a piece.
    """
    pieces = _pieces(asks, executor, most)
    again: deque[Piece[Asked]] = deque()
    under_way, exhausted = 0, False
    while True:
        while under_way < executor.room():
            piece = again.popleft() if again else next(pieces, None)
            if piece is None:
                exhausted = True
                break
            executor.submit(piece)
            under_way += 1
        if not under_way:
            if exhausted and not again:
                return
            continue
        for outcome in executor.wait():
            under_way -= 1
            if outcome.told is not None:
                yield from outcome.told
            elif _last(outcome.piece):
                [ask] = outcome.piece.asks
                yield failed(ask, _deadly(outcome.death))
            else:
                again.extend(_smaller(outcome.piece))


def _pieces(asks: Iterable[Asked], executor: Executor[Asked, Told], most: int) -> Iterator[Piece[Asked]]:
    """The pictures in pieces, of which the last ones are smaller: all workers shall have some until the end."""
    stream, ahead = iter(asks), deque[Asked]()
    while True:
        room = executor.room()
        ahead.extend(islice(stream, max(0, most * room - len(ahead))))
        if not ahead:
            return
        size = min(most, -(-len(ahead) // max(1, room - 1)))
        yield Piece(tuple(ahead.popleft() for _ in range(size)))


def _last(piece: Piece[Asked]) -> bool:
    """Whether a piece whose worker died is not tried again: a picture that was alone with enough of them."""
    return len(piece.asks) == 1 and piece.alone + 1 >= TRIES


def _deadly(death: str) -> str:
    return f"its worker died {TRIES} times, the last time so: {death}; try it by itself, with less --memory"


def _smaller(piece: Piece[Asked]) -> Iterator[Piece[Asked]]:
    """The parts of a piece whose worker died, so that in the end a picture that kills is alone."""
    asks, deaths = piece.asks, piece.deaths + 1
    if len(asks) == 1:
        yield Piece(asks, deaths, piece.alone + 1)
        return
    size = -(-len(asks) // _PARTS)
    for start in range(0, len(asks), size):
        yield Piece(asks[start : start + size], deaths)
