"""`bbcu train` and its recipes."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import RECIPE
from typer.testing import CliRunner

from bbcu_cli.cli.app import app
from bbcu_cli.cli.train import _without_folders, _words
from bbcu_cli.errors import UsageError
from bbcu_cli.spec import Task
from bbcu_cli.train import loop
from bbcu_cli.train.checkpoint import CHECKPOINT, MODEL, read_checkpoint
from bbcu_cli.train.loop import Progress
from bbcu_cli.train.recipes import RECIPES, Recipe


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    """Linear to the peak, half of it midway, a hundredth at the end."""
    recipe = Recipe(steps=1_100, batch=1, patch=8, rate=1.0, warmup=100)
    assert recipe.rate_at(0) == pytest.approx(0.01)
    assert recipe.rate_at(99) == recipe.rate_at(100) == pytest.approx(1.0)
    assert recipe.rate_at(600) == pytest.approx(0.505)
    assert recipe.rate_at(1_099) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("task", ["sr", "denoise", "deblock"])
def test_named_recipes_are_possible_and_survive_json(task: Task) -> None:
    """Every recipe makes batches, and comes back from its provenance."""
    for name in ("full", "quick"):
        recipe = RECIPES[name, task]
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert recipe.patch % 8 == 0


def test_the_command_overrides_the_recipe_and_resumes_with_it(pictures: Path, tmp_path: Path) -> None:
    """`bbcu train` prints the packed model; --resume keeps the recipe of the run but for what is given anew."""
    out = tmp_path / "run"
    common = ["train", "--task", "deblock", "--data", str(pictures), "--out", str(out), "--device", "cpu"]
    options = ["--recipe", "quick", "--steps", "1", "--batch", "1", "--patch", "16", "--quality", "20", "30"]
    first = CliRunner().invoke(app, [*common, *options])
    assert first.stdout.strip() == str(out / MODEL)
    assert first.exit_code == 0
    assert CliRunner().invoke(app, [*common, "--resume", "--steps", "2"]).exit_code == 0
    state = read_checkpoint(out / CHECKPOINT)
    assert state["step"] == 2
    assert Recipe.from_dict(state["recipe"]) == replace(
        RECIPES["quick", "deblock"], steps=2, batch=1, patch=16, quality=(20, 30)
    )
    refused = CliRunner().invoke(app, [*common, *options])
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    del state["recipe"]["window"]
    torch.save({**state, "recipe": {**state["recipe"], "loss": "l1"}}, out / CHECKPOINT)
    older = CliRunner().invoke(app, [*common, "--resume"])
    assert older.exit_code == 2
    assert "another version of bbcu, which differs in loss, window;" in " ".join(older.stderr.split())


def test_a_run_that_is_interrupted_says_how_to_go_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130 and one sentence; the run can be resumed."""
    common = ["train", "--task", "denoise", "--data", str(pictures), "--out", str(tmp_path / "run"), "--device", "cpu"]
    options = ["--recipe", "quick", "--batch", "1", "--patch", "16"]
    real = loop.draw_batch

    def interrupting(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "draw_batch", interrupting)
    ended = CliRunner().invoke(app, [*common, *options, "--start", "published"])
    assert ended.exit_code == 130
    assert ended.stderr.splitlines()[-1] == (
        "bbcu: interrupted; the checkpoint of step 1 is saved, and --resume continues from it."
    )
    assert "Traceback" not in ended.stderr
    monkeypatch.setattr(loop, "draw_batch", real)
    assert CliRunner().invoke(app, [*common, "--resume", "--steps", "2"]).exit_code == 0


def test_a_patch_of_broken_jpeg_blocks_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Deblocking is told in a sentence that a patch is a multiple of 8; other tasks may have any."""
    command = ["train", "--data", str(pictures), "--out", str(tmp_path / "run"), "--patch", "30", "--task"]
    refused = CliRunner().invoke(app, [*command, "deblock"])
    assert refused.exit_code == 2
    assert "patch is 30" in refused.stderr
    assert "multiple of 8" in " ".join(refused.stderr.split())
    assert CliRunner().invoke(app, [*command, "denoise", "--steps", "1", "--batch", "1"]).exit_code == 0


def test_training_needs_pictures_and_a_place(pictures: Path) -> None:
    """One without the other is refused in a sentence."""
    refused = CliRunner().invoke(app, ["train", "--data", str(pictures)])
    assert refused.exit_code == 2
    assert "--out" in refused.stderr


def test_a_model_does_not_tell_where_things_lay(tmp_path: Path) -> None:
    """Of absolute paths the name is kept, all else as it was typed."""
    given = (str(tmp_path / "photos"), f"--out={tmp_path / 'run'}", "here/photos", "--sigma", "8", "/")
    assert [*map(_without_folders, given)] == ["photos", "--out=run", "here/photos", "--sigma", "8", ""]


def test_a_line_tells_what_matters() -> None:
    """Loss in levels of 255, speed, time left, and the scores, each level if there are several."""
    scores = {"sigma 15": 33.0, "sigma 25": 30.5}
    progress = Progress(500, 0.02, 1e-3, 4.0, 3_725.4, 31.75, saved=True, scores=scores)
    assert _words(progress) == (
        "loss 5.100  4.00 steps/s  1:02:05 left  validation 31.75 dB (sigma 15 33.00, sigma 25 30.50)"
    )
    assert _words(replace(progress, psnr=None, scores={})) == "loss 5.100  4.00 steps/s  1:02:05 left"


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("rate", -1.0), ("ema", 1.0), ("sigma", (5.0, 1.0)), ("quality", (0, 50))]
)
def test_impossible_recipes_are_refused(field: str, value: object) -> None:
    """The complaint names the field."""
    with pytest.raises(UsageError, match=field):
        replace(RECIPE, **{field: value})
