"""One engine for many threads that each carry an image from file to file: it runs whenever any of them has a tile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.cores import submit
from bbcu_cli.engines.base import Progress, Session, SessionContext

Floats = NDArray[np.float32]
_Timed = tuple[Floats, float]  # a result, and the seconds that the engine took
_PATIENCE: Final = 0.2 if os.name == "nt" else None  # seconds; Ctrl-C does not reach a thread of Windows that waits
_LOOK: Final = 0.5  # seconds after which a thread that waits for a tile looks whether the run has ended


class StoppedError(Exception):
    """The run ends: nobody is there to run the engine any more."""


class EngineQueue:
    """Tiles of many threads, one after the other, each through its session; all sessions are of one engine.

    The engine runs on the thread that calls `serve`, so that Ctrl-C, which Python hands to the main thread only,
    reaches it at once. An engine that wants to be called by several threads at a time (`EngineInfo.concurrency`) has
    threads of its own.
    """

    def __init__(self, concurrency: int) -> None:
        """Args: concurrency: `EngineInfo.concurrency` of the engine."""
        self._calls: SimpleQueue[tuple[Callable[[], _Timed], Future[_Timed]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(concurrency, "engine") if concurrency > 1 else None

    def __enter__(self) -> EngineQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whoever waits for a tile, or asks for one from now on, gets a `StoppedError`."""
        with self._lock:
            self._closed = True
        while not self._calls.empty():
            if (call := self._calls.get()) is not None:
                call[1].set_exception(StoppedError())
        if self._pool:
            self._pool.shutdown()

    def serve(self, until: Callable[[], bool]) -> None:
        """Run the engine for the other threads until a condition holds; `wake` makes it look again."""
        while not until():
            try:
                call = self._calls.get(timeout=_PATIENCE)
            except Empty:
                continue
            if call is None:
                continue
            work, reply = call
            try:
                reply.set_result(work())
            except BaseException as error:
                reply.set_exception(error if isinstance(error, Exception) else StoppedError())
                if not isinstance(error, Exception):
                    raise
            del (
                call,
                work,
                reply,
            )  # a tile and its result are as large as the image; nothing may hold them while waiting

    def wake(self) -> None:
        """Let `serve` look at its condition."""
        self._calls.put(None)

    def run(self, session: Session, x: Floats, progress: Progress | None = None) -> _Timed:
        """One tile through a session; waits for its turn. `progress` is told by the thread of the engine.

        Raises:
            StoppedError: the run ended meanwhile.
            EngineError: as `Session.run`.
        """
        with self._lock:
            if self._closed:
                raise StoppedError
            work = partial(_timed, session, progress=progress)
            reply: Future[_Timed]
            if self._pool:
                reply = submit(self._pool, work, x)
            else:
                reply = Future()
                self._calls.put((partial(work, x), reply))
        # Ctrl-C may come just when `serve` has taken the call: then nobody answers.
        while not wait([reply], _LOOK).done:
            if self._closed:
                raise StoppedError
        return reply.result()


def _timed(session: Session, x: Floats, *, progress: Progress | None) -> _Timed:
    started = time.perf_counter()
    result = session.run(x, progress)
    return result, time.perf_counter() - started


class QueuedSession(SessionContext):
    """A session for one image, with the seconds that the engine took for it and that it waited for the engine."""

    def __init__(self, queue: EngineQueue, session: Session) -> None:
        self.info = session.info
        self._queue, self._session = queue, session
        self.computing = self.waiting = 0.0

    def run(self, x: Floats, progress: Progress | None = None) -> Floats:
        started = time.perf_counter()
        result, seconds = self._queue.run(self._session, x, progress)
        self.computing += seconds
        self.waiting += time.perf_counter() - started - seconds
        return result
