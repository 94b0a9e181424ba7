"""Pieces to workers and rows back: a bounded number under way, and what died is tried again elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from bbcu_cli.batch.settings import Row
from bbcu_cli.fleet.plan import Piece

TRIES: Final = 3
"""Workers that a picture may kill while it is alone with them."""
_PARTS: Final = 4  # that a piece is split into whose worker died: 16, 4, 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece: its rows, or None and how its worker died."""

    piece: Piece
    rows: tuple[Row, ...] | None
    death: str = ""


class Executor(Protocol):
    """Who does the work."""

    def room(self) -> int:
        """How many pieces may be under way now, at the least 1."""
        ...

    def submit(self, piece: Piece) -> None:
        """Take a piece; returns at once."""
        ...

    def wait(self) -> list[Outcome]:
        """What has ended, at the least one piece; errors that end the run are raised."""
        ...


def drive(pieces: Iterator[Piece], executor: Executor) -> Iterator[Row]:
    """Have all pieces done, and yield a row for every picture, once, as pieces end.

    The pieces are taken from their stream when there is room for them: the driver holds those that are under way and
    those that wait for another try, which are no more than were under way.
    """
    again: deque[Piece] = deque()
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
            if outcome.rows is not None:
                yield from outcome.rows
            elif (row := _last_try(outcome)) is not None:
                yield row
            else:
                again.extend(_smaller(outcome.piece))


def _last_try(outcome: Outcome) -> Row | None:
    """The row of a picture that is not tried again."""
    piece = outcome.piece
    if len(piece.asks) > 1 or piece.alone + 1 < TRIES:
        return None
    [ask] = piece.asks
    return ask.failed(
        f"its worker died {TRIES} times, the last time so: {outcome.death}; try it by itself, with less --memory"
    )


def _smaller(piece: Piece) -> Iterator[Piece]:
    """The parts of a piece whose worker died, so that in the end a picture that kills is alone."""
    asks, deaths = piece.asks, piece.deaths + 1
    if len(asks) == 1:
        yield Piece(asks, deaths, piece.alone + 1)
        return
    size = -(-len(asks) // _PARTS)
    for start in range(0, len(asks), size):
        yield Piece(asks[start : start + size], deaths)
