"""`bbcu eval` as a user types it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import typer
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.console import guarded
from bbcu_cli.cli.evaluate import evaluate


@pytest.fixture
def run():
    """Run `bbcu eval` with arguments; gives the result with exit_code, stdout and stderr."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("eval")(guarded(evaluate))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def hr(tmp_path):
    """Two RGB images and one gray, 24x20 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "hr"
    folder.mkdir()
    for name, shape in (("one", (20, 24, 3)), ("two", (20, 24, 3)), ("gray", (20, 24))):
        Pillow.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    """Small packed models by name."""

    def write(name):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(to_bytes(small_model(SMALL_SPECS[name])))
        return path

    return write


def test_existing_results_are_scored_with_the_convention_beside(run, hr):
    """Identical folders: inf, SSIM 1, and how it was counted."""
    result = run("--gt", hr, "--pred", hr)
    assert result.exit_code == 0, result.stderr
    assert "mean" in result.stdout
    assert "inf" in result.stdout
    assert "border 0 px" in result.stdout
    assert "one: inf dB" in result.stderr


def test_json_is_one_object_and_nothing_else(run, hr):
    """Stdout is for the machine; quiet silences the line per image."""
    result = run("--gt", hr, "--pred", hr, "--json", "--quiet")
    data = json.loads(result.stdout)
    assert data["schema"] == 1
    assert [image["name"] for image in data["images"]] == ["gray", "one", "two"]
    assert data["mean"]["infinite"] == ["psnr_y", "psnr_rgb"]
    assert result.stderr == ""


def test_border_follows_the_names_unless_it_is_given(run, hr, tmp_path):
    """Results in a folder ..._x2 lose 2 pixels; --border says otherwise."""
    out = tmp_path / "hr_x2"
    out.mkdir()
    for path in hr.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    assert json.loads(run("--gt", hr, "--pred", out, "--json").stdout)["convention"]["border"] == 2
    assert json.loads(run("--gt", hr, "--pred", out, "--json", "--border", 5).stdout)["convention"]["border"] == 5


@pytest.mark.parametrize(
    ("name", "arguments", "baseline"),
    [
        ("m-x2", ["--task", "sr", "--scale", 2], "bicubic"),
        ("denoise", ["--task", "denoise", "--sigma", 25], "noisy"),
        ("deblock", ["--task", "deblock", "--quality", 10], "JPEG"),
    ],
)
def test_each_task_is_degraded_restored_and_scored(run, hr, weights, name, arguments, baseline):
    """One command makes a column of the paper's tables, and says what the baseline scores."""
    result = run("--gt", hr, *arguments, "--weights", weights(name), "--engine", "reference", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["baseline"] == baseline
    assert len(data["images"]) == 3
    assert data["images"][0]["baseline"]["psnr_y"] > data["images"][0]["psnr_y"] > 0  # random weights restore nothing
    assert "reference on cpu" in data["facts"]["engine"]


def test_tiles_do_not_change_the_scores(run, hr, weights):
    """--tile 7 gives what the whole image gives."""
    common = ["--gt", hr, "--task", "sr", "--scale", 2, "--weights", weights("m-x2"), "--engine", "reference", "--json"]
    whole, tiled = (json.loads(run(*common, *more).stdout)["mean"] for more in ([], ["--tile", 7]))
    # 8-bit rounding may fall otherwise where float sums differ in their last bit.
    assert tiled["psnr_y"] == pytest.approx(whole["psnr_y"], abs=1e-3)


def test_reports_are_written_and_not_overwritten(run, hr, tmp_path):
    """CSV, Markdown and HTML; a second run asks for --overwrite and leaves the first in place."""
    files = {option: tmp_path / f"r.{option}" for option in ("csv", "markdown", "report")}
    options = [text for option, path in files.items() for text in (f"--{option}", path)]
    assert run("--gt", hr, "--pred", hr, *options).exit_code == 0
    with files["csv"].open() as lines:
        assert [row["name"] for row in csv.DictReader(lines)] == ["gray", "one", "two", "mean"]
    assert "| mean |" in files["markdown"].read_text()
    assert "data:image/webp" in files["report"].read_text()
    files["csv"].write_text("mine")
    again = run("--gt", hr, "--pred", hr, *options)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert again.stdout == ""  # refused before the work, not after it
    assert files["csv"].read_text() == "mine"
    assert run("--gt", hr, "--pred", hr, *options, "--overwrite").exit_code == 0
    assert files["csv"].read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --pred"),
        (["--pred", "{hr}", "--task", "sr"], "either --pred"),
        (["--pred", "{hr}", "--sigma", "5"], "--sigma is for --task denoise"),
        (["--pred", "{hr}/nothing"], "does not exist"),
        (["--pred", "{hr}", "--border", "wide"], "--border is 'wide'"),
        (["--pred", "{hr}", "--border", "12"], "leaves nothing"),
        (["--pred", "{hr}", "--csv", "{hr}/no/such/folder.csv"], "does not exist"),
        (["--task", "sr", "--scale", "0"], "there are networks for 2, 3 and 4"),
        (["--task", "sr", "--scale", "5"], "there are networks for 2, 3 and 4"),
        (["--task", "sr", "--sigma", "5"], "--sigma is for --task denoise"),
        (["--task", "denoise"], "give --sigma"),
        (["--task", "deblock"], "give --quality"),
        (["--task", "denoise", "--sigma", "5", "--model", "l"], "--model is for --task sr"),
    ],
)
def test_impossible_requests_are_one_sentence_and_exit_code_2(run, hr, arguments, message):
    """What cannot be meant is refused before any work."""
    result = run("--gt", hr, *(argument.format(hr=hr) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_weights_of_another_task_are_refused(run, hr, weights):
    """An x4 network cannot make the x2 column."""
    result = run("--gt", hr, "--task", "sr", "--scale", 2, "--weights", weights("m-x4"), "--engine", "reference")
    assert result.exit_code == 2
    assert "are for sr x4, not for sr x2" in result.stderr
