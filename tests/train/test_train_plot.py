"""The log of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bbcu_cli.cli.app import app
from bbcu_cli.errors import TrainingError
from bbcu_cli.train.checkpoint import LOG
from bbcu_cli.train.plot import PLOT, panels, plot, read_log, ticks


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """A log of a run that gets better."""
    return [
        {"step": 250 * i, "loss": 0.1 / i, "rate": 1e-3 / i, "psnr": 30 - 5 / i, **more} for i in range(1, count + 1)
    ]


def written(folder: Path, log: list[dict[str, Any]], end: str = "") -> Path:
    """The folder of a run with that log."""
    (folder / LOG).write_text("".join(f"{json.dumps(row)}\n" for row in log) + end, encoding="utf-8")
    return folder


def ink(picture: Path) -> np.ndarray:
    """Where something of the curves' colour is drawn."""
    with Image.open(picture) as opened:
        assert opened.size == (960, 610)
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    return pixels[..., 2] - pixels[..., 0] > 80


def test_a_panel_for_every_level_the_loss_and_the_rate() -> None:
    """Titles and points are those of the log; one without validation has two panels."""
    log = rows(4, scores={})
    log[1]["scores"] = {"sigma 15": 33.0, "sigma 25": 30.0}
    log[3]["scores"] = {"sigma 15": 33.5, "sigma 25": 30.25}
    found = {panel.title: panel.points for panel in panels(log)}
    assert list(found) == ["validation sigma 15", "validation sigma 25", "loss in levels of 255", "learning rate"]
    assert found["validation sigma 25"] == [(500, 30.0), (1000, 30.25)]
    assert found["loss in levels of 255"][0] == (250, 25.5)
    assert [panel.title for panel in panels([{"step": 1, "loss": 1.0, "rate": 1.0, "psnr": None}])] == [
        "loss in levels of 255",
        "learning rate",
    ]


def test_logs_of_earlier_versions_have_one_score() -> None:
    """Which has no name."""
    first, *_ = panels(rows(3))
    assert (first.title, first.points[-1]) == ("validation", (750, 30 - 5 / 3))


@pytest.mark.parametrize("count", [1, 2, 100])
def test_the_curve_falls_where_the_loss_does(count: int, tmp_path: Path) -> None:
    """The picture has the panels' height; left is early, and a loss that falls goes down."""
    picture = plot(written(tmp_path, rows(count)))
    assert picture == tmp_path / PLOT
    drawn = ink(picture)[334:454, 70:930]  # the frame of the second panel
    columns = np.flatnonzero(drawn.any(0))
    heights = [np.flatnonzero(drawn[:, x]).mean() for x in (columns[0], columns[-1])]
    assert columns[-1] > 850
    assert heights[1] - heights[0] > 60 if count > 1 else len(columns) < 12


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    """Also where a resumed run went on behind it."""
    log = rows(3)
    whole = "".join(f"{json.dumps(row)}\n" for row in log)
    (tmp_path / LOG).write_text(f'{whole}{{"step": 10{whole}[1]\n{{"step":', encoding="utf-8")
    assert read_log(tmp_path / LOG) == [*log, *log[1:]]


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    """Missing or still empty."""
    with pytest.raises(TrainingError, match="cannot be read"):
        plot(tmp_path)
    with pytest.raises(TrainingError, match="no checkpoint yet"):
        plot(written(tmp_path, []))


def test_the_command_prints_the_picture(tmp_path: Path) -> None:
    """`bbcu train --plot RUN` needs nothing else; an error is a sentence."""
    done = CliRunner().invoke(app, ["train", "--plot", str(written(tmp_path, rows(5)))])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / PLOT))
    refused = CliRunner().invoke(app, ["train", "--plot", str(tmp_path / "nothing")])
    assert refused.exit_code == 2
    assert "No log of a training run" in refused.stderr


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (31.92, 32.08, 4, [31.95, 32.0, 32.05]),
        (0, 100_000, 10, range(0, 100_001, 10_000)),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    """Multiples of 1, 2 or 5."""
    assert ticks(low, high, most) == pytest.approx(list(expected))
