"""What a restoration shows while it runs: a bar by pixels on a terminal, a line for each file that is finished."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bbcu_cli.cli.console import note, shown
from bbcu_cli.cli.options import TalkOptions
from bbcu_cli.cli.rows import row_json, row_text
from bbcu_cli.errors import ImageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from bbcu_cli.batch.jobs import Job, JobList
    from bbcu_cli.batch.settings import Row
    from bbcu_cli.image import Levels


class Reporter(Protocol):
    """Is told what happens."""

    def advance(self, job: Job, share: float) -> None:
        """So much of a picture is done, 0..1; called by any thread."""
        ...

    def finish(self, row: Row) -> None:
        """A file is finished."""
        ...


@contextmanager
def report(
    listing: JobList, talk: TalkOptions, *, frames: str = "all", levels: Levels | None = None
) -> Iterator[Reporter]:
    """The reporter that suits stderr and the options."""
    if talk.quiet or talk.json or not sys.stderr.isatty():
        yield _Lines(talk)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[files]}"),
    )
    console = Console(stderr=True, highlight=False)
    # The pace over half a minute: tiles, and the engine's reports within them, come in gusts.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=30) as progress:
        yield _Bar(progress, _pixel_counts(listing, frames, levels))


class _Lines:
    """A line for each file, of text or JSON."""

    def __init__(self, talk: TalkOptions) -> None:
        self._talk = talk

    def advance(self, job: Job, share: float) -> None:
        pass

    def finish(self, row: Row) -> None:
        if self._talk.json:
            print(row_json(row), flush=True)
        elif not self._talk.quiet or row.status == "failed":
            for line in row_text(row).splitlines():
                note(line)


class _Bar:
    """A bar that moves by the pixels of all files, above it the lines of those that are finished."""

    def __init__(self, progress: Progress, pixels: dict[str, int]) -> None:
        self._progress, self._pixels = progress, pixels
        self._done = dict.fromkeys(self._pixels, 0.0)
        self._finished, self._files = 0, len(pixels)
        self._task = progress.add_task("", total=sum(self._pixels.values()), files="")

    def advance(self, job: Job, share: float) -> None:
        self._done[job.name] = max(self._done[job.name], share)
        self._show()

    def finish(self, row: Row) -> None:
        from rich.markup import escape

        self._finished += 1
        self._done[row.source] = 1
        for line in row_text(row).splitlines():
            text = escape(shown(f"bbcu: {line}"))
            self._progress.console.print(text, style="red" if row.status == "failed" else "", soft_wrap=True)
        self._show()

    def _show(self) -> None:
        done = sum(self._pixels[name] * share for name, share in list(self._done.items()))
        files = f"{self._finished}/{self._files} files" if self._files > 1 else ""
        self._progress.update(self._task, completed=done, files=files)


def _pixel_counts(listing: JobList, frames: str, levels: Levels | None) -> dict[str, int]:
    """Pixels of every input by name, of all frames or of the first, from the headers; 1 for what cannot be told."""
    from bbcu_cli.image import probe

    counts = {}
    for job in listing.jobs:
        try:
            info = probe(job.source, levels=levels) if job.source else None
            counts[job.name] = 1 if info is None else info.pixels * (info.frames if frames == "all" else 1)
        except (ImageError, OSError):
            counts[job.name] = 1
    return counts
