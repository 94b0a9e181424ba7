"""The one way from a name, a file or a hub reference to an opened model; and the options of a restoration."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.engines.base import Session
from bbcu_cli.engines.select import EngineName, open_session
from bbcu_cli.errors import UsageError
from bbcu_cli.hub import locate
from bbcu_cli.restoration.planes import Chroma
from bbcu_cli.spec import ModelSpec, Task


@dataclass(frozen=True, slots=True)
class Options:
    """How to restore.

    Attributes:
        tile: side of a square tile core in input pixels; None plans tiles from `memory`.
        memory: bytes that the process may take; None is 2 GiB, or what a very large image needs at the least.
        self_ensemble: average the results of the eight flips and rotations; eight times the work.
        chroma: deblocking of a colour image: "keep" its chroma, or "restore" it. For a network that sees luma only,
            that is three times the work, and measures 0.07 dB better in RGB (JPEG quality 10 to 40, 14 photos).
        strength: how far to go from the input (0: its samples as they are) to the result (1), 0..1; for networks that
            do not enlarge.
    """

    tile: int | None = None
    memory: int | None = None
    self_ensemble: bool = False
    chroma: Chroma = "restore"
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            UsageError: the strength is not in 0..1.
        """
        if not 0 <= self.strength <= 1:
            raise UsageError(f"The strength is {self.strength:g}; give a number from 0 to 1.")


DEFAULT_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network opened on an engine; `with` closes it.

    Attributes:
        name: what it was asked for by.
        spec: the network.
        provenance: where the weights come from, free text by key.
        session: it runs there.
        notes: what to tell the user: where the weights were found on the hub, and why a faster engine does not serve.
        sha256: of the file of weights, 64 hex digits; empty when they come from no file.
    """

    name: str
    spec: ModelSpec
    provenance: Mapping[str, str]
    session: Session
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engine holds."""
        self.session.close()


class Shelf:
    """The models of one run, each opened when it is first asked for, by any thread; `with` closes them all."""

    def __init__(self, load: Callable[[str], Model]) -> None:
        """Args: load: opens a model by its name."""
        self._load = load
        self._models: dict[str, Model] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engines hold."""
        for model in self._models.values():
            model.close()

    def __getitem__(self, name: str) -> Model:
        """The model of that name; errors as of `load_model`."""
        with self._lock:
            if name not in self._models:
                self._models[name] = self._load(name)
            return self._models[name]


def open_model(
    packed: PackedModel, name: str, *, engine: EngineName = "auto", device: str = "auto", threads: int | None = None
) -> Model:
    """Open a packed model that is in memory on the fastest engine that the wish allows.

    Raises:
        EngineUnavailableError: no engine can serve.
    """
    session, notes = open_session(packed, engine=engine, device=device, threads=threads)
    return Model(name, packed.spec, packed.provenance, session, notes)


def load_model(
    name: str | os.PathLike[str] = "sr-m-x4",
    *,
    task: Task | None = None,
    scale: int | None = None,
    engine: EngineName = "auto",
    device: str = "auto",
    threads: int | None = None,
    hub_repo: str | None = None,
    offline: bool = False,
    progress: bool = False,
) -> Model:
    """Find weights, verify them and open them. The file is read once: what was verified is what runs.

    Args:
        name: of a model (`bbcu models list`), a packed file, or hf://user/repo@revision:file.
        task: what the network must be made for; None takes any.
        scale: that it must have; None takes any.
        engine: "auto" is the fastest that runs here.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: of the CPU; None: `default_threads()`.
        hub_repo: repository to take models from that do not ship with bbcu, see `hub.locate`.
        offline: never use the network.
        progress: whether a download may draw a bar on stderr.

    Raises:
        WeightsUnavailableError: the weights are neither here nor to be had.
        CheckpointError: the file is damaged.
        UsageError: no model has that name, or the weights are for another task or scale.
        EngineUnavailableError: no engine can serve.
    """
    found = locate(name, hub_repo=hub_repo, offline=offline, progress=progress)
    file, spec = found.file, found.file.model.spec
    if (task or spec.task, scale or spec.scale) != (spec.task, spec.scale):
        wanted, given = (_purpose(*pair) for pair in ((task or spec.task, scale or 1), (spec.task, spec.scale)))
        raise UsageError(f"Weights {name} are for {given}, not for {wanted}.")
    model = open_model(file.model, str(name), engine=engine, device=device, threads=threads)
    place = () if found.ref is None else (f"weights {found.ref}, SHA-256 {file.sha256}",)
    return replace(model, notes=(*place, *model.notes), sha256=file.sha256)


def _purpose(task: Task, scale: int) -> str:
    return f"{task} x{scale}" if task == "sr" else task
