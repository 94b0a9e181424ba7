"""Many files through one model, several under way at once; a failed file does not stop the others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from bbcu_cli.batch.jobs import STDIO, Job
from bbcu_cli.batch.manifest import Manifest
from bbcu_cli.batch.one import EXPECTED, Given, look_at, restore_one
from bbcu_cli.batch.queue import EngineQueue
from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.cores import default_threads
from bbcu_cli.errors import BbcuError, EngineError, ThreadsError
from bbcu_cli.files import parts_folder, remove_stale_parts
from bbcu_cli.restoration.memory import DEFAULT_MEMORY
from bbcu_cli.restoration.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class _UnderWay:
    """A job with its row to come; `thread` works on it, unless all is known already."""

    job: Job
    row: Future[Row]
    need: int = 0
    thread: threading.Thread | None = None

    def finish(self, *, fail_fast: bool) -> Row:
        """The row; a failure is one, too, unless it shall end the run."""
        if self.thread:
            self.thread.join()
        try:
            return self.row.result()
        except BrokenPipeError:  # no fault of the file's: whoever read the image on stdout is gone
            raise
        except EXPECTED as error:
            reason = _reason(error)
            if fail_fast:
                raise error if isinstance(error, BbcuError) else EngineError(f"{self.job.name}: {reason}") from error
            return Row(self.job.name, str(self.job.output or STDIO), "failed", error=reason)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --memory or --tile"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def run(
    jobs: Iterable[Job], model: Model, settings: Settings, manifest: Manifest | None = None, *, tidy: bool = True
) -> Iterator[Row]:
    """Restore files, several at a time: while the engine runs for one, others are decoded and encoded.

    As many are under way as keep the engine busy and fit the memory together.

    Args:
        jobs: taken one by one with `tidy` False, each when there is room for it.
        model: serves every file, or with `settings.serve` those that choose it.
        tidy: remove first what killed runs left in the folders of the outputs.

    Yields:
        A row per job, in their order, as soon as it and all before it are finished. A failure of one file is a row
        with status "failed", unless `settings.fail_fast`, which raises it.

    Raises:
        BbcuError: with `fail_fast`, the first failure.
    """
    if tidy:
        jobs = list(jobs)
        for folder in {parts_folder(job.output) for job in jobs if job.output}:
            if folder.is_dir():
                remove_stale_parts(folder)
    threads = (settings.threads or default_threads()) + model.session.info.concurrency + 1
    budget = settings.options.memory or DEFAULT_MEMORY
    under_way: deque[_UnderWay] = deque()
    kept: dict[str, int] = {}  # bytes by network, from its first image to the end

    def busy() -> list[int]:
        return [one.need for one in under_way if not one.row.done()]

    def admits(given: Given) -> bool:
        """One image more has a use, and fits beside the process, what engines keep, and the other images."""
        if not busy():
            return True
        together = sum(busy()) + sum(kept.values())
        if given.need is not None:
            grown = max(0, given.need.engine - kept.get(given.network, 0))
            together += given.need.process + given.need.image + grown
        return len(busy()) < threads and together <= budget

    def finished() -> Iterator[Row]:
        while under_way and under_way[0].row.done():
            yield under_way.popleft().finish(fail_fast=settings.fail_fast)

    try:
        with EngineQueue(model.session.info.concurrency) as queue:
            for job in jobs:
                try:
                    given = look_at(job, model, settings, manifest)
                    queue.serve(until=partial(admits, given))
                    if given.need is not None:
                        kept[given.network] = max(given.need.engine, kept.get(given.network, 0))
                    work = partial(restore_one, given, settings, manifest, queue)
                    under_way.append(_started(given, work, queue, busy))
                except EXPECTED as error:
                    under_way.append(_UnderWay(job, _known(error)))
                yield from finished()
            while under_way:
                queue.serve(until=under_way[0].row.done)
                yield from finished()
    finally:
        for one in under_way:
            if one.thread:
                one.thread.join()


def _started(given: Given, work: Callable[[], Row], queue: EngineQueue, busy: Callable[[], list[int]]) -> _UnderWay:
    """An image on a thread of its own; where no more can be started, as soon as another one is finished.

    Raises:
        ThreadsError: no other one is under way.
    """
    row: Future[Row] = Future()

    def body() -> None:
        try:
            row.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever takes the row gets it
            row.set_exception(error)
        queue.wake()

    while True:
        thread = threading.Thread(target=body, name="image")
        try:
            thread.start()
        except RuntimeError as error:
            if not (others := len(busy())):
                raise ThreadsError(
                    f"No thread can be started here ({error}); raise the limit (`ulimit -u`) or end other programs."
                ) from error
            queue.serve(until=lambda most=others: len(busy()) < most)  # type: ignore[misc]
        else:
            return _UnderWay(given.job, row, given.need.image if given.need else 0, thread)


def _known(error: BaseException) -> Future[Row]:
    row: Future[Row] = Future()
    row.set_exception(error)
    return row
