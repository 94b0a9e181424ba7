"""What is asked of every machine of a run, as values that travel."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from bbcu_cli import __version__
from bbcu_cli.batch.settings import Row, Settings, options_key
from bbcu_cli.engines.select import EngineName
from bbcu_cli.fleet.stores import Entry
from bbcu_cli.hub import Catalogue
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.memory import DEFAULT_MEMORY
from bbcu_cli.restoration.model import Model, load_model
from bbcu_cli.restoration.size import Target
from bbcu_cli.spec import Task

Asked = TypeVar("Asked")
"""What a worker is asked for one picture."""

PIECE: Final = 16
"""Pictures that a worker is handed at a time, at the most: enough to be worth the trip, few enough to be made again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One picture to restore; source and output are paths or URLs.

    Attributes:
        entry: what the store said of the source when it was listed; None for a path.
        notes: what is to be said of its output.
        error: why it fails without being tried; empty for nearly all.
    """

    source: str
    output: str
    entry: Entry | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    def failed(self, reason: str) -> Row:
        """The row of this picture when it cannot be restored."""
        return Row(self.source, self.output, "failed", error=reason)


@dataclass(frozen=True, slots=True)
class Piece(Generic[Asked]):
    """Pictures that go to a worker together.

    Attributes:
        deaths: of workers that had this piece, or the one that it was split from; from the first on, what an earlier
            try has finished is not made again.
        alone: of them, while it was a single picture.
    """

    asks: tuple[Asked, ...]
    deaths: int = 0
    alone: int = 0


@dataclass(frozen=True, slots=True)
class Loading:
    """How a network is opened; see `load_model`.

    Attributes:
        weights: those that serve every file, as they were asked for; None: of the catalogue.
        file: where they lie, if they are a file: the same on all machines.
    """

    weights: str | None = None
    file: str | None = None
    engine: EngineName = "auto"
    device: str = "auto"
    threads: int | None = None
    hub_repo: str | None = None
    offline: bool = False

    def open(self, name: str, task: Task, scale: int | None) -> Model:
        """The model of that name, or that of `weights`, which must be for that; errors as of `load_model`."""
        given = self.file or self.weights
        model = load_model(
            given or name,
            task=task if given else None,
            scale=scale if given else None,
            engine=self.engine,
            device=self.device,
            threads=self.threads,
            hub_repo=self.hub_repo,
            offline=self.offline,
            progress=sys.stderr.isatty(),
        )
        return replace(model, name=self.weights or name)


def network_digests(task: Task, scale: int | None, catalogue: Catalogue) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256) of every network for a task, and for a scale if one is given; and of those that deblock first."""
    able = [entry for entry in catalogue if entry.spec.task == task and scale in (None, entry.spec.scale)]
    able += [entry for entry in catalogue if entry.spec.task == "deblock" != task and entry.serves]
    return tuple(sorted((entry.name, entry.sha256 or "") for entry in able))


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run but its pictures; it is hashable, and travels to the workers.

    Attributes:
        settings: without what cannot travel: ground truth, progress, `serve`.
        digests: of the networks that may serve, or of the one file of `loading.weights`.
        home: the folder that relative paths start from; empty: where the process is.
        target: the size of results; None: as the network of the wish makes them.
        schemes: kinds of URLs that are read or written.
        run: stands for this run, so that what one of its own tries has published is known.
        version: of bbcu; all machines have the same.
    """

    wish: Wish
    settings: Settings
    loading: Loading
    digests: tuple[tuple[str, str], ...]
    home: str = ""
    target: Target | None = None
    schemes: tuple[str, ...] = ()
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    version: str = __version__

    @property
    def key(self) -> str:
        """Stands for all that shapes an output, for the records in a store."""
        rest = json.dumps([repr(self.wish), repr(self.target), self.digests, self.settings.compare])
        return f"{options_key(self.settings)} {hashlib.sha256(rest.encode()).hexdigest()[:32]}"

    @property
    def memory(self) -> int:
        """Bytes that a worker may take."""
        return self.settings.options.memory or DEFAULT_MEMORY
