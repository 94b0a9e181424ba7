"""`sr`, `denoise` and `deblock` with URLs or `--cluster`: the listing is a stream, and so are the rows."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import typer

from bbcu_cli.cli.console import note, shown
from bbcu_cli.cli.options import EngineOptions, FileOptions, FleetOptions, TalkOptions
from bbcu_cli.cli.rows import failure_text, row_json, row_text
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.batch.settings import Row
    from bbcu_cli.cli.request import Request
    from bbcu_cli.fleet.listing import Listing

_TOLD_AGAIN: Final = 20  # failures that the end repeats
_Options = tuple[FileOptions, EngineOptions, FleetOptions, TalkOptions]


def restore_archive(
    inputs: list[str], request: Request, output_format: tuple[str, str | None], options: _Options
) -> None:
    """Parse, run, print.

    Args:
        output_format: name of the format, and the extension of the outputs if --format sets it.
    """
    from bbcu_cli.fleet.cluster import pieces_on
    from bbcu_cli.fleet.driver import drive
    from bbcu_cli.fleet.listing import Naming, list_inputs
    from bbcu_cli.fleet.plan import Ask
    from bbcu_cli.fleet.restore import restore
    from bbcu_cli.fleet.shop import Shop
    from bbcu_cli.fleet.worker import restore_piece

    files, engine, fleet, talk = options
    form, extension = output_format
    _require_possible(files, talk)
    plan = request.plan(form, files, engine, talk, [*inputs, files.output or ""])
    naming = Naming(request.tag, files.suffix, extension or ".png", files.recursive, files.exclude or ())
    listing = list_inputs(inputs, files.output, naming, refuse_existing=plan.settings.existing == "refuse")
    tally = Tally()
    if fleet.cluster:
        with (
            pieces_on(fleet.cluster, plan, note, restore_piece) as executor,
            _told(talk, tally, lambda: executor.nodes) as tell,
        ):
            for row in drive(listing.asks, executor, Ask.failed):
                tell(row)
        _conclude(tally, listing, talk)
        return
    with Shop(plan, note) as shop, _told(talk, tally) as tell:
        for row in restore(listing.asks, shop):
            tell(row)
    _conclude(tally, listing, talk)


def _require_possible(files: FileOptions, talk: TalkOptions) -> None:
    """Raise a UsageError for what needs all the files on this machine."""
    for given, option in ((talk.gt, "--gt"), (files.dry_run, "--dry-run")):
        if given:
            raise UsageError(f"{option} is for files on this machine, without --cluster; leave it out.")


@dataclass(slots=True)
class Tally:
    """What has become of the pictures so far; the rows themselves are not kept.

    Attributes:
        pixels: of the inputs that were restored.
        failures: the first of them, to be told again.
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    failures: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, row: Row) -> None:
        """Count a row."""
        setattr(self, row.status, getattr(self, row.status) + 1)
        if row.size_in:
            self.pixels += row.size_in[0] * row.size_in[1]
        if row.status == "failed" and len(self.failures) < _TOLD_AGAIN:
            self.failures.append(failure_text(row))

    @property
    def total(self) -> int:
        """Pictures."""
        return self.done + self.skipped + self.failed

    def text(self, nodes: int = 0) -> str:
        """One line for a person who waits."""
        pace = self.pixels / 1e6 / max(time.monotonic() - self.started, 1e-3)
        parts = [f"{self.total:,} pictures", f"{pace:.2f} megapixels/s"]
        if nodes:
            parts.append(f"{nodes} node{'s' if nodes > 1 else ''}")
        return ", ".join([*parts, f"{self.failed:,} failed"])


@contextmanager
def _told(talk: TalkOptions, tally: Tally, nodes: Callable[[], int] = lambda: 0) -> Iterator[Callable[[Row], None]]:
    """Counts and prints rows: lines of text or JSON, and on a terminal a line that shows how far it is."""
    live = not (talk.quiet or talk.json) and sys.stderr.isatty()
    room = shutil.get_terminal_size().columns - 1  # in its last column a console of Windows begins a new line

    def clear() -> None:
        if live:  # by spaces: not every terminal knows a sequence for it
            sys.stderr.write(f"\r{' ' * room}\r")

    def show() -> None:
        if live:
            sys.stderr.write(shown(tally.text(nodes()))[:room])
            sys.stderr.flush()

    def tell(row: Row) -> None:
        tally.add(row)
        clear()
        if talk.json:
            print(row_json(row), flush=True)
        elif not talk.quiet or row.status == "failed":
            for line in row_text(row).splitlines():
                note(line)
        show()

    show()
    try:
        yield tell
    finally:
        clear()


def _conclude(tally: Tally, listing: Listing, talk: TalkOptions) -> None:
    """A summary, the failures once more, and the exit code."""
    if listing.batch and not talk.quiet:
        counts = f"{tally.done} done, {tally.skipped} skipped, {tally.failed} failed"
        note(f"{counts}, {listing.skipped} not images")
    if not tally.failed:
        return
    if not listing.batch:
        raise typer.Exit(2)  # one input that is bad is bad input
    for line in tally.failures:
        note(line)
    if tally.failed > len(tally.failures):
        note(f"and {tally.failed - len(tally.failures)} more failures, told above")
    raise typer.Exit(1)
