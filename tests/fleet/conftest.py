"""What tests of the fleet share: one S3 service, clusters, pictures and what one machine makes of them.

There is one service for all, since fsspec keeps its file systems, with their address, for the life of the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_store import Store, loopback_store
from small import SMALL_SPECS, small_model
from three_nodes import bbcu, make_pictures, three_nodes

from bbcu_cli.checkpoint.packed import to_bytes


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The service, found by the environment, which Ray's processes inherit."""
    with pytest.MonkeyPatch.context() as patch, loopback_store() as found:
        for name, value in {**found.environment(), "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def cluster(store: Store) -> Iterator[Any]:  # noqa: ARG001 - it is there before the nodes are
    """Three nodes of one CPU."""
    yield from three_nodes()


@pytest.fixture
def own_cluster(store: Store) -> Iterator[Any]:  # noqa: ARG001 - it is there before the nodes are
    """Three nodes for a test that loses one."""
    yield from three_nodes()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers import what lies where their driver is, and a source tree has no compiled module."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, 24 pictures of which one is damaged, and what a run on one machine makes of them."""
    root = tmp_path_factory.mktemp("place")
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    make_pictures(root / "in", 24)
    (root / "in" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    done = bbcu(root, "in", "-o", str(root / "good"))
    assert done.exit_code == 1, done.output
    return root
