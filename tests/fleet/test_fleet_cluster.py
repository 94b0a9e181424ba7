"""A real Ray cluster of three nodes on this machine and a real S3 service: the bytes of one machine."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_store import Store
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from three_nodes import MARKS, NAMING, bbcu, fill, litter, make_pictures, objects, pictures, plan_of
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.errors import UsageError
from bbcu_cli.fleet.cluster import pieces_on
from bbcu_cli.fleet.driver import TRIES, drive
from bbcu_cli.fleet.listing import list_inputs
from bbcu_cli.fleet.nodes import Here, difference, here
from bbcu_cli.fleet.plan import Ask, Plan
from bbcu_cli.fleet.worker import restore_piece

pytestmark = MARKS


@pytest.fixture(scope="module")
def hr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, ground truth in `set`, and the same reduced to a half in `small`."""
    root = tmp_path_factory.mktemp("hr")
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    rng = np.random.default_rng(9)
    for folder in ("set", "small"):
        (root / folder).mkdir()
    for name in "abcde":
        picture = Pillow.fromarray(rng.integers(0, 255, (24, 28, 3), np.uint8))
        picture.save(root / "set" / f"{name}.png")
        picture.resize((14, 12)).save(root / "small" / f"{name}.png")
    return root


def run_eval(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["eval", *arguments])


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    """The rows of --json by their source, without the times."""
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["source"]: {name: value for name, value in row.items() if "seconds" not in name} for row in rows}


def test_a_bucket_on_three_nodes_becomes_what_one_machine_makes(place: Path, cluster: Any, store: Store) -> None:
    """The same bytes, rows, summary and exit code; a store that answers 503 now and then changes nothing."""
    system = fill("quick", place / "in")
    store.fail_every(9)
    done = bbcu(place, "s3://quick/in/", "-o", "s3://quick/out/", "--cluster", cluster.address, "--json")
    store.fail_every(0)
    assert done.exit_code == 1, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter(row["status"] for row in rows) == {"done": 23, "failed": 1}
    assert len({row["source"] for row in rows}) == 24
    assert "23 done, 0 skipped, 1 failed, 0 not images" in done.stderr
    assert objects(system, "quick/out") == pictures(place / "good")


def test_a_folder_that_all_nodes_share(place: Path, cluster: Any, tmp_path: Path) -> None:
    """Paths work as URLs do; nothing but pictures and the record is left, and a second run skips all."""
    for status in ("23 done, 0 skipped", "0 done, 23 skipped"):
        done = bbcu(place, "in", "-o", str(tmp_path / "out"), "--cluster", cluster.address, "--skip-existing")
        assert (done.exit_code, status in done.stderr) == (1, True), done.output
    assert pictures(tmp_path / "out") == pictures(place / "good")
    assert not litter(tmp_path / "out")
    alone, shared = (
        bbcu(place, "in", "-o", str(tmp_path / "out"), "--overwrite", "--json", *more)
        for more in ((), ("--cluster", cluster.address))
    )
    assert rows_of(shared.stdout) == rows_of(alone.stdout)
    again = list_inputs([str(place / "in")], str(tmp_path / "out"), NAMING, refuse_existing=True)
    assert sum(f"{ask.output} exists; use --overwrite" in ask.error for ask in again.asks) == 23


@pytest.mark.parametrize("how", ["paper", "photo", "given"])
def test_an_evaluation_on_three_nodes_is_that_of_one_machine(
    how: str, hr: Path, cluster: Any, store: Store, tmp_path: Path
) -> None:
    """Each figure to the last bit, with the same facts and lines, of a shared folder and of a bucket."""
    options = {
        "paper": ["--task", "sr", "--scale", "2"],
        "photo": ["--task", "sr", "--scale", "2", "--jpeg", "80"],
        "given": ["--task", "sr", "--scale", "2", "--input", str(hr / "small")],
    }[how]
    common = [*options, "--threads", "1", "--weights", str(hr / "w.safetensors"), "--json"]
    whole = run_eval("--gt", str(hr / "set"), *common, "--report", str(tmp_path / "one.html"))
    assert whole.exit_code == 0, whole.output
    many = ("--cluster", cluster.address)
    shared = run_eval("--gt", str(hr / "set"), *common, *many, "--report", str(tmp_path / "many.html"))
    assert (shared.exit_code, shared.stdout) == (0, whole.stdout), shared.output
    assert sorted(shared.stderr.splitlines()) == sorted(whole.stderr.splitlines())
    assert (tmp_path / "many.html").read_bytes() == (tmp_path / "one.html").read_bytes()
    if how == "paper":
        return
    name = f"eval-{how}"
    fill(name, hr / "set").put(str(hr / "small"), f"{name}/small", recursive=True)
    common = [f"s3://{name}/small" if text == str(hr / "small") else text for text in common]
    store.fail_every(11)
    stored = run_eval("--gt", f"s3://{name}/in", *common, *many)
    store.fail_every(0)
    assert stored.exit_code == 0, stored.output
    figures, expected = json.loads(stored.stdout), json.loads(whole.stdout)
    assert {**figures, "title": ""} == {**expected, "title": ""}


