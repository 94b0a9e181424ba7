"""`bbcu bench --folder`: what it tells about an engine that is known."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.bench.folder import bench_folder, covered
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.engines.base import EngineInfo, SessionContext
from bbcu_cli.errors import UsageError
from bbcu_cli.restoration.model import Model

SECONDS = 0.05


class _Sleeper(SessionContext):
    """Takes the same time for every tile, on as many threads as it says."""

    def __init__(self, concurrency: int) -> None:
        self.info = EngineInfo("stub", "cpu", "sleeps", concurrency=concurrency)

    def run(self, x: NDArray[np.float32], _progress: object = None) -> NDArray[np.float32]:
        time.sleep(SECONDS)
        return x.repeat(2, axis=2).repeat(2, axis=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve small pictures and a damaged one."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(12):
        Pillow.new("RGB", (20, 16), (number, 0, 0)).save(root / f"{number:02}.png")
    (root / "bad.png").write_text("no image")
    return root


def test_a_span_counts_once_however_many_threads_ran() -> None:
    """The union of overlapping, nested and separate spans."""
    assert covered([(0, 2), (1, 3), (1.5, 1.7), (5, 6)]) == 4
    assert covered([]) == 0


@pytest.mark.parametrize("concurrency", [1, 2])
def test_engine_time_and_pure_time_are_what_the_engine_took(concurrency: int, folder: Path) -> None:
    """Twelve tiles; two at a time where the engine wants that."""
    model = Model("stub", SMALL_SPECS["m-x2"], {}, _Sleeper(concurrency))
    report = bench_folder(folder, model)
    least = 12 * SECONDS / concurrency
    assert (report.images, report.failed) == (12, 1)
    assert least <= report.engine_busy <= report.wall
    assert least <= report.pure
    assert 0 <= report.idle_share < 1
    assert report.idle_share == pytest.approx(1 - report.engine_busy / report.wall)


def test_a_folder_without_a_single_good_image_is_refused(folder: Path) -> None:
    """No figures from nothing."""
    for path in folder.glob("??.png"):
        path.unlink()
    with pytest.raises(UsageError, match="None of the 1 images"):
        bench_folder(folder, Model("stub", SMALL_SPECS["m-x2"], {}, _Sleeper(1)))


def test_the_command_prints_a_table_or_json(folder: Path, tmp_path: Path) -> None:
    """With the idle share and the rates; the folder is left as it was."""
    before = sorted(folder.rglob("*"))
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    command = ["bench", str(weights), "--folder", str(folder)]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "engine waiting" in table.stdout
    report = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (report["schema"], report["images"]) == (1, 12)
    assert 0 <= report["idle_share"] < 1
    assert sorted(folder.rglob("*")) == before
