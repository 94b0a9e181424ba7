"""A real Ray cluster of three nodes on this machine and a real S3 service: the bytes of one machine, whatever dies."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_store import Store
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.batch.settings import Settings
from bbcu_cli.checkpoint.packed import read_packed, to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.errors import UsageError
from bbcu_cli.fleet.cluster import _silence, pieces_on
from bbcu_cli.fleet.driver import TRIES, drive
from bbcu_cli.fleet.listing import Naming, list_inputs
from bbcu_cli.fleet.nodes import Here, difference, here
from bbcu_cli.fleet.plan import Ask, Loading, Plan
from bbcu_cli.fleet.restore import restore
from bbcu_cli.fleet.shop import Shop
from bbcu_cli.fleet.worker import Refused, restore_piece
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Options

MISSING = [name for name in ("ray", "s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (the extra `test`)"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
RECORDS = ".bbcu-manifest"
NAMING = Naming("_x2", None, ".png", recursive=False)


@pytest.fixture(scope="module")
def cluster(store: Store) -> Iterator[Any]:  # noqa: ARG001 - it is there before the nodes are
    """Three nodes of one CPU."""
    yield from three_nodes()


@pytest.fixture
def own_cluster(store: Store) -> Iterator[Any]:  # noqa: ARG001 - it is there before the nodes are
    """Three nodes for a test that loses one."""
    yield from three_nodes()


def three_nodes() -> Iterator[Any]:
    """A cluster that is ready."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_register_timeout_seconds", "300")
        for tries_left in range(5, -1, -1):  # Ray gives a node 30 seconds to start, which a busy machine may not
            found = Cluster()
            try:
                found.add_node(**NODE, include_dashboard=False)
                found.add_node(wait=False, **NODE)
                found.add_node(wait=False, **NODE)
                found.wait_for_nodes(timeout=180)
                break
            except Exception:
                found.shutdown()
                if not tries_left:
                    raise
        yield found
        found.shutdown()


