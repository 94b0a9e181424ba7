"""A Ray cluster of three nodes on this machine, and what is done on it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from bbcu_cli.batch.settings import Settings
from bbcu_cli.checkpoint.packed import read_packed
from bbcu_cli.cli.app import app
from bbcu_cli.fleet.listing import Naming
from bbcu_cli.fleet.plan import Loading, Plan
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Options

_MISSING = [name for name in ("ray", "s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]
MARKS = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)} (the extra `test`)"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.usefixtures("elsewhere"),
]
_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
RECORDS = ".bbcu-manifest"
NAMING = Naming("_x2", None, ".png", recursive=False)


def three_nodes() -> Iterator[Any]:
    """A cluster that is ready."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_register_timeout_seconds", "300")
        for tries_left in range(5, -1, -1):  # Ray gives a node 30 seconds to start, which a busy machine may not
            found = Cluster()
            try:
                found.add_node(**_NODE, include_dashboard=False)
                found.add_node(wait=False, **_NODE)
                found.add_node(wait=False, **_NODE)
                found.wait_for_nodes(timeout=180)
                break
            except Exception:
                found.shutdown()
                if not tries_left:
                    raise
        yield found
        found.shutdown()


def make_pictures(folder: Path, number: int) -> None:
    """Small pictures of noise, each of another size."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    for index in range(number):
        size = (12 + index % 5, 10 + index % 7, 3)
        Pillow.fromarray(rng.integers(0, 255, size, np.uint8)).save(folder / f"{index:03}.png")


def command(root: Path, source: str, *arguments: str) -> list[str]:
    """A command line of `bbcu sr` with the weights of that place."""
    where = source if "://" in source else str(root / source)
    return ["sr", where, *arguments, "--scale", "2", "--threads", "1", "--weights", str(root / "w.safetensors")]


def bbcu(root: Path, source: str, *arguments: str) -> Any:
    """Run it in this process."""
    return CliRunner().invoke(app, command(root, source, *arguments))


def pictures(folder: Path) -> dict[str, bytes]:
    """Name -> content."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def litter(folder: Path) -> list[str]:
    """What is neither a picture nor the record."""
    return [path.name for path in folder.iterdir() if path.name[0] == "." and path.name != f"{RECORDS}.jsonl"]


def fill(bucket: str, folder: Path) -> Any:
    """A bucket with these pictures under in/; returns a client of it."""
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    system.mkdir(bucket)
    system.put(str(folder), f"{bucket}/in", recursive=True)
    return system


def objects(system: Any, folder: str) -> dict[str, bytes]:
    """Name -> content of what lies in a folder of a store, without the records."""
    found = system.find(folder) if system.exists(folder) else []
    return {key.rsplit("/", 1)[1]: system.cat_file(key) for key in found if RECORDS not in key}


def plan_of(root: Path, **changes: Any) -> Plan:
    """A plan as the command line makes it."""
    settings = Settings(Options(memory=500 << 20), EncodeOptions(), "PNG", 10**8, threads=1)
    weights = root / "w.safetensors"
    loading = Loading(str(weights), str(weights), threads=1)
    fields = {"digests": (("--weights", read_packed(weights).sha256),), **changes}
    return Plan(Wish("sr", 2), settings, loading, **fields)


def wait_until(true: Any, seconds: float = 180) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
