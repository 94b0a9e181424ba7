"""One count of the CPUs that may be used: what the user says, else affinity and the quota of a container."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bbcu_cli.cli.app import app
from bbcu_cli.cores import checked_threads, cpu_quota, default_threads, usable_cpus
from bbcu_cli.errors import UsageError
from bbcu_cli.image import Image, encode
from bbcu_cli.image.deflate import in_order


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the tester's own counts."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("BBCU_THREADS", raising=False)


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS counts, its first number if it has several; BBCU_THREADS comes before it."""
    assert default_threads() == usable_cpus() >= 1
    for text, expected in (("3", 3), ("2,4", 2)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert default_threads() == checked_threads(None) == expected
    monkeypatch.setenv("BBCU_THREADS", "5")
    assert default_threads() == 5


def test_numbers_of_openmp_that_no_machine_has_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS is not ours, so what it says is not an error; Python refuses to read 5,000 digits."""
    for wanted in ("9" * 30, "9" * 5000, "0", "-1", "x", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert default_threads() == usable_cpus()


@pytest.mark.parametrize("wanted", ["9" * 30, "0", "-1", "many"])
def test_a_number_of_ours_that_no_machine_has_is_an_error(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BBCU_THREADS is; the sentence names it."""
    monkeypatch.setenv("BBCU_THREADS", wanted)
    with pytest.raises(UsageError, match="BBCU_THREADS"):
        default_threads()


def test_threads_out_of_range_are_an_error() -> None:
    """None at all, and more than any machine has."""
    for threads in (0, 1025):
        with pytest.raises(UsageError, match="expected 1 to 1024"):
            checked_threads(threads)


def control_groups(root: Path, lines: str, files: dict[str, str]) -> Path:
    """A file system with /proc/self/cgroup and files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2),
        ("0::/seen/from/outside\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("1:cpuset:/\nnonsense\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "1 0"}, math.inf),
    ],
)
def test_the_quota_of_control_groups_is_read(lines: str, files: dict[str, str], quota: float, tmp_path: Path) -> None:
    """Both versions, the smallest of a group and those above it; what is not there limits nothing."""
    assert cpu_quota(control_groups(tmp_path, lines, files)) == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    """Nor has one that hides /proc."""
    assert cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cpus"), [(math.inf, 4), (1.5, 2), (0.2, 1), (9, 4)])
def test_a_quota_counts_as_the_next_whole_number(quota: float, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the affinity, never none."""
    monkeypatch.setattr("bbcu_cli.cores.cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 4, raising=False)
    assert usable_cpus() == cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set here")
def test_affinity_is_respected() -> None:
    """A process that is bound to one CPU counts one."""
    code = (
        "import os\nos.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "from bbcu_cli.cores import default_threads\nprint(default_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_encoder_counts_as_everybody_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS holds for it, too."""
    counts = []

    def counted(work: object, items: object, *, threads: int) -> object:
        counts.append(threads)
        return in_order(work, items, threads=threads)  # type: ignore[arg-type]

    for module in ("png", "tiff"):
        monkeypatch.setattr(f"bbcu_cli.image.{module}.in_order", counted)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    encode(Image(np.zeros((4, 4, 3), np.uint8)), kind)
    assert counts == [3]


def test_doctor_tells_what_a_run_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """BBCU_THREADS and OMP_NUM_THREADS as they are resolved."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("BBCU_THREADS", "1")
    done = CliRunner().invoke(app, ["doctor"])
    assert "threads: 1" in io.StringIO(done.stdout).readline()
