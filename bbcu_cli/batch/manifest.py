"""What `--skip-existing` trusts: a small record, beside the outputs, of what was made from what and how.

`.bbcu-manifest.jsonl` in a folder of outputs has one JSON line per event; a later line about the same file replaces
an earlier one. A line is appended before an output is put in place ("begun") and after ("done"), so that a run that
was killed between the two knows the file as its own and makes it again. A torn line is ignored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bbcu_cli.files import TEMP_PREFIX, append_line

NAME: Final = f"{TEMP_PREFIX}manifest.jsonl"
Verdict = Literal["absent", "current", "outdated", "foreign"]
Stamp = tuple[int, ...]
"""Size and modification time of a file, or of several: enough to notice that one was replaced."""
_Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Made:
    """What a record says of a file that is still as bbcu made it.

    Attributes:
        source: of what, with the links that there were resolved; None where the record does not tell.
        comparison: it is a side-by-side.
    """

    source: str | None
    comparison: bool


def stamp_of(*paths: Path) -> Stamp | None:
    """The stamp of files as they are now; None when one is not there."""
    try:
        states = [path.stat() for path in paths]
    except OSError:  # reading it will say why
        return None
    return tuple(number for state in states for number in (state.st_size, state.st_mtime_ns))


def _read(folder: Path) -> _Entries:
    entries: _Entries = {}
    try:
        lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not there, or not to be read: it says nothing
        return entries
    for line in lines:
        try:
            entry = json.loads(line)
            entries[str(entry["output"])] = entry
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a torn or foreign line says nothing; the output it spoke of is made again
    return entries


@dataclass(slots=True)
class Manifest:
    """The records of the output folders of one run; threads may share it.

    Attributes:
        key: stands for the model and every option that shapes an output.
    """

    key: str
    _folders: dict[Path, _Entries] = field(default_factory=dict)
    _unwritten: dict[Path, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def verdict(self, output: Path, made_from: Stamp | None, network: str = "") -> Verdict:
        """Whether a file exists, and is what this run would make of files with that stamp.

        "foreign" is a file that no run of bbcu is known to have made. `network` is what stands for the network of that
        file, where a run chooses it for each.
        """
        if not os.path.lexists(output):
            return "absent"
        with self._lock:
            entries = self._entries(output.parent)
            if output.name not in entries:  # or another run has put it there since the record was read
                entries |= {**_read(output.parent), **entries}
            entry = entries.get(output.name)
        if entry is None:
            return "foreign"
        done = self._done(output, made_from, network)
        same = made_from is not None and all(entry.get(name) == value for name, value in done.items())
        return "current" if same else "outdated"

    def known(self, path: Path) -> Made | None:
        """What the record in its folder says of a file; None for a file that bbcu did not make, or is not as it was."""
        with self._lock:
            entry = self._entries(path.parent).get(path.name)
        if entry is None or ("made" in entry and entry["made"] != list(stamp_of(path) or ())):
            return None
        source = entry.get("from")
        if isinstance(source, str):  # of whatever characters: it is compared, and never opened
            source = os.path.normpath(os.path.join(os.path.realpath(path.parent), source))  # noqa: PTH118
        else:
            source = None
        return Made(source, entry.get("comparison") is True)

    def begun(self, output: Path, source: Path | None = None, *, comparison: bool = False) -> None:
        """Note that a file is about to be put in place, and of what it is made."""
        self._append(output, {"state": "begun", **_origin(output, source, comparison=comparison)})

    def done(
        self,
        output: Path,
        made_from: Stamp | None,
        network: str = "",
        remarks: Mapping[str, Any] | None = None,
        *,
        source: Path | None = None,
        comparison: bool = False,
    ) -> None:
        """Note that a file is complete, the stamp of what it was made from, as that was read, and remarks on how."""
        origin = _origin(output, source, comparison=comparison)
        self._append(output, {**self._done(output, made_from, network), **origin, "remarks": dict(remarks or {})})

    def remarks(self, output: Path) -> dict[str, Any]:
        """What was noted about a file that is complete."""
        with self._lock:
            remarks = self._entries(output.parent).get(output.name, {}).get("remarks")
        return remarks if isinstance(remarks, dict) else {}

    def _done(self, output: Path, made_from: Stamp | None, network: str) -> dict[str, Any]:
        made = list(stamp_of(output) or ())
        return {"state": "done", "key": f"{self.key} {network}".strip(), "source": list(made_from or ()), "made": made}

    def _entries(self, folder: Path) -> _Entries:
        if folder not in self._folders:
            self._folders[folder] = _read(folder)
        return self._folders[folder]

    def _append(self, output: Path, event: dict[str, Any]) -> None:
        entry = {"output": output.name, **event}
        with self._lock:
            self._entries(output.parent)[output.name] = entry
        try:
            append_line(output.parent / NAME, json.dumps(entry))
        except OSError as error:  # the picture is worth more than its record
            self._unwritten[output.parent] = error.strerror or str(error)

    def complaints(self, folder: Path) -> tuple[str, ...]:
        """What is to be said of the record of a folder: nothing, or why it could not be written."""
        reason = self._unwritten.get(folder)
        return (
            (f"not recorded for --skip-existing, since {folder / NAME} cannot be written: {reason}",) if reason else ()
        )


def _origin(output: Path, source: Path | None, *, comparison: bool) -> dict[str, Any]:
    """The path of the source from the folder of the output, so that both may move together."""
    origin: dict[str, Any] = {"comparison": True} if comparison else {}
    if source is not None:
        try:
            origin["from"] = os.path.relpath(os.path.realpath(source), os.path.realpath(output.parent))
        except ValueError:  # another drive
            origin["from"] = os.path.realpath(source)
    return origin
