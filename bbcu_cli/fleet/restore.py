"""Pictures from store to store on one machine: fetched ahead, restored by `batch`, published behind.

The engine runs on the thread that asks for rows; transfers have threads of their own.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Final

from bbcu_cli.batch.jobs import Job, compare_path
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.errors import BbcuError, UsageError
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.ahead import AHEAD, ahead
from bbcu_cli.fleet.plan import Ask
from bbcu_cli.fleet.shop import Shop
from bbcu_cli.fleet.spool import spool
from bbcu_cli.fleet.stores import Entry, is_url

STRETCH: Final = 256
"""Pictures that `batch` is given at a time, so that those that need no work are told meanwhile."""


def restore(asks: Iterable[Ask], shop: Shop, *, again: bool = False) -> Iterator[Row]:
    """Restore pictures whose outputs are all paths, or all URLs, and yield a row for each, in order.

    Args:
        again: an earlier try of this run may have finished some of them: these are not made again.

    Raises:
        BbcuError: the first failure, with `fail_fast`.
    """
    with spool() as place, ThreadPoolExecutor(AHEAD, "transfer") as pool:
        desk = _Desk(shop, place, again=again)
        pictures = (_Picture(ask, ready) for ask, ready in ahead(asks, desk.fetch, pool))
        told: deque[_Picture] = deque()
        try:
            while (first := next(pictures, None)) is not None:
                working: deque[_Picture] = deque()
                jobs = _jobs(chain([first], islice(pictures, STRETCH - 1)), told, working)
                settings = desk.settings(first.ask)
                for row in desk.restored(run(jobs, shop.model, settings, shop.manifest, tidy=False), working):
                    working.popleft().publish(row, desk, pool)
                    yield from _finished(told, len(working) + 2 * AHEAD, shop)
                yield from _finished(told, 2 * AHEAD, shop)
            yield from _finished(told, 0, shop)
        finally:
            pool.shutdown(cancel_futures=True)  # what has begun to be published is finished


@dataclass(slots=True)
class _Picture:
    """A picture on its way.

    Attributes:
        ready: its job, or its row where nothing is to be done.
        row: what became of it.
    """

    ask: Ask
    ready: Future[Job | Row]
    row: Future[Row] = field(default_factory=Future)

    def publish(self, row: Row, desk: _Desk, pool: ThreadPoolExecutor) -> None:
        """Hand the result on; its row follows."""
        job = self.ready.result()
        assert isinstance(job, Job)  # noqa: S101 - nothing else is restored
        self.row = pool.submit(desk.publish, self.ask, job, row)


def _jobs(pictures: Iterable[_Picture], told: deque[_Picture], working: deque[_Picture]) -> Iterator[Job]:
    """What `batch` gets of them; the others have their rows."""
    for picture in pictures:
        told.append(picture)
        ready = picture.ready.result()
        if isinstance(ready, Row):
            picture.row.set_result(ready)
        else:
            working.append(picture)
            yield ready


def _finished(told: deque[_Picture], most: int, shop: Shop) -> Iterator[Row]:
    """The rows that are known, in order; waits for more while there are more pictures than `most`."""
    while told and (told[0].row.done() or len(told) > most):
        row = told.popleft().row.result()
        if row.status == "failed" and shop.settings.fail_fast:
            raise UsageError(row.error if row.source in row.error else f"{row.source}: {row.error}")
        yield row


class _Desk:
    """Takes pictures in and hands results out, on any thread."""

    def __init__(self, shop: Shop, place: Path, *, again: bool) -> None:
        self._shop, self._place, self._again = shop, place, again
        self._home = Path(shop.plan.home)
        self._numbers = count()

    def settings(self, ask: Ask) -> Settings:
        """Those of `batch`: outputs of a store are in the spool, where nothing is in the way."""
        settings = self._shop.settings
        if is_url(ask.output):
            return replace(settings, existing="overwrite")
        return replace(settings, existing="skip") if self._again and settings.existing == "refuse" else settings

    def restored(self, rows: Iterator[Row], working: deque[_Picture]) -> Iterator[Row]:
        """What `batch` says of the pictures that it works on, of which the first is the next to have a row."""
        try:
            yield from rows
        except BbcuError as error:
            if not working:
                raise
            ask, ready = working[0].ask, working[0].ready.result()
            assert isinstance(ready, Job)  # noqa: S101 - nothing else is restored
            raise type(error)(self._in_their_words(ask, ready, ask.failed(str(error))).error) from error

    def fetch(self, ask: Ask) -> Job | Row:
        """The job of a picture, with its source on this machine; or its row, where nothing is to be done."""
        if ask.error:
            return ask.failed(ask.error)
        try:
            if is_url(ask.output) and (row := self._settled(ask, self._entry(ask))):
                return row
            own = self._place / str(next(self._numbers))
            return Job(self._source(ask, own), self._output(ask, own), ask.notes)
        except (BbcuError, OSError) as error:
            return ask.failed(str(error))

    def _source(self, ask: Ask, own: Path) -> Path:
        if not is_url(ask.source):
            return self._home / ask.source
        source = own / "in" / _safe(stores.name_of(ask.source))
        source.parent.mkdir(parents=True)
        stores.fetch(ask.source, source)
        if ask.entry and ask.entry.modified is not None:
            os.utime(source, (ask.entry.modified, ask.entry.modified))  # for --preserve-times and --skip-existing
        return source

    def _output(self, ask: Ask, own: Path) -> Path:
        if is_url(ask.output):
            return own / "out" / _safe(stores.name_of(ask.output))
        output = self._home / ask.output
        self._shop.tidy(output)
        return output

    def _settled(self, ask: Ask, entry: Entry | None) -> Row | None:  # noqa: PLR0911 - a verdict each
        """The row of a picture whose output is in the store and stays as it is."""
        existing = self._shop.settings.existing
        if existing == "overwrite":
            return None
        known = self._shop.record.known(ask.output, entry)
        made = known.row or Row(ask.source, ask.output, "done")
        if known.verdict == "current" and known.ours:
            return replace(made, source=ask.source, output=ask.output, status="done")
        if known.verdict == "absent" or known.ours:
            return None
        if existing == "refuse":
            return ask.failed(f"{ask.output} exists; use --overwrite to replace it or --skip-existing to keep it.")
        if known.verdict == "foreign":
            return ask.failed(
                f"{ask.output} exists and is not known as an output of bbcu; move it or give --overwrite."
            )
        if known.verdict == "outdated":
            return None
        told: dict[str, Any] = {"model": made.model, "reason": made.reason, "noise": made.noise}
        return Row(ask.source, ask.output, "skipped", **told, notes=ask.notes)

    def publish(self, ask: Ask, job: Job, row: Row) -> Row:
        """Put a result where it belongs, and what is said of it in the words of the user."""
        row = self._in_their_words(ask, job, row)
        if self._again and row.status == "skipped" and self._shop.settings.existing == "refuse":
            row = replace(row, status="done")  # by the try before
        if not is_url(ask.output) or job.output is None:
            self._forget(job)
            return row
        try:
            if row.status == "done":
                self._put(ask, job.output, row)
        except (BbcuError, OSError) as error:
            return ask.failed(str(error))
        finally:
            self._forget(job)
        return row

    def _put(self, ask: Ask, result: Path, row: Row) -> None:
        record = self._shop.record
        record.begun(ask.output)
        beside = compare_path(result)
        if self._shop.settings.compare:
            stores.publish(beside, stores.join(ask.output.rpartition("/")[0], beside.name))
        record.done(ask.output, self._entry(ask), stores.publish(result, ask.output), row)

    def _in_their_words(self, ask: Ask, job: Job, row: Row) -> Row:
        """The row without the names of the spool."""
        names = [(str(job.source), ask.source), (str(job.output), ask.output)]

        def told(text: str) -> str:
            for spooled, name in names:
                text = text.replace(spooled, name)
            return text

        notes = tuple(map(told, row.notes))
        return replace(row, source=ask.source, output=ask.output, error=told(row.error), notes=notes)

    def _forget(self, job: Job) -> None:
        """Remove what the spool holds of a picture."""
        for path in (job.source, job.output):
            if path and self._place in path.parents:
                shutil.rmtree(self._place / path.relative_to(self._place).parts[0], ignore_errors=True)

    def _entry(self, ask: Ask) -> Entry | None:
        """What a record knows a source by."""
        if is_url(ask.source):
            return ask.entry
        try:
            state = (self._home / ask.source).stat()
        except OSError:  # reading it will say why
            return None
        return Entry(ask.source, state.st_size, str(state.st_mtime_ns))


def _safe(name: str) -> str:
    """A name that is a file's on this machine."""
    return "picture" if name in {"", ".", ".."} else name