@pytest.fixture(scope="module", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers import what lies where their driver is, and a source tree has no compiled module."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, 24 pictures of which one is damaged, and what a run on one machine makes of them."""
    root = tmp_path_factory.mktemp("place")
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    make_pictures(root / "in", 24)
    (root / "in" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    done = bbcu(root, "in", "-o", str(root / "good"))
    assert done.exit_code == 1, done.output
    return root


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


def make_pictures(folder: Path, number: int) -> None:
    rng = np.random.default_rng(7)
    folder.mkdir()
    for index in range(number):
        size = (12 + index % 5, 10 + index % 7, 3)
        Pillow.fromarray(rng.integers(0, 255, size, np.uint8)).save(folder / f"{index:03}.png")


def command(root: Path, source: str, *arguments: str) -> list[str]:
    where = source if "://" in source else str(root / source)
    return ["sr", where, *arguments, "--scale", "2", "--threads", "1", "--weights", str(root / "w.safetensors")]


def bbcu(root: Path, source: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, command(root, source, *arguments))


def pictures(folder: Path) -> dict[str, bytes]:
    """Name -> content."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def litter(folder: Path) -> list[str]:
    """What is neither a picture nor the record."""
    return [path.name for path in folder.iterdir() if path.name[0] == "." and path.name != f"{RECORDS}.jsonl"]


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    """The rows of --json by their source, without the times."""
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["source"]: {name: value for name, value in row.items() if "seconds" not in name} for row in rows}


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


def test_a_local_cluster_that_can_never_do_it_says_so(place: Path, tmp_path: Path) -> None:
    """Nothing waits for a node that cannot come."""
    done = bbcu(place, "in", "-o", str(tmp_path / "out"), "--cluster", "local", "--memory", "900TB")
    assert done.exit_code == 2, done.output
    assert "This machine has not what a worker takes" in done.stderr
    assert "less --memory" in done.stderr


def test_without_a_cluster_auto_is_a_sentence(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray says of it, on one line."""
    import ray

    def none(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nPlease start one.")

    monkeypatch.setattr(ray, "init", none)
    done = bbcu(place, "in", "-o", str(tmp_path / "out"), "--cluster", "auto")
    assert done.exit_code == 2
    assert "The cluster 'auto' cannot be used: Could not find any running Ray instance. Please start" in done.stderr


def test_a_cluster_that_asks_for_a_token_says_what_to_set(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sends its token to an address that was typed only if it is told to; it does not try for minutes."""
    import ray

    tries = "RAY_gcs_server_port_wait_time_s"

    def refused(**_: object) -> None:
        assert os.environ[tries] == "2"
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379.")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr("bbcu_cli.fleet.cluster._require_reachable", lambda _: None)
    for name in ("RAY_AUTH_MODE", tries):
        monkeypatch.delenv(name, raising=False)
    done = bbcu(place, "in", "-o", str(tmp_path / "out"), "--cluster", "127.0.0.1:6379")
    assert done.exit_code == 2
    assert done.stderr.endswith(
        "at 127.0.0.1:6379; if this is its head and asks for a token, set RAY_AUTH_MODE=token.\n"
    )


def test_reports_of_ray_about_dead_workers_stay_off_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray hands them to a function of its own, with whatever arguments it has today."""
    from ray._private import worker

    before = worker.print_to_stdstream
    try:
        _silence()
        worker.print_to_stdstream({"lines": ["a worker died"], "pid": 1, "ip": "127.0.0.1"}, ignore_prefix=True)
    finally:
        worker.print_to_stdstream = before
    assert capsys.readouterr() == ("", "")


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


def test_weights_that_differ_on_a_node_are_noticed_there(place: Path, tmp_path: Path) -> None:
    """A path may hold another file on another machine: such a node does nothing."""
    from bbcu_cli.fleet.plan import Piece

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


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "The cluster 127.0.0.1:1 cannot be reached"),
        ("nonsense", "--cluster nonsense is no address; give local, auto or HOST:PORT"),
        ("ray://127.0.0.1:1", "run bbcu on a node of the cluster"),
        ("no-such-host.invalid:6379", "The cluster no-such-host.invalid:6379 cannot be reached"),
    ],
)
def test_a_cluster_that_is_not_there_is_a_sentence(address: str, sentence: str, place: Path, tmp_path: Path) -> None:
    """Exit code 2 at once."""
    done = bbcu(place, "in", "-o", str(tmp_path / "out"), "--cluster", address)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.output
    assert "Traceback" not in done.output


def test_without_ray_one_sentence_names_the_extra(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bbcu without Ray says how to get it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    done = bbcu(place, "in", "-o", str(place / "never"), "--cluster", "local")
    assert done.exit_code == 2
    assert "--cluster needs Ray, which is not installed; run: pip install 'bbcu-cli[fleet]'." in done.stderr


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
def test_an_archive_survives_the_loss_of_a_node_and_of_the_driver(place: Path, cluster: Any, tmp_path: Path) -> None:
    """200 pictures in a store, a node killed, the driver killed and started again: all there once, the same bytes."""
    make_pictures(tmp_path / "in", 200)
    assert bbcu(place, str(tmp_path / "in"), "-o", str(tmp_path / "good")).exit_code == 0
    system = fill("archive", tmp_path / "in")
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(**NODE)
    arguments = ("-o", "s3://archive/out/", "--skip-existing", "--json", "--cluster", cluster.address)
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
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        told, said = driver.communicate(timeout=500)
    assert driver.returncode == 0, said
    rows = [json.loads(line) for line in told.splitlines()]
    assert Counter(row["source"] for row in rows) == {f"s3://archive/in/{n:03}.png": 1 for n in range(200)}
    counts = Counter(row["status"] for row in rows)
    assert counts["skipped"] >= 1
    assert counts["failed"] == 0
    assert f"{counts['done']} done, {counts['skipped']} skipped, 0 failed, 0 not images" in said
    assert objects(system, "archive/out") == pictures(tmp_path / "good")


def wait_until(true: Any, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
