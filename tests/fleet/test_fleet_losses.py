"""Nodes, drivers and workers that end in the middle of the work lose nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loopback_store import Store
from three_nodes import (
    MARKS,
    NAMING,
    bbcu,
    command,
    fill,
    litter,
    make_pictures,
    objects,
    pictures,
    plan_of,
    wait_until,
)

from bbcu_cli.fleet.listing import list_inputs
from bbcu_cli.fleet.plan import Piece
from bbcu_cli.fleet.restore import restore
from bbcu_cli.fleet.shop import Shop
from bbcu_cli.fleet.worker import Refused, restore_piece

pytestmark = MARKS


def test_weights_that_differ_on_a_node_are_noticed_there(place: Path, tmp_path: Path) -> None:
    """A path may hold another file on another machine: such a node does nothing."""
    plan = plan_of(place, digests=(("--weights", "0" * 64),), home=str(tmp_path))
    told = restore_piece(plan, Piece(()))
    assert isinstance(told, Refused)
    assert told.reason == f"its {place / 'w.safetensors'} is another file"


def test_what_was_published_before_a_death_is_not_made_again(place: Path, store: Store, monkeypatch: Any) -> None:  # noqa: ARG001
    """A second try of the same run takes over finished pictures as done, and a later run finds them in its way."""
    system = fill("twice", place / "in")
    plan = plan_of(place)
    stream = list_inputs(["s3://twice/in/"], "s3://twice/out", NAMING, refuse_existing=True)
    asks = list(stream.asks)[:3]
    with Shop(plan) as shop:
        first = list(restore(asks, shop))
        assert objects(system, "twice/out").keys() == {"000.png", "001.png", "002.png"}
        monkeypatch.setattr("bbcu_cli.fleet.restore.run", lambda jobs, *_, **__: iter(list(jobs)))  # none are to do
        again = list(restore(asks, shop, again=True))
    assert [(row.source, row.status, row.size_out) for row in again] == [
        (row.source, "done", row.size_out) for row in first
    ]
    with Shop(plan_of(place)) as shop:
        assert {row.status for row in restore(asks, shop)} == {"failed"}


def test_a_lost_node_and_an_interrupted_driver(place: Path, own_cluster: Any, tmp_path: Path) -> None:
    """Pieces of a node that is gone run elsewhere; Ctrl-C ends with 130 and leaves no litter; the next run goes on."""
    make_pictures(tmp_path / "in", 60)
    out = tmp_path / "out"
    run = [sys.executable, "-m", "bbcu_cli", *command(place, str(tmp_path / "in"), "-o", str(out))]
    run += ["--skip-existing", "--cluster", own_cluster.address, "--memory", "500MB"]
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: out.is_dir() and len(pictures(out)) >= 1)
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=120)[1]
    assert driver.returncode in (130, 0), said
    assert not litter(out)
    lost = next(iter(own_cluster.worker_nodes))
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: len(pictures(out)) >= 40)
        own_cluster.remove_node(lost, allow_graceful=False)
        said = driver.communicate(timeout=240)[1]
    assert driver.returncode == 0, said
    assert len(pictures(out)) == 60
    assert "0 failed" in said


@pytest.mark.long
def test_an_archive_survives_a_lost_node_and_a_killed_driver(place: Path, own_cluster: Any, tmp_path: Path) -> None:
    """200 pictures in a store, a node killed, the driver killed and started again: all there once, the same bytes."""
    make_pictures(tmp_path / "in", 200)
    assert bbcu(place, str(tmp_path / "in"), "-o", str(tmp_path / "good")).exit_code == 0
    system = fill("archive", tmp_path / "in")
    arguments = ("-o", "s3://archive/out/", "--skip-existing", "--json", "--cluster", own_cluster.address)
    run = [sys.executable, "-m", "bbcu_cli", *command(place, "s3://archive/in/", *arguments), "--memory", "500MB"]

    def made() -> int:
        return len(objects(system, "archive/out"))

    with (tmp_path / "said").open("w+") as said_first:
        with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=said_first) as driver:
            wait_until(lambda: made() >= 20 or driver.poll() is not None)
            driver.kill()
        said_first.seek(0)
        assert made() >= 20, said_first.read()
    before = made()
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: made() >= max(60, before + 1))
        own_cluster.remove_node(next(iter(own_cluster.worker_nodes)), allow_graceful=False)
        told, said = driver.communicate(timeout=500)
    assert driver.returncode == 0, said
    rows = [json.loads(line) for line in told.splitlines()]
    assert Counter(row["source"] for row in rows) == {f"s3://archive/in/{n:03}.png": 1 for n in range(200)}
    counts = Counter(row["status"] for row in rows)
    assert counts["skipped"] >= 1
    assert counts["failed"] == 0
    assert f"{counts['done']} done, {counts['skipped']} skipped, 0 failed, 0 not images" in said
    assert objects(system, "archive/out") == pictures(tmp_path / "good")
