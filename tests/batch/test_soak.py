"""Many pictures in one process, many processes on one folder: nothing grows, nothing is torn, nobody waits for ever."""

from __future__ import annotations

import gc
import hashlib
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from loopback_hub import LoopbackHub
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.batch.manifest import NAME
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.hub import Catalogue, Entry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")

SPEC = SMALL_SPECS["m-x2"]


def resident() -> float:
    """MB of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20


def standing() -> tuple[int, int]:
    """Open file descriptors and threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def photos(folder: Path, count: int) -> None:
    """Small pictures in five formats, some of them damaged."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(count):
        size = (int(rng.integers(3, 40)), int(rng.integers(3, 40)), 3)
        suffix = ("png", "jpg", "webp", "tif", "bmp")[number % 5]
        path = folder / f"{number:05}.{suffix}"
        Pillow.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(path)
        if number % 50 == 49:
            path.write_bytes(path.read_bytes()[:60])


def soak(root: Path, count: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Restore `count` pictures in this process, a tenth at a time; returns what it held after each tenth."""
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SPEC)))
    memory, counts = [], []
    for part in range(10):
        photos(root / f"in{part}", count // 10)
        options = ["--scale", "2", "--weights", str(root / "w.safetensors"), "-q"]
        done = CliRunner().invoke(app, ["sr", str(root / f"in{part}"), "-o", str(root / f"out{part}"), *options])
        assert done.exit_code == (1 if count >= 500 else 0), done.stderr
        made = [path for path in (root / f"out{part}").iterdir() if path.name != NAME]
        assert len(made) == count // 10 - count // 500
        gc.collect()
        memory.append(round(resident(), 1))
        counts.append(standing())
    return memory, counts


def check(memory: list[float], counts: list[tuple[int, int]]) -> None:
    """From the third tenth on, when every cache is warm, all stays flat."""
    assert len(set(counts[2:])) == 1, counts
    assert memory[-1] - memory[2] < 8, memory


def test_pictures_leave_nothing_behind(tmp_path: Path) -> None:
    """100 pictures; `pytest -m long` takes 2,000."""
    check(*soak(tmp_path, 100))


@pytest.mark.long
def test_two_thousand_pictures_leave_nothing_behind(tmp_path: Path) -> None:
    """Memory, descriptors and threads are those of the first few hundred."""
    memory, counts = soak(tmp_path, 2000)
    print(f"resident MB {memory}, (descriptors, threads) {counts}")
    check(memory, counts)


def together(command: list[str], environment: dict[str, str], processes: int) -> list[tuple[int, str]]:
    """Start the same command several times at once; exit codes and what stderr said."""
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    ends = [process.communicate(timeout=300)[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, ends, strict=True)]


@pytest.mark.parametrize(
    ("processes", "count"), [(2, 10), pytest.param(8, 100, marks=pytest.mark.long)], ids=["two", "eight"]
)
@pytest.mark.parametrize("existing", ["--skip-existing", "--overwrite"])
def test_processes_share_a_folder_and_a_cache(tmp_path: Path, processes: int, count: int, existing: str) -> None:
    """All download the same model into one cache and write the same outputs; all end well, every output is whole."""
    shop = tmp_path / "shop"
    shop.mkdir()
    Catalogue({"sr-m-x2": Entry("sr-m-x2", SPEC, "twice")}).save(shop)
    photos(tmp_path / "in", count)
    for path in list((tmp_path / "in").iterdir()):
        if path.stat().st_size == 60:
            path.unlink()
    options = ["--scale", "2", "--hub-repo", "me/m", "--threads", "1", "-q"]
    with LoopbackHub() as hub:
        hub.repo("me/m").commit({"model.safetensors": to_bytes(small_model(SPEC))})
        command = [sys.executable, "-m", "bbcu_cli", "sr", str(tmp_path / "in"), *options, "-o"]
        alone = together([*command, str(tmp_path / "alone")], hub.environment(shop), 1)
        assert alone[0][0] == 0, alone
        (tmp_path / "cache").mkdir()
        environment = {**hub.environment(shop), "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        environment.pop("HF_HUB_CACHE", None)
        ends = together([*command, str(tmp_path / "shared"), existing], environment, processes)
    assert [code for code, _ in ends] == [0] * processes, ends

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.iterdir() if path.name != NAME)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(tmp_path / "shared") == digests(tmp_path / "alone")
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