def test_an_evaluation_on_a_cluster_ends_with_the_first_bad_picture(hr: Path, cluster: Any, tmp_path: Path) -> None:
    """In the same sentence and with the same exit code as on one machine, with no figures."""
    bad = tmp_path / "bad"
    shutil.copytree(hr / "set", bad)
    (bad / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    common = ["--gt", str(bad), "--task", "sr", "--scale", "2", "--weights", str(hr / "w.safetensors"), "--quiet"]
    whole, shared = run_eval(*common), run_eval(*common, "--cluster", cluster.address)
    assert whole.exit_code == shared.exit_code == 2
    assert shared.stderr == whole.stderr
    assert shared.stdout == ""


def test_what_kills_its_workers_is_one_failed_row(place: Path, cluster: Any, tmp_path: Path) -> None:
    """A picture that a process dies of is found and fails by itself; the others are done, each once."""

    def deadly(plan: Plan, piece: Any) -> Any:  # travels to the nodes as it is
        import signal

        from bbcu_cli.fleet.worker import restore_piece

        told = restore_piece(plan, piece)
        if any(ask.source.endswith("013.png") for ask in piece.asks):
            os.kill(os.getpid(), signal.SIGKILL)
        return told

    stream = list_inputs([str(place / "in")], str(tmp_path / "out"), NAMING, refuse_existing=True)
    with pieces_on(cluster.address, plan_of(place), print, deadly) as executor:
        rows = {row.source: row for row in drive(stream.asks, executor, Ask.failed, 8)}
    assert len(rows) == 24
    failed = {Path(row.source).name: row.error for row in rows.values() if row.status == "failed"}
    assert set(failed) == {"007.png", "013.png"}
    assert f"its worker died {TRIES} times" in failed["013.png"]
    good = pictures(place / "good")
    assert {name: good[name] for name in pictures(tmp_path / "out")} == pictures(tmp_path / "out")


def test_a_node_with_another_bbcu_or_other_weights_is_refused_by_name(place: Path, cluster: Any) -> None:
    """All of them here, so that nothing is done, and the sentence says what one has."""
    plan = plan_of(place, digests=(("sr-m-x2", "0" * 64),))
    reason = r"No node of the cluster \S+ may work: of \S+ \(.*\), its weights of sr-m-x2 are others\."
    with pytest.raises(UsageError, match=reason), pieces_on(cluster.address, plan, print, restore_piece):
        pass
    assert difference("9.9", {}, here()) == f"it has bbcu {here().version} instead of 9.9"
    assert difference("9.9", {}, Here("", {}, "none", ())) == "it has no bbcu"


def test_one_node_that_has_something_else_is_named_and_the_others_work(
    place: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is seen at the start or by a worker, that node does nothing, and each picture has its row."""
    nodes, told = iter(["it has bbcu 9.9 instead of this one"]), []
    monkeypatch.setattr("bbcu_cli.fleet.cluster.difference", lambda *_: next(nodes, ""))
    lost = str(next(iter(cluster.worker_nodes)).node_id)

    def choosy(plan: Plan, piece: Any) -> Any:  # travels to the nodes as it is
        import ray

        from bbcu_cli.fleet.worker import Refused, restore_piece

        if ray.get_runtime_context().get_node_id() == lost:
            return Refused("its weights are others")
        return restore_piece(plan, piece)

    stream = list_inputs([str(place / "in")], str(tmp_path / "out"), NAMING, refuse_existing=True)
    with pieces_on(cluster.address, plan_of(place), told.append, choosy) as executor:
        rows = list(drive(stream.asks, executor, Ask.failed, 1))
        assert executor.room() <= 4
    assert Counter(row.status for row in rows) == {"done": 23, "failed": 1}
    assert len({row.source for row in rows}) == 24
    assert told[0].endswith("is refused: it has bbcu 9.9 instead of this one")
    for line in told[1:]:
        assert line.startswith("node ")
        assert lost[:8] in line
        assert line.endswith("is refused: its weights are others")


def test_bench_restores_a_folder_by_turns(cluster: Any, tmp_path: Path) -> None:
    """One command: each run without and with the cluster, their medians compared, and what a core does in an hour."""
    make_pictures(tmp_path / "in", 10)
    common = ["bench", "sr-m-x2", "--folder", str(tmp_path / "in"), "--cluster", cluster.address, "--threads", "1"]
    done = CliRunner().invoke(app, [*common, "--runs", "2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [told[name] for name in ("images", "threads", "worker_threads", "nodes")] == [10, 1, 1, 3]
    assert len(told["alone"]) == len(told["cluster"]) == 2
    assert told["overhead"] == pytest.approx(sum(told["cluster"]) / sum(told["alone"]) - 1)
    assert told["images_per_core_hour"] == pytest.approx(10 * 3600 / (sum(told["alone"]) / 2))
    assert told["megapixels_per_core_hour"] / told["images_per_core_hour"] == pytest.approx(told["megapixels"] / 10)


def test_doctor_shows_what_each_node_has(cluster: Any) -> None:
    """A line for each: its size, its bbcu, its engine."""
    done = CliRunner().invoke(app, ["doctor", "--cluster", cluster.address])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(
        "1 CPUs" in line and "s3://" in line and f"bbcu {here().version}, the same weights" in line for line in lines
    )
