"""A cluster that is not there, or cannot do the work, is one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from three_nodes import MARKS, bbcu

from bbcu_cli.fleet.cluster import _silence

pytestmark = MARKS


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
