"""What `--skip-existing` trusts: a small record, beside the outputs, of what was made from what and how.

`.bbcu-manifest.jsonl` has one JSON line per event; a later line about the same output replaces an earlier one. A
line is appended before an output is put in place ("begun") and after ("done"), so that a run that was killed between
the two knows the file as its own and makes it again. A torn last line is ignored.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bbcu_cli.jobs import TEMP_PREFIX, Job

NAME: Final = f"{TEMP_PREFIX}manifest.jsonl"
Verdict = Literal["absent", "current", "outdated", "foreign"]


def _stamp(path: Path) -> list[int]:
    """Size and modification time: enough to notice that a file was replaced."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


@dataclass(slots=True)
class Manifest:
    """The record of one output folder; `key` stands for the model and every option that shapes the pixels."""

    folder: Path
    key: str
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path, key: str) -> Manifest:
        """Read the record of a folder; a folder without one has an empty record."""
        manifest = Manifest(folder, key)
        try:
            lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return manifest
        for line in lines:
            try:
                entry = json.loads(line)
                manifest.entries[entry["output"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # a torn or foreign line says nothing; the output it spoke of is made again
        return manifest

    def verdict(self, job: Job) -> Verdict:
        """Whether the output of a job exists, and is what this run would make from its source.

        "foreign" is a file that no run of bbcu into this folder is known to have made.
        """
        assert job.output is not None and job.source is not None
        if not os.path.lexists(job.output):
            return "absent"
        entry = self.entries.get(self._name(job.output))
        if entry is None:
            return "foreign"
        same = (
            entry.get("state") == "done"
            and entry.get("key") == self.key
            and entry.get("source") == _stamp(job.source)
            and entry.get("made") == _stamp(job.output)
        )
        return "current" if same else "outdated"

    def begun(self, job: Job) -> None:
        """Note that the output is about to be put in place."""
        self._append(job, {"state": "begun"})

    def done(self, job: Job) -> None:
        """Note that the output is complete."""
        assert job.output is not None and job.source is not None
        self._append(
            job, {"state": "done", "key": self.key, "source": _stamp(job.source), "made": _stamp(job.output)}
        )

    def _name(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def _append(self, job: Job, entry: dict[str, Any]) -> None:
        assert job.output is not None
        entry = {"output": self._name(job.output), **entry}
        self.entries[entry["output"]] = entry
        # One write to a file opened for appending: processes that share the folder do not tear each other's lines.
        descriptor = os.open(self.folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # The line break comes first, so that a torn predecessor spoils only itself.
            os.write(descriptor, ("\n" + json.dumps(entry)).encode())
        finally:
            os.close(descriptor)
