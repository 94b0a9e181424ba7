"""What `--skip-existing` trusts in a store: a small object for every output, in `.bbcu-manifest/` beside it.

Nothing can be appended to an object, and no machine may have to read what all others wrote: so each output has its
own. It is put before the output ("begun") and after it ("done"), as the lines of `batch.manifest` are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from bbcu_cli.batch.manifest import Verdict
from bbcu_cli.batch.settings import Row
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.stores import Entry

FOLDER: Final = ".bbcu-manifest"


def record_of(output: str) -> str:
    """The URL of the record of an output."""
    folder, _, name = output.rpartition("/")
    return f"{folder}/{FOLDER}/{name}.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an output.

    Attributes:
        ours: this run has put it, or was about to.
        row: that of the run that made it.
    """

    verdict: Verdict
    ours: bool = False
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The records of one run.

    Attributes:
        key: stands for the networks and every option that shapes an output.
        run: stands for this run.
    """

    key: str
    run: str

    def known(self, output: str, source: Entry | None) -> Known:
        """What is known of an output, and whether it is what this run would make of that source.

        Raises:
            StoreError: the store cannot be asked.
        """
        there = stores.look(output)
        if there is None:
            return Known("absent")
        entry = _read(output)
        if entry is None:
            return Known("foreign")
        ours = entry.get("run") == self.run
        wanted = {"state": "done", "key": self.key, "source": _stamp(source), "made": _stamp(there)}
        if source is None or any(entry.get(name) != value for name, value in wanted.items()):
            return Known("outdated", ours)
        return Known("current", ours, _row(entry.get("row")))

    def begun(self, output: str) -> None:
        """Note that an output is about to be put. Raises a StoreError."""
        self._write(output, {"state": "begun"})

    def done(self, output: str, source: Entry | None, made: Entry, row: Row) -> None:
        """Note that an output is complete, of what it was made, and what its row says. Raises a StoreError."""
        told = asdict(row) | {"scores": None}
        self._write(output, {"state": "done", "source": _stamp(source), "made": _stamp(made), "row": told})

    def _write(self, output: str, event: dict[str, Any]) -> None:
        stores.write(record_of(output), json.dumps({"key": self.key, "run": self.run, **event}).encode())


def _stamp(entry: Entry | None) -> list[Any]:
    return [] if entry is None else [entry.size, entry.version]


def _read(output: str) -> dict[str, Any] | None:
    """The record of an output; None where there is none, or one that says nothing."""
    try:
        entry = json.loads(stores.read(record_of(output)) or b"null")
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _row(told: Any) -> Row | None:
    """The row that a record holds, as far as it is one."""
    if not isinstance(told, dict):
        return None
    names = {one.name for one in fields(Row)}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if name in names
    }
    try:
        return Row(**kept)
    except TypeError:
        return None
