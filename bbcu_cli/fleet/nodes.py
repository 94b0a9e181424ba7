"""What a node has: only nodes with the same bbcu and the same weights make the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bbcu_cli import __version__
from bbcu_cli.engines.select import available
from bbcu_cli.fleet.stores import PACKAGES, openable
from bbcu_cli.hub import Catalogue


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine has.

    Attributes:
        version: of bbcu; empty where it is not installed.
        digests: SHA-256 of every network in the catalogue, by name.
        engine: that `auto` takes, with its device and kernels.
        urls: the kinds of them that it opens, of the usual ones.
    """

    version: str
    digests: dict[str, str]
    engine: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a cluster; bytes of memory. `trouble` is why it must not work, a clause, or empty."""

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float
    found: Here
    trouble: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        fields = asdict(self)
        fields["found"].pop("digests")
        return fields


def here() -> Here:
    """Look around."""
    digests = {entry.name: entry.sha256 or "" for entry in Catalogue.load()}
    able = [info for info in available() if info.unavailable is None]
    engine = f"{able[0].name} on {able[0].device}, {able[0].detail}" if able else "none"
    return Here(__version__, digests, engine, openable())


def difference(version: str, digests: Mapping[str, str], found: Here, schemes: Sequence[str] = ()) -> str:
    """How what a node has differs from what it should have, as a clause about the node; empty if it does not.

    Args:
        digests: of networks by name; names that are in no catalogue are not compared.
        schemes: kinds of URLs that it has to open.
    """
    if not found.version:
        return "it has no bbcu"
    if found.version != version:
        return f"it has bbcu {found.version} instead of {version}"
    known = Catalogue.load().entries
    others = [name for name, digest in digests.items() if name in known and found.digests.get(name, "") != digest]
    if others:
        return f"its weights of {', '.join(others)} are others"
    closed = [scheme for scheme in schemes if scheme in PACKAGES and scheme not in found.urls]
    return f"it cannot open {closed[0]}://, which needs fsspec and {PACKAGES[closed[0]]}" if closed else ""


def probe() -> Callable[[], dict[str, Any]]:
    """A function that tells what the machine has which runs it; it travels whole, so that bbcu may be missing there."""

    def look() -> dict[str, Any]:
        try:
            from dataclasses import asdict

            from bbcu_cli.fleet.nodes import here

            return asdict(here())
        except ImportError:
            pass
        try:
            from bbcu_cli import __version__ as version
        except ImportError:
            version = ""
        return {"version": version, "digests": {}, "engine": "none", "urls": ()}

    return look
