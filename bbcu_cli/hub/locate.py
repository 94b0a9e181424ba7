"""From what the user asked for to a verified file: a file by its path > embedded > cache > network."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bbcu_cli.checkpoint.packed import PackedFile, read_packed
from bbcu_cli.errors import CheckpointError, WeightsUnavailableError, require_hub
from bbcu_cli.hub import client
from bbcu_cli.hub.catalogue import REFRESH, Catalogue, Entry, remedy, weights_dir
from bbcu_cli.hub.reference import SCHEME, HubRef, for_model, parse

Source = Literal["file", "embedded", "cache", "hub"]
Where = Literal["embedded", "cached", "on hub", "not trained"]
Read = Callable[[Path], PackedFile]


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A verified model on this machine.

    Attributes:
        file: what was read and verified.
        source: where it was found; "hub" means that it was downloaded just now.
        ref: its place on the hub, if it comes from there.
    """

    file: PackedFile
    source: Source
    ref: HubRef | None = None


def locate(
    wanted: str | os.PathLike[str],
    *,
    hub_repo: str | None = None,
    offline: bool = False,
    progress: bool = False,
    refresh: bool = False,
    catalogue: Catalogue | None = None,
) -> Located:
    """Find weights, download them if need be, and verify them.

    Args:
        wanted: a name of the catalogue, the path of a packed model, or ``hf://user/repo[@revision][:file]``.
        hub_repo: ``user/repo[@revision][:file]`` where a model of the catalogue that is not embedded is looked for
            instead of at its own place; ``{name}`` in it stands for the model. Default: ``BBCU_HUB_REPO``.
        offline: never open a socket; ``BBCU_OFFLINE`` and ``HF_HUB_OFFLINE`` say the same.
        progress: whether a download may draw a bar on stderr.
        refresh: ask the hub whether a branch or tag has moved, even if a file is cached.
        catalogue: by default the one that ships with bbcu.

    Raises:
        WeightsUnavailableError: not here and not to be had, or the hub's client is not installed; says what to do.
        CheckpointError: the file named by its path is not a valid packed model, or a hub file is of another network.
        UsageError: no model has that name, or the hub reference is malformed.
    """
    if isinstance(wanted, str) and wanted.startswith(SCHEME):
        return _from_hub(parse(wanted), read_packed, wanted, offline=offline, progress=progress, refresh=refresh)
    if not is_name(wanted):
        return Located(_read_file(Path(wanted)), "file")
    entry = (catalogue or Catalogue.load())[str(wanted)]
    if entry.embedded:
        return _embedded(entry)
    ref = hub_place(entry, hub_repo)
    if ref is None:
        raise WeightsUnavailableError(f"Model {entry.name} does not ship with this bbcu: {remedy(entry)}.")
    found = _from_hub(ref, entry.read, entry.name, offline=offline, progress=progress, refresh=refresh)
    entry.require_network(found.file.model.spec, ref)
    return found


@dataclass(frozen=True, slots=True)
class Status:
    """Where a model of the catalogue is now, unverified and without a request.

    Attributes:
        entry: the model.
        where: in the package, in the cache, on the hub (to be downloaded when it is first used), or nowhere yet.
        path: its file on this machine, if any.
        ref: its place on the hub, if any.
    """

    entry: Entry
    where: Where
    path: Path | None = None
    ref: HubRef | None = None

    @property
    def size(self) -> int | None:
        """Bytes of its file, as found or as the catalogue says."""
        return self.path.stat().st_size if self.path else self.entry.size


def status(entry: Entry, hub_repo: str | None = None) -> Status:
    """Look where a model is; arguments and errors as of `locate`."""
    if entry.embedded:
        return Status(entry, "embedded", entry.file)
    ref = hub_place(entry, hub_repo)
    if ref is None:
        return Status(entry, "not trained")
    path = client.cached(ref)
    return Status(entry, "on hub" if path is None else "cached", path, ref)


def hub_place(entry: Entry, hub_repo: str | None = None) -> HubRef | None:
    """Where on the hub a model is looked for: the repository that the user named, or that of the catalogue.

    Raises:
        UsageError: `hub_repo` or ``BBCU_HUB_REPO`` is malformed.
    """
    pattern = hub_repo or os.environ.get("BBCU_HUB_REPO")
    return for_model(pattern, entry.name) if pattern else entry.hub


def is_name(wanted: str | os.PathLike[str]) -> bool:
    """Whether it is the name of a model, rather than a path or a reference to the hub."""
    if not isinstance(wanted, str):
        return False
    return not ("/" in wanted or os.sep in wanted or Path(wanted).suffix.lower() in (".safetensors", ".pth", ".pt"))


def _read_file(path: Path) -> PackedFile:
    if path.suffix in (".pth", ".pt"):
        raise CheckpointError(f"Weights {path}: not packed; run `bbcu models convert {path}` and use what it writes.")
    return read_packed(path)


def _embedded(entry: Entry) -> Located:
    if entry.sha256 is None:
        raise WeightsUnavailableError(f"{entry.file} is not in the catalogue yet; run `{REFRESH}`.")
    try:
        file = entry.read(entry.file)
        entry.require_network(file.model.spec, entry.file)
    except CheckpointError as error:
        source_tree = weights_dir().parent.joinpath("pyproject.toml").exists()
        advice = f"If you replaced the file, run `{REFRESH}`." if source_tree else "Reinstall bbcu."
        raise WeightsUnavailableError(f"{error} {advice}") from error
    return Located(file, "embedded")


def _from_hub(ref: HubRef, read: Read, name: str, *, offline: bool, progress: bool, refresh: bool) -> Located:
    """From the cache if it holds a good file, else from the hub; a damaged file in the cache is replaced."""
    require_hub(name)
    switched_off = "--offline" if offline else client.offline_variable()
    path = client.cached(ref)
    damage = ""
    if path is not None and (ref.pinned or not refresh or switched_off):
        try:
            return Located(read(path), "cache", ref)
        except CheckpointError as error:
            damage = f" The cached file is damaged. {error}"
    if switched_off:
        raise WeightsUnavailableError(
            f"{name} is not in the cache and the network is switched off ({switched_off}).{damage} Run "
            f"`bbcu models pull {name}` once with a network, or use --weights FILE."
        )
    return Located(client.download(ref, read, progress=progress), "hub", ref)
